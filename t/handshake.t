#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_handshake with real proxies: SOCKS5 by microsocks and dante,
# CONNECT by tinyproxy, the PROXY protocol by HAProxy.

use warnings;
use strict;

use MIME::Base64;
use Test::More;

use Test::Tun;
use Test::Tun::Proxy;

my $t = Test::Tun->new();

# an exit for each address: 10.2.0.N, fd00:2::N

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$server_addr $server_port $status '
                    '$tun_handshake_status $tun_handshake_time';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    map $remote_port $user { default alice; }

    upstream socks   { server 10.1.0.2:1081;    tun_handshake socks5; }
    upstream auth    { server [fd00:1::2]:1082;
                       tun_handshake socks5 user=$user password=secret; }
    upstream wrong   { server 10.1.0.2:1082;
                       tun_handshake socks5 user=$user password=bad; }
    upstream dante   { server 10.1.0.2:1083;    tun_handshake socks5; }
    upstream login   { server [fd00:1::2]:1089;
                       tun_handshake socks5 user=bob password=secret-too; }
    upstream connect { server [fd00:1::2]:1084;
                       tun_handshake http "header=X-Name: a value"; }
    upstream basic   { server 10.1.0.2:1085;
                       tun_handshake http user=$user password=secret; }
    upstream proxy   { server 10.1.0.2:1086;
                       tun_handshake proxy_v2 authority=$tun_port.example
                                              tlv=0xe1:more; }
    upstream fast    { server 10.1.0.2:1087; tun_handshake socks5 pipeline; }
    upstream raw     { server 10.1.0.2:1088; tun_handshake http user=$user
                       "header=X-Port: $tun_port"; }
    upstream unix    { server unix:%%DIR%%/socks; tun_handshake socks5; }

    map $server_addr $exit {
        10.2.0.1 socks;    fd00:2::1 socks;
        10.2.0.2 auth;     fd00:2::2 auth;
        10.2.0.3 dante;    fd00:2::3 dante;
        10.2.0.4 connect;  fd00:2::4 connect;
        10.2.0.5 basic;    fd00:2::5 basic;
        10.2.0.6 proxy;    fd00:2::6 proxy;
        10.2.0.7 fast;     fd00:2::7 fast;
        10.2.0.8 raw;      fd00:2::8 raw;
        10.2.0.9 wrong;    fd00:2::9 wrong;
        10.2.0.10 unix;    fd00:2::a unix;
        10.2.0.11 login;   fd00:2::b login;
    }

    server {
        tun_listen tun0;
        proxy_pass $exit;
    }

    # the same by ordinary sockets

    map $server_port $target {
        default "bad host:80";
        8001 10.2.0.1:9001;
        8002 10.2.0.1:9002;
        8003 [fd00:2::1]:9003;
        8004 localhost:9001;
        8006 "10.2.0.1";
        8007 "a\nb:80";
        8008 "10.2.0.1:99999";
        8009 "llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll:80";
        8010 "";
    }

    upstream socks_to   { server 10.1.0.2:1081;
                          tun_handshake socks5 destination=$target; }
    upstream connect_to { server 10.1.0.2:1084;
                          tun_handshake http destination=$target; }

    server {
        listen 8001-8010;
        listen [::]:8001-8010;
        proxy_pass socks_to;
    }

    server {
        listen 10.1.0.1:8101;
        proxy_pass connect_to;
    }

    # values that cannot be said

    map $server_port $value {
        8301 "a b";
        8302 "a\nb";
        8303 "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu";
        8304 "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu";
        8305 "a:b";
        8306 "a\r\nX-Injected: b";
        8307 "a b";
    }

    upstream value_socks { server 10.1.0.2:1082; tun_handshake socks5
                           user=$value destination=10.2.0.1:9001; }
    upstream value_pass  { server 10.1.0.2:1082; tun_handshake socks5
                           user=u password=$value destination=10.2.0.1:9001; }
    upstream value_http  { server 10.1.0.2:1085; tun_handshake http
                           user=$value destination=10.2.0.1:9001; }
    upstream value_line  { server 10.1.0.2:1084; tun_handshake http
                           header=X:$value destination=10.2.0.1:9001; }

    map $server_port $values {
        8301 value_socks;
        8302 value_pass;
        8303 value_socks;
        8304 value_socks;
        8305 value_http;
        8306 value_line;
        8307 value_line;
    }

    server {
        listen 8301-8307;
        proxy_pass $values;
    }

    server {
        listen 8312;
        proxy_pass value_long;
    }

    upstream value_long { server 10.1.0.2:1086; tun_handshake proxy_v2
                          tlv=0xe0:$hostname$hostname$pid$value$long; }

    map $server_port $long { default "tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt"; }

    server {
        listen 8201;
        listen [::]:8201;
        proxy_pass proxy;
    }
}
EOF

$conf =~ s/listen 10.1.0.1:8101;\n\s+proxy_pass connect_to/listen 8011;
        proxy_pass connect_to/;
