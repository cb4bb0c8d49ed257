#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for examples/whole-machine.conf, and for routes that are no routes.

use warnings;
use strict;

use FindBin;
use Socket qw/ :addrinfo SOCK_DGRAM /;
use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

$t->ip('gateway', qw/ route add default via 10.1.0.2 /);
$t->ip('gateway', qw/ -6 route add default via fd00:1::2 /);
$t->ip('server', qw/ route add local /, $_, qw/ dev lo /)
	for qw{ 192.0.2.0/24 2001:db8::/32 };

# in the test's folder, with the modules that were built

my $conf = Test::Tun::slurp("$FindBin::Bin/../examples/whole-machine.conf");

$conf =~ s/^user .*$/%%GLOBALS%%\nuser www-data;/m or die;
$conf =~ s/^worker_processes .*$//m or die;
$conf =~ s/^load_module .*$//mg or die;
$conf =~ s{/var/log/nginx/}{%%DIR%%/logs/} or die;

$t->server(9000, sub { Test::Tun::write_all($_[0], $_[0]->peerhost()) });
$t->server(8000, sub { Test::Tun::write_all($_[0], 'inbound') },
	ns => 'gateway');
$t->ip('server', qw/ addr add /, $_, qw/ dev lo /)
	for qw{ 192.0.2.78/32 2001:db8:1::78/128 };
datagrams($_) for qw/ 192.0.2.78 2001:db8:1::78 /;

my ($rc, $out) = $t->try_run($conf);
is($rc, 0, 'starts') or diag($out);

for my $case ([ 'IPv4', '192.0.2.77', '10.1.0.1', '198.18.0.1' ],
	[ 'IPv6', '2001:db8:1::77', 'fd00:1::1', 'fd00:198:18::1' ])
{
	my ($name, $host, $own, $device) = @$case;

	# the user of the workers is one like another

	for my $user (0, 33) {
		is(get('gateway', $host, 9000, $user), $own,
			"$name, by nginx, from the machine's address");
		ok(Test::Tun::wait_for(5, sub { logged($host, 9000)
			== ($user ? 2 : 1) }), "$name, logged");
	}

	my $far = $host =~ s/77$/78/r;

	is($t->in('gateway', sub {
		my $s = Test::Tun::udp_to($far, 9000) or return "$@";
		send($s, 'hello', 0);
		return $s->sockhost() . ' ' . (Test::Tun::udp_recv($s, 5) // '');
	}), "$device hello $own", "$name, a datagram by nginx");

	is(get('server', $own, 8000, 0, LocalAddr => $far), 'inbound',
		"$name, a service of the machine");
}

ok($t->stop(), 'ends');
unlike($t->ip('gateway', $_, qw/ rule show /), qr/proto 177/, "clean, $_")
	for qw/ -4 -6 /;

# what is refused

for my $case (
	[ 'route somewhere;', 'invalid route "somewhere"' ],
	[ 'route global lan0;', 'invalid route "lan0"' ],
	[ 'route gateway;', 'gateway needs the names' ],
	[ 'route gateway tun0;', 'invalid interface "tun0"' ],
	[ 'route global; route off;', 'is duplicate' ],
	[ 'route global; bypass x;', 'invalid prefix "x"' ],
	[ 'route global; bypass_uid 5-4;', 'invalid users "5-4"' ],
	[ 'route global; bypass_uid no-such-user;',
		'there is no user "no-such-user"' ],
	[ 'route global; bypass_uid 12x;', 'invalid users "12x"' ],
	[ 'route global; bypass_uid "";', 'there is no user ""' ],
	[ 'route global; bypass_mark 0;', 'invalid mark "0"' ],
	[ 'route global; bypass_mark 0x10/0x1;', 'invalid mark "0x10/0x1"' ],
	[ 'route_table 255;', 'invalid table "255"' ],
	[ 'bypass 192.0.2.0/24;', 'need "route gateway"' ])
{
	my ($route, $message) = @$case;

	($rc, $out) = $t->test_conf($conf =~ s/route  .*\n.*/$route/r);
	ok($rc && $out =~ /\Q$message\E.*test\.conf:\d+/, $route)
		or diag($out);
}

$t->done();

###############################################################################

sub get {
	my ($ns, $host, $port, $user, %options) = @_;

	return scalar $t->in($ns, sub {
		$> = $user if $user;

		my $s = Test::Tun::connect_to($host, $port, Timeout => 5,
			%options) or return "$@";
		return scalar(Test::Tun::read_all($s)) =~ s/^::ffff://r;
	});
}

sub logged {
	my ($host, $port) = @_;
	return scalar(() = Test::Tun::slurp("$t->{dir}/logs/tun.log")
		=~ /-> \[?\Q$host\E\]?:$port 200/g);
}

# from the address that was asked, and who has asked

sub datagrams {
	my ($host) = @_;

	$t->daemon('server', sub {
		my $s = IO::Socket::IP->new(LocalAddr => $host,
			LocalPort => 9000, Type => SOCK_DGRAM)
			or die "bind: $@";

		while (defined(my $from = recv($s, my $data, 65536, 0))) {
			my (undef, $who) = getnameinfo($from, NI_NUMERICHOST);
			send($s, "$data $who", 0, $from);
		}
	});
}
