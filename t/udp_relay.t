#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_udp_relay: one upstream port for a source, whatever its
# destinations, and answers as the filter says (RFC 4787).

use warnings;
use strict;

use Test::More;

use Test::Tun;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$remote_addr $remote_port $status $bytes_received '
                    '$bytes_sent $tun_relay_peers $tun_relay_sent '
                    '$tun_relay_received $tun_relay_filtered';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        offload OFFLOAD;
        udp_timeout 2s;
    }

    server {
        tun_listen tun0 udp;
        tun_udp_relay on FILTER;
    }

    server {
        tun_listen tun0 udp :9009;
        return other;
    }

    server {
        tun_listen tun0 udp :9010;
        deny all;
        tun_udp_relay on;
    }
}
EOF

# who came

$t->udp_server($_, sub { "$_[1] " . port($_[2]) }) for 9000, 9001;

# an answer from the other port of the host, and to another one: from where
# the client has not sent to

$t->udp_server(9002, sub {
	my ($s, $data, $from) = @_;
	my $other = IO::Socket::IP->new(LocalAddr => '::', V6Only => 0,
		Type => Socket::SOCK_DGRAM);
	send($other, "other port", 0, $from);
	return 'same port';
});

$t->udp_server(9003, sub { map { "$_ " . 'x' x 1000 } 1 .. 60 });

my %other = (independent => 'other port', address => 'other port',
	port => 'same port only');

for my $case ([ 'independent', 'on' ], [ 'independent', 'off' ],
	[ 'address', 'on' ], [ 'port', 'on' ])
{
	my ($filter, $offload) = @$case;

	$t->run($conf =~ s/OFFLOAD/$offload/r
		=~ s/FILTER/filtering=$filter/r);

	relays($_, $filter, "$_->{name}, $filter, offload $offload")
		for @Test::Tun::FAMILIES;

	$t->stop();
}

# the configuration

for my $case (
	[ 'tun_udp_relay maybe;', 'invalid value "maybe"' ],
	[ 'tun_udp_relay on filtering=none;',
		'invalid parameter "filtering=none"' ],
	[ 'tun_udp_relay on; tun_udp_relay on;', 'is duplicate' ],
	[ 'tun_udp_relay on; tun_listen tun0 tcp :1;',
		'needs the "udp" parameter' ],
) {
	my ($directive, $message) = @$case;

	my ($rc, $out) = $t->test_conf($conf
		=~ s/tun_udp_relay on FILTER;/$directive/r
		=~ s/OFFLOAD/on/r);
	isnt($rc, 0, "$directive is an error");
	like($out, qr/\Q$message\E/, $directive);
}

$t->done();

sub relays {
	my ($family, $filter, $label) = @_;
	my ($host, $gateway) = @{$family}{qw/ server gateway /};

	# one port for two destinations

	my ($sport, @got) = $t->in('client', sub {
		my $s = client($family);
		return ($s->sockport(), map {
			to($s, $host, $_, 'x'); Test::Tun::udp_recv($s)
		} 9000, 9001, 9000);
	});

	like("@got", qr/^x (\d+) x \1 x \1$/, "one port, $label");

	ok($t->wait_for_log(qr/^\S+ $sport 200 3 \d+ (2|1) 3 3 0$/m,
		'access.log'), "log, $label");

	# who may answer

	is($t->in('client', sub {
		my $s = client($family);
		to($s, $host, 9002, 'x');
		my %got = map { $_ => 1 } grep { defined }
			map { Test::Tun::udp_recv($s, 1) } 1 .. 2;
		return $got{'same port'} ? $got{'other port'} ? 'other port'
			: 'same port only' : 'nothing';
	}), $other{$filter}, "other port, $label");

	# sizes; sent one after the other, the kernel may get them together

	is($t->in('client', \&sizes, $family), 'same', "sizes, $label");

	is($t->in('client', sub {
		my $s = client($family);
		setsockopt($s, Socket::SOL_SOCKET, Socket::SO_RCVBUF, 1000000);
		to($s, $host, 9003, 'x');
		my $n = 0;
		$n++ while $n < 60 && (Test::Tun::udp_recv($s, 2) // '')
			eq $n + 1 . ' ' . 'x' x 1000;
		return $n;
	}), 60, "sixty answers, $label");

	# others

	is($t->in('client', sub {
		my $s = client($family);
		to($s, $host, 9000, 'x');
		Test::Tun::udp_recv($s);
		to($s, $host, 9009, 'x');
		return Test::Tun::udp_recv($s);
	}), 'other', "another server's port, $label");

	like($t->in('client', \&refused, $host, 9999), qr/refused/,
		"closed port, $label");
	like($t->in('client', \&refused, $host, 9010), qr/No route|denied/,
		"denied, $label");
}

sub client {
	my ($family) = @_;

	return IO::Socket::IP->new(LocalHost => $family->{client},
		Type => Socket::SOCK_DGRAM) || die "$@";
}

sub to {
	my ($s, $host, $port, $data) = @_;

	my $to = $host =~ /:/
		? Socket::pack_sockaddr_in6($port, Socket::inet_pton(
			Socket::AF_INET6, $host))
		: Socket::pack_sockaddr_in($port, Socket::inet_aton($host));

	defined send($s, $data, 0, $to) or die "send: $!";
}

sub port {
	my ($from) = @_;
	return (Socket::unpack_sockaddr_in6($from))[0];
}

sub sizes {
	my ($family) = @_;

	my $s = client($family);
	setsockopt($s, Socket::SOL_SOCKET, Socket::SO_SNDBUF, 1000000);

	for my $size (0, 1, 1400, 1400, 1400, 700, 1472, 1473, 9000, 65000) {
		my $data = Test::Tun::bytes("$size", $size);
		to($s, $family->{server}, 9000, $data);
		my $got = Test::Tun::udp_recv($s, 2) // return "none, $size";
		return "other, $size" unless $got =~ /^\Q$data\E \d+$/;
	}

	# a burst

	my @sizes = ((1400) x 20, 700, (64) x 10, 1, 0);

	for my $size (@sizes) {
		to($s, $family->{server}, 9000, Test::Tun::bytes("$size", $size));
	}

	for my $size (@sizes) {
		my $data = Test::Tun::bytes("$size", $size);
		my $got = Test::Tun::udp_recv($s, 2) // return "none, $size";
		return "other, $size" unless $got =~ /^\Q$data\E \d+$/;
	}

	return 'same';
}

sub refused {
	my ($host, $port) = @_;

	my $s = Test::Tun::udp_to($host, $port);

	for (1 .. 20) {
		send($s, 'x', 0) // return "$!";
		return "$!" if IO::Select->new($s)->can_read(0.1)
			&& !defined recv($s, my $data, 100, 0);
	}

	return 'none';
}