$conf =~ s/default "bad host:80";/default "bad host:80";\n        8011 "10.2.0.1:9001";/;

destinations($t);

microsocks($t, 1081);
microsocks($t, 1082, qw/ -u alice -P secret /);
danted($t, 1083);
danted($t, 1089, 'bob', 'secret-too');
tinyproxy($t, 1084);
tinyproxy($t, 1085, 'BasicAuth alice secret');

Test::Tun::spew("$t->{dir}/haproxy.conf", <<'EOF');
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend in
    bind 10.1.0.2:1086 accept-proxy
    http-request return status 200 content-type text/plain lf-string "[%[src] %[dst] %[dst_port] %[fc_pp_authority]]"
EOF

$t->program('server', qw/ haproxy -db -f /, "$t->{dir}/haproxy.conf");
listening($t, 1086);

# sees whether all messages come at once, and answers at once too

proxy($t, 1087, sub {
	my ($s) = @_;
	select(undef, undef, undef, 0.2);
	sysread($s, my $buf, 1000);
	Test::Tun::write_all($s, "\5\0\5\0\0\1\0\0\0\0\0\0"
		. unpack('H*', substr($buf, 0, 7)) . "\n");
});

# says what it was asked for, byte by byte, after an interim response

proxy($t, 1088, sub {
	my ($s) = @_;
	my $buf = '';
	sysread($s, $buf, 1000, length $buf) while $buf !~ /\r\n\r\n/;
	for my $byte (split //, "HTTP/1.1 100 Continue\r\n\r\n"
		. "HTTP/1.0 200\r\nContent-Length: 5\r\n\r\n")
	{
		Test::Tun::write_all($s, $byte);
		select(undef, undef, undef, 0.002);
	}
	Test::Tun::write_all($s, $buf);
});

# a socket that connects at once

$t->daemon('server', sub {
	my $l = IO::Socket::UNIX->new(Local => "$t->{dir}/socks", Listen => 5);
	chmod 0777, "$t->{dir}/socks";
	while (my $s = $l->accept()) {
		Test::Tun::Proxy::take($s, 3);
		Test::Tun::write_all($s, "\5\0");
		sysread($s, my $buf, 100);
		Test::Tun::write_all($s, "\5\0\0\1\0\0\0\0\0\0by unix\n");
	}
});
Test::Tun::wait_for(5, sub { -S "$t->{dir}/socks" });

$t->run($conf);

my $fds = settled($t);

for my $family (@Test::Tun::FAMILIES) {
	my $name = $family->{name};
	my $host = sub { $name eq 'IPv4' ? "10.2.0.$_[0]"
		: sprintf('fd00:2::%x', $_[0]) };

	my @exits = (1 => 'microsocks', 2 => 'microsocks with a password',
		3 => 'dante', 4 => 'tinyproxy', 5 => 'tinyproxy with a password',
		11 => 'dante with a password');

	while (my ($n, $exit) = splice @exits, 0, 2) {
		my $h = $host->($n);

		my ($got, $line) = session($t, sub { ask($t, $h, 9001) });
		is($got, "echo hello\n", "$exit, $name");
		like($line, qr/^\Q$h\E 9001 200 ok \d\.\d{3}$/,
			"$exit, log, $name");

		is(ask($t, $h, 9002, silent => 1), "BANNER\n",
			"$exit, server first, $name");
		is(sum($t, $h, 1000000), 'same', "$exit, 1 MB up, $name");

		is($t->in('client', sub {
			my $s = Test::Tun::connect_to($h, 9004) or return "$@";
			return Test::Tun::read_all($s)
				eq Test::Tun::bytes(7, 300000) ? 'same' : 'other';
		}), 'same', "$exit, much at once down, $name");

		my ($rc) = session($t, sub { ask($t, $h, 9) });
		is($rc, 'refused', "$exit, nobody there, $name");
	}

	my (undef, $line) = session($t, sub { ask($t, $host->(1), 9) });
	like($line, qr/ 9 502 5 /, "refused by the destination, log, $name");

	(my $got, $line) = session($t, sub { ask($t, $host->(9), 9001) });
	is($got, 'refused', "wrong password, $name");
	like($line, qr{ 502 \d+ }, "wrong password, log, $name");

	my $h = $host->(6);
	my $client = $family->{client};

	for my $port (80, 8443) {
		my $got = $t->in('client', sub {
			my $s = Test::Tun::connect_to($h, $port) or return "$@";
			Test::Tun::write_all($s, "GET / HTTP/1.0\r\n\r\n");
			return scalar Test::Tun::read_all($s);
		});
		like($got, qr/\[\Q$client $h $port $port.example\E\]/,
			"PROXY protocol, HAProxy, $name");
	}

	my $hex = '05010005010001';
	$hex = '05010005010004' if $name eq 'IPv6';
	is(ask($t, $host->(7), 9001), "$hex\n", "pipeline, $name");

	my $to = $name eq 'IPv4' ? "10.2.0.8:9001" : "[fd00:2::8]:9001";
	is(ask($t, $host->(8), 9001), "CONNECT $to HTTP/1.1\r\nHost: $to\r\n"
		. 'Proxy-Authorization: Basic ' . encode_base64('alice:', '')
		. "\r\nX-Port: 9001\r\n\r\n", "CONNECT byte by byte, $name");

	is(ask($t, $host->(10), 9001), "by unix\n", "unix socket, $name");

	# ordinary sockets, the client of which is in the namespace of servers

	my %ns = (ns => 'server');
	my $g = $family->{gateway};

	is(ask($t, $g, 8001, %ns), "echo hello\n", "listen, $name");
	is(ask($t, $g, 8002, %ns, silent => 1), "BANNER\n",
		"listen, server first, $name");
	is(sum($t, $g, 1000000, %ns, port => 8003), 'same',
		"listen, 1 MB, $name");
	is(ask($t, $g, 8004, %ns), "echo hello\n", "listen, by name, $name");

	for my $port (5 .. 10) {
		my ($got, $line) = session($t, sub {
			ask($t, $g, 8000 + $port, %ns) });
		like($got, qr/^(closed|reset)$/, "bad destination $port, $name");
		like($line, qr/ 500 - -$/, "bad destination $port, log, $name");
	}

	like(ask($t, $g, 8201, %ns, say => "GET / HTTP/1.0\r\n\r\n"),
		qr/^HTTP/, "listen, PROXY protocol, $name");
}

