#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for readers that stop for a while: nothing is lost, and the worker's
# memory stays bounded.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep /;

my $t = Test::Tun->new();

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
        proxy_half_close on;
    }
}
EOF

my $size = 80 * 1024 * 1024;
my $sum = Digest::SHA::sha1_hex(Test::Tun::bytes('stop', $size));

sub read_slowly {
	my ($s) = @_;

	my $sha = Digest::SHA->new(1);
	my ($total, $stopped) = (0, 0);

	while (my $n = sysread($s, my $buf, 65536)) {
		$sha->add($buf);
		$total += $n;

		if ($total > 1000000 && !$stopped) {
			$stopped = 1;
			sleep(5);
		}
	}

	return $sha->hexdigest();
}

$t->server(9000, sub {
	my ($s) = @_;
	Test::Tun::write_all($s, Test::Tun::bytes('stop', $size));
});

$t->server(9001, sub {
	my ($s) = @_;
	Test::Tun::write_all($s, read_slowly($s));
});

my $before = $t->rss();

my @down = map { my $host = $_->{server}; $t->start('client', sub {
	my $s = Test::Tun::connect_to($host, 9000) or return "$@";
	return read_slowly($s);
}) } @Test::Tun::FAMILIES;

my @up = map { my $host = $_->{server}; $t->start('client', sub {
	my $s = Test::Tun::connect_to($host, 9001) or return "$@";
	Test::Tun::write_all($s, Test::Tun::bytes('stop', $size));
	shutdown($s, 1);
	return scalar Test::Tun::read_all($s);
}) } @Test::Tun::FAMILIES;

sleep(4);

my $stopped = $t->rss();

is($t->wait($down[$_]), $sum, "down, $Test::Tun::FAMILIES[$_]{name}")
	for 0 .. 1;
is($t->wait($up[$_]), $sum, "up, $Test::Tun::FAMILIES[$_]{name}")
	for 0 .. 1;

# four flows, each with its windows and queues, of 80 MB each

cmp_ok($stopped - $before, '<', 60 * 1024, 'memory while they stop, KB');

$t->done();
