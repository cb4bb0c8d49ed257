#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for examples/whole-machine.conf, and for routes that are no routes.

use warnings;
use strict;

use FindBin;
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

my ($rc, $out) = $t->try_run($conf);
is($rc, 0, 'starts') or diag($out);

for my $case ([ 'IPv4', '192.0.2.77', '10.1.0.1' ],
	[ 'IPv6', '2001:db8:1::77', 'fd00:1::1' ])
{
	my ($name, $host, $own) = @$case;

	is($t->in('gateway', sub {
		my $s = Test::Tun::connect_to($host, 9000, Timeout => 5)
			or return "$@";
		return Test::Tun::read_all($s) =~ s/^::ffff://r;
	}), $own, "$name, by nginx, from the machine's address");

	ok($t->wait_for_log(qr/-> \[?\Q$host\E\]?:9000 200/, 'tun.log'),
		"$name, logged");
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
