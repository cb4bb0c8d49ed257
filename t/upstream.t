#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for flows through upstream{}: balancing, a dead peer, backup, TLS.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

$t->system(qw/ openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout /,
	"$t->{dir}/key.pem", '-out', "$t->{dir}/cert.pem", '-subj',
	'/CN=exit.example', '-addext', 'subjectAltName=DNS:exit.example');

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$server_port $status $upstream_addr';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    upstream two {
        server 10.1.0.2:9001;
        server 10.1.0.2:9002;
    }

    upstream dead {
        server 10.1.0.2:9 max_fails=0;
        server 10.1.0.2:9001;
    }

    upstream spare {
        server 10.1.0.2:9 max_fails=0;
        server 10.1.0.2:9002 backup;
    }

    upstream none {
        server 10.1.0.2:9;
        server 10.1.0.2:10;
    }

    map $tun_port $exit {
        80  two;
        81  dead;
        82  spare;
        83  none;
    }

    server {
        tun_listen tun0;
        proxy_pass $exit;
    }

    # TLS to the exit

    server {
        tun_listen tun0 :443;
        proxy_pass 10.1.0.2:9003;
        proxy_ssl on;
        proxy_ssl_name exit.example;
        proxy_ssl_server_name on;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate %%DIR%%/cert.pem;
    }

    server {
        tun_listen tun0 :444;
        proxy_pass 10.1.0.2:9003;
        proxy_ssl on;
        proxy_ssl_name other.example;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate %%DIR%%/cert.pem;
    }
}
EOF

for my $n (1, 2) {
	$t->server(9000 + $n, sub {
		my ($s) = @_;
		sysread($s, my $buf, 100);
		Test::Tun::write_all($s, "$n $buf");
	});
}

$t->program('server', qw/ openssl s_server -quiet -rev -accept 9003 -key /,
	"$t->{dir}/key.pem", '-cert', "$t->{dir}/cert.pem");

sub ask {
	my ($host, $port) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::connect_to($host, $port)
			or return $!{ECONNREFUSED} ? 'refused' : "$@";
		Test::Tun::write_all($s, "hello\n");
		sysread($s, my $buf, 100);
		return $buf // "$!";
	});
}

for my $family (@Test::Tun::FAMILIES) {
	my ($host, $name) = ($family->{server}, $family->{name});

	is(join('', sort map { substr(ask($host, 80), 0, 1) } 1 .. 4), '1122',
		"balanced, $name");

	is(join('', map { substr(ask($host, 81), 0, 1) } 1 .. 4), '1111',
		"dead first peer, $name");
	is(ask($host, 82), "2 hello\n", "backup, $name");
	is(Test::Tun::refused(ask($host, 83)), 'refused', "no peer, $name");

	ok(Test::Tun::wait_for(5, sub { ask($host, 443) eq "olleh\n" }),
		"TLS to the exit, $name");
	is(Test::Tun::refused(ask($host, 444)), 'refused',
		"TLS, wrong name, $name");
}

my @log = $t->access_log();
ok(scalar(grep { $_ eq '81 200 10.1.0.2:9, 10.1.0.2:9001' } @log),
	'both peers are in the log') or diag(join "\n", @log);
ok(scalar(grep { $_ eq '83 502 10.1.0.2:9, 10.1.0.2:10'
	|| $_ eq '83 502 10.1.0.2:10, 10.1.0.2:9' } @log), 'no peer is 502');

$t->done();
