#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for 2,000 connections at once, each with bytes of its own.

use warnings;
use strict;

use Test::More;
use Test::Tun;

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
    }
}
EOF

my $n = 2000;
my $size = 20000;

# one process that serves all: what comes goes back, in upper case

$t->daemon('server', sub {
	my $l = IO::Socket::IP->new(LocalAddr => '::', V6Only => 0,
		LocalPort => 9000, Listen => 4096, ReuseAddr => 1);
	my $select = IO::Select->new($l);

	while (my @ready = $select->can_read()) {
		for my $s (@ready) {
			if ($s == $l) {
				$select->add($l->accept() || next);
				next;
			}

			if (sysread($s, my $buf, 65536)) {
				Test::Tun::write_all($s, uc $buf);
				next;
			}

			$select->remove($s);
			close $s;
		}
	}
});

ok(Test::Tun::wait_for(5, sub {
	$t->in('client', sub { Test::Tun::connect_to('10.1.0.2', 9000) ? 1 : 0 })
}), 'server is there');

for my $family (@Test::Tun::FAMILIES) {

	my ($opened, $bad) = $t->in('client', sub {
		my @s = map { Test::Tun::connect_to($family->{server}, 9000) }
			1 .. $n;
		my $opened = grep { $_ } @s;
		my $bad = 0;

		my @data = map { substr("$_ connection " x $size, 0, $size) }
			1 .. $n;

		Test::Tun::write_all($s[$_], $data[$_]) for 0 .. $n - 1;

		for my $i (0 .. $n - 1) {
			my $got = '';

			while (length $got < $size) {
				sysread($s[$i], $got, $size, length $got)
					or last;
			}

			$bad++ if $got ne uc $data[$i];
		}

		return ($opened, $bad);
	});

	is($opened, $n, "opened, $family->{name}");
	is($bad, 0, "each got its own, $family->{name}");
}

$t->done();
