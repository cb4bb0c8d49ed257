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

for my $host (qw/ 192.0.2.1 2001:db8::1 /) {
	is(ping($host, '-c', 1, '-s', $_), 1, "$_ bytes in fragments, $host")
		for 1473, 8000, 65000;
}

is(ping('192.0.2.1', qw/ -c 1 -R /), 1, 'record route');
is(counter('icmp_echo'), 21, 'icmp_echo');
$t->stop();

# drop

run('icmp drop;');

for my $host (qw/ 192.0.2.1 2001:db8::1 /) {
	is(ping($host), 0, "drop, $host");
}

is(counter('unsupported'), 4, 'drop, unsupported');
is(counter('icmp_echo'), 0, 'drop, icmp_echo');
$t->stop();

# forward, the server is a router to somebody else

$t->netns('far');
$t->link('server', 'far');
$t->ip('server', qw/ addr add 10.4.0.1\/24 dev far /);
$t->ip('server', qw/ addr add fd00:4::1\/64 dev far nodad /);
$t->ip('far', qw/ addr add 10.4.0.2\/24 dev server /);
$t->ip('far', qw/ addr add fd00:4::2\/64 dev server nodad /);
$t->ip('far', qw/ route add default via 10.4.0.1 /);
$t->ip('far', qw/ -6 route add default via fd00:4::1 /);
$t->ip('gateway', qw/ route add 10.4.0.0\/24 via 10.1.0.2 /);
$t->ip('gateway', qw/ -6 route add fd00:4::\/64 via fd00:1::2 /);
$t->ip('gateway', qw/ route add prohibit 10.5.0.0\/24 /);
$t->ip('gateway', qw/ -6 route add prohibit fd00:5::\/64 /);

$t->in('server', sub {
	Test::Tun::spew("/proc/sys/net/$_", 1)
		for qw{ ipv4/ip_forward ipv6/conf/all/forwarding };
	Test::Tun::spew('/proc/sys/net/ipv6/icmp/ratelimit', 0);
	return 1;
});

my @forward = (
	{ %{ $Test::Tun::FAMILIES[0] }, far => '10.4.0.2',
	  device => '198.18.0.2', none => '10.1.0.77', nowhere => '192.0.2.1',
	  prohibited => '10.5.0.1', exceeded => 'Time to live exceeded',
	  unreachable => 'Destination Host Unreachable',
	  filtered => 'Packet filtered',
	  narrow => 'Frag needed and DF set (mtu = 1300)' },
	{ %{ $Test::Tun::FAMILIES[1] }, far => 'fd00:4::2',
	  device => 'fd00:198:18::2', none => 'fd00:1::77',
	  nowhere => '2001:db8::1', prohibited => 'fd00:5::1',
	  exceeded => 'Time exceeded: Hop limit',
	  unreachable => 'Destination unreachable: Address unreachable',
	  filtered => 'Destination unreachable: Administratively prohibited',
	  narrow => 'Packet too big: mtu=1300' },
);

run('icmp forward;');

for my $f (@forward) {
	my $name = "forward, $f->{name}";

	my ($n, $out) = ping($f->{server}, qw/ -c 3 -i 0.1 -s 1000 /);
	is($n, 3, "$name, target");
	like($out, qr/ ttl=63 /, "$name, TTL");
	unlike($out, qr/DUP|wrong|differ/, "$name, answers");

	like((ping($f->{far}, qw/ -c 1 /))[1], qr/ ttl=62 /, "$name, far");
	is(ping($f->{gateway}), 2, "$name, gateway");

	($n, $out) = ping($f->{far}, qw/ -c 1 -t 1 /);
	like($out, qr/From \Q$f->{device}\E icmp_seq=1 \Q$f->{exceeded}\E/,
		"$name, time exceeded here");

	($n, $out) = ping($f->{far}, qw/ -c 1 -t 2 /);
	like($out, qr/From \Q$f->{server}\E icmp_seq=1 \Q$f->{exceeded}\E/,
		"$name, time exceeded there");

	($n, $out) = ping($f->{none}, qw/ -c 1 -W 8 /);
	like($out, qr/From \Q$f->{gateway} icmp_seq=1 $f->{unreachable}\E/,
		"$name, no such target");

	($n, $out) = ping($f->{nowhere}, qw/ -c 1 /);
	like($out, qr/From \Q$f->{device} icmp_seq=1 $f->{unreachable}\E/,
		"$name, no way");

	($n, $out) = ping($f->{prohibited}, qw/ -c 1 /);
	like($out, qr/From \Q$f->{device} icmp_seq=1 $f->{filtered}\E/,
		"$name, prohibited");

	(undef, $out) = $t->exec('client', \60, qw/ traceroute -I -n -q 2
		-w 2 -m 6 /, $f->{far});
	my @hops = $out =~ /^ *\d+ +([0-9a-f.:]+)/mg;
	is("@hops", "$f->{device} $f->{server} $f->{far}",
		"$name, traceroute") or diag($out);
}

# a router with a narrower link says so

$t->ip('server', qw/ link set far mtu 1300 /);
$t->ip('far', qw/ link set server mtu 1300 /);

for my $f (@forward) {
	my ($n, $out) = ping($f->{far}, qw/ -c 1 -s 1400 -M do /);
	like($out, qr/From \Q$f->{server} icmp_seq=1 $f->{narrow}\E/,
		"forward, too big, $f->{name}");
}

# over a reload, and to "reply" and back

my $ping = $t->start('client', sub {
	my $out = `ping -n -i 0.1 -c 40 -W 1 10.1.0.2`;
	return $out =~ /(\d+) received/ ? $1 : $out;
});

for my $icmp (qw/ forward reply drop forward /) {
	sleep(0.8);
	$t->reload($conf =~ s/ICMP/icmp $icmp;/r);
}

# what is lost, is what was dropped

cmp_ok($t->wait($ping), '>=', 20, 'reload');
is(ping('192.0.2.1', qw/ -c 1 /), 0, 'reload, forward again');
is(ping('10.1.0.2', qw/ -c 1 /), 1, 'reload, target');

# sockets are closed with their cycle

sub raw_sockets {
	my $pid = $t->pid();
	my %raw = map { /(\d+) \d+ [0-9a-f]+ \d+$/ ? ($1 => 1) : () }
		map { split /\n/, Test::Tun::slurp("/proc/$pid/net/$_") }
		qw/ raw raw6 /;
	return scalar grep { (readlink($_) // '') =~ /^socket:\[(\d+)\]/
		&& $raw{$1} } glob "/proc/$pid/fd/*";
}

is(raw_sockets(), 2, 'raw sockets');

$t->reload($conf =~ s/ICMP/icmp reply;/r);
ok(Test::Tun::wait_for(5, sub { raw_sockets() == 0 }), 'no raw sockets');

$t->reload($conf =~ s/ICMP/icmp forward;/r);
ok(Test::Tun::wait_for(5, sub { raw_sockets() == 2 }), 'raw sockets again');
ok(Test::Tun::wait_for(5, sub { ping('10.1.0.2', qw/ -c 1 /) }), 'forward');

# a worker that dies has a successor with the same sockets

$t->allow_alert(qr/exited on signal 9/);
kill 'KILL', $t->workers();
ok(Test::Tun::wait_for(5, sub { ping('10.1.0.2', qw/ -c 1 /) }),
	'another worker');
is(raw_sockets(), 2, 'its sockets');

$t->stop();

$t->done();
