#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for the system stack with more flows than one address has ports: at
# once, and one after another beside one that stays.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Socket qw/ pack_sockaddr_in inet_aton unpack_sockaddr_in AF_INET
	SOCK_STREAM /;
use Time::HiRes qw/ sleep time /;

delete $ENV{TUN_STACK};

my $mem = Test::Tun::slurp('/proc/meminfo') =~ /MemAvailable:\s+(\d+)/ ? $1 : 0;
plan(skip_all => 'it takes 4 GB of memory') if $mem < 4e6;

my $t = Test::Tun->new();

my $conf = <<'EOC';
%%GLOBALS%%
events { worker_connections 19000; }
worker_processes 6;

http {
    access_log off;
    server {
        listen 8080;
        location / { tun_status; }
    }
}

stream {
    tun tun0 {
        address 198.18.0.1/15;
        netns   %%NETNS%%;
        stack   system client=4m;
    }

    # waits for some bytes, and says who it is

    server {
        tun_listen tun0 :443;
        ssl_preread on;
        preread_timeout 600s;
        return "$remote_addr $remote_port $server_addr $server_port";
    }

    server {
        tun_listen tun0 :80;
        return "$remote_addr $remote_port $server_addr $server_port";
    }

    server {
        tun_listen tun0 :9000;
        proxy_pass 10.1.0.2:9000;
    }
}
EOC

$t->run($conf);

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

sub opens {
	my ($host, $port) = @_;

	socket(my $s, AF_INET, SOCK_STREAM, 0) or return;
	connect($s, pack_sockaddr_in($port, inet_aton($host))) or return;

	return $s;
}

# what the gateway should say

sub says {
	my ($s, $host, $port) = @_;
	my ($own, $addr) = unpack_sockaddr_in(getsockname($s));
	return join ' ', Socket::inet_ntoa($addr), $own, $host, $port;
}

# 70,000 at once, from one address; more than a process may have descriptors

my ($procs, $each) = (5, 14000);
my $start = time();

my @jobs = map {
	my $host = "10.2.0.$_";

	$t->start('client', sub {
		my @s;

		for (1 .. $each) {
			push @s, opens($host, 443)
				// return "connect " . @s . ": $!";
		}

		note(sprintf('%.1f s to connect', time() - $start));

		# until all are there

		Test::Tun::spew("$t->{dir}/ready.$host", '');
		Test::Tun::wait_for(120, sub {
			$procs == (() = glob "$t->{dir}/ready.*") });

		# some at a time, the queue of the device is not without end

		my ($bad, $asked) = (0, 0);

		for my $i (0 .. $#s) {
			syswrite($s[$asked++], 'x' x 10)
				while $asked < @s && $asked < $i + 50;

			$bad++ if Test::Tun::read_all($s[$i])
				ne says($s[$i], $host, 443);
		}

		return "bad $bad";
	});
} 1 .. $procs;

Test::Tun::wait_for(120, sub { $procs == (() = glob "$t->{dir}/ready.*") });

is(join(', ', map { $t->wait($_, 200) } @jobs),
	join(', ', ('bad 0') x $procs), $procs * $each . ' at once');
note(sprintf('%.1f s', time() - $start));

# one long flow while many short ones pass

my $stop = "$t->{dir}/stop";

my $long = $t->start('client', sub {
	my $s = Test::Tun::connect_to('10.2.9.9', 9000) or return "connect: $@";

	for (my $i = 1; ; $i++) {
		my $data = Test::Tun::bytes("long $i", 20000);
		Test::Tun::write_all($s, $data);

		my $got = '';
		while (length $got < length $data) {
			sysread($s, $got, 65536, length $got)
				or return "round $i: $!";
		}

		return "round $i differs" if $got ne $data;
		return "ok $i" if -e $stop;
		sleep(0.05);
	}
});

$start = time();

@jobs = map {
	my $p = $_;

	$t->start('client', sub {
		my %bad;

		for my $i (1 .. 50000) {
			my $host = "10.2.$p." . (1 + int($i / 5000));
			my $s = opens($host, 80);

			if (!$s) {
				$bad{"$!"}++;
				next;
			}

			my $says = says($s, $host, 80);
			$bad{differs}++ if Test::Tun::read_all($s) ne $says;
		}

		return join(', ', map { "$_ $bad{$_}" } sort keys %bad) || 'ok';
	});
} 10 .. 13;

is(join(', ', map { scalar $t->wait($_, 300) } @jobs), 'ok, ok, ok, ok',
	'200,000 one after another');
note(sprintf('%.1f s', time() - $start));

Test::Tun::spew($stop, '');
like($t->wait($long), qr/^ok \d+$/, 'one beside them');

my ($json) = $t->in('gateway', sub {
	my $s = Test::Tun::connect_to('127.0.0.1', 8080) or return "$@";
	Test::Tun::write_all($s, "GET / HTTP/1.0\r\n\r\n");
	return scalar Test::Tun::read_all($s) =~ s/.*\r\n\r\n//sr;
});

my $total = JSON::PP::decode_json($json)->{tun}[0]{total};

is($total->{flows}, $procs * $each + 200001, 'flows');
is($total->{active}, 0, 'none is left');
is($total->{limited_tuples}, 0, 'no lack of tuples');
is($total->{unknown}, 0, 'every packet had its flow');

$t->done();
