#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_socket: marks and interfaces of the sockets to an upstream, by
# unprivileged workers.

use warnings;
use strict;

use Test::More;

use Test::Tun;
use Test::Tun::DNS ();
use Test::Tun::Proxy;

my $t = Test::Tun->new();

destinations($t);
microsocks($t, 1081);

$t->daemon('server', sub {
	my $s = IO::Socket::IP->new(LocalHost => '10.2.0.1',
		LocalPort => 9053, Proto => 'udp') or die "udp: $@";
	while (defined(my $peer = $s->recv(my $data, 1000))) {
		$s->send("echo $data", 0, $peer);
	}
});

$t->udp_server(9300, sub { "relayed $_[1]" });

# it says that more is to be had over TCP

Test::Tun::DNS::resolver($t, $_, sub {
	my ($q, $protocol) = @_;
	my $answer = Test::Tun::DNS::reply($q, "x.example. 300 MX 5 mx.example");
	$answer->header->tc(1) if $protocol eq 'udp';
	return $answer->data;
}, port => 5300) for '10.1.0.2', 'fd00:1::2';

# SYNs and datagrams that leave with a mark are counted, another has no way

Test::Tun::spew("$t->{dir}/count.nft", <<'EOF');
table inet count {
    counter streams { }
    counter datagrams { }
    counter pings { }
    chain output {
        type filter hook output priority 0;
        meta mark 0x1d tcp flags & (syn | ack) == syn counter name streams
        meta mark 0x1d meta l4proto udp counter name datagrams
        meta mark 0x1d icmp type echo-request counter name pings
        meta mark 0x1d icmpv6 type echo-request counter name pings
        meta mark 0xfffffffe tcp flags & (syn | ack) == syn counter name streams
    }
}
EOF

nft('-f', "$t->{dir}/count.nft");

$t->ip('gateway', $_, qw/ rule add fwmark 0x2a unreachable /) for qw/ -4 -6 /;

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

stream {
    log_format main '$server_port|$status|$upstream_addr|$tun_handshake_status';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        icmp    forward;

        tun_socket mark=0x1d bind_device=server;
    }

    tun_fakeip_zone names:1m 198.18.0.0/24;

    upstream direct  { tun_direct; tun_socket mark=0x1d; }
    upstream bound   { tun_direct; tun_socket mark=29 bind_device=server; }
    upstream other   { tun_direct; tun_socket bind_device=lo; }
    upstream missing { tun_direct; tun_socket bind_device=missing0; }
    upstream never   { tun_direct; tun_socket mark=0x2a; }
    upstream plain   { tun_direct; }
    upstream large   { tun_direct; tun_socket mark=0xfffffffe; }
    upstream socks   { server 10.1.0.2:1081; tun_handshake socks5;
                       tun_socket mark=0x1d; }
    upstream server  { server 10.1.0.2:9001; tun_socket mark=0x1d; }
    upstream from    { server 10.1.0.2:9001; tun_socket mark=0x1d
                                                        bind_device=server; }
    upstream udp     { server 10.2.0.1:9053; tun_socket mark=0x1d; }

    map $server_addr $exit {
        10.2.0.1 direct;   fd00:2::1 direct;
        10.2.0.2 bound;    fd00:2::2 bound;
        10.2.0.3 other;    fd00:2::3 other;
        10.2.0.4 missing;  fd00:2::4 missing;
        10.2.0.5 never;    fd00:2::5 never;
        10.2.0.6 plain;    fd00:2::6 plain;
        10.2.0.7 socks;    fd00:2::7 socks;
        10.2.0.8 server;   fd00:2::8 server;
        10.2.0.9 large;    fd00:2::9 large;
    }

    server {
        tun_listen tun0;
        proxy_pass $exit;
        proxy_connect_timeout 1s;
    }

    server {
        listen 8001;
        proxy_pass from;
        proxy_bind 10.1.0.1;
        proxy_socket_keepalive on;
    }

    server {
        listen 8053 udp;
        proxy_pass udp;
        proxy_timeout 2s;
    }

    # servers

    upstream resolver  { server 10.1.0.2:5300; tun_socket mark=0x1d; }
    upstream resolver6 { server [fd00:1::2]:5300; }

    server {
        listen 5301 udp;
        tun_dns names;
        tun_dns_pass resolver;
        tun_dns_cache off;
        tun_socket mark=0x2a;
    }

    server {
        listen 5302 udp;
        tun_dns names;
        tun_dns_pass resolver6;
        tun_dns_cache off;
        tun_socket mark=0x1d bind_device=server;
    }

    server {
        tun_listen tun0 udp :9300;
        tun_udp_relay on;
        tun_socket mark=0x1d;
    }

    server {
        tun_listen tun0 udp :9301;
        tun_udp_relay on;
        tun_socket bind_device=missing0;
    }

    server {
        listen 8002;
        proxy_pass 10.1.0.2:9001;
        tun_socket mark=0x1d;
    }

    map $server_addr $its_target {
        10.1.0.2  10.1.0.2:9001;
        fd00:1::2 [fd00:1::2]:9001;
    }

    # its own options, or those of the upstream

    server {
        tun_listen tun0 :9021;
        proxy_pass $its_target;
        tun_socket mark=0x1d;
    }

    server {
        tun_listen tun0 :9022;
        proxy_pass direct_own;
        tun_socket mark=0x2a;
    }

    upstream direct_own { tun_direct destination=$its_target;
                          tun_socket mark=0x1d; }

    server {
        tun_listen tun0 :9023;
        proxy_pass several;
        proxy_connect_timeout 1s;
        tun_socket mark=0x1d;
    }

    upstream several { server 10.1.0.2:9 max_fails=0;
                       server 10.1.0.2:9001 backup; }
}
EOF

