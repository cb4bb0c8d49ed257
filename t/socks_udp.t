#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_udp_relay through SOCKS5 proxies: one association for a source,
# answers from whom they come, and what proxies do wrong.

use warnings;
use strict;

use Socket qw/ AF_INET AF_INET6 inet_ntop inet_pton pack_sockaddr_in
	pack_sockaddr_in6 SOCK_DGRAM unpack_sockaddr_in unpack_sockaddr_in6 /;
use Test::More;
use Test::Tun;
use Test::Tun::Proxy;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();

danted($t, 1080);
danted($t, 1081, 'john', 'secret');

# what a proxy of ours does with datagrams, by its port

my %proxies = (
	1090 => { any => 1 },
	1091 => { name => 1 },
	1092 => { fragment => 1 },
	1093 => { closes => 1 },
	1094 => { refuses => 7 },
	1095 => { bound => 'name' },
	1096 => { silent => 1 },
	1097 => { garbage => 1 },
);

associate($t, $_, %{ $proxies{$_} }) for keys %proxies;

$t->program('server', 'dnsmasq', '--keep-in-foreground', '--no-resolv',
	'--no-hosts', '--conf-file=/dev/null', '--user=root', '--pid-file',
	'--host-record=real.example,10.2.0.99,fd00:2::99');

my $servers = '';
my %port = (auth => 9101, failover => 9102, none => 9103, tcp_only => 9104,
	idle => 9105);
my $n = 9200;
my %bad = map { $_ => $n++ } sort keys %proxies;

for my $name (sort(keys %port), sort keys %bad) {
	my $proxy = exists $bad{$name} ? "p$name" : $name;
	my $at = $port{$name} // $bad{$name};

	$servers .= "server { tun_listen tun0 udp :$at; tun_udp_relay on"
		. " proxy=$proxy; }\n";
}

my $upstreams = join '', map { "upstream p$_ { server 10.1.0.2:$_;"
	. " tun_handshake socks5 timeout=2s; }\n" } keys %proxies;

$t->run(<<"EOF");
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '\$remote_addr \$server_port \$status|\$upstream_addr|'
                    '\$tun_handshake_status|\$tun_relay_sent'
                    ' \$tun_relay_received';
    access_log %%DIR%%/logs/access.log main;

    tun_fakeip_zone names:1m 198.19.0.0/24 fd00:198:19::/120;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/48;
        netns   %%NETNS%%;
        udp_timeout 3s;
    }

    upstream exits  { server 10.1.0.2:1080; tun_handshake socks5; }
    upstream six    { server [fd00:1::2]:1080; tun_handshake socks5; }
    upstream auth   { server 10.1.0.2:1081;
                      tun_handshake socks5 user=john password=secret; }
    upstream failover { server 10.1.0.2:9; server 10.1.0.2:1094;
                      server 10.1.0.2:1097; server 10.1.0.2:1080 backup;
                      tun_handshake socks5; }
    upstream none   { server 10.1.0.2:9; server 10.1.0.2:1094;
                      tun_handshake socks5; }
    upstream tcp_only { server 10.1.0.2:1080; tun_handshake socks5 no_udp; }
    upstream idle   { server 10.1.0.2:1080; tun_handshake socks5; }
    $upstreams

    server {
        tun_listen tun0 udp;
        tun_udp_relay on proxy=exits;
    }

    server {
        tun_listen tun0 udp fd00:2::9;
        tun_udp_relay on proxy=six;
    }

    server {
        tun_listen tun0 udp :9300;
        proxy_pass exits;
    }

    server {
        tun_listen tun0 udp :53;
        tun_dns names;
    }

    $servers
}
EOF

$t->in('client', sub {
	$t->run_cmd(10, qw/ ip -6 route add fd00:198:19::\/120 dev tun0 /);
	return 1;
});

# who came; any address of the network is an own one

$t->in('server', sub {
	Test::Tun::spew('/proc/sys/net/ipv6/ip_nonlocal_bind', 1);
	return 1;
});

