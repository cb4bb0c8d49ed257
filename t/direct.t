#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_direct: the flow's own destination, by address and by name,
# and what is refused.

use warnings;
use strict;

use Test::More;

use Test::Tun;
use Test::Tun::Proxy;

my $t = Test::Tun->new();

destinations($t);
dns($t);

# what must not be reached: in the namespace of nginx, on all addresses

$t->server(9001, sub {
	my ($s) = @_;
	sysread($s, my $buf, 100);
	Test::Tun::write_all($s, "gateway $buf");
}, ns => 'gateway');

$t->ip('gateway', qw/ addr add 169.254.7.7\/16 dev lo /);
$t->ip('gateway', qw/ route add local 192.0.2.0\/24 dev lo /);

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$server_port|$status|$upstream_addr';
    access_log %%DIR%%/logs/access.log main;

    resolver 10.1.0.2:5300 valid=1s;
    resolver_timeout 1s;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    upstream direct { tun_direct; }
    upstream some   { tun_direct allow=127.0.0.1 allow=::1; }

    server {
        tun_listen tun0;
        proxy_pass direct;
    }

    # what a session asks for

    map $server_port $target {
        8001 four.example:9001;
        8002 six.example:9001;
        8003 both.example:9001;
        8004 none.example:9001;
        8005 slow.example:9001;
        8006 local.example:9001;
        8007 half.example:9001;
        8008 dead.example:9099;
        8011 127.0.0.1:9001;
        8012 [::1]:9001;
        8013 0.0.0.0:9001;
        8014 [::]:9001;
        8015 169.254.7.7:9001;
        8016 [fe80::1]:9001;
        8017 224.0.0.1:9001;
        8018 [ff02::1]:9001;
        8019 10.1.0.1:9001;
        8020 [fd00:1::1]:9001;
        8021 192.0.2.77:9001;
        8022 [::ffff:127.0.0.1]:9001;
        8023 [::ffff:10.1.0.1]:9001;
        8024 127.1.2.3:9001;
        8025 255.255.255.255:9001;
        8026 10.1.0.255:9001;
        8027 [::127.0.0.1]:9001;
        8028 "bad name:1";
        8029 no-port;
    }

    upstream to      { tun_direct destination=$target; }
    upstream to_some { tun_direct destination=$target allow=127.0.0.1
                                  allow=::1 allow=10.1.0.0/24; }
    upstream header  { tun_direct destination=four.example:9010;
                       tun_handshake proxy_v2 authority=four.example; }
    upstream udp     { tun_direct destination=$udp; }

    map $server_port $udp {
        8301 four.example:9053;
        8302 10.2.0.1:9053;
        8303 local.example:9053;
    }

    server {
        listen 8001-8029;
        proxy_pass to;
        proxy_connect_timeout 3s;
    }

    server {
        listen 8100;
        proxy_pass header;
    }

    server {
        listen 8101;
        proxy_pass some;
    }

    server {
        listen 8111;
        proxy_pass allowed;
    }

    upstream allowed { tun_direct destination=localname.example:9001
                                  allow=127.0.0.0/8; }

    server {
        listen 8301-8303 udp;
        proxy_pass udp;
        proxy_timeout 2s;
    }
}
EOF

my %ns = (ns => 'server');
my $closed = qr/^(?:closed|reset)$/;

# nginx keeps its sockets to the resolver

is((to(8001))[0], "echo hello\n", 'the first name');

my $fds = settled($t);

for my $family (@Test::Tun::FAMILIES) {
	my $name = $family->{name};
	my $host = $family->{server};

	my ($got, $line) = session($t, sub { ask($t, $host, 9001) });
	is($got, "echo hello\n", "by address, $name");
	is($line, "9001|200|$family->{url}:9001", "by address, log, $name");

	is(ask($t, $host, 9002, silent => 1), "BANNER\n",
		"server first, $name");
	is(sum($t, $host, 500000), 'same', "bytes, $name");
	is(ask($t, $host, 9), 'refused', "nobody there, $name");

	($got, $line) = session($t, sub {
		ask($t, $family->{gateway}, 9001) });
	is($got, 'refused', "own address, $name");
	like($line, qr/^9001\|502\|/, "own address, log, $name");
}

