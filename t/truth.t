#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests that a client sees what the upstream does: refused, reset, an end.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$server_port $status';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    proxy_connect_timeout 1s;

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
        proxy_half_close on;
        proxy_timeout 20s;
    }

    server {
        tun_listen tun0 :9100;
        proxy_pass $tun_target;
        deny all;
    }

    server {
        tun_listen tun0 :9101;
        proxy_pass 10.1.0.2:9;
        tun_accept early;
    }

    server {
        tun_listen tun0 :9003;
        proxy_pass $tun_target;
        proxy_timeout 1s;
    }
}
EOF

# talks first

$t->server(9000, sub { Test::Tun::write_all($_[0], 'hello') });

# sends some, then resets

$t->server(9001, sub {
	my ($s) = @_;
	Test::Tun::write_all($s, 'x' x 100000);
	sleep(0.3);
	setsockopt($s, Socket::SOL_SOCKET, Socket::SO_LINGER,
		pack('ii', 1, 0));
});

# never says a word, and tells how it ended

$t->server($_, sub {
	my (undef, $errno) = Test::Tun::read_all($_[0]);
	Test::Tun::spew("$t->{dir}/ended", $errno);
}) for 9002, 9003;

sub connects {
	my ($host, $port, $sub) = @_;

	return $t->in('client', sub {
		my $start = time();
		my $s = Test::Tun::connect_to($host, $port)
			or return ($!{ECONNREFUSED} ? 'refused' : "$!",
				time() - $start);
		return ('connected', $sub ? $sub->($s) : ());
	});
}

# drops what goes to a port: the upstream does not answer

$t->in('server', sub {
	CORE::system('nft', 'add table inet t; add chain inet t i '
		. '{ type filter hook input priority 0; }; '
		. 'add rule inet t i tcp dport 9004 drop');
	return 1;
});

for my $family (@Test::Tun::FAMILIES) {
	my $host = $family->{server};
	my $name = $family->{name};

	is((connects($host, 9000, sub { Test::Tun::read_all($_[0]) }))[1],
		'hello', "server talks first, $name");

	is(Test::Tun::refused((connects($host, 9))[0]), 'refused',
		"refused, $name");
	is(Test::Tun::refused((connects($host, 9100))[0]), 'refused',
		"denied, $name");
	isnt((connects($host, 9101))[0], 'refused', "early, $name");

	my ($rc, $time) = connects($host, 9004);
	is(Test::Tun::refused($rc), 'refused',
		"upstream does not answer, $name");
	cmp_ok($time // 1, '>', 0.9, "not at once, $name");

	is(($t->in('client', sub {
		my $s = Test::Tun::connect_to($host, 9001) or return "$@";
		my ($data, $errno) = Test::Tun::read_all($s);
		return length($data) . ' '
			. ($errno == POSIX::ECONNRESET() ? 'reset' : $errno);
	})), '100000 reset', "upstream resets, $name");

	unlink "$t->{dir}/ended";

	connects($host, 9002, sub {
		setsockopt($_[0], Socket::SOL_SOCKET, Socket::SO_LINGER,
			pack('ii', 1, 0));
	});

	ok(Test::Tun::wait_for(5, sub { -e "$t->{dir}/ended" }),
		"client resets, the upstream ends, $name");

	is(($t->in('client', sub {
		my $s = Test::Tun::connect_to($host, 9003) or return "$@";
		my ($data, $errno) = Test::Tun::read_all($s);
		return $errno == POSIX::ECONNRESET() ? 'reset' : $errno;
	})), 'reset', "timeout is no orderly end, $name");
}

# a client that gives up ends the attempt: it takes a raw socket to send RST
# for a SYN, or nothing but silence, which the upstream's timeout ends

like(join(' ', $t->access_log()), qr/9 502/, 'refused is 502');
like(join(' ', $t->access_log()), qr/9100 403/, 'denied is 403');

$t->done();