$t->run($conf);

my ($worker) = $t->workers();
my $status = Test::Tun::slurp("/proc/$worker/status");

like($status, qr/^Uid:\s+[1-9]\d*\s/m, 'an unprivileged worker');
like($status, qr/^CapEff:\s+0000000000002000$/m, 'has CAP_NET_RAW only');
like($status, qr/^CapPrm:\s+0000000000002000$/m, 'and may have no other');

for my $family (@Test::Tun::FAMILIES) {
	my $name = $family->{name};
	my $host = sub { $name eq 'IPv4' ? "10.2.0.$_[0]"
		: "fd00:2::$_[0]" };

	for ([ 1, 'direct' ], [ 2, 'direct and bound' ], [ 7, 'SOCKS5' ],
		[ 8, 'server' ], [ 9, 'a large mark' ])
	{
		my ($n, $what) = @$_;
		my $before = counted_by("streams");
		is(ask($t, $host->($n), 9001), "echo hello\n", "$what, $name");
		is(counted_by("streams"), $before + 1, "$what, marked, $name");
	}

	my $before = counted_by("streams");
	is(ask($t, $host->(6), 9001), "echo hello\n", "plain, $name");
	is(counted_by("streams"), $before, "plain, not marked, $name");

	is(ask($t, $host->(3), 9001), 'refused', "another interface, $name");
	is(ask($t, $host->(5), 9001), 'refused', "an unreachable mark, $name");

	my (undef, $line) = session($t, sub { ask($t, $host->(4), 9001) });
	like($line, qr/^9001\|500\|/, "missing interface, $name");
}

is(ask($t, '10.1.0.1', 8001, ns => 'server'), "echo hello\n",
	'with proxy_bind');

# of servers

for my $family (@Test::Tun::FAMILIES) {
	my ($name, $host) = @{$family}{qw/ name server /};

	is(marked('datagrams', sub { datagram($host, 9300) }),
		'relayed hello, 1', "a relay, $name");
	isnt(datagram($host, 9301), 'relayed hello',
		"a relay with a missing interface, $name");

	is(marked('streams', sub { ask($t, $host, $_) }), "echo hello\n, 1",
		"server $_, $name") for 9021, 9022;
	is(marked('streams', sub { ask($t, $host, 9023) }), "echo hello\n, 2",
		"server, another peer, $name");

	is(marked('pings', sub { ($t->exec('client', qw/ ping -n -c 2 -i 0.2
		-W 2 /, $host))[0] }), '0, 2', "pings, $name");
}

is(marked('streams', sub { ask($t, '10.1.0.1', 8002, ns => 'server') }),
	"echo hello\n, 1", 'server, an ordinary socket');

for my $port (5301, 5302) {
	my $question = sub { $t->in('server', sub { Test::Tun::DNS::ask(
		'10.1.0.1', "x.example", 'MX', port => $port) }) };

	is(marked('datagrams', $question), 'NOERROR MX=5 mx.example., 1',
		"DNS, $port");
	is(marked('streams', $question), 'NOERROR MX=5 mx.example., 1',
		"DNS, over TCP, $port");
}

my $before = counted_by("datagrams");

is($t->in('server', sub {
	my $s = IO::Socket::IP->new(PeerHost => '10.1.0.1', PeerPort => 8053,
		Proto => 'udp') or return "$@";
	$s->send('datagram');
	return 'nothing' unless IO::Select->new($s)->can_read(2);
	$s->recv(my $buf, 100);
	return $buf;
}), 'echo datagram', 'UDP');

is(counted_by("datagrams"), $before + 1, 'UDP, marked');

like($t->error_log(), qr/setsockopt\(SO_BINDTODEVICE, "missing0"\) failed/,
	'a missing interface in the log');

# what cannot be had is said before there is a worker

my $small = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
stream {
    upstream u { server 10.1.0.2:1; tun_socket TEST; }
    server { listen 8002; proxy_pass u; }
}
EOF