# names

for ([ 8001, '10.2.0.1:9001' ], [ 8002, '[fd00:2::1]:9001' ]) {
	my ($port, $addr) = @$_;

	for my $time (1, 2) {
		my ($got, $line) = to($port);
		is($got, "echo hello\n", "by name, $addr, $time");
		is($line, "$port|200|$addr", "by name, $addr, log, $time");
	}
}

my ($got, $line) = to(8003);
is($got, "echo hello\n", 'by name, both');

for ([ 8004, 'no such name' ], [ 8005, 'no answer of the resolver' ],
	[ 8006, 'a name of the loopback' ])
{
	($got, $line) = to($_->[0]);
	like($got, $closed, $_->[1]);
	like($line, qr/^$_->[0]\|502\|/, "$_->[1], log");
}

# a good address beside bad ones, and beside dead ones

is((to(8007))[0], "echo hello\n", 'a bad address is left out') for 1 .. 3;

my %tried;

for (1 .. 12) {
	($got, $line) = to(8008);
	is($got, "echo hello\n", 'after a dead one, the next one');
	$tried{$_} = 1 for split /, /, (split /\|/, $line)[2];
}

is(join(' ', sort keys %tried), '10.1.0.77:9099 10.2.0.1:9099 10.4.0.1:9099',
	'all of them in the log');

# what is refused

for my $port (8011 .. 8027) {
	($got, $line) = to($port);
	like($got, $closed, "refused: $port");
	like($line, qr/^$port\|502\|/, "refused, log: $port");
}

for my $port (8028, 8029) {
	($got, $line) = to($port);
	like($got, $closed, "no destination: $port");
	is($line, "$port|500|-", "no destination, log: $port");
}

is(ask($t, '10.1.0.1', 8111, %ns), "gateway hello\n", 'allowed');

# a handshake with it

like(ask($t, '10.1.0.1', 8100, %ns), qr/^proxy v2 .*four\.example/,
	'tun_handshake, by name');

# UDP

is(udp(8301), 'echo datagram', 'UDP, by name');
is(udp(8302), 'echo datagram', 'UDP, by address');
is(udp(8303), 'nothing', 'UDP, refused');

like($t->error_log(), qr/\[warn\].*refuses 127.0.0.1:9001, a loopback addr/,
	'a loopback address in the log');
like($t->error_log(), qr/refuses 10.1.0.1:9001, the machine's own address/,
	"the machine's own address in the log");

ok(finished($t, $fds), 'no descriptor left') or diag(descriptors($t));

# many, half of them gone while the name is looked up

$t->in('server', sub {
	for my $n (1 .. 300) {
		my $s = Test::Tun::connect_to('10.1.0.1', $n % 2 ? 8005 : 8001);
		close $s;
	}
	return 1;
});

ok(finished($t, $fds), 'nor after clients that went away')
	or diag(descriptors($t));

is((to(8001))[0], "echo hello\n", 'still alive');

for my $bad (
	[ 'tun_direct; tun_direct;', 'is duplicate' ],
	[ 'tun_direct allow=x;', 'invalid network "x"' ],
	[ 'tun_direct x;', 'invalid parameter "x"' ],
	[ 'tun_direct; server 10.1.0.2:1;', '"tun_direct" has neither "server"' ],
	[ 'tun_direct; least_conn;', 'no servers in upstream "u"' ],
	[ 'least_conn; tun_direct;', 'not a method beside' ],
) {
	my ($rc, $out) = $t->test_conf("%%GLOBALS%%\n%%EVENTS%%\nstream {\n"
		. "upstream u { $bad->[0] }\n"
		. "server { listen 8001; proxy_pass u; }\n}\n");

	isnt($rc, 0, "refused: $bad->[0]");
	like($out, qr/\Q$bad->[1]\E.*:\d+/, 'with a message');
}

