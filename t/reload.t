#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for flows that live on while the configuration is reloaded.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

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

my @stacks = delete $ENV{TUN_STACK} || qw/ lwip system /;

# a reload, and a graceful stop before its flows have ended: those who read
# the queues then have no flows themselves

for my $stack (@stacks) {

	my $two = $conf =~ s/WORKERS/2/r =~ s/netns /stack $stack; netns /r;
	$t->run($two);

	my @jobs = map { my $n = $_; map {
		$t->start('client', \&talk, $_->{server}, $n)
	} @Test::Tun::FAMILIES } 1 .. 5;

	sleep(0.3);
	my $master = $t->pid();
	$t->reload($two);
	Test::Tun::wait_for(5, sub { (() = $t->workers()) > 2 });
	sleep(0.3);
	kill 'QUIT', $master;

	is(join(' ', grep { $_ ne 'ok' } map { scalar $t->wait($_) } @jobs), '',
		"flows end before nginx does, $stack");
	ok(Test::Tun::wait_for(10, sub { !Test::Tun::alive($master) }),
		"which ends, $stack");
}

# no longer than worker_shutdown_timeout, and the client is told

for my $stack (@stacks) {

	my $timed = "worker_shutdown_timeout 1s;\n"
		. ($conf =~ s/WORKERS/1/r =~ s/netns /stack $stack; netns /r);

	$t->run($timed);

	my @jobs = map { $t->start('client', \&last_words, $_->{server}) }
		@Test::Tun::FAMILIES;

	ok(Test::Tun::wait_for(5, sub { (() = glob("$t->{dir}/open.*")) == 2 }),
		"flows, $stack");

	my ($old) = $t->workers();
	my $start = time();
	$t->reload($timed);

	ok(Test::Tun::wait_for(5, sub { !Test::Tun::alive($old) }),
		"the old worker leaves, $stack");

	my $took = time() - $start;
	cmp_ok($took, '>', 0.9, "after some time, $stack");
	cmp_ok($took, '<', 3, "but not more, $stack: $took");

	is(join(' ', map { scalar $t->wait($_) } @jobs), 'reset reset',
		"clients are told, $stack");

	$t->stop();
	unlink glob("$t->{dir}/open.*");
}

$t->done();


sub last_words {
	my ($host) = @_;

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";
	Test::Tun::write_all($s, 'x');
	sysread($s, my $buf, 1) or return "read: $!";
	Test::Tun::spew("$t->{dir}/open.$$", '');

	my $n = sysread($s, $buf, 1);
	return defined $n ? 'end' : $!{ECONNRESET} ? 'reset' : "$!";
}
