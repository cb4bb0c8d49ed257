#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for "route": rules and routes that are made, kept, changed and removed,
# and the traffic that takes them, of a local process and of a LAN.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new(forward => 1);

# the LAN is routed by us, and not by what other tests need

for my $family (qw/ -4 -6 /) {
	$t->ip('gateway', $family, qw/ rule del iif client lookup 100 /);
}

$t->ip('gateway', qw/ route add default via 10.1.0.2 /);
$t->ip('gateway', qw/ -6 route add default via fd00:1::2 /);

# the other side has every address, and a way to the LAN

$t->ip('server', qw/ route add local /, $_, qw/ dev lo /)
	for qw{ 192.0.2.0/24 203.0.113.0/24 198.18.0.0/15 2001:db8::/32
		fd00:198:18::/64 };
$t->ip('server', qw{ route add 10.3.0.0/24 via 10.1.0.1 });
$t->ip('server', qw{ -6 addr add 2001:db8:1::77/128 dev lo nodad });
$t->ip('server', qw{ -6 route add fd00:3::/64 via fd00:1::1 });

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        route_table 2000;
        ROUTE
    }

    MORE

    server {
        tun_listen tun0;
        return "tun ANSWER";
    }

    server {
        listen 8000;
        listen [::]:8000;
        return "inbound";
    }
}
EOC

sub conf {
	my ($route, $more, $answer) = @_;
	return $conf =~ s/ROUTE/$route/r =~ s/MORE/$more || ''/er
		=~ s/ANSWER/$answer || 1/er;
}

$t->server(9000, sub { Test::Tun::write_all($_[0], 'wan') });

my @families = @Test::Tun::FAMILIES;
my %other = (IPv4 => '192.0.2.77', IPv6 => '2001:db8:1::77');
my %wan = (IPv4 => '10.1.0.1', IPv6 => 'fd00:1::1');
my %fake = (IPv4 => '198.18.7.7', IPv6 => 'fd00:198:18::7');

my $before = state();

# fakeip, by default, and off

for my $case ([ '', 'tun 1' ], [ 'route fakeip;', 'tun 1' ],
	[ 'route off;', 'wan' ])
{
	my ($route, $expected) = @$case;
	my $label = $route || 'default';

	start(conf($route));

	for my $name (map { $_->{name} } @families) {
		is(get('gateway', $fake{$name}), $expected,
			"$name, $label, its network");
		is(get('gateway', $other{$name}), 'wan', "$name, $label, else");
	}

	is(state(), $before, "$label, no rule and no route");
	ok($t->stop(), "$label, ends");
}

# global and gateway, with each rp_filter

for my $filter (0, 1, 2) {
	sysctl("net.ipv4.conf.$_.rp_filter", $filter)
		for qw/ all default server client /;

	start(conf('route global; bypass 203.0.113.0/24 2001:db8:9::/48;'
		. ($filter ? 'bypass_uid nobody;' : 'bypass_uid 65533-65534;')
		. 'bypass_mark 0x1d;'));

	for my $name (map { $_->{name} } @families) {
		my $label = "$name, global, rp_filter $filter";

		is(get('gateway', $other{$name}), 'tun 1', "$label, local");
		is(get('gateway', $fake{$name}), 'tun 1', "$label, fake");
		is(get('gateway', { IPv4 => '203.0.113.9',
			IPv6 => '2001:db8:9::9' }->{$name}), 'wan',
			"$label, bypass");
		is(get('gateway', $other{$name}, uid => 65534), 'wan',
			"$label, user");
		is(get('gateway', $other{$name}, mark => 0x1d), 'wan',
			"$label, mark");
		is(get('gateway', $other{$name}, LocalAddr => $wan{$name}),
			'wan', "$label, bound");
		is(get('server', $wan{$name}, port => 8000,
			LocalAddr => $other{$name}), 'inbound',
			"$label, inbound service");
		is(get('client', $other{$name}), 'tun 1', "$label, LAN");
	}

	ok($t->stop(), "global, ends, rp_filter $filter");
	is(state(), $before, "global, clean, rp_filter $filter");

	my $n = () = $t->error_log() =~ /rp_filter/g;
	start(conf('route gateway client;'));

	for my $name (map { $_->{name} } @families) {
		my $label = "$name, gateway, rp_filter $filter";

		is(get('gateway', $other{$name}), 'wan', "$label, local");
		is(get('client', $other{$name}), 'tun 1', "$label, LAN");
	}

	is((() = $t->error_log() =~ /rp_filter/g) - $n, $filter == 1 ? 1 : 0,
		"gateway, warning, rp_filter $filter");
	ok($t->stop('QUIT'), "gateway, ends, rp_filter $filter");
	is(state(), $before, "gateway, clean, rp_filter $filter");
}