for my $net ('10.2.0.', 'fd00:2::') {
	for my $at ([ 1, 9000, values %port ], [ 2, 9000, 9001 ]) {
		my ($host, @ports) = @$at;
		$t->udp_server($_, sub { "$_[1] " . from($_[2]) },
			host => "$net$host") for @ports;
	}
}

# an answer, and another one from a port that the client has not sent to

$t->udp_server(9000, sub { "$_[1] " . from($_[2]) }, host => 'fd00:2::9');

for my $host ('10.2.0.3', 'fd00:2::3') {
	$t->udp_server(9002, sub {
		my (undef, $data, $from) = @_;
		my $s = IO::Socket::IP->new(LocalAddr => $host,
			Type => SOCK_DGRAM);
		send($s, 'stranger', 0, $from);
		return $data;
	}, host => $host);
}

for my $family (@Test::Tun::FAMILIES) {
	my $name = $family->{name};
	my $v6 = $name eq 'IPv6';
	my $host = sub { $v6 ? "fd00:2::$_[0]" : "10.2.0.$_[0]" };

	# one association for all destinations

	my @got = $t->in('client', sub {
		my $s = client($family);
		return map { exchange($s, $host->($_->[0]), $_->[1]) }
			[ 1, 9000 ], [ 1, 9000 ], [ 2, 9000 ], [ 2, 9001 ];
	});

	like($got[0], qr/^x (\d+) from \Q${\ $host->(1)}\E 9000$/,
		"an answer, $name");
	my ($first) = $got[0] =~ /^x (\d+)/;
	is($got[1], "x $first from " . $host->(1) . ' 9000', "the same, $name");
	is($got[2], "x $first from " . $host->(2) . ' 9000',
		"another host, $name");
	is($got[3], "x $first from " . $host->(2) . ' 9001',
		"another port, $name");

	my ($other) = $t->in('client', sub {
		return exchange(client($family), $host->(1), 9000) });
	unlike($other, qr/^x $first /, "another source, $name");

	# full cone

	@got = $t->in('client', sub {
		my $s = client($family);
		return (exchange($s, $host->(3), 9002), receive($s));
	});
	like(join(' ', @got), qr/stranger from \Q${\ $host->(3)}\E \d+/,
		"from another port, $name");

	# all sizes that go through a header

	@got = $t->in('client', sub {
		my $s = client($family);
		return map { length((split / /,
			exchange($s, $host->(1), 9000, 'y' x $_))[0]) }
			1, 1400, 9000, 60000;
	});
	is("@got", '1 1400 9000 60000', "sizes, $name");

	# sources at once

	is($t->in('client', sub {
		my @s = map { client($family) } 1 .. 50;
		sendto($s[$_], $host->(1), 9000, "n$_") for 0 .. $#s;
		return scalar grep { receive($s[$_]) =~ /^n$_ \d+ from/ }
			0 .. $#s;
	}), 50, "50 sources, $name");

	# authenticated, and with proxies that fail

	for my $what (qw/ auth failover /) {
		like($t->in('client', sub { exchange(client($family),
			$host->(1), $port{$what}) }), qr/^x \d+ from/,
			"$what, $name");
	}

	# what cannot be had is refused

	for my $what (qw/ none tcp_only /) {
		is($t->in('client', \&refused, $host->(1), $port{$what}),
			'refused', "$what, $name");
	}

	is($t->in('client', \&refused, $host->(1), 9300), 'refused',
		"proxy_pass, $name");

	# what proxies do

	my %answer = (1090 => qr/^x from/, 1091 => qr/^x from/,
		1092 => qr/^none$/, 1093 => qr/^x from/);

	for my $proxy (sort keys %bad) {
		if ($answer{$proxy}) {
			like($t->in('client', sub { exchange(client($family),
				$host->(1), $bad{$proxy}) }), $answer{$proxy},
				join(' ', %{ $proxies{$proxy} }, $name));
			next;
		}

		is($t->in('client', \&refused, $host->(1), $bad{$proxy}),
			'refused', join(' ', %{ $proxies{$proxy} }, $name));
	}

	# names

	my ($type, $net) = $v6 ? ('AAAA', 'fd00:198:19::')
		: ('A', '198.19.0.');
	my %fake = map { $_ => address("$_.example", $type) } qw/ one two /;
	like($fake{one}, qr/^\Q$net\E/, "a name, $name");

	# ours says which name it was, and answers from an address of its own

	@got = $t->in('client', sub {
		my $s = client($family);
		return map { exchange($s, $fake{$_}, $bad{1090}) }
			qw/ one two one /;
	});
	is(join(', ', @got), join(', ', map {
		"$_.example from $fake{$_} $bad{1090}" } qw/ one two one /),
		"names, $name");

	is($t->in('client', sub { exchange(client($family), $fake{one},
		$bad{1091}) }), "one.example from $fake{one} $bad{1091}",
		"answered by name, $name");
}

