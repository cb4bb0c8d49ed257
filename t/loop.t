#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for loops: exits that are routed back into the device on purpose, and
# upstreams that are addresses of a fake-IP zone.

use warnings;
use strict;

use Test::More;

use Test::Tun;
use Test::Tun::DNS ();
use Test::Tun::Proxy;

my $t = Test::Tun->new(forward => 1);

destinations($t);
$t->udp_server($_, sub { "echo $_[1]" }) for 9053, 9200;

Test::Tun::DNS::resolver($t, '10.1.0.2', sub {
	my ($q) = @_;
	my (undef, $type) = Test::Tun::DNS::asked($q);
	return Test::Tun::DNS::reply($q, $type eq 'A'
		? 'loop.example. 300 A 10.2.7.81'
		: 'loop.example. 300 AAAA fd00:2::7:81')->data;
}, port => 5300);

# what nginx sends to these networks comes back into the device

my @looped = (
	{ name => 'IPv4', good => '10.1.0.2', loop => '10.2.7.1',
	  inside => '198.18.0.77' },
	{ name => 'IPv6', good => 'fd00:1::2', loop => 'fd00:2::7:1',
	  inside => 'fd00:198:18::77' },
);

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

stream {
    log_format main '$protocol|$server_addr|$server_port|$status';
    access_log %%DIR%%/logs/access.log main;

    tun_fakeip_zone names:1m 198.19.0.0/24 fd00:198:18::1:0/112;

    tun tun0 {
        address 198.18.0.1/16 fd00:198:18::1/112;
        udp_timeout 2s;
        STACK
    }

    upstream direct { tun_direct; }
    upstream two    { server 10.2.7.90:9001 max_fails=0;
                      server [fd00:2::7:91]:9001 max_fails=0; }

    upstream socks  { server 10.2.7.80:1080 max_fails=0;
                      tun_handshake socks5; }
    upstream named  { tun_direct destination=loop.example:9001; }

    resolver 10.1.0.2:5300;

    map $server_port $exit {
        default $tun_target;
        9101    direct;
        9102    two;
        9103    198.19.0.5:9001;
        9104    [fd00:198:18::1:5]:9001;
        9105    socks;
        9106    named;
    }

    server {
        tun_listen tun0;
        tun_listen tun0 udp;
        proxy_pass $exit;
        proxy_timeout 3s;
        proxy_responses 1;
    }

    server {
        tun_listen tun0 udp :9200-9299;
        tun_udp_relay on;
    }

    # a resolver that is behind its own server

    server {
        tun_listen tun0 udp :53;
        tun_listen tun0 tcp :53;
        tun_dns names public;
        tun_dns_pass 10.2.7.53:53;
    }

    server {
        tun_listen tun0 udp :54;
        tun_dns names public;
        tun_dns_pass 10.2.7.53:9053;
    }
}
EOF

$t->ip('client', qw/ addr add /, $_->{inside}, qw/ dev gateway /) for @looped;

for my $stack ('lwip', 'system') {
	$t->run($conf =~ s/STACK/stack $stack;/r);

	$t->ip('gateway', qw/ route add 10.2.7.0\/24 dev tun0 /);
	$t->ip('gateway', qw/ -6 route add fd00:2::7:0\/112 dev tun0 /);

	# workers keep their sockets to the resolver, and another line comes

	ask($t, $looped[0]{loop}, 9106) for 1 .. 20;
	sleep 1;

	for my $family (@looped) {
		is(ask($t, $family->{good}, 9001), "echo hello\n",
			"before, $family->{name}, $stack");

		my $fds = descriptors($t);

		tcp($family, $stack, $fds);
		udp($family, $stack, $fds);
		dns($family, $stack, $fds);
		returned($family, $stack);

		is(ask($t, $family->{good}, 9001), "echo hello\n",
			"after, $family->{name}, $stack");

		# another line

		sleep 1;
	}

	$t->stop();

	my @lines = grep { /\[(?:warn|error)\]/ } split /\n/, $t->error_log();

	for my $what ('a loop', 'came back while') {
		my @of = grep { /$what/ } @lines;
		my %seconds = map { (split)[1] => 1 } @of;

		ok(@of && @of == keys %seconds,
			"a line in a second, $what, $stack")
			or diag(join "\n", @of);
	}

	is(join("\n", grep { !/a loop|came back while/ } @lines), '',
		"no other line, $stack");

	like("@lines", qr/a loop, what was sent to \Q$_->{loop}\E port 9/,
		"$_->{name} in the log, $stack") for @looped;

	Test::Tun::spew("$t->{dir}/logs/$_.log", '') for qw/ error access /;
}

$t->done();

###############################################################################

# sessions that all are a loop, and one beside them that is not

