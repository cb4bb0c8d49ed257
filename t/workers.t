#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for two workers: flows are spread over them, each flow has one, and
# where the time of a worker is what there is too little of, two do twice as
# much.

use warnings;
use strict;

use JSON::PP;
use List::Util qw/ min sum /;
use Test::More;
use Test::Tun;
use Test::Tun::Cgroup;
use Test::Tun::Unit qw/ build /;
use Time::HiRes qw/ sleep time /;

use constant FLOWS => 240;

use constant SHARE => 0.3;       # of a processor, for each worker
use constant ROUNDS => 3;        # more when the machine is busy with others
use constant MOST => 9;
use constant SECONDS => 0.8;
use constant WINDOW => 300;      # connections at once, to each address

delete $ENV{TUN_STACK};

my $t = Test::Tun->new();

build("$t->{dir}/workers", qw{ cc -O2 -W -Wall -Werror t/workers.c })
	or BAIL_OUT('no clients');

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%
worker_processes WORKERS;

http {
    access_log off;
    server {
        listen 127.0.0.1:8080;
        location / { tun_status; }
    }
}

stream {
    log_format flow "$protocol $remote_addr $remote_port $pid $bytes_sent";

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        stack   STACK;
    }

    server {
        tun_listen tun0 :9000;
        proxy_pass $tun_target;
        access_log %%DIR%%/logs/flows.log flow;
    }

    server {
        tun_listen tun0 udp :9000;
        proxy_pass $tun_target;
        proxy_timeout 10s;
        proxy_requests 3;
        proxy_responses 1;
        access_log %%DIR%%/logs/flows.log flow;
    }

    server {
        tun_listen tun0 :9001;
        proxy_pass 10.1.0.2:9001;
    }
}
EOC

$t->udp_server(9000, sub { uc $_[1] });
tcp_server(9000);

for my $stack (qw/ lwip system /) {
	start($stack, 2);

	for my $family (@Test::Tun::FAMILIES) {
		my $name = "$stack, $family->{name}";

		spread("TCP, $name", $family, \&tcp);
		spread("UDP, $name", $family, \&udp);
		fragments($name, $family);
	}

	ok($t->stop(), "ends, $stack");
}

my $cgroups = eval { Test::Tun::Cgroup->new() };

