#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for reloads under load, with one and with two workers in turn: a
# second one each, TUN_RELOADS of them for each stack.

use warnings;
use strict;

use IO::Select;
use Net::DNS;
use Socket qw/ getnameinfo NI_NUMERICHOST NI_NUMERICSERV /;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

use constant FLOWS => 25;	# of each family, that last all the time

my $reloads = $ENV{TUN_RELOADS} || 8;
my $end = 1.2 * $reloads + 3;

my $t = Test::Tun->new();
my $dir = $t->{dir};

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes <workers>;

stream {
    tun_fakeip_zone names:12m 198.18.0.0/15 fd00:198:18::/64;

    tun tun0 {
        address     198.18.0.1/15 fd00:198:18::1/64 <more>;
        netns       %%NETNS%%;
        stack       <stack>;
        route       global;
        udp_timeout 4s;
        max_flows   <limit>;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :80;
        return "<answer>";
    }

    server {
        tun_listen tun0 udp :9001;
        proxy_pass $tun_target;
        proxy_timeout 30s;
    }

    server {
        tun_listen tun0 udp :9002;
        tun_udp_relay on;
    }

    server {
        tun_listen tun0 udp :53;
        tun_dns names;
    }

    <server>
}
EOF

sub conf {
	my ($stack, $i) = @_;

	my %values = (
		stack => $stack,
		workers => $i % 2 + 1,
		answer => "answer $i",
		limit => 1000 + $i,
		more => $i % 3 ? '' : '198.51.100.1/24',
		server => $i % 2 ? 'server { tun_listen tun0 :81; return x; }' : ''
	);

	return $conf =~ s/<(\w+)>/$values{$1}/gr;
}

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

# and the port that a datagram came from

for my $port (9001, 9002) {
	$t->udp_server($port, sub {
		my ($s, $data, $from) = @_;
		return $data . ' ' . (getnameinfo($from,
			NI_NUMERICHOST|NI_NUMERICSERV))[2];
	});
}

# all flows of a family in one process: bytes go round, and are compared

sub flows {
	my ($host) = @_;

	my @flows = map { { n => $_ } } 1 .. FLOWS;

	for my $f (@flows) {
		$f->{s} = Test::Tun::connect_to($host, 9000)
			or return "connect: $@";
	}

	for my $round (1 .. $end / 0.2) {
		my $start = time();

		for my $f (@flows) {
			$f->{data} = Test::Tun::bytes("$f->{n} $round", 5000);
			Test::Tun::write_all($f->{s}, $f->{data});
		}

		for my $f (@flows) {
			my $got = '';

			while (length $got < length $f->{data}) {
				IO::Select->new($f->{s})->can_read(5)
					&& sysread($f->{s}, $got, 65536,
						length $got)
					or return "flow $f->{n}, round $round: $!";
			}

			return "flow $f->{n}, round $round differs"
				if $got ne $f->{data};
		}

		my $left = 0.2 - (time() - $start);
		sleep($left) if $left > 0;
	}

	return 'ok';
}

# calls it again and again: what is not right, and what takes over a second

sub again {
	my ($sub) = @_;

	my ($n, $last, @bad) = (0, time());

	for (my $until = time() + $end; time() < $until; sleep(0.02)) {
		my $got = $sub->($n++);
		my $gap = time() - $last;
		$last = time();

		push @bad, $got if $got ne 'ok';
		push @bad, sprintf('a gap of %.2f s', $gap) if $gap > 1.02;
	}

	return join(', ', @bad) || ($n > $end ? 'ok' : "$n times");
}

sub connects {
	my ($host) = @_;

	return again(sub {
		my $s = Test::Tun::connect_to($host, 80) or return "connect: $@";
		my $got = Test::Tun::read_all($s) // '';
		return $got =~ /^answer \d+$/ ? 'ok' : "got '$got'";
	});
}

