#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for what strangers, and too many friends, get of a device.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::Raw;
use Time::HiRes qw/ sleep time /;

use constant { SYN => 2, ACK => 16, PSH => 8 };

my $t = Test::Tun->new();

# AddressSanitizer keeps what is freed, and puts zones around the rest

my $memory_factor = $t->{module} =~ /sanitize/ ? 3 : 1;

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        LIMITS
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
        proxy_connect_timeout 30s;
    }

    server {
        tun_listen tun0 203.0.113.0/24;
        proxy_pass 10.1.0.2:9004;
    }
}
EOF

sub run { $t->run($conf =~ s/LIMITS/$_[0]/r) }

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

$t->server(9001, sub {
	my ($s) = @_;
	1 while sysread($s, my $buf, 1048576);
});

# more than anybody reads, and all that comes from who leaves a hole

my @kept;

for my $port (9002, 9004) {
	$t->server($port, sub {
		my ($s) = @_;
		push @kept, $s;
		$s->blocking(0);
		setsockopt($s, Socket::SOL_SOCKET, Socket::SO_SNDBUF, 1000000);
		Test::Tun::write_all($s, 'x' x 1000000) if $port == 9002;
	}, inline => 1);
}

# nobody answers there

$t->in('server', sub {
	CORE::system('nft', 'add table inet t; add chain inet t i '
		. '{ type filter hook input priority 0; }; '
		. 'add rule inet t i tcp dport 9003 drop');
	return 1;
});

sub echoes {
	my ($timeout) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::connect_to('10.1.0.2', 9000,
			Timeout => $timeout || 5) or return "$@";
		Test::Tun::write_all($s, 'hello');
		sysread($s, my $buf, 5);
		return $buf;
	});
}

# max_flows

run('max_flows 5;');

is($t->in('client', sub {
	my @s = map { Test::Tun::connect_to('10.1.0.2', 9000) } 1 .. 8;
	return scalar grep { $_ } @s;
}), 5, 'max_flows');

ok(Test::Tun::wait_for(15, sub { echoes() eq 'hello' }),
	'max_flows, free again');
ok($t->error_log() =~ qr/\[warn\].*max_flows reached/, 'max_flows, log');
$t->stop();

# max_pending: more than that, of all or of one source, are answered first

run('max_pending 100;');

my $answers = sub {
	my ($n, $sub) = @_;

	return $t->in('client', sub {
		my $got = 0;

		my @r = map {
			my $r = Test::Tun::Raw->new(src => $sub->($_),
				dst => '10.1.0.2', dport => 9003,
				sport => 10000 + $_);
			$r->send_tcp(flags => SYN);
			$r;
		} 1 .. $n;

		sleep(0.5);

		for my $r (@r) {
			my $p = $r->recv_tcp(0.01) or next;
			$got++ if $p->{flags} == (SYN | ACK);
		}

		return $got;
	});
};

is($answers->(70, sub { '198.18.1.1' }), 6, 'max_pending of a source');
is($answers->(60, sub { "198.18.2.$_[0]" }), 24, 'max_pending of all');
is(echoes(), 'hello', 'max_pending, another gets through');
$t->stop();

# max_half_open: the largest source gives way

run('max_pending 1; max_half_open 100;');

is($t->in('client', sub {
	my $first = Test::Tun::Raw->new(src => '198.18.3.1',
		dst => '10.1.0.2', dport => 9003);
	$first->send_tcp(flags => SYN);

	my $small = Test::Tun::Raw->new(src => '198.18.3.2',
		dst => '10.1.0.2', dport => 9000);
	$small->send_tcp(flags => SYN);
	my $p = $small->recv_tcp(1) or return 'no answer';

	my $large = Test::Tun::Raw->new(src => '198.18.3.3',
		dst => '10.1.0.2', dport => 9000);
	$large->send_tcp(flags => SYN, sport => 10000 + $_) for 1 .. 300;

	$small->{seq}++;
	$small->{ack} = $p->{seq} + 1;
	$small->send_tcp(flags => ACK | PSH, data => 'hello');

	while ($p = $small->recv_tcp(1)) {
		return $p->{data} if length $p->{data};
		return 'reset' if $p->{flags} & 4;
	}
}), 'hello', 'max_half_open, the small source stays');

ok($t->error_log() =~ qr/\[warn\].*max_half_open reached/,
	'max_half_open, log');
cmp_ok(scalar(() = $t->error_log() =~ /max_half_open reached/g), '<=', 2,
	'max_half_open, one line a second');
$t->stop();

# a flood

run('');

my $bulk = sub {
	my ($seconds) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::connect_to('10.1.0.2', 9001) or return 0;
		my ($data, $n, $end) = ('x' x 1048576, 0, time() + $seconds);
		$n += syswrite($s, $data) || 0 while time() < $end;
		return $n / $seconds;
	});
};

$bulk->(0.5);

