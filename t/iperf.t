#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for streams of full speed, one and ten, both ways: no stall, and not
# slower than something is wrong.  How fast it is, `make bench` tells.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        offload OFFLOAD;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
        proxy_buffer_size 64k;
    }
}
EOC

# Mbit/s, far below what 2 cores do, even with sanitizers

my %floor = (on => 300, off => 50);

for my $offload (qw/ on off /) {
	$t->run($conf =~ s/OFFLOAD/$offload/r);

	for my $family (@Test::Tun::FAMILIES) {
		for my $way ([ 'up' ], [ 'down', '-R' ]) {
			for my $n (1, 10) {
				measure($family, $offload, $n, @$way);
			}
		}
	}

	$t->stop();
}

$t->done();

sub measure {
	my ($family, $offload, $n, $way, @args) = @_;

	my $name = "$n $way, $family->{name}, offload $offload";
	my $json = $t->iperf($family->{server}, qw/ -t 1 -P /, $n, @args);
	my $end = $json->{end} || {};

	is($json->{error}, undef, $name) or return;

	# every one of them gets something

	my @idle = grep { !$_->{receiver}{bytes} } @{ $end->{streams} };

	is(scalar @{ $end->{streams} }, $n, "all are measured, $name");
	is(scalar @idle, 0, "none starves, $name");

	my $rate = $end->{sum_received}{bits_per_second} / 1e6;

	cmp_ok($rate, '>', $floor{$offload}, "Mbit/s, $name");
	note(sprintf('%s: %.0f Mbit/s', $name, $rate));
}
