#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for two workers: flows are spread over them, each has one, and with
# little time for each of them two do almost twice as much as one.

use warnings;
use strict;

use JSON::PP;
use List::Util qw/ min sum /;
use Test::More;
use Test::Tun;
use Test::Tun::Unit qw/ build /;
use Time::HiRes qw/ sleep time /;

use constant FLOWS => 240;
use constant QUOTA => 0.3;         # of a processor, for each worker
use constant WINDOW => 300;        # connections at once, of each family
use constant SECONDS => 1;
use constant ROUNDS => 3;

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
	}

	ok($t->stop(), "ends, $stack");
}

$t->done();

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

	my @lines;
	Test::Tun::wait_for(15, sub {
		@lines = $t->access_log('flows.log');
		return @lines >= FLOWS;
	});

	# a flow with two owners would have two sessions

	my (%flow, %pid);

	for (@lines) {
		my (undef, $addr, $port, $pid) = split;
		push @{ $flow{"$addr $port"} }, $pid;
		$pid{$pid}++;
	}

	is(scalar keys %flow, FLOWS, "flows that had sessions, $name");
	is(join(' ', grep { @{ $flow{$_} } > 1 } sort keys %flow), '',
		"one session each, $name");
	is(join(' ', sort keys %pid), join(' ', sort $t->workers()),
		"both workers, $name");
	cmp_ok(min(values %pid), '>=', 0.3 * FLOWS, "sessions, $name")
		or diag(explain(\%pid));

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
	my ($host) = @_;

	my @s = map { Test::Tun::udp_to($host, 9000) } 1 .. FLOWS;
	my $opened = grep { $_ } @s;
	my %bad;

	for my $turn (1 .. 3) {
		for my $i (0 .. $#s) {
			my $data = "turn $turn of $i at $host " x 10;

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