sub test_without {
	my ($args, $caps) = @_;

	my $conf = $small;
	$conf =~ s/TEST/$args/;

	my $file = $t->write_conf($conf, 'test.conf');
	return $t->exec('gateway', 'setpriv', "--bounding-set=$caps",
		$t->{nginx}, '-t', '-p', $t->{dir}, '-c', $file,
		'-e', 'stderr');
}

my ($rc, $out) = test_without('mark=1', '-net_raw,-net_admin');
isnt($rc, 0, 'a mark without CAP_NET_RAW');
like($out, qr/"tun_socket" cannot be had.*CAP_NET_RAW.*test.conf:\d+/,
	'with a message');

($rc, $out) = test_without('mark=1', '-net_admin');
is($rc, 0, 'a mark with it') or diag($out);

# and of servers and pings, too

$small =~ s/tun_socket TEST;//;
$small =~ s/server \{/server { tun_socket TEST;/;

($rc, $out) = test_without('mark=1', '-net_raw,-net_admin');
isnt($rc, 0, 'a server with a mark, without CAP_NET_RAW');
like($out, qr/"tun_socket" cannot be had.*test.conf:\d+/, 'with a message');

$small =~ s/tun_socket TEST;//;
$small =~ s/stream \{/stream { tun tun0 { address 192.0.2.1\/24; icmp forward;
	tun_socket TEST; } /;

($rc, $out) = test_without('mark=1', '-net_raw,-net_admin');
isnt($rc, 0, 'pings with a mark, without CAP_NET_RAW');
like($out, qr/"tun_socket" cannot be had.*test.conf:\d+/, 'with a message');

for my $bad (
	[ 'icmp forward; tun_socket mark=1; tun_socket mark=1;',
		'is duplicate' ],
	[ 'icmp reply; tun_socket mark=1;', 'is for "icmp forward"' ],
	[ 'icmp forward; tun_socket x;', 'invalid parameter "x"' ],
) {
	my ($rc, $out) = $t->test_conf("%%GLOBALS%%\n%%EVENTS%%\nstream {\n"
		. "tun tun0 { address 192.0.2.1/24; $bad->[0] }\n}\n");

	isnt($rc, 0, "refused: $bad->[0]");
	like($out, qr/\Q$bad->[1]\E.*:\d+/, 'with a message');
}

$t->allow_alert(qr/is not for it/);

for my $bad ('tun_direct;', 'server 10.1.0.2:53; tun_handshake socks5;') {
	my ($rc, $out) = $t->test_conf("%%GLOBALS%%\n%%EVENTS%%\nstream {\n"
		. "tun_fakeip_zone names:1m 198.18.0.0/24;\n"
		. "upstream u { $bad }\nserver { listen 8003 udp;\n"
		. "tun_dns names; tun_dns_pass u; }\n}\n");

	isnt($rc, 0, "refused for DNS: $bad");
	like($out, qr/is not for it/, 'with a message');
}

for my $bad (
	[ 'tun_socket mark=0;', 'invalid mark "mark=0"' ],
	[ 'tun_socket mark=x;', 'invalid mark' ],
	[ 'tun_socket mark=0x100000000;', 'invalid mark' ],
	[ 'tun_socket bind_device=;', 'invalid parameter' ],
	[ 'tun_socket bind_device=a234567890123456;', 'invalid parameter' ],
	[ 'tun_socket x;', 'invalid parameter "x"' ],
	[ 'tun_socket mark=1 mark=2;', 'invalid parameter "mark=2"' ],
	[ 'tun_socket mark=1; tun_socket mark=2;', 'is duplicate' ],
	[ 'tun_socket;', 'invalid number of arguments' ],
) {
	my ($rc, $out) = $t->test_conf("%%GLOBALS%%\n%%EVENTS%%\nstream {\n"
		. "upstream u { server 10.1.0.2:1; $bad->[0] }\n"
		. "server { listen 8002; proxy_pass u; }\n}\n");

	isnt($rc, 0, "refused: $bad->[0]");
	like($out, qr/\Q$bad->[1]\E.*:\d+/, 'with a message');
}

$t->done();

###############################################################################

sub nft { (($t->exec('gateway', 'nft', @_))[1]) }

sub counted_by {
	my ($counter) = @_;
	return nft(qw/ list counter inet count /, $counter) =~ /packets (\d+)/
		? $1 : undef;
}

# what a sub returns, and how much was marked

sub marked {
	my ($counter, $sub) = @_;

	my $before = counted_by($counter);
	my $result = $sub->();

	return "$result, " . (counted_by($counter) - $before);
}

sub datagram {
	my ($host, $port) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::udp_to($host, $port);
		$s->send('hello');
		return Test::Tun::udp_recv($s, 2) // 'nothing';
	});
}
