#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for buffers of the proxy module: full ones go into the send queue as
# they are, and the session gets others.

use warnings;
use strict;

use Digest::MD5 qw/ md5_hex /;
use Socket qw/ SOL_SOCKET SO_LINGER SO_RCVBUF /;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep /;

use constant SIZE => 6_000_000;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address    198.18.0.1/15 fd00:198:18::1/64;
        netns      %%NETNS%%;
        max_memory MEMORY;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
        proxy_buffer_size BUFFER;
        RATE
    }
}
EOF

# so many bytes as the client asks for: in one piece, in pieces of all sizes,
# or then a reset

my $data = Test::Tun::bytes(7, SIZE);

$t->server(9000, sub {
	my ($s) = @_;

	sysread($s, my $how, 100) or return;
	my ($kind, $size) = split ' ', $how;

	for (my ($i, $n) = (0, 0); $i < $size; $i += $n) {
		$n = $kind eq 'pieces' ? 1 + ($i * 7 + 1) % 90000 : $size;
		$n = $size - $i if $n > $size - $i;
		Test::Tun::write_all($s, substr($data, $i, $n));
	}

	if ($kind eq 'reset') {
		sleep(0.5);
		setsockopt($s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
	}
});

# reads at once, or with pauses and a small window

sub download {
	my ($host, $kind, $size, $slow) = @_;

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";
	setsockopt($s, SOL_SOCKET, SO_RCVBUF, 20000) if $slow;
	Test::Tun::write_all($s, "$kind $size");

	my ($got, $i) = ('', 0);
	while (my $n = sysread($s, $got, 65536, length $got)) {
		sleep(0.05) if $slow && $i++ % 50 == 0;
	}

	return $got eq substr($data, 0, $size) ? 'same'
		: sprintf('%d bytes of %d, md5 %s', length $got, $size,
			md5_hex($got));
}

# and leaves in the middle

sub leave {
	my ($host) = @_;

	for my $i (1 .. 20) {
		my $s = Test::Tun::connect_to($host, 9000)
			or return "connect: $@";
		Test::Tun::write_all($s, 'all ' . SIZE);
		sysread($s, my $got, 100000 * $i);
		setsockopt($s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0))
			if $i % 2;
	}

	return 'ok';
}

sub conf {
	my ($buffer, $memory, $rate) = @_;
	return $conf =~ s/BUFFER/$buffer/r =~ s/MEMORY/$memory/r
		=~ s/RATE/$rate/r;
}

for my $case ([ '16k' ], [ '50000' ], [ '64k' ],
	[ '64k', '1m' ], [ '64k', '256m', 'proxy_download_rate 8m;' ])
{
	my ($buffer, $memory, $rate) = ($case->[0], $case->[1] // '256m',
		$case->[2] // '');

	$t->run(conf($buffer, $memory, $rate));

	for my $family (@Test::Tun::FAMILIES) {
		my $name = "$buffer, $memory, $rate $family->{name}";
		my $host = $family->{server};

		is($t->in('client', \&download, $host, 'all', SIZE), 'same',
			"in one piece, $name");
		is($t->in('client', \&download, $host, 'pieces', SIZE), 'same',
			"in pieces, $name");
		is($t->in('client', \&download, $host, 'all', 3_000_000, 1),
			'same', "slowly, $name");
		is($t->in('client', \&download, $host, 'reset', 300_000),
			'same', "then a reset, $name");

		my @jobs = map { $t->start('client', \&download, $host,
			$_ % 2 ? 'all' : 'pieces', 2_000_000 + $_, $_ == 3) }
			1 .. 6;
		is(join(' ', grep { $_ ne 'same' } map { scalar $t->wait($_) }
			@jobs), '', "several at a time, $name");

		is($t->in('client', \&leave, $host), 'ok',
			"clients that leave, $name");
		is($t->in('client', \&download, $host, 'all', SIZE), 'same',
			"and one that stays, $name");
	}

	$t->stop();
}

# what was lent comes back: of 416 flows one buffer each would be 26 MB

$t->run(conf('64k', '256m', ''));

my @rss;

for (1 .. 30) {
	my @jobs = map { $t->start('client', \&download, $_->{server},
		'pieces', 1_000_000) } (@Test::Tun::FAMILIES) x 8;
	$t->wait($_) for @jobs;
	push @rss, $t->rss();
}

# a sanitizer keeps what was freed

cmp_ok($rss[29], '<=', $rss[3] + 15000, "memory stays: @rss")
	if $t->{module} !~ /sanitize/;

$t->done();
