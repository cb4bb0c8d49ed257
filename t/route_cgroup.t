#!/usr/bin/perl

# (C) the nginx-tun authors

# Runs the commands of README's "One program, one user, one network" as they
# stand there, but for names, and asks with curl what became of whom.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new(forward => 1);

my $readme = Test::Tun::slurp('README.md');
my ($section) = $readme =~ /^(## One program, one user.*?)^## /ms
	or die 'no section';
my @blocks = $section =~ /^```sh\n(.*?)^```$/msg;
my %ran;

# interfaces as they are here; cgroups are those of the machine

my %names = (tunnel => "tun$$-in", direct => "tun$$-out",
	lan0 => 'client', eth0 => 'server');

my $shell = shell();

# the LAN is routed by the commands, and not by what other tests need

for my $family (qw/ -4 -6 /) {
	$t->ip('gateway', $family, qw/ rule del iif client lookup 100 /);
}

$t->ip('gateway', qw/ route add default via 10.1.0.2 /);
$t->ip('gateway', qw/ -6 route add default via fd00:1::2 /);
$t->ip('server', qw/ route add local /, $_, qw/ dev lo /)
	for qw{ 192.0.2.0/24 2001:db8::/64 };
$t->ip('server', qw/ addr add /, $_, qw/ dev lo /)
	for qw{ 192.0.2.200/32 2001:db8::200/128 };
$t->ip('server', qw{ route add 10.3.0.0/24 via 10.1.0.1 });
$t->ip('server', qw{ -6 route add fd00:3::/64 via fd00:1::1 });

page(80, 'directly');
page(8081, 'by nginx');
page(80, 'the network', 'client');

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        ROUTE
    }

    server {
        tun_listen tun0;
        proxy_pass 10.1.0.2:8081;
        proxy_timeout 20s;
    }

    server {
        listen 127.0.0.1:5353 udp;
        listen 127.0.0.1:5353;
        listen [::1]:5353 udp;
        listen [::1]:5353;
        listen 10.3.0.1:5353 udp;
        listen 10.3.0.1:5353;
        listen [fd00:3::1]:5353 udp;
        tun_dns names;
    }
}
EOC

my %host = (IPv4 => '192.0.2.77', IPv6 => '[2001:db8::77]');
my $before = state();

# into the device

start('');

# as strict as can be, until the commands say otherwise

sysctl("net.ipv4.conf.$_.rp_filter", 1) for qw/ all server client tun0 /;

run(qr/^ip route add default dev tun0 table 100/);
run(qr/^ip rule add pref 901 /);

for my $name (sort keys %host) {
	is(get($name), 'directly', "$name, not selected");
	is(get($name, qw/ setpriv --reuid 1000 --clear-groups /), 'by nginx',
		"$name, a user");
	is(get($name, qw/ setpriv --reuid 1001 --clear-groups /), 'directly',
		"$name, another user");
	is(lan($name), 'directly', "$name, a network before");
}

run(qr/^ip rule add pref 902 /);

for my $name (sort keys %host) {
	is(lan($name), 'by nginx', "$name, a network");
	is(get($name), 'directly', "$name, not the machine");
}

run(qr/^nft add table inet tunnel/);