for my $port (8301, 8302, 8303, 8305, 8306, 8312) {
	my ($got, $line) = session($t, sub {
		ask($t, '10.1.0.1', $port, ns => 'server') });
	like($got, qr/^(closed|reset)$/, "bad value $port");
	like($line, qr/ 500 - -$/, "bad value $port, nothing sent");
}

# these can, the first is not what the proxy wants

my (undef, $said) = session($t, sub {
	ask($t, '10.1.0.1', 8304, ns => 'server') });
like($said, qr/ 502 \d+ /, 'a user of 255 bytes');
is(ask($t, '10.1.0.1', 8307, ns => 'server'), "echo hello\n",
	'a header with a space');

is(ask($t, '10.1.0.1', 8011, ns => 'server'), "echo hello\n",
	'listen, CONNECT');

like($t->error_log(), qr/\[info\].*socks5 proxy 10.1.0.2:1081 said 5 \(conn/,
	'destination error in the log');
like($t->error_log(), qr/\[warn\].*socks5 proxy 10.1.0.2:1082 said \d+ \(user/,
	'proxy error in the log');
unlike($t->error_log(), qr/upstream timed out/, 'nothing misleading');

ok(finished($t, $fds), 'no descriptor left');

###############################################################################

# what is no configuration

for my $bad (
	[ 'tun_handshake ftp;', 'unknown handshake "ftp"' ],
	[ 'tun_handshake socks5; tun_handshake http;', 'is duplicate' ],
	[ 'tun_handshake socks5 user=' . 'u' x 256 . ';', '256 bytes' ],
	[ 'tun_handshake socks5 user=u password=' . 'u' x 256 . ';',
		'256 bytes' ],
	[ 'tun_handshake socks5 "user=a b";', 'without control bytes and' ],
	[ 'tun_handshake socks5 user=;', 'empty value' ],
	[ 'tun_handshake socks5 password=x;', 'without "user="' ],
	[ 'tun_handshake socks5 header=a:b;', 'invalid parameter "header=' ],
	[ 'tun_handshake http pipeline;', 'invalid parameter "pipeline"' ],
	[ 'tun_handshake http "header=a b: c";', 'invalid header' ],
	[ 'tun_handshake http header=a;', 'invalid header' ],
	[ "tun_handshake http 'header=a: b\n';", 'control bytes' ],
	[ 'tun_handshake http timeout=0;', 'invalid timeout' ],
	[ 'tun_handshake http timeout=x;', 'invalid timeout' ],
	[ 'tun_handshake http final=403,x;', 'invalid codes' ],
	[ 'tun_handshake socks5 final=500;', 'invalid codes' ],
	[ 'tun_handshake proxy_v2 tlv=256:x;', 'invalid TLV' ],
	[ 'tun_handshake proxy_v2 tlv=x;', 'invalid TLV' ],
	[ 'tun_handshake proxy_v2 user=x;', 'invalid parameter' ],
	[ 'tun_handshake socks5 destination=host;', 'invalid destination' ],
	[ 'tun_handshake socks5 destination=$nothing;', 'unknown "nothing"' ],
) {
	my ($rc, $out) = $t->test_conf("%%GLOBALS%%\n%%EVENTS%%\nstream {\n"
		. "upstream u { server 10.1.0.2:1; $bad->[0] }\n"
		. "server { listen 8001; proxy_pass u; }\n}\n");

	isnt($rc, 0, "refused: " . substr($bad->[0], 0, 50));
	like($out, qr{\Q$bad->[1]\E}, 'with a message');
}

$t->done();
