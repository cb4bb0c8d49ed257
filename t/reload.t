#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for flows that live on while the configuration is reloaded.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep /;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes WORKERS;

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :80;
        return "N";
    }
}
EOF

# echoes, slowly enough for several reloads

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

sub talk {
	my ($host, $n) = @_;

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";

	for my $i (1 .. 25) {
		my $data = Test::Tun::bytes("$n $i", 30000);
		Test::Tun::write_all($s, $data);

		my $got = '';
		while (length $got < length $data) {
			sysread($s, $got, 65536, length $got)
				or return "round $i: $!";
		}

		return "round $i differs" if $got ne $data;
		sleep(0.1);
	}

	return 'ok';
}

sub ask {
	return $t->in('client', sub {
		my $s = Test::Tun::connect_to('192.0.2.1', 80) or return "$@";
		return scalar Test::Tun::read_all($s);
	});
}

for my $workers (1, 2) {

	$t->run($conf =~ s/WORKERS/$workers/r);

	my @jobs = map { my $n = $_; map {
		$t->start('client', \&talk, $_->{server}, $n)
	} @Test::Tun::FAMILIES } 1 .. 10;

	my @answers;

	for my $i (1 .. 4) {
		sleep(0.3);
		$t->reload($conf =~ s/WORKERS/$workers/r =~ s/"N"/"$i"/r);

		push @answers, Test::Tun::wait_for(5, sub { ask() eq $i })
			? 'new' : 'old';
	}

	is("@answers", 'new new new new', "new configuration, $workers");

	my @bad = grep { $_ ne 'ok' } map { scalar $t->wait($_) } @jobs;
	is("@bad", '', "flows go on, $workers workers");

	ok(Test::Tun::wait_for(10, sub { $t->workers() == $workers }),
		"old workers leave, $workers");

	$t->stop();
}

$t->done();
