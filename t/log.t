#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for what the access log says of a flow.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$remote_addr $remote_port $server_addr $server_port '
                    '$protocol $status $bytes_sent $bytes_received '
                    '$upstream_addr $upstream_bytes_sent '
                    '$upstream_bytes_received $tun_host $tun_port '
                    '$tun_target $tun_device $tun_stack [$tun_name] '
                    '$session_time';

    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }

    server {
        listen 10.1.0.1:8000;
        return "[$tun_host][$tun_device]";
    }
}
EOF

$t->server(9000, sub {
	my ($s) = @_;
	my $got = '';
	sysread($s, $got, 1000, length $got) or return while length $got < 500;
	Test::Tun::write_all($s, 'x' x 70000);
	select(undef, undef, undef, 0.2);
});

for my $family (@Test::Tun::FAMILIES) {
	my ($host, $url) = @{$family}{qw/ server url /};

	my $port = $t->in('client', sub {
		my $s = Test::Tun::connect_to($host, 9000) or return "$@";
		Test::Tun::write_all($s, 'y' x 500);
		Test::Tun::read_all($s);
		return $s->sockport();
	});

	ok($t->wait_for_log(qr/^\Q$family->{client}\E /m, 'access.log'),
		"logged, $family->{name}");

	my ($line) = grep { /^\Q$family->{client}\E / } $t->access_log();
	my $time = $line =~ s/ ([\d.]+)$// ? $1 : -1;

	is($line, "$family->{client} $port $host 9000 TCP 200 70000 500 "
		. "$url:9000 500 70000 $host 9000 $url:9000 tun0 "
		. Test::Tun::stack() . " []",
		"values, $family->{name}");
	cmp_ok($time, '>', 0.15, "session time, $family->{name}");
	cmp_ok($time, '<', 5, "session time, $family->{name}");
}

# a session of an ordinary socket has none of it

is($t->in('gateway', sub {
	my $s = Test::Tun::connect_to('10.1.0.1', 8000) or return "$@";
	return scalar Test::Tun::read_all($s);
}), '[][]', 'no values without a device');

$t->done();
