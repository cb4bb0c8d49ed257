#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for segments that the system stack has no flow for: each source gets so
# many resets a second, and those of its neighbours are their own.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::Raw;
use Time::HiRes qw/ sleep time /;

delete $ENV{TUN_STACK};

my $t = Test::Tun->new();

$t->run(<<'EOC');
%%GLOBALS%%
%%EVENTS%%
worker_processes 1;

http {
    access_log off;
    server {
        listen 127.0.0.1:8080;
        location / { tun_status; }
    }
}

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        stack   system;
    }

    server {
        tun_listen tun0 :80;
        return one;
    }
}
EOC

sub counter {
	my ($name) = @_;
	my (undef, $out) = $t->exec('gateway',
		qw{ curl -s http://127.0.0.1:8080/ });
	return $out =~ /"total":\{[^}]*"\Q$name\E":(\d+)/ ? $1 : $out;
}

# how many resets come back for so many segments, and in what time

sub resets {
	my ($raw, $n) = @_;
	my ($start, $got) = (time(), 0);

	for my $i (1 .. $n) {
		$raw->send_tcp(flags => Test::Tun::Raw::ACK, ack => $i);
		next if $i % 50;
		while (my $p = $raw->recv_tcp(0.002)) {
			$got++ if $p->{flags} & Test::Tun::Raw::RST;
		}
	}

	while (my $p = $raw->recv_tcp(0.3)) {
		$got++ if $p->{flags} & Test::Tun::Raw::RST;
	}

	return ($got, time() - $start);
}

my @families = (
	{ name => 'IPv4', dst => '10.1.0.2', src => '10.9.9.9',
		far => '10.9.9.10' },
	{ name => 'IPv6', dst => 'fd00:1::2', src => 'fd00:9::9',
		far => 'fd00:9:0:1::9' },
);

for my $f (@families) {
	my $unknown = counter('unknown');
	my $limited = counter('limited_resets');

	my ($got, $time, $far, $answer) = $t->in('client', sub {
		my ($raw, $other) = map {
			Test::Tun::Raw->new(src => $_->[0], dst => $f->{dst},
				sport => $_->[1])
		} [ $f->{src}, 40000 ], [ $f->{far}, 50000 ];

		my ($got, $time) = resets($raw, 1500);
		my ($far) = resets($other, 50);

		# a connection is another matter

		$raw->{sport}++;
		return ($got, $time, $far, $raw->open() ? 'open' : 'none');
	});

	cmp_ok($got, '>=', 200, "a second's worth, $f->{name}");
	cmp_ok($got, '<=', 200 + $time * 200, "not more, $f->{name}");
	is($far, 50, "another source, $f->{name}");
	is($answer, 'open', "a SYN is answered, $f->{name}");

	$unknown = counter('unknown') - $unknown;
	$limited = counter('limited_resets') - $limited;

	cmp_ok($unknown, '>=', 1550, "unknown, $f->{name}");
	is($limited, $unknown - $got - $far, "limited_resets, $f->{name}");
	cmp_ok($limited, '>', 100, "some were limited, $f->{name}");
}

$t->done();
