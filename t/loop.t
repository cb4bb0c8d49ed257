#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for loops: exits that are routed back into the device on purpose, and
# upstreams that are addresses of a fake-IP zone.

use warnings;
use strict;

use Test::More;

use Test::Tun;
use Test::Tun::Proxy;

my $t = Test::Tun->new(forward => 1);

destinations($t);
$t->udp_server(9053, sub { "echo $_[1]" });

# what nginx sends to these networks comes back into the device

my @looped = (
	{ name => 'IPv4', good => '10.2.0.1', loop => '10.2.7.1' },
	{ name => 'IPv6', good => 'fd00:2::1', loop => 'fd00:2::7:1' },
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
        STACK
    }

    upstream direct { tun_direct; }
    upstream two    { server 10.2.7.90:9001 max_fails=0;
                      server [fd00:2::7:91]:9001 max_fails=0; }

    map $server_port $exit {
        default $tun_target;
        9101    direct;
        9102    two;
        9103    198.19.0.5:9001;
        9104    [fd00:198:18::1:5]:9001;
    }

    server {
        tun_listen tun0;
        tun_listen tun0 udp;
        proxy_pass $exit;
        proxy_timeout 20s;
    }

    server {
        tun_listen tun0 udp :9200-9299;
        tun_udp_relay on;
    }
}
EOF

for my $stack ('lwip', 'system') {
	$t->run($conf =~ s/STACK/stack $stack;/r);

	$t->ip('gateway', qw/ route add 10.2.7.0\/24 dev tun0 /);
	$t->ip('gateway', qw/ -6 route add fd00:2::7:0\/112 dev tun0 /);

	for my $family (@looped) {
		is(ask($t, $family->{good}, 9001), "echo hello\n",
			"before, $family->{name}, $stack");

		my $fds = descriptors($t);

		tcp($family, $stack, $fds);

		is(ask($t, $family->{good}, 9001), "echo hello\n",
			"after, $family->{name}, $stack");

		# another line

		sleep 1;
	}

	$t->stop();

	my @lines = grep { /\[(?:warn|error)\]/ } split /\n/, $t->error_log();
	my %seconds = map { (split)[1] => 1 } @lines;

	is(scalar @lines, keys %seconds, "a line in a second, $stack")
		or diag(join "\n", @lines[0 .. 9]);

	like("@lines", qr/a loop, what was sent to \Q$_->{loop}\E port 9/,
		"$_->{name} in the log, $stack") for @looped;

	Test::Tun::spew("$t->{dir}/logs/error.log", '');
}

$t->done();

###############################################################################

# sessions that all are a loop, and one beside them that is not

sub tcp {
	my ($family, $stack, $fds) = @_;

	for my $port (9001, 9101, 9102, 9103, 9104) {
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
