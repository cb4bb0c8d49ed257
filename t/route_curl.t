#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for "route" with curl, of a process of the machine and of a host of its
# LAN: each mode with each rp_filter, services of the machine, two instances
# side by side, and what a killed one leaves.

use warnings;
use strict;

use Socket qw/ SOCK_DGRAM /;
use Test::More;
use Test::Tun;

my $t = Test::Tun->new(forward => 1);

my $second = "$t->{dir}/second";
mkdir $second;
mkdir "$second/logs";

# the LAN is routed by us, and not by what other tests need

for my $family (qw/ -4 -6 /) {
	$t->ip('gateway', $family, qw/ rule del iif client lookup 100 /);
}

$t->ip('gateway', qw/ route add default via 10.1.0.2 /);
$t->ip('gateway', qw/ -6 route add default via fd00:1::2 /);

# the other side has every address, and a way to the LAN

$t->ip('server', qw/ route add local /, $_, qw/ dev lo /)
	for qw{ 192.0.2.0/24 198.18.0.0/15 2001:db8::/64 fd00:198:18::/64 };
$t->ip('server', qw/ addr add /, $_, qw/ dev lo /)
	for qw{ 192.0.2.200/32 192.0.2.201/32 2001:db8::200/128
		2001:db8::201/128 };
$t->ip('server', qw{ route add 10.3.0.0/24 via 10.1.0.1 });
$t->ip('server', qw{ -6 route add fd00:3::/64 via fd00:1::1 });

$t->origin();
answers($_) for qw/ 192.0.2.201 2001:db8::201 /;

# a service of the machine, which knows nothing of the device

$t->server(8080, sub {
	my ($s) = @_;
	sysread($s, my $buf, 4096);
	Test::Tun::write_all($s, "HTTP/1.0 200 OK\r\n\r\n"
		. Test::Tun::bytes(1, 300000));
}, ns => 'gateway');

my $conf = <<'EOC';
%%GLOBALS%%
user www-data;
%%EVENTS%%

stream {
    log_format main '$server_addr $status';
    access_log %%LOGS%%/flows.log main;

    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64;
    tun_fakeip_host names page.example 198.18.0.10;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        ROUTE
    }

    map $tun_host $exit {
        default      $tun_target;
        page.example 10.1.0.2:80;
    }

    server {
        tun_listen tun0;
        tun_listen tun0 udp;
        proxy_pass $exit;
        proxy_connect_timeout 3s;
        proxy_responses 1;
    }

    server {
        listen 5300 udp;
        listen [::]:5300 udp;
        tun_dns names public;
    }
}
EOC

my @families = (
	{ name => 'IPv4', any => '192.0.2.%d', fake => '198.18.0.10',
	  wan => '10.1.0.1', far => '192.0.2.200' },
	{ name => 'IPv6', any => '2001:db8::%d', fake => 'fd00:198:18::a',
	  wan => 'fd00:1::1', far => '2001:db8::200' },
);

# who goes through the device: to its network, elsewhere; the LAN, elsewhere

my @modes = (
	[ 'off',            0, 0, 0 ],
	[ 'fakeip',         1, 0, 0 ],
	[ 'gateway client', 1, 0, 1 ],
	[ 'global',         1, 1, 1 ],
);

my $n = 0;
my $before = state();

for my $filter (0, 1, 2) {
	filter($filter, qw/ all default server client /);

	for my $mode (@modes) {
		my ($route, $fake, $local, $lan) = @$mode;
		my $label = "$route, rp_filter $filter";

		start(with("route $route;"
			. ($route eq 'global' ? 'bypass_uid 33;' : '')));

		for my $family (@families) {
			my $of = "$label, $family->{name}";

			page("$of, its network", 'gateway', $family,
				$fake, 1);
			page("$of, its network, LAN", 'client', $family,
				$fake, 1);
			page($of, 'gateway', $family, $local);
			page("$of, LAN", 'client', $family, $lan);
			echo("$of, UDP", 'gateway', $family, $local);
			echo("$of, UDP, LAN", 'client', $family, $lan);

			services($of, $family) if $route eq 'global';
		}

		isnt(state(), $before, "$label, rules") if $local || $lan;
		ok($t->stop(), "$label, ends");
		is(state(), $before, "$label, clean");
	}
}

filter(0, qw/ all default server client /);

# services are served when all is closed that could get around the device, and a
# device of somebody else is left as it was

$t->ip('gateway', qw/ tuntap add tun0 mode tun multi_queue /);
$t->ip('gateway', qw/ link set tun0 group 5 /);

for my $on (qw/ on off on /) {
	my $route = "route global; bypass_uid 33; fail_closed $on;";

	if ($on eq 'on' && !$t->pid()) {
		start(with($route));

	} else {
		my $old = state();
		$t->reload(with($route));
		ok(Test::Tun::wait_for(5, sub { state() ne $old }), 'reload');
	}

	for my $family (@families) {
		my $of = "fail_closed $on, $family->{name}";

		page($of, 'gateway', $family, 1);
		page("$of, LAN", 'client', $family, 1);
		services($of, $family);
	}

	like($t->ip('gateway', qw/ route get /, $_), qr/ dev server /,
		"fail_closed $on, $_ is not routed")
		for qw/ 169.254.169.254 224.0.0.251 239.255.255.250 /;
}