$t->done();

###############################################################################

sub to {
	my ($port) = @_;
	return session($t, sub { ask($t, '10.1.0.1', $port, %ns) });
}

sub udp {
	my ($port) = @_;

	return $t->in('server', sub {
		my $s = IO::Socket::IP->new(PeerHost => '10.1.0.1',
			PeerPort => $port, Proto => 'udp') or return "$@";
		$s->send('datagram');
		return 'nothing' unless IO::Select->new($s)->can_read(1.5);
		my $peer = $s->recv(my $buf, 100);
		return defined $peer ? $buf : "nothing";
	});
}

# a resolver that knows the names of this test, and a few servers behind them

sub dns {
	my ($t) = @_;

	my %names = (
		'four.example' => [ [ '10.2.0.1' ], [] ],
		'six.example' => [ [], [ 'fd00:2::1' ] ],
		'both.example' => [ [ '10.2.0.1' ], [ 'fd00:2::1' ] ],
		'local.example' => [ [ '127.0.0.1' ], [ '::1' ] ],
		'localname.example' => [ [ '127.0.0.1' ], [] ],
		'half.example' => [ [ '127.0.0.1', '10.2.0.1' ], [ '::1' ] ],
		'dead.example' => [ [ '10.1.0.77', '10.2.0.1', '10.4.0.1' ],
			[] ],
	);

	$t->ip('server', qw/ addr add 10.1.0.77\/24 dev gateway /);
	$t->ip('gateway', qw/ route add unreachable 10.4.0.1 /);

	$t->daemon('server', sub {
		my $l = IO::Socket::IP->new(LocalHost => '10.2.0.1',
			LocalPort => 9099, Listen => 5, ReuseAddr => 1)
			or die "listen: $@";
		while (my $s = $l->accept()) {
			sysread($s, my $buf, 100);
			Test::Tun::write_all($s, "echo $buf");
		}
	});

	$t->daemon('server', sub {
		my $s = IO::Socket::IP->new(LocalHost => '10.1.0.2',
			LocalPort => 5300, Proto => 'udp') or die "dns: $@";

		while (defined(my $peer = $s->recv(my $query, 1000))) {
			my $answer = dns_answer($query, \%names);
			$s->send($answer, 0, $peer) if defined $answer;
		}
	});

	$t->daemon('server', sub {
		my $s = IO::Socket::IP->new(LocalHost => '10.2.0.1',
			LocalPort => 9053, Proto => 'udp') or die "udp: $@";
		while (defined(my $peer = $s->recv(my $data, 1000))) {
			$s->send("echo $data", 0, $peer);
		}
	});

	$t->server(9010, sub {
		my ($s) = @_;
		sysread($s, my $buf, 1000);
		$buf =~ s/[^ -~]//g;
		Test::Tun::write_all($s, "proxy v2 $buf");
	});
}

sub dns_answer {
	my ($query, $names) = @_;

	my ($pos, @labels) = (12);

	while (my $len = ord substr($query, $pos, 1)) {
		push @labels, substr($query, $pos + 1, $len);
		$pos += $len + 1;
	}

	my $type = unpack('n', substr($query, $pos + 1, 2));
	my $name = lc join '.', @labels;

	return undef if $name eq 'slow.example';

	my $found = $names->{$name};
	my @addrs = $found ? @{ $found->[$type == 28] } : ();

	return pack('nnnnnn', unpack('n', $query), $found ? 0x8180 : 0x8183,
		1, scalar @addrs, 0, 0) . substr($query, 12, $pos + 5 - 12)
		. join '', map {
			my $addr = Socket::inet_pton($type == 28
				? Socket::AF_INET6() : Socket::AF_INET(), $_);
			pack('nnnNn', 0xc00c, $type, 1, 60, length $addr)
				. $addr
		} @addrs;
}
