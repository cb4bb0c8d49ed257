#!/usr/bin/perl

# (C) the nginx-tun authors

# Runs the gateways of examples/ against real proxies.

use warnings;
use strict;

use Test::More;

use Test::Tun;
use Test::Tun::Proxy;

# one of them after the other, each with namespaces of its own

my $example = $ENV{TUN_EXAMPLE};

if (!defined $example) {
	for my $name (qw/ socks5-pool tls-proxy /) {
		local $ENV{TUN_EXAMPLE} = $name;
		my $out = qx($^X -It/lib $0 2>&1);
		is($?, 0, $name) or diag($out);
		note($out);
	}

	done_testing();
	exit;
}

my $t = Test::Tun->new();

# the addresses in the examples

$t->ip('server', qw/ addr add /, "192.0.2.$_/32", qw/ dev lo /)
	for 10 .. 12;
$t->ip('gateway', qw/ route add 192.0.2.0\/24 via 10.1.0.2 /);
$t->ip('server', qw/ route add local 203.0.113.0\/24 dev lo /);
$t->ip('server', qw/ route add local 2001:db8::\/64 dev lo /);

$t->origin();
destinations($t);

if ($example eq 'socks5-pool') {
	program(microsocks => qw/ -i 192.0.2.11 -p 1080 -u alice -P secret /);
	program(microsocks => qw/ -i 192.0.2.12 -p 1080 -u alice -P secret /);
	listening($t, 1080);

} else {
	tinyproxy($t, 8080, 'BasicAuth alice secret');
	microsocks($t, 1081);
	certificates($t);
	front($t, 8443 => 8080, 1443 => 1081);
}

my ($rc, $out) = $t->nginx(conf($example));
is($rc, 0, 'starts') or diag($out, $t->error_log());
$t->routes();

for my $host ('203.0.113.7', '[2001:db8::7]', '10.2.0.1', '[fd00:2::1]') {
	is(($t->curl("http://$host/"))[1], "SEE-THIS\n", "a page of $host");
}

for my $host ('203.0.113.7', '2001:db8::7') {
	is(ask($t, $host, 9001), "echo hello\n", "a line of $host");
	is(ask($t, $host, 9), 'refused', "nobody there, $host");
	is(sum($t, $host, 500000), 'same', "bytes, $host");
}

# these proxies take no datagrams, and the client hears so

is($t->in('client', sub {
	my $s = Test::Tun::udp_to('203.0.113.7', 9001) or return "$@";

	for (1 .. 50) {
		send($s, 'x', 0) // return 'refused';
		select(undef, undef, undef, 0.1);
	}

	return 'taken';
}), 'refused', 'datagrams') if $example eq 'socks5-pool';

my $log = Test::Tun::slurp("$t->{dir}/logs/flows.log");

if ($example eq 'socks5-pool') {
	like($log, qr/-> 203.0.113.7:80 by 192.0.2.10:1080, 192.0.2.11:1080 -, ok 200/,
		'failed over');
	like($log, qr/-> 10.2.0.1:80 by 10.2.0.1:80 - 200/, 'directly');
	like($log, qr/-> 203.0.113.7:9001 by [^\n]* 7, 7[^\n]* 502/, 'no datagrams');
	like($log, qr/-> \[2001:db8::7\]:9 by 192.0.2.1[12]:1080 5 502/,
		'refused by the destination');

} else {
	like($log, qr/-> 203.0.113.7:80 by 192.0.2.10:8443 ok 200/, 'CONNECT');
	like($log, qr/-> 203.0.113.7:9001 by 192.0.2.10:1443 ok 200/,
		'SOCKS5');
}

$t->done();

###############################################################################

sub program { $t->program('server', @_) }

# with the paths of this test

sub conf {
	my ($name) = @_;

	my $dir = $t->{dir};
	my $conf = Test::Tun::slurp("examples/$name.conf");

	my (undef, $built) = $t->run_cmd(10, $t->{nginx}, '-V');
	my $has = $built =~ /--with-stream=dynamic/;

	$conf =~ s{^load_module modules/ngx_stream_module.so;\n}
		{$has ? "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n" : ''}me;
	$conf =~ s{modules/ngx_stream_tun_module.so}{$t->{module}};
	$conf =~ s{/var/log/nginx/}{$dir/logs/}g;
	$conf =~ s{netns   clients}{netns   } && $conf =~ s{netns   ;}
		{"netns   " . $t->ns('client') . ";"}e;

	Test::Tun::spew("$dir/$name.conf", "pid $dir/logs/nginx.pid;\n$conf");

	return "$dir/$name.conf";
}

sub front {
	my ($t, %ports) = @_;

	Test::Tun::spew("$t->{dir}/front.conf", join "\n",
		'load_module /usr/lib/nginx/modules/ngx_stream_module.so;',
		"user root; daemon off; pid $t->{dir}/front.pid;",
		"error_log $t->{dir}/logs/front.log info;",
		'events { } stream {',
		"ssl_certificate $t->{dir}/proxy.pem;",
		"ssl_certificate_key $t->{dir}/proxy.key;",
		"ssl_client_certificate $t->{dir}/proxy-ca.pem;",
		'ssl_verify_client on;',
		(map { "server { listen $_ ssl; proxy_pass 10.1.0.2:$ports{$_}; }" }
			sort keys %ports), '}', '');

	program('/usr/sbin/nginx', '-c', "$t->{dir}/front.conf",
		'-e', "$t->{dir}/logs/front.log");
	listening($t, $_) for keys %ports;
}

sub certificates {
	my ($t) = @_;

	my $dir = $t->{dir};
	my @key = qw/ openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256
		-nodes /;

	$t->system(@key, qw{ -x509 -days 2 -subj /CN=ca -keyout },
		"$dir/proxy-ca.key", '-out', "$dir/proxy-ca.pem");

	for ([ proxy => 'proxy.example' ], [ client => 'client' ]) {
		my ($name, $host) = @$_;

		Test::Tun::spew("$dir/ext", "subjectAltName=DNS:$host\n");
		$t->system(@key, '-subj', "/CN=$host", '-keyout',
			"$dir/$name.key", '-out', "$dir/$name.csr");
		$t->system(qw/ openssl x509 -req -days 2 -CAcreateserial -CA /,
			"$dir/proxy-ca.pem", '-CAkey', "$dir/proxy-ca.key",
			'-in', "$dir/$name.csr", '-out', "$dir/$name.pem",
			'-extfile', "$dir/ext");
	}
}
