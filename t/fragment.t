#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for packets in fragments: those of real hosts, both ways, and those
# made by hand.

use warnings;
use strict;

use Test::More;
use Time::HiRes qw/ sleep time /;

use Test::Tun;
use Test::Tun::Raw;

my $t = Test::Tun->new(forward => 1);

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        offload OFFLOAD;
        mtu     1300;
        fragments timeout=1s datagrams=8;
    }

    server {
        tun_listen tun0 udp;
        proxy_pass $tun_target;
        proxy_buffer_size 64k;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }
}

http {
    access_log off;

    server {
        listen 127.0.0.1:8099;
        location / { tun_status; }
    }
}
EOF

$t->udp_server(9000, sub {
	my (undef, $data) = @_;
	open(my $fh, '>>', "$t->{dir}/got") or return;
	syswrite($fh, length($data) . ' ' . substr($data, 0, 20) . "\n");
	return $data;
});

$t->server(9001, sub {
	my ($s) = @_;
	sysread($s, my $data, 100);
	Test::Tun::write_all($s, $data);
});

# hosts whose links are narrower than that of the server

$t->ip('client', qw/ link set gateway mtu 1300 /);
$t->ip('gateway', qw/ link set client mtu 1300 /);

for my $offload ('on', 'off') {
	$t->run($conf =~ s/OFFLOAD/$offload/r);

	my $watch = $t->start('gateway', \&longest, 8);

	for my $family (@Test::Tun::FAMILIES) {
		for my $size (1272, 1400, 5000, 65507) {
			my $label = "$size bytes, $family->{name}, "
				. "offload $offload";

			is($t->in('client', \&echo, $family->{server}, $size),
				'same', $label);
		}
	}

	cmp_ok(status('reassembled'), '>=', 5, "reassembled, offload $offload");

	my ($longest, $fragments) = $t->wait($watch);

	# with offloads the kernel makes them, behind the device

	cmp_ok($longest, '<=', 1300, 'no packet is longer than the MTU'),
	cmp_ok($fragments, '>', 90, 'fragments') if $offload eq 'off';

	$t->stop();
}

# by hand, on the device

$t->run($conf =~ s/OFFLOAD/off/r);

my $data = Test::Tun::bytes('data', 3600);
my $last = 1000;	# the number of a datagram

for my $family (@Test::Tun::FAMILIES) {
	my $name = $family->{name};

	# pieces, as [ from, to, more ], and what becomes of them

	my @three = ([ 0, 1200, 1 ], [ 1200, 2400, 1 ], [ 2400, 3608, 0 ]);

	for my $case (
		[ 'in order', \@three, 'whole' ],
		[ 'in reverse', [ reverse @three ], 'whole' ],
		[ 'the middle first', [ @three[1, 0, 2] ], 'whole' ],
		[ 'twice the same', [ @three[0, 0, 1, 1, 2] ], 'whole' ],
		[ 'overlapping', [ $three[0], [ 1192, 2400, 1 ], $three[2] ],
			'fragments_overlapping' ],
		[ 'overlapping, later', [ @three[0, 1], [ 2392, 3608, 0 ],
			$three[2] ], 'fragments_overlapping' ],
		[ 'a hole', [ @three[0, 2] ], 'fragments_timed_out' ],
		[ 'no beginning', [ @three[1, 2] ], 'fragments_timed_out' ],
		[ 'no end', [ @three[0, 1] ], 'fragments_timed_out' ],
		[ 'odd', [ [ 0, 1201, 1 ] ], 'fragments_invalid' ],
		[ 'beyond the end', [ [ 65528, 65568, 0 ] ],
			'fragments_invalid' ],
		[ 'two ends', [ $three[2], [ 2400, 3600, 0 ] ],
			'fragments_overlapping|fragments_invalid' ],
	) {
		my ($what, $pieces, $result) = @$case;
		my $label = "$what, $name";

		Test::Tun::spew("$t->{dir}/got", '');
		my $before = $result eq 'whole' ? 0 : any($result);

		pieces($family, @$pieces);

		if ($result eq 'whole') {
			ok(Test::Tun::wait_for(3, sub {
				got() eq "3600 " . substr($data, 0, 20) . "\n"
			}), $label) or diag(got());
			next;
		}

		ok(Test::Tun::wait_for(4, sub { any($result) > $before }),
			"$label, counted");
		is(got(), '', "$label, not taken");
	}

	# over the limit the oldest gives way, and the last is whole

	my $before = status('fragments_limited');
	Test::Tun::spew("$t->{dir}/got", '');

	pieces($family, map { [ 0, 1200, 1, $_ ] } 100 .. 119);
	pieces($family, map { [ @$_, 200 ] } @three);

	ok(Test::Tun::wait_for(3, sub { got() ne '' }), "a crowd, $name");
	cmp_ok(status('fragments_limited'), '>=', $before + 10,
		"a crowd, limited, $name");

	# IPv6 has no routers that cut: who says that it was too much is heard

	is($t->in('gateway', \&narrowed, $family), '1 2',
		"a narrow path, $name") if $family->{name} eq 'IPv6';

	# other protocols

	is($t->in('gateway', \&pinged, $family), 'answer',
		"a ping in pieces, $name");
	is($t->in('gateway', \&connected, $family), 'SYN ACK',
		"a SYN in pieces, $name");
}

