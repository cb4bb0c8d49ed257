#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for access, limits and rates on flows.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ time /;

my $t = Test::Tun->new();

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    limit_conn_zone $binary_remote_addr zone=clients:1m;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0 :9000;
        proxy_pass $tun_target;
        allow 198.18.0.1;
        allow fd00:198:18::1;
        deny all;
    }

    server {
        tun_listen tun0 :9001;
        proxy_pass $tun_target;
        deny 198.18.0.0/15;
        deny fd00:198:18::/64;
    }

    server {
        tun_listen tun0 :9002;
        proxy_pass $tun_target;
        limit_conn clients 3;
    }

    server {
        tun_listen tun0 :9003;
        proxy_pass $tun_target;
        proxy_download_rate 200k;
    }

    server {
        tun_listen tun0 :9004;
        proxy_pass $tun_target;
        proxy_upload_rate 200k;
    }
}
EOF

for my $port (9000 .. 9002) {
	$t->server($port, sub {
		my ($s) = @_;
		Test::Tun::write_all($s, 'hello');
		sysread($s, my $buf, 1);
	});
}

$t->server(9003, sub { Test::Tun::write_all($_[0], 'x' x 400000) });
$t->server(9004, sub {
	my ($s) = @_;
	my $n = 0;
	while ($n < 400000) { $n += sysread($s, my $buf, 65536) || last }
	Test::Tun::write_all($s, $n);
});

for my $family (@Test::Tun::FAMILIES) {
	my ($host, $name) = @{$family}{qw/ server name /};

	my $connects = sub {
		my ($port) = @_;
		my $s = Test::Tun::connect_to($host, $port)
			or return $!{ECONNREFUSED} ? 'refused' : "$@";
		sysread($s, my $buf, 5);
		return ($buf, $s);
	};

	is($t->in('client', sub { ($connects->(9000))[0] }), 'hello',
		"allowed, $name");
	is(Test::Tun::refused($t->in('client', sub {
		($connects->(9001))[0] })), 'refused',
		"denied, $name");

	is($t->in('client', sub {
		my @all = map { [ $connects->(9002) ] } 1 .. 4;
		return join ' ', map { Test::Tun::refused($_->[0]) } @all;
	}), 'hello hello hello refused', "limit_conn, $name");

	ok(Test::Tun::wait_for(5, sub { $t->in('client',
		sub { ($connects->(9002))[0] }) eq 'hello' }),
		"limit_conn, free again, $name");

	my ($n, $time) = $t->in('client', sub {
		my $start = time();
		my $s = Test::Tun::connect_to($host, 9003) or return "$@";
		return (length scalar Test::Tun::read_all($s),
			time() - $start);
	});

	is($n, 400000, "download, $name");
	cmp_ok($time, '>', 0.8, "download rate, $name");

	($n, $time) = $t->in('client', sub {
		my $start = time();
		my $s = Test::Tun::connect_to($host, 9004) or return "$@";
		Test::Tun::write_all($s, 'y' x 400000);
		sysread($s, my $buf, 100);
		return ($buf, time() - $start);
	});

	is($n, 400000, "upload, $name");
	cmp_ok($time, '>', 0.8, "upload rate, $name");
}

$t->done();