sub datagrams {
	my ($host, $port, $right) = @_;

	my $s = Test::Tun::udp_to($host, $port) or return "udp: $@";
	my %from;

	my $bad = again(sub {
		my ($i) = @_;
		send($s, "datagram $i", 0);
		my $got = Test::Tun::udp_recv($s, 1) // "datagram $i: none";
		$from{$2}++ if $got =~ s/^(datagram $i) (\d+)$/$1/;
		return $got eq "datagram $i" ? 'ok' : $got;
	});

	return $bad if $bad ne 'ok';
	return $right->(scalar keys %from) ? 'ok' : "ports @{[ %from ]}";
}

sub names {
	my ($server) = @_;

	my $s = Test::Tun::udp_to($server, 53) or return "udp: $@";
	my %seen;

	my $bad = again(sub {
		send($s, Net::DNS::Packet->new('www.example.com')->data(), 0);
		my $got = Test::Tun::udp_recv($s, 1) // return 'no answer';
		my ($rr) = Net::DNS::Packet->new(\$got)->answer();
		$seen{$rr ? $rr->address() : 'nothing'}++;
		return 'ok';
	});

	return keys %seen == 1 ? $bad : "addresses @{[ %seen ]}";
}

sub ask {
	return $t->in('client', sub {
		my $s = Test::Tun::connect_to('192.0.2.1', 80) or return "$@";
		return scalar Test::Tun::read_all($s);
	});
}

sub master {
	my $pid = $t->pid();
	my @fds = glob("/proc/$pid/fd/*");
	my @workers = $t->workers();

	return { fds => scalar @fds, rss => $t->rss($pid),
		workers => scalar @workers };
}

for my $stack (delete $ENV{TUN_STACK} || qw/ lwip system /) {

	$t->run(conf($stack, 0));

	my $monitor = $t->daemon('client', sub {
		open(STDOUT, '>', "$dir/routes") or die "routes: $!";
		exec('ip', 'monitor', 'route', 'rule');
	});

	my @jobs = map {
		$t->start('client', \&flows, $_->{server}),
		$t->start('client', \&connects, $_->{server}),
		$t->start('client', \&datagrams, $_->{server}, 9001,
			sub { $_[0] > 1 }),
		$t->start('client', \&datagrams, $_->{server}, 9002,
			sub { $_[0] == 1 })
	} @Test::Tun::FAMILIES;

	push @jobs, map { $t->start('client', \&names, $_) }
		'198.18.0.2', 'fd00:198:18::53';

	sleep(0.5);

	my (@old, @master);

	for my $i (1 .. $reloads) {
		my $start = time();

		$t->reload(conf($stack, $i));
		Test::Tun::wait_for(5, sub { ask() eq "answer $i" })
			or push @old, $i;
		push @master, master();

		my $left = 1 - (time() - $start);
		sleep($left) if $left > 0;
	}

	is("@old", '', "each reload is in force, $stack");
	is(join("\n", grep { $_ ne 'ok' }
		map { scalar $t->wait($_, $end + 20) // 'killed' } @jobs), '',
		"nothing broken, wrong or refused, $stack");

	# a box, which is two descriptors, for each worker at the same time

	my ($first, $last) = @master[2, -1];
	my ($most) = sort { $b <=> $a } map { $_->{workers} } @master;

	cmp_ok($last->{fds}, '<=', $first->{fds} + 2 + 2 * $most,
		"descriptors of the master process, $stack");
	cmp_ok($last->{rss}, '<=', $first->{rss} + 2048,
		"memory of the master process, $stack");

	$t->kill_daemon($monitor);

	my @routes = grep { /^Deleted/ && !/198\.51\.100/ }
		split /\n/, Test::Tun::slurp("$dir/routes");
	is(join("\n", @routes), '', "routes do not flap, $stack");

	ok(Test::Tun::wait_for(20, sub {
		(() = $t->workers()) == $reloads % 2 + 1;
	}), "old workers leave, $stack");

	$t->stop();
	is(join(' ', $t->devices()), '', "no device, $stack");
}

$t->done();
