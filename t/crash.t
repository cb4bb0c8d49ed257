#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for processes that are killed: a worker's flows are reset and all else
# goes on, without a master all leave, and the next start finds what was left.

use warnings;
use strict;

use JSON::PP;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();
my $dir = $t->{dir};

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

http {
    access_log off;
    server {
        listen 127.0.0.1:8081;
        location / {
            tun_status;
        }
    }
}

stream {
    tun_fakeip_zone names:12m 198.18.0.0/15 fd00:198:18::/64 file=names;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        stack   STACK;
        route   global;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :80;
        return ok;
    }
}
EOF

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

# when it ended, and how

sub talk {
	my ($host) = @_;

	local $SIG{ALRM} = sub { die "timed out\n" };
	local $SIG{PIPE} = 'IGNORE';
	alarm(20);

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";

	while (!-e "$dir/end") {
		syswrite($s, 'x' x 100) or return "$! " . time();
		my $n = sysread($s, my $got, 65536);
		return (defined $n ? 'end ' : "$! ") . time() unless $n;
		sleep(0.05);
	}

	return 'ok';
}

# one that only waits

sub wait_only {
	my ($host) = @_;

	local $SIG{ALRM} = sub { die "timed out\n" };
	local $SIG{PIPE} = 'IGNORE';
	alarm(20);

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";
	my $select = IO::Select->new($s);

	while (!-e "$dir/end") {
		next unless $select->can_read(0.1);
		my $n = sysread($s, my $got, 65536);
		return ($n // 'reset') . ' ' . time() unless $n;
	}

	return 'ok';
}

sub ask {
	return $t->in('client', sub {
		my $s = Test::Tun::connect_to('192.0.2.1', 80, Timeout => 2)
			or return "$@";
		return scalar Test::Tun::read_all($s);
	});
}

sub active {
	my (undef, $out) = $t->exec('gateway',
		qw{ curl -sS -m 5 http://127.0.0.1:8081/ });
	return eval { decode_json($out)->{tun}[0]{total}{active} } // $out;
}

sub rules {
	my (undef, $out) = $t->exec('client', 'sh', '-c',
		'ip rule; ip -6 rule');
	return $out;
}

for my $stack (delete $ENV{TUN_STACK} || qw/ lwip system /) {

	unlink "$dir/end";

	my $clean = rules();
	$t->run($conf =~ s/STACK/$stack/r);
	my $rules = rules();
	isnt($rules, $clean, "there are rules, $stack");

	my @jobs = map { my $f = $_;
		map { $t->start('client', \&talk, $f->{server}) } 1 .. 8
	} @Test::Tun::FAMILIES;

	my @waits = map { my $f = $_;
		map { $t->start('client', \&wait_only, $f->{server}) } 1 .. 4
	} @Test::Tun::FAMILIES;

	ok(Test::Tun::wait_for(5, sub { active() == 24 }), "flows, $stack");

	my @workers = $t->workers();
	my $killed = time();
	kill 'KILL', $workers[0];

	# each worker has its part of these

	my @answers = map { ask() } 1 .. 8;
	is("@answers", 'ok ok ok ok ok ok ok ok', "new flows, $stack");

	my $took = time() - $killed;
	cmp_ok($took, '<', 3, "at once, $stack: " . sprintf('%.2f s', $took));

	is(scalar $t->workers(), 2, "two workers again, $stack");

	sleep(1.5);
	my $active = active();
	Test::Tun::spew("$dir/end", '');

	my @ends = map { scalar $t->wait($_, 5) // '' } @jobs;
	my @reset = grep { /reset by peer|^Broken/ } @ends;
	my $good = grep { $_ eq 'ok' } @ends;

	is($good + @reset, 16, "flows go on, or are reset, $stack")
		or diag("@ends");
	cmp_ok($good, '>', 0, "some go on: $good, $stack");

	my @after = sort { $a <=> $b } map { /([\d.]+)$/ ? $1 - $killed : () }
		@reset;
	cmp_ok($after[-1] // 0, '<', 2, sprintf(
		"resets come soon, $stack: %d, the last after %.2f s",
		scalar @after, $after[-1] // 0));

	my @told = map { /^reset ([\d.]+)/ ? $1 - $killed : () }
		map { scalar $t->wait($_, 5) // '' } @waits;
	note(sprintf("%d of 8 that only wait were told", scalar @told));

	# those of ask() may be in TIME-WAIT

	cmp_ok($active, '<=', 24 + 8 - @reset,
		"the dead one's are not counted, $stack: $active");
	ok(Test::Tun::wait_for(5, sub { active() <= 24 }),
		"and do not stay in the gauge, $stack") or diag(active());

	# the master

	my $master = $t->pid();
	@workers = $t->workers();
	kill 'KILL', $master;

	ok(Test::Tun::wait_for(2, sub {
		!grep { Test::Tun::alive($_) } @workers
	}), "workers leave with the master, $stack");

	is(join(' ', $t->devices()), '', "and so does the device, $stack");

	$t->run($conf =~ s/STACK/$stack/r);
	is(rules(), $rules, "the next one has the same rules, $stack");
	is(ask(), 'ok', "and serves, $stack");

	ok($t->stop(), "stop, $stack");
	is(rules(), $clean, "nothing is left, $stack");
}

$t->allow_alert(qr/exited on signal 9/);
$t->done();