program('cgroup v2', qr/\nnft .* socket cgroupv2 .* 0x2a/,
	qr{^sh -c 'echo .*/sys/fs/cgroup/}, "/sys/fs/cgroup/$names{tunnel}");
program('net_cls', qr/^mount -t cgroup -o net_cls/m,
	qr{^sh -c 'echo .*/run/net_cls/}, "/run/net_cls/$names{tunnel}");

# when nginx is gone, so are the routes, and nothing goes another way

ok($t->stop(), 'ends');

for my $name (sort keys %host) {
	like(get($name, qw/ setpriv --reuid 1000 --clear-groups /),
		qr/connect to/i, "$name, closed without nginx");
	is(get($name), 'directly', "$name, open to others");
}

back();

# out of it

start('route global; bypass_mark 0x1d;');

# strict but for the commands

sysctl("net.ipv4.conf.$_.rp_filter", 1) for qw/ all server client tun0 /;

my $missing = missing('cgroup v2');

if ($missing) {
	block(qr/^nft add table inet direct/);
	block(qr/^nft add chain inet direct nat/);
	try(qw/ nft add table inet direct /);

} else {
	run(qr/^nft add table inet direct/);
	run(qr/^nft add chain inet direct nat/);
}

for my $name (sort keys %host) {
	is(get($name), 'by nginx', "$name, global");

	SKIP: {
		skip($missing, 1) if $missing;
		is(get($name, within("/sys/fs/cgroup/$names{direct}")),
			'directly', "$name, global, a program");
	}

	is(lan($name), 'by nginx', "$name, global, a network before");
	isnt(inbound($name), 'the network', "$name, global, inbound before");
	is(get($name, qw/ curl --interface server /), 'directly',
		"$name, global, bound");
}

sysctl('net.ipv4.conf.server.rp_filter', 1);
run(qr/^nft add chain inet direct in/);

for my $name (sort keys %host) {
	is(inbound($name), 'the network', "$name, global, inbound");
	is(lan($name), 'by nginx', "$name, global, outbound");
}

# a port of the machine that leads there

try(qw/ nft add chain inet direct port /, '{ type nat hook prerouting'
	. ' priority dstnat; }');
try(qw/ nft add rule inet direct port iifname server tcp dport 8088 dnat ip to
	10.3.0.2:80 /);
is(inbound('IPv4', '10.1.0.1:8088'), 'the network', 'a forwarded port');

run(qr/^ip rule add pref 904 /);
is(lan($_), 'directly', "$_, global, a network") for sort keys %host;

ok($t->stop(), 'ends');
back();

is(join('', grep { !$ran{$_} && !/5353/ } @blocks), '',
	'no command was left out');

$t->done();

###############################################################################

# a shell that has cgroup v2 at its usual place, and a DNS server that nobody
# else has; what it mounts is gone with it

sub shell {
	Test::Tun::spew("$t->{dir}/resolv.conf",
		"nameserver 10.1.0.53\nnameserver fd00:1::53\n");

	my $pid = $t->program('gateway', qw/ unshare -m --propagation private
		sh -ec /, "mount -t cgroup2 none /sys/fs/cgroup;"
		. " mount --bind $t->{dir}/resolv.conf /etc/resolv.conf;"
		. ' mount -t tmpfs none /run; touch /run/ready;'
		. ' exec sleep 600');

	Test::Tun::wait_for(10, sub { -e "/proc/$pid/root/run/ready" })
		or plan(skip_all => 'cgroup2 cannot be mounted: '
			. Test::Tun::slurp("$t->{dir}/logs/programs.log"));

	return $pid;
}

# in it

sub try {
	my (@cmd) = @_;
	my ($rc, $out) = $t->run_cmd(15, qw/ nsenter -m -n -t /, $shell,
		@cmd);
	chomp $out;
	return ($rc, $out);
}

sub block {
	my ($re) = @_;

	my ($block) = grep { $_ =~ $re } @blocks or die "no block $re";
	$ran{$block} = 1;

	return $block =~ s/\b(lan0|eth0)\b/$names{$1}/gr
		=~ s{(cgroup/|net_cls/|level 1 )(tunnel|direct)\b}
			{$1$names{$2}}gr;
}

sub run {
	my ($re) = @_;

	my $block = block($re);
	my ($rc, $out) = try('sh', '-ec', $block);

	is("$rc $out", '0 ', (split /\n/, $block)[0]);
}

sub program {
	my ($name, $setup, $start, $cgroup) = @_;

	SKIP: {
		my $command = block($start);
		my $missing = missing($name);

		if ($missing) {
			block($setup);
			diag($missing);
			skip($missing, 1);
		}

		run($setup);

		for my $family (sort keys %host) {
			is(get($family, within($cgroup)), 'by nginx',
				"$family, $name, a program");
			is(get($family), 'directly',
				"$family, $name, another one");
		}

		dns($name, $cgroup);

		my ($rc, $out) = try('sh', '-ec', $command =~
			s/curl/curl -s -m 9/r);
		is("$rc $out", '0 by nginx', "$name, by its name");

		# so that the other way is alone

		try(qw/ nft flush chain inet tunnel out /);
	}
}

# what the kernel was built without

sub missing {
	my ($name) = @_;

	if ($name eq 'net_cls') {
		return Test::Tun::slurp('/proc/cgroups') =~ /^net_cls\s.*\s1$/m
			? '' : 'this kernel has no net_cls controller';
	}

	my $probe = 'table inet probe { chain out { type route hook output'
		. ' priority 0; socket transparent 1; }; }; delete table inet probe';

	my ($rc, $out) = try('nft', $probe);

	return $rc ? "this kernel has no socket expression of nft: $out" : '';
}

# a name needs the commands for DNS, and leads into the device

sub dns {
	my ($name, $cgroup) = @_;

	if (!$t->{dns}++) {
		run(qr/^nft add chain inet tunnel dns/);
		run(qr/^nft add chain inet tunnel lan/);

		for my $server (qw/ 10.1.0.53 fd00:1::53 /) {
			my (undef, $out) = $t->exec('client',
				qw/ dig +short +tries=1 +time=5 A lan.example /,
				"\@$server");
			like($out, qr/^198\.1[89]\./, "a network asks $server");
		}
	}

	for my $server (qw/ 10.1.0.53 fd00:1::53 /) {
		for my $tcp (qw/ +notcp +tcp /) {
			my (undef, $out) = try(within($cgroup), 'dig', $tcp,
				qw/ +short +tries=1 +time=5 AAAA
				program.example /, "\@$server");
			like($out, qr/^fd00:198:18:/,
				"$name, asks $server $tcp");
		}
	}

	# a user, instead of the mark

	if ($t->{dns}++ == 1) {
		try('sh', '-ec', block(qr/^nft add chain inet tunnel dns/)
			=~ s/meta mark 0x2a/meta skuid 1000/r);

		my (undef, $out) = try(qw/ setpriv --reuid 1000 --clear-groups
			dig +short +tries=1 +time=5 A user.example
			@10.1.0.53 /);
		like($out, qr/^198\.1[89]\./, 'a user asks');
	}

	my (undef, $out) = try(qw/ dig +short +tries=1 +time=1 A
		program.example @10.1.0.53 /);
	unlike($out, qr/^198\./, "$name, another program asks in vain");
}

sub within { ('sh', '-c', 'echo $$ >' . "$_[0]/cgroup.procs" . '; exec "$@"',
	'sh') }

sub get {
	my ($family, @prefix) = @_;
	push @prefix, 'curl' unless grep { $_ eq 'curl' } @prefix;
	return (try(@prefix, qw/ -gsS -m 5 /, "http://$host{$family}/"))[1];
}

sub lan {
	my ($family) = @_;
	my (undef, $out) = $t->exec('client', qw/ curl -gsS -m 5 /,
		"http://$host{$family}/");
	chomp $out;
	return $out;
}

# a host of the LAN, from the other side

sub inbound {
	my ($family, $host) = @_;
	$host ||= $family eq 'IPv4' ? '10.3.0.2' : '[fd00:3::2]';
	my (undef, $out) = $t->exec('server', qw/ curl -gsS -m 2 --interface /,
		$family eq 'IPv4' ? '192.0.2.200' : '2001:db8::200',
		"http://$host/");
	chomp $out;
	return $out;
}

# what was not made cannot be removed, and the rest is

sub back {
	my ($rc, $out) = try('sh', '-c', block(qr/^nft delete table/));

	is(state(), $before, 'and back');
	is(join(' ', grep { -d } map { ("/proc/$shell/root/sys/fs/cgroup/$_",
		"/proc/$shell/root/run/net_cls/$_") } values %names), '',
		'no cgroup left');
}

sub state {
	my $state = '';

	for my $family (qw/ -4 -6 /) {
		$state .= $t->ip('gateway', $family, qw/ rule show /);
		$state .= ($t->run_cmd(10, 'ip', '-n', $t->ns('gateway'),
			$family, qw/ route show table 100 /))[1]
			=~ s/^.*FIB table does not exist.*\n.*\n//rm;
	}

	return $state . (try(qw/ nft list tables /))[1];
}

sub sysctl {
	my ($name, $value) = @_;
	my ($rc, $out) = $t->exec('gateway', qw/ sysctl -qw /, "$name=$value");
	die $out if $rc;
}

sub start {
	my ($route) = @_;
	my ($rc, $out) = $t->try_run($conf =~ s/ROUTE/$route/r);
	die "nginx did not start: $out" . $t->error_log() if $rc;
}

sub page {
	my ($port, $text, $ns) = @_;

	$t->server($port, sub {
		my ($s) = @_;
		sysread($s, my $buf, 4096);
		Test::Tun::write_all($s, "HTTP/1.0 200 OK\r\n\r\n$text\n");
	}, ns => $ns);
}

# the cgroups are the machine's, whatever became of the test

END {
	if ($t && $$ == $t->{pid} && $shell) {
		my $status = $?;
		try('rmdir', $_) for grep { -d "/proc/$shell/root$_" }
			map { ("/sys/fs/cgroup/$_", "/run/net_cls/$_") }
			@names{qw/ tunnel direct /};
		$? = $status;
	}
}