my @pids = ($t->pid(), $t->workers());
killed(@pids);
$t->ip('gateway', qw/ link del tun0 /);

for my $family (@families) {
	my $host = sprintf $family->{any}, ++$n;
	my @curl = (qw/ curl -gsS -m 2 /, $family->{name} eq 'IPv4'
		? "http://$host/" : "http://[$host]/");

	for my $ns (qw/ gateway client /) {
		my (undef, $out) = $t->exec($ns, @curl);
		like($out, qr/^curl: \((7|28)\)/, "closed, $family->{name}, $ns");
	}
}

$t->ip('gateway', qw/ tuntap add tun0 mode tun multi_queue /);
$t->ip('gateway', qw/ link set tun0 group 5 /);

start(with('route global; bypass_uid 33; fail_closed on;'));
ok($t->stop(), 'fail_closed, ends');

like($t->ip('gateway', qw/ link show tun0 /), qr/ group 5 /,
	'the group that it had');
$t->ip('gateway', qw/ link del tun0 /);
is(state(), $before, 'fail_closed, clean');

# two instances: this one has the machine, the other one the LAN

my $global = 'route global; bypass_uid 33;';
my $gateway = 'route gateway client; route_table 2000;';

start(with($global));
my $one = state(3000);

start2($gateway);
my $two = state(2000);

is(state(3000), $one, 'another instance starts');
both('two instances');

kill 'HUP', $t->pid();
ok($t->wait_for_log(qr/gracefully shutting down/), 'reload');
is(state(), "$two$one", 'one reloads');
both('one reloads');

ok($t->stop(), 'one ends');
is(state(), $two, 'one ends');
page('the other goes on', 'client', $families[0], 2);

start(with($global));
is(state(), "$two$one", 'one starts again');
both('one starts again');

my ($rc, $out) = nginx2('route global; route_table 3000;', 'tun2',
	'198.24.0.1/16');
ok($rc, 'the same table');
like($out, qr/the routing table 3000 leads to another device/,
	'the same table');
is(state(), "$two$one", 'the same table, nothing changed');

# what is killed leaves rules, which the other does not touch

killed(pids2());
is(state(), rules($two) . $one, 'the other was killed');
page('nobody is in the way', 'gateway', $families[$_], 1) for 0, 1;

kill 'HUP', $t->pid();
sleep 1;
is(state(), rules($two) . $one, 'one reloads again');

ok($t->stop('QUIT'), 'one ends again');
is(state(), rules($two), 'one has cleaned only what was its own');

start(with($global));
killed($t->pid(), $t->workers());
start2($gateway);
is(state(), $two . rules($one), 'the other has cleaned its own');
page('and works', 'client', $families[$_], 2) for 0, 1;

start(with('route fakeip;'));
is(state(), $two, 'one has cleaned its own');

kill 'TERM', (pids2())[0];
ok(Test::Tun::wait_for(5, sub { state() eq $before }), 'both are clean');

ok($t->stop(), 'ends');
is(state(), $before, 'clean');

unlike(Test::Tun::slurp("$second/logs/error.log"), qr/\[(alert|crit)\]/,
	'no alerts of the other');

$t->done();

###############################################################################

sub with { $conf =~ s/ROUTE/route_table 3000; $_[0]/r
	=~ s/%%LOGS%%/%%DIR%%\/logs/r }

sub start {
	my ($conf) = @_;
	my ($rc, $out) = $t->try_run($conf);
	die "nginx did not start: $out" . $t->error_log() if $rc;
}

# the other instance, with a device and networks of its own

sub nginx2 {
	my ($route, $name, $address) = @_;

	my $conf = $t->write_conf($conf =~ s/ROUTE/$route/r
		=~ s/^ .*tun_fakeip.*\n//mgr =~ s/tun0/$name || 'tun1'/gre
		=~ s/address .*;/'address ' . ($address
			|| '198.22.0.1\/16 fd00:198:22::1\/64') . ';'/er
		=~ s/^    server \{\n        listen.*?^    \}\n//msr
		=~ s/%%LOGS%%/$second\/logs/r, 'second.conf');

	my $text = Test::Tun::slurp($conf) =~ s{\Q$t->{dir}\E/logs}
		{$second/logs}gr;
	Test::Tun::spew($conf, $text);

	return $t->exec('gateway', $t->{nginx}, '-p', $second, '-c', $conf,
		'-e', "$second/logs/error.log");
}

sub start2 {
	my ($rc, $out) = nginx2(@_);
	die "the other nginx did not start: $out" if $rc;
}

sub pids2 {
	my ($pid) = Test::Tun::slurp("$second/logs/nginx.pid") =~ /(\d+)/;
	return ($pid, split ' ',
		Test::Tun::slurp("/proc/$pid/task/$pid/children"));
}

sub killed {
	my (@pids) = @_;
	kill 'KILL', @pids;
	ok(Test::Tun::wait_for(5, sub {
		!grep { Test::Tun::alive($_) } @pids }), 'killed');
}

