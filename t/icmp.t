#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for ICMP and ICMPv6.

use warnings;
use strict;

use IO::Select;
use Socket qw/ inet_pton AF_INET AF_INET6 /;
use Test::More;
use Test::Tun;
use Test::Tun::Raw;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

http {
    access_log off;

    server {
        listen 127.0.0.1:8080;
        location = /tun { tun_status; }
    }
}

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        ICMP
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }
}
EOF

sub run { $t->run($conf =~ s/ICMP/$_[0]/r) }

# a counter of the device

sub counter {
	my ($name) = @_;
	my (undef, $out) = $t->exec('gateway',
		qw{ curl -s http://127.0.0.1:8080/tun });
	return $out =~ /"total":\{[^}]*"\Q$name\E":(\d+)/ ? $1 : $out;
}

# what ping counts: packets received, and all that it says

sub ping {
	my ($host, @args) = @_;
	my (undef, $out) = $t->exec('client', 'ping', '-n', '-W', '1',
		@args ? @args : qw/ -c 2 -i 0.1 /, $host);
	return wantarray ? ($out =~ /(\d+) received/, $out)
		: ($out =~ /(\d+) received/)[0];
}

# reply, which is the default

run('');

for my $host (qw/ 192.0.2.1 10.1.0.2 203.0.113.255 2001:db8::1 fd00:1::2 /) {
	is(ping($host), 2, "reply, $host");
}

is(ping('192.0.2.1', '-c', 1, '-s', 0), 1, 'no data');
is(ping('192.0.2.1', '-c', 1, '-s', 1471), 1, 'odd');
is(ping('192.0.2.1', '-c', 1, '-s', 1472), 1, 'MTU');
is(ping('2001:db8::1', '-c', 1, '-s', 1452), 1, 'MTU, IPv6');
is(ping('192.0.2.1', qw/ -c 1 -R /), 1, 'record route');
is(counter('icmp_echo'), 15, 'icmp_echo');
$t->stop();

# drop

run('icmp drop;');

for my $host (qw/ 192.0.2.1 2001:db8::1 /) {
	is(ping($host), 0, "drop, $host");
}

is(counter('unsupported'), 4, 'drop, unsupported');
is(counter('icmp_echo'), 0, 'drop, icmp_echo');
$t->stop();

$t->done();