sub tcp {
	my ($family, $stack, $fds) = @_;

	for my $port (9001, 9101 .. 9106) {
		my $name = "port $port, $family->{name}, $stack";
		my $most = 0;

		my $job = $t->start('client', \&many, $family->{loop}, $port,
			100);

		for (1 .. 5) {
			my $n = descriptors($t);
			$most = $n if $n > $most;
		}

		is(ask($t, $family->{good}, 9001), "echo hello\n",
			"others go on, $name");

		my ($slowest, $how) = $t->wait($job);

		is($how, 'closed', "refused, $name");
		cmp_ok($slowest, '<', 1, "within a second, $name");
		cmp_ok($most, '<', $fds + 50, "few descriptors, $name");
		ok(finished($t, $fds), "and none after it, $name")
			or diag(descriptors($t));
	}
}

# datagrams: to an upstream, to a destination, from a port for all

sub udp {
	my ($family, $stack, $fds) = @_;

	for my $port (9053, 9101, 9103, 9104, 9200) {
		my $name = "UDP, port $port, $family->{name}, $stack";

		my $job = $t->start('client', \&many_datagrams,
			$family->{loop}, $port, 20);

		is(echo($t, $family->{good}, 9053), 'echo hello',
			"others go on, $name");

		my ($slowest, $how) = $t->wait($job);

		is($how, 'refused', "refused, $name");
		cmp_ok($slowest, '<', 1, "within a second, $name");

		# a relay is kept, and its port too

		cmp_ok(descriptors($t), '<', $fds + 50,
			"few descriptors, $name");
		ok($port == 9200 || finished($t, $fds + 2),
			"and none after it, $name") or diag(descriptors($t));
	}

	is(echo($t, $family->{good}, 9200), 'echo hello',
		"the relay goes on, $family->{name}, $stack");
}

sub echo {
	my ($t, $host, $port) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::udp_to($host, $port);
		$s->send('hello');
		return Test::Tun::udp_recv($s) // 'nothing';
	});
}

sub many_datagrams {
	my ($host, $port, $n) = @_;

	my ($slowest, %how) = (0);

	for (1 .. $n) {
		my $start = Time::HiRes::time();
		my $s = Test::Tun::udp_to($host, $port);

		$s->send('hello');

		if (!IO::Select->new($s)->can_read(2)) {
			$how{'nothing'}++;

		} else {
			my $rc = recv($s, my $buf, 100, 0);
			$how{defined $rc ? 'answer' : $!{ECONNREFUSED}
				? 'refused' : "$!"}++;
		}

		my $time = Time::HiRes::time() - $start;
		$slowest = $time if $time > $slowest;
	}

	return ($slowest, join ' ', sort keys %how);
}

# questions whose resolver is this server, and one that is behind a loop

sub dns {
	my ($family, $stack, $fds) = @_;

	for my $port (53, 54) {
		my $name = "DNS, port $port, $family->{name}, $stack";

		my ($time, $n) = $t->in('client', sub {
			my $start = Time::HiRes::time();
			my $n = grep {
				Test::Tun::DNS::ask($family->{loop},
					"n$_.example", 'MX', port => $port)
					eq 'SERVFAIL'
			} 1 .. 20;
			return (Time::HiRes::time() - $start, $n);
		});

		is($n, 20, "an answer, $name");
		cmp_ok($time, '<', 5, "soon, $name");
		cmp_ok(descriptors($t), '<', $fds + 100,
			"few descriptors, $name");
	}
}

# a client whose address is routed into the device: it hears nothing, and what
# it is told is no flow of somebody else

sub returned {
	my ($family, $stack) = @_;

	my $name = "$family->{name}, $stack";

	my @got = $t->in('client', sub {
		my @from = (LocalHost => $family->{inside});

		my $udp = Test::Tun::udp_to($family->{good}, 9053, @from);
		$udp->send("hello");

		my $relay = Test::Tun::udp_to($family->{good}, 9200, @from);
		$relay->send("hello");

		my $tcp = IO::Socket::IP->new(PeerHost => $family->{good},
			PeerPort => 9001, Type => Socket::SOCK_STREAM, @from,
			Timeout => 1.5);

		return (Test::Tun::udp_recv($udp, 0.1) // 'nothing',
			Test::Tun::udp_recv($relay, 0.1) // 'nothing',
			$tcp ? 'connected' : $!{ETIMEDOUT} ? 'nothing' : "$!");
	});

	is("@got", 'nothing nothing nothing', "no way back, $name");

	is(scalar(grep { /\|\Q$family->{inside}\E\|/ } $t->access_log()), 0,
		"what came back is no flow, $name");
}

# the time of the slowest, and what became of them; in a namespace

sub many {
	my ($host, $port, $n) = @_;

	my ($slowest, %how) = (0);

	for (1 .. $n) {
		my $start = Time::HiRes::time();
		my $s = Test::Tun::connect_to($host, $port);

		if ($s) {
			Test::Tun::write_all($s, "hello\n");
			$how{sysread($s, my $buf, 100) ? 'answer' : 'closed'}++;

		} else {
			$how{$!{ECONNREFUSED} || $!{ECONNRESET} ? 'closed'
				: "$@"}++;
		}

		my $time = Time::HiRes::time() - $start;
		$slowest = $time if $time > $slowest;
	}

	return ($slowest, join ' ', sort keys %how);
}
