#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for ICMP and ICMPv6 made by hand: what is not answered, how much is,
# and who gets which answer.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::Raw;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes WORKERS;

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
        icmp    ICMP;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }
}
EOF

sub run {
	my ($icmp, $workers) = @_;
	$t->run($conf =~ s/ICMP/$icmp/r =~ s/WORKERS/$workers || 1/er);
}

sub counter {
	my ($name) = @_;
	my (undef, $out) = $t->exec('gateway',
		qw{ curl -s http://127.0.0.1:8080/tun });
	return $out =~ /"total":\{[^}]*"\Q$name\E":(\d+)/ ? $1 : $out;
}

# packets from a client, and what comes back: runs in its namespace

sub talk {
	my ($family, $sub) = @_;

	return $t->in('client', sub {
		my $r = Test::Tun::Raw->new(src => $family->{src},
			dst => $family->{dst});
		return $sub->($r);
	});
}

my @families = (
	{ name => 'IPv4', src => '198.18.0.77', dst => '203.0.113.9',
	  other => '198.18.0.78', far => '198.18.7.7', server => '10.1.0.2',
	  multicast => '224.0.0.1', broadcast => '198.19.255.255',
	  echo => 8, reply => 0, exceeded => 11, timestamp => [ 13, 0 ] },
	{ name => 'IPv6', src => 'fd00:198:18::77', dst => '2001:db8::9',
	  other => 'fd00:198:18::78', far => 'fd00:198:18:1::7',
	  server => 'fd00:1::2', multicast => 'ff02::1',
	  echo => 128, reply => 129, exceeded => 3, timestamp => [ 139, 0 ] },
);

run('reply');

# what is answered, and how

for my $f (@families) {
	my ($options, $next) = $f->{name} eq 'IPv4' ? ("\1\1\1\0", undef)
		: (pack('C C C C a4', 58, 0, 1, 4, ''), 60);

	for my $case ([ 'plain' ], [ 'options', ip_options => $options,
		next_header => $next ], [ 'TTL 1', ttl => 1 ])
	{
		my ($name, @args) = @$case;

		is_deeply(talk($f, sub {
			my ($r) = @_;
			$r->send_packet($r->echo_packet(77, 5, 'data!', @args));
			return $r->recv_icmp(2) || 'nothing';
		}), { src => $f->{dst}, dst => $f->{src}, ttl => 64, code => 0,
			type => $f->{reply}, id => 77, seq => 5,
			data => 'data!', good => 1 }, "$name, $f->{name}");
	}
}

# what is not

for my $f (@families) {
	my @cases = (
		[ 'checksum', sub { $_[0]->echo_packet(1, 1, 'x',
			bad_sum => 1) }, 'checksum' ],
		[ 'multicast', sub { $_[0]->echo_packet(1, 1, 'x',
			dst => $f->{multicast}) }, 'invalid' ],
		[ 'code', sub { $_[0]->icmp_packet($f->{echo}, 1, 'abcd') },
			'unsupported' ],
		[ 'a reply', sub { $_[0]->icmp_packet($f->{reply}, 0,
			'abcd') }, 'unsupported' ],
		[ 'a timestamp', sub { $_[0]->icmp_packet(
			@{ $f->{timestamp} }, 'a' x 16) }, 'unsupported' ],
		[ 'an error', sub { $_[0]->icmp_packet($f->{exceeded}, 0,
			"\0" x 4 . $_[0]->echo_packet(1, 1, 'x')) },
			'unsupported' ],
		[ 'truncated', sub { $_[0]->icmp_packet($f->{echo}, 0,
			'abc') }, 'invalid' ],
		[ 'another family', sub { $_[0]->icmp_packet($f->{echo}, 0,
			'abcd', protocol => $f->{name} eq 'IPv4' ? 58 : 1) },
			'invalid' ],
	);

	push @cases, [ 'broadcast', sub { $_[0]->echo_packet(1, 1, 'x',
		dst => $f->{broadcast}) }, 'unsupported' ],
		[ 'everybody', sub { $_[0]->echo_packet(1, 1, 'x',
		dst => '255.255.255.255') }, 'invalid' ],
		[ 'a fragment', sub { $_[0]->echo_packet(1, 1, 'x',
		fragment => 0x2000) }, 'fragments_invalid' ] if $f->{broadcast};

	for my $case (@cases) {
		my ($name, $packet, $counter) = @$case;
		my $before = counter($counter);

		is(talk($f, sub {
			my ($r) = @_;
			$r->send_packet($packet->($r));
			$r->send_packet($r->echo_packet(9, 9, ''));
			my $p = $r->recv_icmp(2) or return 'nothing';
			return $p->{id} == 9 && $p->{seq} == 9 ? 'the next'
				: 'an answer';
		}), 'the next', "$name, $f->{name}");

		is(counter($counter), $before + 1, "$name, counted");
	}
}

# rubbish

is(talk($families[$_], sub {
	my ($r) = @_;
	my $good = $r->echo_packet(1, 1, 'x' x 40);
	srand(1);

	for my $i (1 .. 3000) {
		my $p = $good;
		substr($p, int rand length $p, 1) = chr int rand 256
			for 0 .. rand 4;
		$p = substr($p, 0, int rand(length($p) + 1)) if rand() < 0.3;
		$r->send_packet($p) if length $p;
	}

	return 1;
}), 1, "rubbish, $families[$_]{name}") for 0, 1;

# no more than a second's worth for a source, which is a /64 for IPv6

sleep(1.1);

for my $f (@families) {
	my $before = counter('limited_icmp');

	my $n = talk($f, sub {
		my ($r) = @_;
		my ($n, $other, $far) = (0, 0, 0);
		my $start = time();

		for my $i (1 .. 3000) {
			$r->send_packet($r->echo_packet(1, $i, ''));
			$n++ while $i % 100 == 0 && $r->recv_icmp(0.002);
		}

		$n++ while $r->recv_icmp(0.2);

		my $most = 1000 + (time() - $start) * 1000;

		# these are of the same second

		$r->send_packet($r->echo_packet(2, $_, '', src => $f->{other}))
			for 1 .. 3000;
		$other++ while $r->recv_icmp(0.1);

		$r->send_packet($r->echo_packet(3, $_, '', src => $f->{far}))
			for 1 .. 10;
		$far++ while $r->recv_icmp(0.1);

		return { n => $n, most => $most, other => $other,
			far => $far };
	});

	cmp_ok($n->{n}, '>=', 1000, "limit, $f->{name}");
	cmp_ok($n->{n}, '<=', $n->{most}, "limit, not more, $f->{name}");
	is($n->{far}, 10, "limit, another source, $f->{name}");
	cmp_ok($n->{other}, $f->{name} eq 'IPv4' ? '>=' : '<', 1000,
		"limit, a neighbour, $f->{name}");
	cmp_ok(counter('limited_icmp') - $before, '>=', 1000,
		"limited_icmp, $f->{name}");
}

$t->stop();

# errors have a limit of their own

run('forward');

for my $f (@families) {
	my $before = counter('icmp_errors');

	my $n = talk($f, sub {
		my ($r) = @_;
		my $n = 0;
		$r->send_packet($r->echo_packet(1, $_, '', ttl => 1))
			for 1 .. 400;
		while (my $p = $r->recv_icmp(0.3)) {
			$n++ if $p->{type} == $f->{exceeded} && $p->{good};
		}
		return $n;
	});

	cmp_ok($n, '>=', 100, "errors, $f->{name}");
	cmp_ok($n, '<', 200, "errors, limit, $f->{name}");
	is(counter('icmp_errors') - $before, $n, "icmp_errors, $f->{name}");
}

$t->stop();

# everybody gets his own answer, and all of them do

for my $workers (1, 3) {
	run('forward', $workers);

	for my $f (@families) {
		my ($wrong, $n) = @{ talk($f, sub { [ clients($f, @_) ] }) };
		my $name = "$workers workers, $f->{name}";

		is($wrong, 0, "wrong answers, $name");
		is($n, 6000, "answers, $name");
	}

	$t->stop();
}

# more clients than the table has room for

sub clients {
	my ($f, $r) = @_;
	my ($wrong, $n) = (0, 0);

	for my $i (1 .. 6000) {
		my $src = $f->{name} eq 'IPv4'
			? sprintf('198.18.%d.%d', 1 + $i / 250, 1 + $i % 250)
			: sprintf('fd00:198:%x::%x', 256 + $i, $i);
		my $id = $i % 7;

		$r->send_packet($r->echo_packet($id, $i, "$src $id $i",
			src => $src, dst => $f->{server}));

		next if $i % 50 && $i != 6000;

		while (my $p = $r->recv_icmp($i == 6000 ? 1 : 0.01)) {
			$n++;
			$wrong++ if $p->{type} != $f->{reply} || !$p->{good}
				|| $p->{src} ne $f->{server}
				|| $p->{data} ne "$p->{dst} $p->{id} $p->{seq}";
			last if $n == 6000;
		}
	}

	return ($wrong, $n);
}

$t->done();