$t->done();

sub echo {
	my ($host, $size) = @_;

	my $s = Test::Tun::udp_to($host, 9000) or return "$@";
	setsockopt($s, Socket::SOL_SOCKET, Socket::SO_SNDBUF, 1000000);

	my $data = Test::Tun::bytes("$size", $size);

	# the path of IPv6 may have to be learnt

	for (1 .. 3) {
		defined $s->send($data) or return "send: $!";
		my $got = Test::Tun::udp_recv($s, 1) // next;
		return $got eq $data ? 'same' : 'other';
	}

	return 'none';
}

# of packets out of the device: the longest, and how many were fragments

sub longest {
	my ($seconds) = @_;

	my $r = Test::Tun::Raw->new(src => '10.3.0.2', dst => '10.1.0.2');
	my ($end, $longest, $fragments) = (time() + $seconds, 0, 0);

	while (time() < $end) {
		next unless IO::Select->new($r->{s})->can_read(0.1);
		my $from = recv($r->{s}, my $p, 70000, 0) // next;
		next if (unpack('S n i S C', $from))[4] == 4;

		$longest = length $p if length $p > $longest;
		$fragments++ if ord($p) >> 4 == 4
			? unpack('x6 n', $p) & 0x3fff
			: ord(substr $p, 6) == 44;
	}

	return ($longest, $fragments);
}

sub raw {
	my ($family, %args) = @_;

	return Test::Tun::Raw->new(dst => $family->{server}, sport => 20000
		+ int rand 40000, dport => 9000, src => $family->{name} eq 'IPv4'
			? '10.3.0.2' : 'fd00:3::2', %args);
}

sub pieces {
	my ($family, @pieces) = @_;
	my $id = ++$last;

	$t->in('gateway', sub {
		my $r = raw($family, sport => 20000 + $id);
		my $payload = $r->udp_payload($data) . 'x' x 70000;

		$r->send_packet($r->piece(17, $payload, @$_[0 .. 2],
			id => $_->[3] // $id)) for @pieces;
		return 1;
	});
}

# the answers to two datagrams, as packets; between them one is too big

sub narrowed {
	my ($family) = @_;

	my $r = raw($family, sport => 30000);
	my @n;

	for my $size (1245, 1245) {
		$r->send_packet($_) for $r->udp_packet('n' x $size);

		my ($n, $end, $quote) = (0, time() + 1);

		while (time() < $end) {
			next unless IO::Select->new($r->{s})->can_read(0.1);
			my $from = recv($r->{s}, my $p, 70000, 0) // next;
			next if (unpack('S n i S C', $from))[4] == 4
				|| $p !~ /n{15}/;

			$n++;
			$quote //= substr($p, 0, 500);
		}

		push @n, $n;

		$r->send_packet($r->icmp_packet(2, 0, pack('N', 1280)
			. $quote));
	}

	return "@n";
}

sub pinged {
	my ($family) = @_;

	my $r = raw($family);
	my $echo = $r->echo_packet(7, 7, 'p' x 2000);
	my $icmp = substr($echo, $r->{v6} ? 40 : 20);

	$r->send_packet($r->piece($r->{v6} ? 58 : 1, $icmp, @$_, id => 77))
		for [ 0, 1000, 1 ], [ 1000, 2008, 0 ];

	# it comes in pieces too, the first has the header

	my $end = time() + 2;

	while (time() < $end) {
		next unless IO::Select->new($r->{s})->can_read(0.1);
		my $from = recv($r->{s}, my $p, 70000, 0) // next;
		next if (unpack('S n i S C', $from))[4] == 4;

		return 'answer' if index($p, 'p' x 100) > 0
			&& ord(substr $p, $r->{v6} ? 48 : 20)
				== ($r->{v6} ? 129 : 0);
	}

	return 'none';
}

sub connected {
	my ($family) = @_;

	my $r = raw($family, dport => 9001);
	my $syn = $r->packet(flags => Test::Tun::Raw::SYN,
		options => "\1" x 4, data => 'x' x 16);
	my $tcp = substr($syn, $r->{v6} ? 40 : 20);

	$r->send_packet($r->piece(6, $tcp, @$_, id => 78))
		for [ 0, 24, 1 ], [ 24, 40, 0 ];

	my $p = $r->recv_tcp(2) or return 'none';

	return $p->{flags} == (Test::Tun::Raw::SYN | Test::Tun::Raw::ACK)
		? 'SYN ACK' : $p->{flags};
}

sub got { Test::Tun::slurp("$t->{dir}/got") }

sub any {
	my ($names) = @_;
	my $sum = 0;
	$sum += status($_) for split /\|/, $names;
	return $sum;
}

sub status {
	my ($name) = @_;

	my (undef, $json) = $t->exec('gateway', 'curl', '-sS',
		'http://127.0.0.1:8099/');
	return JSON::PP::decode_json($json)->{tun}[0]{total}{$name};
}