SKIP: {
	skip($@ =~ s/\n//r, 1) unless $cgroups;

	$cgroups->add('load');
	$cgroups->add("worker$_", SHARE) for 0, 1;
	$cgroups->enter('load', $t->program('server', "$t->{dir}/workers",
		'serve', 9001));

	speedup($_) for qw/ lwip system /;

	$t->stop();
}

$t->finish();

is(join(' ', $cgroups ? $cgroups->remove() : ()), '', 'no cgroup left');

done_testing();

###############################################################################

sub start {
	my ($stack, $n) = @_;
	$t->run($conf =~ s/WORKERS/$n/r =~ s/STACK/$stack/r);
}

sub status {
	my (undef, $out) = $t->exec('gateway',
		qw{ curl -sS http://127.0.0.1:8080/ });
	return decode_json($out)->{tun}[0]{workers};
}

# flows of one client address: by counters, and by what sessions say

sub spread {
	my ($name, $family, $sub) = @_;

	my @before = map { { %$_ } } @{ status() };
	Test::Tun::spew("$t->{dir}/logs/flows.log", '');

	my ($opened, $bad) = $t->in('client', $sub, $family->{server});

	is($opened, FLOWS, "opened, $name");
	is($bad, 0, "each got its own bytes, $name");

	# a flow with two owners would have two sessions

	my ($flow, $pid) = sessions(FLOWS);

	is(scalar keys %$flow, FLOWS, "flows that had sessions, $name");
	is(scalar grep({ @$_ > 1 } values %$flow), 0,
		"one session each, $name");
	is(join(' ', sort keys %$pid), join(' ', sort $t->workers()),
		"both workers, $name");
	cmp_ok(min(map { $pid->{$_} // 0 } $t->workers()), '>=', 0.3 * FLOWS,
		"sessions, $name") or diag(explain($pid));

	my $after = status();

	my $flows = $sub == \&udp ? 'udp_flows' : 'flows';

	for my $counter ($flows, qw/ packets_in packets_out /) {
		my @n = map { $after->[$_]{$counter} - $before[$_]{$counter} }
			0, 1;
		cmp_ok(min(@n), '>=', 0.3 * sum(@n), "$counter, $name")
			or diag("@n");
		is(sum(@n), FLOWS, "all of them, $name")
			if $counter eq $flows;
	}
}

# the kernel knows no ports of fragments, and gives all of a client to one queue

sub fragments {
	my ($name, $family) = @_;

	for my $large (2, 1) {
		my $turns = "large in turn $large, $name";

		Test::Tun::spew("$t->{dir}/logs/flows.log", '');

		is(join(' ', $t->in('client', \&udp, $family->{server},
			$large)), FLOWS . ' 0', $turns);

		my ($flow) = sessions(FLOWS);

		is(scalar grep({ @$_ > 1 } values %$flow), 0,
			"one session each, $turns");
	}
}

# what sessions say: pids by flow, and how many each has had

sub sessions {
	my ($n) = @_;

	my @lines;
	Test::Tun::wait_for(15, sub {
		@lines = $t->access_log('flows.log');
		return @lines >= $n;
	});

	my (%flow, %pid);

	for (@lines) {
		my (undef, $addr, $port, $pid) = split;
		push @{ $flow{"$addr $port"} }, $pid;
		$pid{$pid}++;
	}

	return (\%flow, \%pid);
}

# all at once, in turns

sub tcp {
	my ($host) = @_;

	my @s = map { Test::Tun::connect_to($host, 9000) } 1 .. FLOWS;
	my $opened = grep { $_ } @s;
	my @got = ('') x @s;
	my ($turns, $size) = (4, 5000);

	my @data = map { substr("$_ of $host " x $size, 0, $size * $turns) }
		1 .. @s;

	for my $turn (0 .. $turns - 1) {
		for my $i (0 .. $#s) {
			Test::Tun::write_all($s[$i],
				substr($data[$i], $turn * $size, $size));
		}

		for my $i (0 .. $#s) {
			while (length $got[$i] < ($turn + 1) * $size) {
				sysread($s[$i], $got[$i], 65536,
					length $got[$i]) or last;
			}
		}
	}

	return ($opened, scalar grep { $got[$_] ne uc $data[$_] } 0 .. $#s);
}

sub udp {
	my ($host, $large) = @_;

	$large //= 0;

	my @s = map { Test::Tun::udp_to($host, 9000) } 1 .. FLOWS;
	my $opened = grep { $_ } @s;
	my %bad;

	for my $turn (1 .. 3) {
		for my $i (0 .. $#s) {
			my $data = "turn $turn of $i at $host "
				x ($turn == $large ? 200 : 10);

			send($s[$i], $data, 0);
			$bad{$i} = 1 if (Test::Tun::udp_recv($s[$i]) // '')
				ne uc $data;
		}
	}

	return ($opened, scalar keys %bad);
}

# one process that serves all: what comes goes back, in upper case

sub tcp_server {
	my ($port) = @_;

	$t->daemon('server', sub {
		my $l = IO::Socket::IP->new(LocalAddr => '::', V6Only => 0,
			LocalPort => $port, Listen => 4096, ReuseAddr => 1);
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

	Test::Tun::wait_for(5, sub { $t->in('server', sub {
		Test::Tun::connect_to('::1', $port) ? 1 : 0 }) });
}

# new connections a second of both families, by one worker and by two

sub speedup {
	my ($stack) = @_;
	my (%rate, %used, @wrong);

	for my $round (1 .. MOST) {
		last if $round > ROUNDS && enough(\%rate);

		for my $n (1, 2) {
			my ($lines, @used) = connections($stack, $n);

			push @{ $used{"worker $_ of $n"} }, $used[$_]
				for 0 .. $n - 1;

			for (@$lines) {
				my ($host, $rate, $bad) = split;
				push @{ $rate{$host}{$n} }, $rate;
				push @wrong, $_ if $bad;
			}
		}
	}

	is(join("\n", @wrong), '', "each was answered, $stack");

	# or else something other than the workers is measured

	cmp_ok(median($used{$_}), '>=', SHARE * 0.85,
		"$_ used its time, $stack") for sort keys %used;

	my $ok = ok(enough(\%rate), "twice the workers, $stack");

	for my $host (sort keys %rate) {
		my ($one, $two) = map { median($rate{$host}{$_}) } 1, 2;
		my $text = sprintf('%s, %s: %.0f / %.0f = %.2f', $stack, $host,
			$two, $one, $two / ($one || 1));
		$ok ? note($text) : diag($text);
	}
}

sub enough {
	my ($rate) = @_;

	return keys %$rate == @Test::Tun::FAMILIES && !grep {
		median($_->{2}) < 1.6 * median($_->{1})
	} values %$rate;
}

# a line for each address, and the share of a processor each worker has used

sub connections {
	my ($stack, $n) = @_;

	$t->stop();
	start($stack, $n);

	my @pids = $t->workers();
	$cgroups->enter("worker$_", $pids[$_]) for 0 .. $#pids;

	my ($out, @used) = $t->in('client', sub {
		$cgroups->enter('load', $$);

		my @cpu = map { cpu($_) } @pids;
		my $start = time();
		my (undef, $out) = $t->run_cmd(30, "$t->{dir}/workers", 'rate',
			9001, SECONDS, WINDOW,
			map { $_->{server} } @Test::Tun::FAMILIES);
		my $time = time() - $start;

		return ($out, map { (cpu($pids[$_]) - $cpu[$_]) / $time }
			0 .. $#pids);
	});

	return ([ split /\n/, $out ], @used);
}

sub cpu { (split ' ', Test::Tun::slurp("/proc/$_[0]/schedstat"))[0] / 1e9 }

sub median { (sort { $a <=> $b } @{ $_[0] })[$#{ $_[0] } / 2] }
