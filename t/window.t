#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for readers whose window becomes less than what was on its way to them:
# every byte arrives, no end comes before the last of them, and soon.

use warnings;
use strict;

use Socket qw/ SOL_SOCKET SO_RCVBUF /;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ time /;

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
        proxy_buffer_size 64k;
    }
}
EOF

my $size = 3 * 1024 * 1024 + 5;
my $data = Test::Tun::bytes('window', $size);

$t->server(9000, sub {
	my ($s) = @_;
	sysread($s, my $line, 1) or return;
	Test::Tun::write_all($s, $data);
});

for my $family (@Test::Tun::FAMILIES) {
	for my $buffer (4000, 8000, 33000) {
		my $start = time();

		is($t->in('client', sub {
			join(' ', map { transfer($family, $buffer) } 1 .. 8)
		}), join(' ', ('ok') x 8), "buffer $buffer, $family->{name}");

		cmp_ok(time() - $start, '<', 15, 'soon');
	}
}

$t->done();

sub transfer {
	my ($family, $buffer) = @_;

	my $s = Test::Tun::connect_to($family->{server}, 9000)
		or return "connect: $@";
	Test::Tun::write_all($s, '.');

	my $got = '';

	while (my $n = sysread($s, $got, 262144, length $got)) {
		setsockopt($s, SOL_SOCKET, SO_RCVBUF, pack('i', $buffer))
			if length $got >= 1000000 && length($got) - $n < 1000000;
	}

	return $got eq $data ? 'ok' : length $got;
}