like($t->in('client', sub { exchange(client($Test::Tun::FAMILIES[1]),
	'fd00:2::9', 9000) }), qr/^x \d+ from fd00:2::9 9000/, 'a proxy over IPv6');

for my $line (
	qr/ 9000 200\|10\.1\.0\.2:1080\|ok\|4 4$/m,
	qr/ 9000 200\|\[fd00:1::2\]:1080\|ok\|1 1$/m,
	qr/ $port{failover} 200\|10\.1[^|]*, 10\.1\.0\.2:1080\|[^|]*, ok\|1 1$/m)
{
	ok(Test::Tun::wait_for(8, sub {
		join("\n", $t->access_log()) =~ $line }), 'log')
		or diag(join("\n", $t->access_log()));
}

# the proxy goes, and with it the association

{
	my @got = $t->in('client', sub {
		my $s = client($Test::Tun::FAMILIES[0]);
		my $first = exchange($s, '10.2.0.1', $bad{1093});
		sleep(1);
		return ($first, exchange($s, '10.2.0.1', $bad{1093}));
	});
	like($got[1], qr/^x from/, 'a new association');
	ok($t->wait_for_log(qr/socks5 proxy 10.1.0.2:1093 ended the/),
		'the end of it in the log');
}

# no descriptor stays

Test::Tun::wait_for(8, sub { descriptors($t) < 40 });
my $fds = settled($t);

for (1 .. 5) {
	is($t->in('client', sub {
		my @s = map { client($Test::Tun::FAMILIES[0]) } 1 .. 100;
		sendto($s[$_], '10.2.0.1', $_ % 10 ? 9000 : $port{none}, 'x')
			for 0 .. $#s;
		return scalar grep { ($_ % 10) == 0
			|| receive($s[$_]) =~ /^x/ } 0 .. $#s;
	}), 100, 'a hundred');
}

ok(finished($t, $fds), 'no descriptor left')
	or diag(descriptors($t) . " descriptors, not $fds");

# bad configurations

for my $case (
	[ 'on proxy=nobody', qr/no port in upstream "nobody"|is none/ ],
	[ 'on proxy=plain', qr/needs an upstream with "tun_handshake socks5"/ ],
	[ 'on proxy=', qr/invalid parameter "proxy="/ ],
	[ 'on proxy=exits proxy=exits', qr/invalid parameter|duplicate/ ],
	[ 'on filtering=port proxy=web', qr/"web" is none/ ])
{
	like(($t->test_conf(<<"EOF"))[1], $case->[1], $case->[0]);
%%GLOBALS%%
%%EVENTS%%
stream {
    tun tun0 { address 198.18.0.1/15; netns %%NETNS%%; }
    upstream exits { server 10.1.0.2:1080; tun_handshake socks5; }
    upstream web { server 10.1.0.2:1080; tun_handshake http; }
    upstream plain { server 10.1.0.2:1080; }
    server { tun_listen tun0 udp; tun_udp_relay $case->[0]; }
}
EOF
}

$t->done();

