#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for UDP packets made by hand: what is taken, what is not, and that
# nothing of it disturbs a flow.

use warnings;
use strict;

use Test::More;
use Time::HiRes qw/ sleep time /;

use Test::Tun;
use Test::Tun::Raw;

my $t = Test::Tun->new();

$t->udp_server(9000, sub {
	my (undef, $data) = @_;
	open(my $fh, '>>', "$t->{dir}/got") or return;
	syswrite($fh, substr($data, 0, 100) . "\n");
	return $data;
});

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0 udp;
        proxy_pass $tun_target;
        proxy_buffer_size 64k;
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

my %src = (IPv4 => '198.18.9.9', IPv6 => 'fd00:198:18::9');
my %all = (IPv4 => '198.19.255.255', IPv6 => 'ff02::1');

for my $family (@Test::Tun::FAMILIES) {
	my $name = $family->{name};
	my $v4 = $name eq 'IPv4';

	# what, how it is made, and what becomes of it

	my @cases = (
		[ 'good', {}, 'taken' ],
		[ 'TTL 1', { ttl => 1 }, 'taken' ],
		[ 'wrong checksum', { bad_sum => 1 }, 'checksum' ],
		[ 'no checksum', { no_sum => 1 }, $v4 ? 'taken' : 'checksum' ],
		[ 'source port 0', { sport => 0 }, 'invalid' ],
		[ 'destination port 0', { dport => 0 }, 'invalid' ],
		[ 'length 0', { len => 0 }, 'invalid' ],
		[ 'length 7', { len => 7 }, 'invalid' ],
		[ 'length of more', { len => 1000 }, 'invalid' ],
		[ 'to the device', { dst => $family->{client} }, 'invalid' ],
		[ 'to all', { dst => $all{$name} }, 'invalid' ],
		[ 'from all', { src => $v4 ? '224.0.0.1' : 'ff02::1' },
			'invalid' ],
		[ 'from loopback', { src => $v4 ? '127.0.0.1' : '::1' },
			'invalid' ],
		[ 'from nobody', { src => $v4 ? '0.0.0.0' : '::' },
			'invalid' ],
		$v4 ? (
			[ 'options', { ip_options => "\1" x 8 }, 'taken' ],
			[ 'source route', { ip_options => pack('C8', 131, 7, 4,
				10, 1, 0, 2, 0) }, 'invalid' ],
			[ 'broken options', { ip_options => pack('C4', 7, 200,
				4, 0) }, 'invalid' ],
		) : (
			[ 'hop-by-hop', { next_header => 0, ip_options =>
				pack('C8', 17, 0, 1, 4, 0, 0, 0, 0) },
				'taken' ],
			[ 'destination options', { next_header => 60,
				ip_options => pack('C8', 17, 0, 1, 4, 0, 0, 0,
				0) }, 'taken' ],
			[ 'routing header', { next_header => 43, ip_options =>
				pack('C8', 17, 0, 0, 1, 0, 0, 0, 0) },
				'invalid' ],
			[ 'endless chain', { next_header => 60, ip_options =>
				pack('C8', 60, 0, 1, 4, 0, 0, 0, 0) x 20 },
				'invalid' ],
		),
	);

	for my $case (@cases) {
		my ($what, $how, $result) = @$case;
		my $label = "$what, $name";
		my $before = $result eq 'taken' ? 0 : status($result);

		Test::Tun::spew("$t->{dir}/got", '');

		packets($family, sub { $_[0]->udp_packet($label, %$how) });

		if ($result eq 'taken') {
			ok(Test::Tun::wait_for(3, sub { got() eq "$label\n" }),
				$label) or diag(got());
			next;
		}

		is(status($result), $before + 1, "$label, counted");
		is(got(), '', "$label, not taken");
	}

	# garbage, and a flow in between

	my ($good, $n) = $t->in('client', sub {
		my $r = raw($family);
		my $s = Test::Tun::udp_to($family->{server}, 9000);
		my $good = 0;

		for my $n (1 .. 3000) {
			$r->send_packet(garbage($r));
			next if $n % 100;

			$s->send("flow $n");
			$good++ if (Test::Tun::udp_recv($s, 2) // '')
				eq "flow $n";
		}

		return ($good, 3000);
	});

	is($good, 30, "a flow among garbage, $name");
}

$t->done();

sub raw {
	my ($family) = @_;

	return Test::Tun::Raw->new(src => $src{$family->{name}},
		dst => $family->{server}, sport => 1024 + int rand 60000,
		dport => 9000);
}

# those packets, and a good one from another port: when it is there, they were

sub packets {
	my ($family, @packets) = @_;

	$t->in('client', sub {
		my $r = raw($family);
		$r->send_packet($_->($r)) for @packets;

		my $s = Test::Tun::udp_to($family->{server}, 9000);
		$s->send('');
		return defined Test::Tun::udp_recv($s, 3);
	});
}

# a header that is good, wrong at one place, or nothing

sub garbage {
	my ($r) = @_;

	my $p = $r->udp_packet('g' x int rand 100);
	my $what = int rand 4;

	substr($p, int rand length $p, 1) = chr int rand 256 if $what == 0;
	substr($p, int rand 28, 1) = chr int rand 256 if $what == 1;
	$p = substr($p, 0, 1 + int rand length $p) if $what == 2;
	$p = join '', map { chr int rand 256 } 1 .. 1 + int rand 100
		if $what == 3;

	return $p;
}

sub got { Test::Tun::slurp("$t->{dir}/got") =~ s/^\n//gmr }

sub status {
	my ($name) = @_;

	my (undef, $json) = $t->exec('gateway', 'curl', '-sS',
		'http://127.0.0.1:8099/');
	return JSON::PP::decode_json($json)->{tun}[0]{total}{$name};
}
