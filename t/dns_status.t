#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for what tun_status says of DNS.

use warnings;
use strict;

use JSON::PP;
use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

$t->program('server', 'dnsmasq', '--keep-in-foreground', '--no-resolv',
	'--no-hosts', '--conf-file=/dev/null', '--user=root', '--pid-file',
	'--local=/example/', '--txt-record=text.example,text');

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

stream {
    tun_fakeip_zone names:1m 198.18.0.0/24;
    tun_fakeip_zone unused:1m 198.19.0.0/24;

    tun tun0 {
        address 198.18.0.1/15;
        netns   %%NETNS%%;
    }

    server {
        listen     127.0.0.1:53 udp;
        tun_listen tun0 udp :53;
        tun_listen tun0 tcp :53;
        tun_dns names;
        tun_dns_pass 10.1.0.2:53;
    }
}

http {
    access_log off;

    server {
        listen 127.0.0.1:8099;
        location / { tun_status; }
    }
}
EOF

$t->run($conf);

my @dig = ('dig', '@198.18.0.2', '+short', '+tries=1', '+time=3');

is(status()->{total}{queries}, 0, 'nothing yet');

$t->exec('client', @dig, "name$_.example") for 1 .. 5;
$t->exec('client', @dig, '+tcp', 'name1.example');
$t->exec('gateway', 'dig', '@127.0.0.1', '+short', 'name1.example');
$t->exec('client', @dig, 'name1.example', 'AAAA');
$t->exec('client', @dig, '-x', '198.18.0.77');
$t->exec('client', @dig, 'localhost');
$t->exec('client', @dig, 'text.example', 'TXT') for 1 .. 2;
$t->exec('client', @dig, 'version.bind', 'TXT', 'CH');
$t->exec('client', @dig, '+opcode=4', 'name1.example');

my $dns = status();
my $total = $dns->{total};

is($total->{queries}, 14, 'queries');
is($total->{faked}, 7, 'faked');
is($total->{empty}, 1, 'empty');
is($total->{reverse}, 1, 'reverse');
is($total->{special}, 1, 'special');
# each worker has a cache of its own

is($total->{cached} + $total->{upstream_queries}, 2, 'cached, or asked for');
cmp_ok($total->{refused} + $total->{malformed}, '>=', 2, 'errors');
is(scalar @{ $dns->{workers} }, 2, 'workers');

is(join(' ', grep {
	my $name = $_;
	my $sum = 0;
	$sum += $_->{$name} for @{ $dns->{workers} };
	$sum != $total->{$name};
} sort keys %$total), '', 'the total is the sum');

# all counters are in README

my $readme = Test::Tun::slurp('README.md');
is(join(' ', grep { $readme !~ /^\|.*`$_`.*\|/m } sort keys %$total), '',
	'documented');

$t->reload($conf);
is(status()->{total}{queries}, 14, 'kept over a reload');

$t->done();

sub status {
	my (undef, $json) = $t->exec('gateway', 'curl', '-sS',
		'http://127.0.0.1:8099/');
	my $dns = decode_json($json)->{dns};

	is(scalar @$dns, 1, 'one zone is asked for');
	return $dns->[0];
}