sysctl("net.ipv4.conf.$_.rp_filter", 0) for qw/ all default server client /;

# reloads: the same, another, and one that fails

start(conf('route global;'));
my $global = state();
isnt($global, $before, 'rules');

my $monitor = $t->program('gateway', qw/ ip monitor rule route /);
sleep 1;

reload(conf('route global;', '', 2), 'tun 2');
sleep 1;
$t->kill_daemon($monitor, 'TERM');
is(state(), $global, 'reload, the same');
is(Test::Tun::slurp("$t->{dir}/logs/programs.log"), '', 'nothing flaps');

$t->allow_alert(qr/10.1.0.1 belongs to/);
$t->reload(conf('route gateway client; bypass 203.0.113.0/24;',
	'tun tun1 { address 10.1.0.1/24; }', 3));
ok($t->wait_for_log(qr/10.1.0.1 belongs to/), 'reload that fails');
ok(Test::Tun::wait_for(3, sub { state() eq $global }), 'rolled back');

reload(conf('route gateway client;', '', 4), 'tun 4', 'client');
like(state(), qr/iif client/, 'reload, another');
unlike(state(), qr/iif lo/, 'reload, the former is gone');

# someone else's rules of the same tag, and kill -9

$t->ip('gateway', qw/ rule add pref 3000 from 192.0.2.99 lookup 3000
	protocol 177 /);
$t->ip('gateway', qw/ rule add pref 2003 from 192.0.2.98 lookup main /);

my @pids = ($t->pid(), $t->workers());
kill 'KILL', @pids;
ok(Test::Tun::wait_for(5, \&killed), 'killed');
like(state(), qr/2000/, 'rules are left');
is(get('client', $other{IPv4}), 'wan', 'and do no harm');

start(conf('route fakeip;'));
unlike(state(), qr/lookup 2000/, 'cleaned at the next start');
like(state(), qr/lookup 3000/, 'another table is left');
like(state(), qr/192\.0\.2\.98/, 'another tag is left');
ok($t->stop(), 'ends');

$t->ip('gateway', qw/ rule del pref 3000 /);
$t->ip('gateway', qw/ rule del pref 2003 /);

# fail-closed

start(conf('route global; fail_closed on;'));
is(get('gateway', $other{$_}), 'tun 1', "$_, fail_closed")
	for map { $_->{name} } @families;

@pids = ($t->pid(), $t->workers());
kill 'KILL', @pids;
ok(Test::Tun::wait_for(5, \&killed), 'killed');
like(get('gateway', $other{$_}), qr/unreachable|No route/i, "$_, closed")
	for map { $_->{name} } @families;

start(conf('route global; fail_closed on;'));
ok($t->stop(), 'ends');
is(state(), $before, 'clean at the end');

$t->done();

sub start {
	my ($conf) = @_;
	my ($rc, $out) = $t->try_run($conf);
	die "nginx did not start: $out" . $t->error_log() if $rc;
}

sub reload {
	my ($conf, $answer, $from) = @_;
	$t->reload($conf);
	ok(Test::Tun::wait_for(5, sub {
		get($from || 'gateway', $other{IPv4}) eq $answer
	}), "reload, $answer");
}

# all of them: the one that ends last may have the sockets yet

sub killed { !$t->devices() && !grep { Test::Tun::alive($_) } @pids }

sub sysctl {
	my ($name, $value) = @_;
	my ($rc, $out) = $t->exec('gateway', qw/ sysctl -qw /, "$name=$value");
	die $out if $rc;
}

# rules of others than the kernel, and all routes of tables of ours

sub state {
	my $state = '';

	for my $family (qw/ -4 -6 /) {
		my $rules = $t->ip('gateway', $family, qw/ rule show /);
		my (undef, $routes) = $t->run_cmd(10, 'ip', '-n',
			$t->ns('gateway'), $family,
			qw/ route show table 2000 /);
		$rules =~ s/^(0|32766|32767|25\d):.*\n//mg;
		$routes = '' if $routes =~ /FIB table does not exist/;
		$state .= "$rules$routes";
	}

	return $state;
}

sub get {
	my ($ns, $host, %options) = @_;

	my ($uid, $mark, $port) = delete @options{qw/ uid mark port /};

	return scalar $t->in($ns, sub {
		$> = $uid if $uid;

		my $s = Test::Tun::connect_to($host, $port || 9000, Timeout => 3,
			$mark ? (Sockopts => [ [ 1, 36, pack 'i', $mark ] ]) : (),
			%options) or return "$@";
		return scalar Test::Tun::read_all($s);
	});
}
