#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for the system stack with more flows than one address has ports: at
# once, and one after another beside one that stays.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::Unit qw/ build /;
use Time::HiRes qw/ sleep time /;

delete $ENV{TUN_STACK};

my $mem = Test::Tun::slurp('/proc/meminfo') =~ /MemAvailable:\s+(\d+)/ ? $1 : 0;
plan(skip_all => 'it takes 2 GB of memory') if $mem < 2e6;

my $t = Test::Tun->new();

build("$t->{dir}/many", qw{ cc -O2 -W -Wall -Werror t/system_many.c })
	or BAIL_OUT('no clients');

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
        preread_buffer_size 64;
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

# what the kernel does not remember for lack of room it resets

$t->in('client', sub {
	Test::Tun::spew('/proc/sys/net/ipv4/tcp_max_tw_buckets', 500000);
	return 1;
});

$t->run($conf);

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

sub many {
	my ($mode, $port, $n, @hosts) = @_;
	my $start = time();

	my ($rc, $out) = $t->exec('client', \300, "$t->{dir}/many", $mode,
		$port, $n, @hosts);

	note(sprintf('%.1f s', time() - $start));

	return $out;
}

# 70,000 at once, from one address; more than a process may have descriptors

my ($held, $passed) = (70000, 200000);

is(many('hold', 443, $held / 5, map { "10.2.0.$_" } 1 .. 5),
	"$held right\n", "$held at once");

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

is(many('pass', 80, $passed / 8, map { "10.2.1.$_" } 1 .. 8),
	"$passed right\n", "$passed one after another");

Test::Tun::spew($stop, '');
like($t->wait($long), qr/^ok \d+$/, 'one beside them');

my ($json) = $t->in('gateway', sub {
	my $s = Test::Tun::connect_to('127.0.0.1', 8080) or return "$@";
	Test::Tun::write_all($s, "GET / HTTP/1.0\r\n\r\n");
	return scalar Test::Tun::read_all($s) =~ s/.*\r\n\r\n//sr;
});

my $total = JSON::PP::decode_json($json)->{tun}[0]{total};

is($total->{flows}, $held + $passed + 1, 'flows');
is($total->{active}, 0, 'none is left');
is($total->{limited_tuples}, 0, 'no lack of tuples');
is($total->{unknown}, 0, 'every packet had its flow');

$t->done();
