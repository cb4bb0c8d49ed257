#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests that with the system stack a client to whom packets are lost gets its
# bytes as fast as from the kernel: from the same nginx, behind nft REDIRECT.
# The rate is one that a busy machine has too, and that lwIP does not reach.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ time /;

use constant {
	ROUNDS => 9,
	SECONDS => 0.6,
	RATIO => 0.8,
};

my $t = Test::Tun->new(forward => 1);

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        stack   system;
    }

    server {
        tun_listen tun0;
        listen     12345;
        listen     [::]:12345;

        proxy_pass        $upstream;
        proxy_buffer_size 64k;

        proxy_download_rate 100m;
    }

    map $server_addr $upstream {
        ~:       [fd00:1::2]:9000;
        default  10.1.0.2:9000;
    }
}
EOF

# what goes to port 9001 is redirected, what goes to another one to the device

$t->exec('gateway', 'nft', $_) for
	'add table inet redirect',
	'add chain inet redirect pre { type nat hook prerouting priority 0 ; }',
	'add rule inet redirect pre iifname client tcp dport 9001'
		. ' redirect to :12345';

$t->exec('client', 'nft', $_) for
	'add table inet lost',
	'add chain inet lost input { type filter hook input priority 0 ; }',
	'add rule inet lost input iifname gateway numgen random mod 100 < 1'
		. ' drop';

$t->server(9000, sub {
	my ($s) = @_;
	my $data = Test::Tun::bytes(1, 1_000_000);
	while (Test::Tun::write_all($s, $data)) { }
});

# bytes in so many seconds

sub bytes {
	my ($host, $port) = @_;

	my $s = Test::Tun::connect_to($host, $port) or return 0;
	my ($n, $end) = (0, time() + SECONDS);

	while (time() < $end) {
		$n += sysread($s, my $buf, 262144) || return 0;
	}

	return $n;
}

sub median { (sort { $a <=> $b } @_)[@_ / 2] }

for my $family (@Test::Tun::FAMILIES) {
	my %n;

	for (1 .. ROUNDS) {
		for my $port (9000, 9001) {
			push @{ $n{$port} }, $t->in('client', \&bytes,
				$family->{server}, $port);
		}
	}

	my ($ours, $redirect) = map { median(@{ $n{$_} }) } 9000, 9001;

	cmp_ok($redirect, '>', 0, "behind REDIRECT, $family->{name}");
	cmp_ok($ours, '>=', RATIO * $redirect, sprintf(
		'%.1f of %.1f MB, %.2f, %s', $ours / 1e6, $redirect / 1e6,
		$ours / ($redirect || 1), $family->{name}));
}

$t->done();
