#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for many new flows while the number of workers changes: whoever waits
# to be accepted is not lost with a worker.

use warnings;
use strict;

use IO::Select;
use Test::More;
use Test::Tun;
use Test::Tun::Unit qw/ build /;

use constant FLOWS => 80000;

delete $ENV{TUN_STACK};

my $t = Test::Tun->new();

plan(skip_all => 'too slow with a sanitizer') if $t->{module} =~ /sanitize/;

build("$t->{dir}/many", qw{ cc -O2 -W -Wall -Werror t/system_many.c })
	or BAIL_OUT('no clients');

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%
worker_processes <workers>;

stream {
    tun tun0 {
        address 198.18.0.1/15;
        netns   %%NETNS%%;
        stack   <stack>;
    }

    server {
        tun_listen tun0 :80;
        return "$remote_addr $remote_port $server_addr $server_port";
    }
}
EOC

# what the kernel does not remember for lack of room it resets

$t->in('client', sub {
	Test::Tun::spew('/proc/sys/net/ipv4/tcp_max_tw_buckets', 500000);
	return 1;
});

for my $stack (qw/ lwip system /) {

	my ($i, $text) = (0, $conf =~ s/<stack>/$stack/r);

	$t->run($text =~ s/<workers>/2/r);

	my $job = $t->start('client', sub {
		my ($rc, $out) = $t->run_cmd(50, "$t->{dir}/many", 'pass', 80,
			FLOWS / 2, '10.2.1.1', '10.2.1.2');
		return $out;
	});

	my $select = IO::Select->new($job->{fh});

	until ($select->can_read(0.3) || $i > 150) {
		my $workers = $i++ % 2 + 1;
		$t->reload($text =~ s/<workers>/$workers/r);
	}

	is($t->wait($job), FLOWS . " right\n", "$i reloads, $stack");
	cmp_ok($i, '>', 3, "all the time, $stack");

	$t->stop();
}

$t->done();
