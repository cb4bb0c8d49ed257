#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for devices of any MTU.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address ADDRESS;
        netns   %%NETNS%%;
        mtu     MTU;
        offload OFFLOAD;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }
}
EOF

my $size = 5000017;

$t->server(9000, sub {
	my ($s) = @_;
	my $data = '';
	while (length $data < $size) {
		sysread($s, $data, 262144, length $data) or return;
	}
	Test::Tun::write_all($s, $data);
});

for my $case ([ 576, 'on' ], [ 1280, 'on' ], [ 9000, 'on' ], [ 65535, 'on' ],
	[ 576, 'off' ], [ 1280, 'off' ], [ 9000, 'off' ], [ 65535, 'off' ])
{
	my ($mtu, $offload) = @$case;

	my $address = '198.18.0.1/15';
	$address .= ' fd00:198:18::1/64' if $mtu >= 1280;

	$t->run($conf =~ s/ADDRESS/$address/r =~ s/MTU/$mtu/r
		=~ s/OFFLOAD/$offload/r);

	for my $family (@Test::Tun::FAMILIES) {
		next if $mtu < 1280 && $family->{name} eq 'IPv6';

		is($t->in('client', sub {
			my $s = Test::Tun::connect_to($family->{server}, 9000)
				or return "$@";
			my $data = Test::Tun::bytes('mtu', $size);
			Test::Tun::write_all($s, $data);
			return Test::Tun::read_all($s) eq $data
				? 'ok' : 'differs';
		}), 'ok', "mtu $mtu, offload $offload, $family->{name}");
	}

	$t->stop();
}

$t->done();