my $flood = sub {
	my ($device) = @_;

	my @r = map {
		my $net = $_;
		my $r = Test::Tun::Raw->new(src => '198.18.9.9',
			dst => '10.2.0.1');
		map { $r->packet(flags => SYN, sport => 1024 + int rand 60000,
			src => "198.18.$net." . int rand 256,
			seq => int rand 1 << 32, dport => 9000) } 1 .. 500
	} 10 .. 49;

	my $r = Test::Tun::Raw->new(src => '198.18.9.9', dst => '10.2.0.1',
		device => $device);
	my ($n, $start) = (0, time());

	while (time() - $start < 2.2) {
		$r->send_packet($r[$n++ % @r]) for 1 .. 100;
		my $ahead = $n / 20000 - (time() - $start);
		sleep($ahead) if $ahead > 0;
	}

	return $n / (time() - $start);
};

# and what it costs the machine to send all that to nobody, in turns: it may
# have other work

my ($rate, $under, $sent) = (0, 0, 0);
my $memory = $t->rss();
my $during = $memory;

for (1 .. 3) {
	for my $device (qw/ lo tun0 /) {
		my $job = $t->start('client', sub { $flood->($device) });

		sleep(0.5);

		my $moved = $bulk->(1.5);
		my $rss = $t->rss();
		my ($n) = $t->wait($job);

		if ($device eq 'lo') {
			$rate += $moved / 3;
			next;
		}

		$under += $moved / 3;
		$sent += $n / 3;
		$during = $rss if $rss > $during;
	}
}

diag(sprintf('%.0f SYN/s, %.0f MB/s before, %.0f under it, %d MB more',
	$sent, $rate / 1e6, $under / 1e6, ($during - $memory) / 1024));

cmp_ok($sent, '>', 15000, 'SYN flood');
cmp_ok($during - $memory, '<', 64 * 1024 * $memory_factor,
	'SYN flood, memory, KB');
cmp_ok($under / $rate, '>', 0.5, 'SYN flood, an established flow');

my $start = time();
is(echoes(2), 'hello', 'SYN flood, new connections after it');
cmp_ok(time() - $start, '<', 2, 'SYN flood, at once');

$t->stop();

# memory: many that do not read, and many that leave a hole

run('');

$memory = $t->rss();

my $stalled = $t->start('client', sub {
	my @s = grep { $_ } map {
		Test::Tun::connect_to('10.1.0.2', 9002)
	} 1 .. 2000;

	# until the other one is done

	Test::Tun::wait_for(60, sub { -e "$t->{dir}/done" });
	return scalar @s;
});

my ($holes) = $t->in('client', sub {
	my $shared = Test::Tun::Raw->new(src => '198.18.4.1',
		dst => '203.0.113.1');
	my @r;

	for my $i (1 .. 2000) {
		my $r = bless { %$shared, src => '198.18.4.' . ($i % 250 + 1),
			sport => 10000 + $i }, ref $shared;
		push @r, $r if $r->open();
	}

	for my $i (1 .. 150) {
		for my $r (@r) {
			$r->send_tcp(flags => ACK, data => 'x' x 1400,
				seq => $r->{seq} + 1400 * $i);
		}
	}

	return scalar @r;
});

$during = $t->rss();

diag(sprintf('%d MB more for 2000 stalled readers, %d with a hole',
	($during - $memory) / 1024, $holes));

cmp_ok($holes, '>', 1900, 'senders with a hole');

# a session of nginx takes 32 KB of buffers besides

cmp_ok($during - $memory, '<',
	(256 + 4000 * 40 / 1024) * 1024 * $memory_factor, 'max_memory, KB');
ok($t->error_log() =~ qr/\[warn\].*max_memory reached/, 'max_memory, log');
is(echoes(), 'hello', 'max_memory, others are served');

Test::Tun::spew("$t->{dir}/done", '');
is(($t->wait($stalled))[0], 2000, 'stalled readers');

$t->stop();

# a scan

run('');

is(($t->in('client', sub {
	my $r = Test::Tun::Raw->new(src => '198.18.5.5', dst => '10.2.0.1');

	for my $i (0 .. 9999) {
		$r->send_tcp(flags => SYN, sport => 20000 + $i % 40000,
			dst => sprintf('10.2.%d.%d', $i / 250, $i % 250 + 1),
			dport => 9);
	}

	return 'sent';
}))[0], 'sent', 'a scan of 10,000 addresses');

is(echoes(), 'hello', 'a scan, others are served');

# descriptors and connections run out

$t->stop();
$t->run($conf =~ s/LIMITS//r =~ s/%%EVENTS%%/events { worker_connections 60; }/r);

my ($opened) = $t->in('client', sub {
	my @s = grep { $_ } map {
		Test::Tun::connect_to('10.1.0.2', 9000, Timeout => 1)
	} 1 .. 60;
	return scalar @s;
});

cmp_ok($opened, '<', 30, 'worker_connections');
cmp_ok($opened, '>', 10, 'worker_connections, but some');
ok($t->error_log() =~ qr/\[warn\].*worker_connections are not enough/,
	'worker_connections, log');
ok(Test::Tun::wait_for(10, sub { echoes() eq 'hello' }),
	'worker_connections, free again');

$t->done();