sub both {
	my ($label) = @_;

	for my $family (@families) {
		page("$label, $family->{name}", 'gateway', $family, 1);
		page("$label, LAN, $family->{name}", 'client', $family, 2);
	}
}

# a page, and which instance has logged a flow to its address

sub page {
	my ($label, $ns, $family, $by, $fake) = @_;

	my $host = $fake ? $family->{fake} : sprintf $family->{any}, ++$n;
	my @seen = map { seen($_, $host) } 1, 2;

	my (undef, $out) = $t->exec($ns, qw/ curl -gsS -m 5 /,
		$host =~ /:/ ? "http://[$host]/" : "http://$host/");
	is($out, "SEE-THIS\n", $label);

	Test::Tun::wait_for(3, sub { seen($by, $host) > $seen[$by - 1] })
		if $by;

	is(join(' ', map { seen($_, $host) - $seen[$_ - 1] } 1, 2),
		$by == 1 ? '1 0' : $by == 2 ? '0 1' : '0 0', "$label, way");

	# an address for each process, so that what comes late is seen too

	$n = 0 if $n == 99;
}

sub seen {
	my ($instance, $host) = @_;

	my $log = $instance == 1 ? "$t->{dir}/logs/flows.log"
		: "$second/logs/flows.log";
	return scalar(() = Test::Tun::slurp($log) =~ /^\Q$host\E 200$/mg);
}

sub echo {
	my ($label, $ns, $family, $by) = @_;

	my $host = $family->{far} =~ s/200$/201/r;
	my $seen = seen(1, $host);

	is($t->in($ns, sub {
		my $s = Test::Tun::udp_to($host, 9000) or return "$@";
		send($s, 'hello', 0);
		return Test::Tun::udp_recv($s, 3) // 'nothing';
	}), 'hello', $label);

	Test::Tun::wait_for(3, sub { seen(1, $host) > $seen }) if $by;
	is(seen(1, $host) - $seen, $by, "$label, way");
}

# datagrams are sent back from the address they came to

sub answers {
	my ($host) = @_;

	$t->daemon('server', sub {
		my $s = IO::Socket::IP->new(LocalAddr => $host,
			LocalPort => 9000, Type => SOCK_DGRAM)
			or die "bind: $@";

		while (1) {
			my $from = recv($s, my $data, 65536, 0) // next;
			send($s, $data, 0, $from);
		}
	});
}

# what others ask of the machine, from near and from far

sub services {
	my ($label, $family) = @_;

	my $wan = $family->{wan};
	my $url = $wan =~ /:/ ? "[$wan]" : $wan;
	my $size = "300000";

	for my $case ([ 'near' ], [ 'far', '--interface', $family->{far} ]) {
		my ($who, @args) = @$case;
		my (undef, $out) = $t->exec('server', qw/ curl -gsS -m 5 -o
			\/dev\/null -w %{size_download} /, @args,
			"http://$url:8080/");
		is($out, $size, "$label, a service of the machine, $who");
	}

	my (undef, $out) = $t->exec('client', qw/ curl -gsS -m 5 -o
		\/dev\/null -w %{size_download} /, "http://$url:8080/");
	is($out, $size, "$label, a service of the machine, LAN");

	(undef, $out) = $t->exec('server', qw/ dig +short +tries=1 +time=3
		-p 5300 A page.example -b /, $family->{far}, "\@$wan");
	is($out, "198.18.0.10\n", "$label, its DNS");

	my ($rc) = $t->exec('server', qw/ ping -c 1 -W 3 -I /,
		$family->{far}, $wan);
	is($rc, 0, "$label, its ping");
}

sub filter {
	my ($value, @names) = @_;

	for my $name (@names) {
		my ($rc, $out) = $t->exec('gateway', qw/ sysctl -qw /,
			"net.ipv4.conf.$name.rp_filter=$value");
		die $out if $rc;
	}
}

# the rules and routes of one table, or of both

sub state {
	my ($table) = @_;

	return state(2000) . state(3000) unless $table;

	my $state = '';
	my $next = $table + 16;

	for my $family (qw/ -4 -6 /) {
		for my $line (split /\n/,
			$t->ip('gateway', $family, qw/ rule show /))
		{
			$state .= "rule $family $line\n" if $line =~ /^(\d+):/
				&& $1 >= $table && $1 < $next;
		}

		my (undef, $routes) = $t->run_cmd(10, 'ip', '-n',
			$t->ns('gateway'), $family,
			qw/ route show table /, $table);

		$state .= "route $family $_\n"
			for grep { !/FIB table|Dump terminated/ }
			split /\n/, $routes;
	}

	return $state;
}

sub rules {
	my ($state) = @_;

	# of a device that is gone, and what leads nowhere

	return join '', map { s/(iif tun\d)(?! \[det)/$1 [detached]/r }
		grep { /^rule|^route -\d throw/ } split /^/, $state;
}

END {
	if ($t && $$ == $t->{pid}) {
		my $status = $?;
		kill 'KILL', grep { $_ } pids2()
			if -s "$second/logs/nginx.pid";
		$? = $status;
	}
}
