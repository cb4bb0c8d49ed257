#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_listen: prefixes, ports, the most specific match, and flows
# that no server takes.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0 192.0.2.0/24;
        return net;
    }

    server {
        tun_listen tun0 tcp 192.0.2.0/24:80;
        tun_listen tun0 192.0.2.7/32;
        return port;
    }

    server {
        tun_listen tun0 192.0.2.0/24:70-90;
        return ports;
    }

    server {
        tun_listen tun0 :8000-8100;
        tun_listen tun0 [2001:db8::/32]:443;
        return any;
    }

    server {
        tun_listen tun0 :8080;
        tun_listen tun0 2001:db8:1::/48;
        return one;
    }

    server {
        tun_listen tun0 2001:db8:1:2::1;
        return "$tun_host|$tun_port|$tun_target|$tun_device|$tun_stack|$tun_name|";
    }

    server {
        tun_listen tun0 192.0.3.1;
        return "$tun_host|$tun_port|$tun_target|$tun_device|$tun_stack|$tun_name|";
    }
}
EOF

sub ask {
	my ($host, $port) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::connect_to($host, $port)
			or return $!{ECONNREFUSED} ? 'refused' : "$!";
		return scalar Test::Tun::read_all($s);
	});
}

is(ask('192.0.2.1', 22), 'net', 'prefix');
is(ask('192.0.2.1', 80), 'port', 'prefix and port');
is(ask('192.0.2.1', 81), 'ports', 'prefix and range of ports');
is(ask('192.0.2.1', 70), 'ports', 'first port of a range');
is(ask('192.0.2.1', 90), 'ports', 'last port of a range');
is(ask('192.0.2.1', 91), 'net', 'after a range');
is(ask('192.0.2.7', 80), 'port', 'longer prefix before port');
is(ask('192.0.2.1', 8080), 'net', 'prefix before any address');
is(ask('192.0.4.1', 8080), 'one', 'port before range');
is(ask('192.0.4.1', 8081), 'any', 'range');
is(ask('2001:db8:2::1', 443), 'any', 'IPv6 prefix and port');
is(ask('2001:db8:1::1', 443), 'one', 'longer IPv6 prefix');
is(ask('2001:db8:9::1', 8080), 'one', 'port of any family');

is(ask('192.0.4.1', 80), 'refused', 'no server');
is(ask('2001:db8:2::1', 80), 'refused', 'no server, IPv6');

my $stack = Test::Tun::stack();

is(ask('192.0.3.1', 1234),
	"192.0.3.1|1234|192.0.3.1:1234|tun0|$stack||",
	'variables');
is(ask('2001:db8:1:2::1', 1234),
	"2001:db8:1:2::1|1234|[2001:db8:1:2::1]:1234|tun0|$stack||",
	'variables, IPv6');

$t->done();