# a SOCKS5 proxy whose datagrams come back from where they went to, or, for a
# name, from an address of its own

sub associate {
	my ($t, $port, %how) = @_;

	return $t->server($port, sub {
		my ($s) = @_;

		sysread($s, my $methods, 3) or return;
		return sleep(5) if $how{silent};
		return Test::Tun::write_all($s, "HTTP/1.0 400\r\n\r\n")
			if $how{garbage};

		Test::Tun::write_all($s, "\5\0");
		sysread($s, my $request, 10) or return;

		return Test::Tun::write_all($s, "\5" . chr($how{refuses})
			. "\0\1" . "\0" x 6) if $how{refuses};
		return Test::Tun::write_all($s, "\5\0\0\3\4name\4\0")
			if $how{bound};

		my $u = IO::Socket::IP->new(LocalHost => '10.1.0.2',
			LocalPort => 0, Type => SOCK_DGRAM) or die "$@";

		Test::Tun::write_all($s, "\5\0\0\1"
			. ($how{any} ? "\0" x 4 : inet_pton(AF_INET, '10.1.0.2'))
			. pack('n', $u->sockport()));

		my $select = IO::Select->new($s, $u);

		while (my @ready = $select->can_read(20)) {
			return if grep { $_ == $s } @ready;

			my $from = recv($u, my $data, 65536, 0);
			send($u, datagram($data, %how), 0, $from);

			return sleep(0.2) if $how{closes};
		}
	});
}

sub datagram {
	my ($data, %how) = @_;
	my ($head, $type) = unpack('a3C', $data);

	substr($data, 2, 1) = "\1" if $how{fragment};
	return $data if $type != 3;

	my ($len) = unpack('x4C', $data);
	my ($name, $port) = unpack("x5 a$len n", $data);

	return "$head\3" . chr($len) . uc($name) . pack('n', $port) . $name
		if $how{name};

	# two names have addresses that differ

	return "$head\1" . inet_pton(AF_INET, '10.2.7.' . (7 + ord $name))
		. pack('n', $port) . $name;
}

sub client {
	my ($family) = @_;

	return IO::Socket::IP->new(LocalHost => $family->{client},
		Type => SOCK_DGRAM) || die "$@";
}

sub sendto {
	my ($s, $host, $port, $data) = @_;

	return send($s, $data, 0, $host =~ /:/
		? pack_sockaddr_in6($port, inet_pton(AF_INET6, $host))
		: pack_sockaddr_in($port, inet_pton(AF_INET, $host)));
}

sub receive {
	my ($s, $timeout) = @_;

	return 'none' unless IO::Select->new($s)->can_read($timeout // 2);
	my $from = recv($s, my $data, 65536, 0) // return "recv: $!";

	my ($port, $addr) = length $from > 16 ? unpack_sockaddr_in6($from)
		: unpack_sockaddr_in($from);
	return "$data from " . inet_ntop(length $addr > 4 ? AF_INET6 : AF_INET,
		$addr) . " $port";
}

sub exchange {
	my ($s, $host, $port, $data) = @_;
	defined sendto($s, $host, $port, $data // 'x') or return "send: $!";
	return receive($s);
}

sub refused {
	my ($host, $port) = @_;

	my $s = Test::Tun::udp_to($host, $port) or return "$@";
	my $end = time() + 4;

	while (time() < $end) {
		send($s, 'x', 0) // return 'refused';
		return 'refused' if IO::Select->new($s)->can_read(0.2)
			&& !defined recv($s, my $data, 100, 0);
	}

	return 'none';
}

sub from {
	return (length $_[0] > 16 ? unpack_sockaddr_in6($_[0])
		: unpack_sockaddr_in($_[0]))[0];
}

sub address {
	my ($name, $type) = @_;

	my (undef, $out) = $t->exec('client', 'dig', '@198.18.0.2', '+short',
		'+tries=2', $name, $type);
	return $out =~ /^([\da-f.:]+)$/m ? $1 : '';
}
