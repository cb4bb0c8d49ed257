#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_handshake inside of TLS: proxy_ssl with a client certificate,
# to proxies behind an nginx that asks for one; and proxies that fail there.

use warnings;
use strict;

use Test::More;

use Test::Tun;
use Test::Tun::Proxy;

my $t = Test::Tun->new();

destinations($t);
microsocks($t, 1081);
tinyproxy($t, 1084);
my @bad = bad_proxies($t);
socks5_server($t, 1111, 5);
socks5_server($t, 1112, 0, banner => "BANNER\n");

certificates($t);

# the front: TLS on 2081 for 1081, and so on

Test::Tun::spew("$t->{dir}/front.conf", join "\n",
	'load_module /usr/lib/nginx/modules/ngx_stream_module.so;',
	"user root; daemon off; pid $t->{dir}/front.pid;",
	"error_log $t->{dir}/logs/front.log info;",
	'events { worker_connections 8192; } stream {',
	"ssl_certificate $t->{dir}/proxy.example.pem;",
	"ssl_certificate_key $t->{dir}/proxy.example.key;",
	"ssl_client_certificate $t->{dir}/ca.pem;",
	'ssl_verify_client on;',
	(map { "server { listen " . ($_ + 1000) . " ssl;"
		. " listen [::]:" . ($_ + 1000) . " ssl;"
		. " proxy_pass 10.1.0.2:$_; }" }
		1081, 1084, 1111, 1112, map { $_->[0] } @bad), '}', '');

$t->program('server', '/usr/sbin/nginx', '-c', "$t->{dir}/front.conf",
	'-e', "$t->{dir}/logs/front.log");
listening($t, 2081);

my $good = 'server [fd00:1::2]:2081';
my $socks = 'tun_handshake socks5 timeout=500ms';
my (@upstreams, @map);

sub exits {
	my ($n, @lines) = @_;
	push @upstreams, "upstream u$n { @lines }\n";
	push @map, sprintf("10.2.0.%d u%d; fd00:2::%x u%d;\n", $n, $n, $n, $n);
}

for my $n (0 .. $#bad) {
	exits($n + 1, 'server 10.1.0.2:' . ($bad[$n][0] + 1000)
		. " max_fails=0 weight=1000; $good max_fails=0; $socks;");
}

my @all = map { '10.1.0.2:' . ($_->[0] + 1000) } @bad;
my $all = join '', map { "server $_ max_fails=0;" } @all;

exits(20, "$all $socks;");
exits(21, "$all $good backup; $socks;");
exits(22, 'server 10.1.0.2:2111 max_fails=1; ' . "$good backup; $socks;");
exits(23, 'server 10.1.0.2:2104 max_fails=0 weight=1000;'
	. " $good max_fails=0; $socks;");
exits(27, 'zone u27 64k;', map("server 10.1.0.2:$_ max_fails=0;",
	2101, 2104, 2105, 2106), "$good max_fails=0;",
	'tun_handshake socks5 timeout=10s;');
exits(24, 'server 10.1.0.2:2112; ' . "$socks;");
exits(25, 'server 10.1.0.2:2084; tun_handshake http;');
exits(26, "$good; $socks;");

$t->run(<<"END");
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '\$server_addr \$server_port|\$status|\$upstream_addr|'
                    '\$tun_handshake_status|\$tun_handshake_time';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    @upstreams

    map \$server_addr \$exit {
        @map
    }

    proxy_ssl on;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate %%DIR%%/ca.pem;
    proxy_ssl_name proxy.example;
    proxy_ssl_server_name on;
    proxy_ssl_certificate %%DIR%%/client.pem;
    proxy_ssl_certificate_key %%DIR%%/client.key;

    server {
        tun_listen tun0;
        proxy_pass \$exit;
    }

    server {
        tun_listen tun0 10.2.1.0/24;
        tun_listen tun0 fd00:2::1:0/112;
        proxy_pass u21;
        ssl_preread on;
    }

    server {
        tun_listen tun0 :9011;
        proxy_pass u23;
        proxy_next_upstream off;
    }

    server {
        tun_listen tun0 :9012;
        proxy_pass u20;
        proxy_next_upstream_tries 2;
    }

    server {
        tun_listen tun0 :9013;
        proxy_pass u26;
        proxy_ssl_name other.example;
    }

    # another certificate

    server {
        tun_listen tun0 :9014;
        proxy_pass u26;
        proxy_ssl_certificate %%DIR%%/stranger.pem;
        proxy_ssl_certificate_key %%DIR%%/stranger.key;
    }

    # without TLS, and another one beside it

    server {
        tun_listen tun0 :9015;
        proxy_pass 10.2.0.1:9001;
        proxy_ssl off;
    }

    # an upstream without a handshake

    server {
        tun_listen tun0 :9016;
        proxy_pass 10.1.0.2:2112;
    }

    upstream o { $all $good backup;
                 $socks destination=10.2.0.1:\$server_port; }

    server {
        listen 9001;
        listen 9002;
        listen 9003;
        listen [::]:9001;
        listen [::]:9002;
        listen [::]:9003;
        proxy_pass o;
    }
}
END

my $fds = settled($t);

for my $family (@Test::Tun::FAMILIES) {
	my $name = $family->{name};
	my $host = sub { $name eq 'IPv4' ? "10.2.0.$_[0]"
		: sprintf('fd00:2::%x', $_[0]) };

	for ([ 25, 'CONNECT' ], [ 26, 'SOCKS5' ]) {
		my ($n, $what) = @$_;
		my $h = $host->($n);

		my ($got, $line) = session($t, sub { ask($t, $h, 9001) });
		is($got, "echo hello\n", "$what, $name");
		like($line, qr/\|200\|[^,]+\|ok\|/, "$what, log, $name");
		is(ask($t, $h, 9002, silent => 1), "BANNER\n",
			"$what, server first, $name");
		is(sum($t, $h, 1000000), 'same', "$what, 1 MB up, $name");
		is($t->in('client', sub {
			my $s = Test::Tun::connect_to($h, 9004) or return "$@";
			return Test::Tun::read_all($s)
				eq Test::Tun::bytes(7, 300000) ? 'same' : 'other';
		}), 'same', "$what, down, $name");
	}

	for my $n (0 .. $#bad) {
		my ($port, $what, $status) = @{ $bad[$n] };
		my $h = $host->($n + 1);

		# the front ends TLS where the proxy resets

		$status = 'closed' if $status eq 'reset';
		$port += 1000;

		my ($got, $line) = session($t, sub { ask($t, $h, 9001) });
		is($got, "echo hello\n", "$what, another one, $name");
		like($line, qr/\|200\|10.1.0.2:$port, \[fd00:1::2\]:2081\|(?:$status|reset), ok\|/,
			"$what, log, $name");
	}

	is(ask($t, $host->(4), 9002, silent => 1), "BANNER\n",
		"server first, $name");

	my ($got, $line) = session($t, sub { ask($t, $host->(20), 9001) });
	my (undef, $status, $addrs) = split /\|/, $line;

	is($got, 'refused', "none is good, $name");
	is($status, 502, "none is good, status, $name");
	is_deeply([ sort split /, /, $addrs ], [ sort @all ],
		"each is tried once, $name");

	is(ask($t, $host->(21), 9001), "echo hello\n", "backup, $name");
	is(sum($t, $host->(21), 500000), 'same', "backup, bytes, $name");

	my $preread = $name eq 'IPv4' ? '10.2.1.1' : 'fd00:2::1:1';
	is(sum($t, $preread, 500000, prefix => hello('a.example')), 'same',
		"ssl_preread, $name");
	is(sum($t, $preread, 0, prefix => hello('a.example')), 'same',
		"ssl_preread, few bytes, $name");

	for (1 .. 2) {
		($got, $line) = session($t, sub { ask($t, $host->(22), 9001) });
		is($got, 'refused', "destination, $name");
		like($line, qr/\|502\|10.1.0.2:2111\|5\|/, 'does not fail');
	}

	is(ask($t, $host->(24), 9001, silent => 1), "BANNER\n",
		"banner with the answer, $name");

	($got, $line) = session($t, sub { ask($t, $host->(1), 9011) });
	like($line, qr/\|502\|10.1.0.2:2104\|garbage\|/, "next off, $name");

	($got, $line) = session($t, sub { ask($t, $host->(1), 9012) });
	like($line, qr/\|502\|[^,|]+, [^,|]+\|/, "two tries, $name");

	($got, $line) = session($t, sub { ask($t, $host->(1), 9013) });
	is($got, 'refused', "another name, $name");
	like($line, qr/\|502\|.*\|-\|-$/, "another name, log, $name");

	($got, $line) = session($t, sub { ask($t, $host->(1), 9014) });
	isnt($got, "echo hello\n", "another certificate, $name");

	is(ask($t, $host->(1), 9015), "echo hello\n", "without TLS, $name");

	is(ask($t, $family->{gateway}, 9001, ns => 'server'), "echo hello\n",
		"listen, $name");
	is(ask($t, $family->{gateway}, 9002, ns => 'server', silent => 1),
		"BANNER\n", "listen, server first, $name");
	is(sum($t, $family->{gateway}, 500000, ns => 'server'), 'same',
		"listen, bytes, $name");
}

ok(finished($t, $fds), 'no descriptor left');

# clients that do not wait

for my $family (@Test::Tun::FAMILIES) {
	my $host = $family->{name} eq 'IPv4' ? '10.2.0.3' : 'fd00:2::3';

	leave($t, 'client', $host, 9001, 100);
	leave($t, 'server', $family->{gateway}, 9001, 100);

	ok(finished($t, $fds), 'no descriptor left of them')
		or diag(descriptors($t));

	is(ask($t, $host, 9001), "echo hello\n",
		"after clients that went away, $family->{name}")
		or diag(($t->access_log())[-1]);
}

my $many = sub {
	my ($n) = @_;

	my @jobs = map {
		$t->start('client', sub {
			my $good = 0;
			for (1 .. $n / 10) {
				my $s = Test::Tun::connect_to('10.2.0.27', 9001)
					or next;
				Test::Tun::write_all($s, "hello\n");
				sysread($s, my $buf, 100);
				$good++ if ($buf // '') eq "echo hello\n";
			}
			return $good || '0';
		});
	} 1 .. 10;

	my $good = 0;
	$good += $t->wait($_, 120) for @jobs;
	return $good;
};

is($many->(200), 200, 'sessions');

my $rss = $t->rss();

is($many->(600), 600, 'more of them');
ok(finished($t, $fds), 'no descriptor left')
	or diag(descriptors($t) . " descriptors, not $fds");
cmp_ok($t->rss() - $rss, '<', $t->{module} =~ /sanitize/ ? 400000 : 1024,
	'no memory lost');

unlike($t->error_log(), qr/upstream timed out|buffered data on next/,
	'nothing misleading');

$t->done();

###############################################################################

sub certificates {
	my ($t) = @_;

	my $dir = $t->{dir};
	my @key = qw/ openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256
		-nodes /;

	for my $name (qw/ ca stranger /) {
		$t->system(@key, qw/ -x509 -days 2 -subj /, "/CN=$name",
			'-keyout', "$dir/$name.key", '-out', "$dir/$name.pem");
	}

	for my $name (qw/ proxy.example client /) {
		Test::Tun::spew("$dir/ext", "subjectAltName=DNS:$name\n");
		$t->system(@key, '-subj', "/CN=$name", '-keyout',
			"$dir/$name.key", '-out', "$dir/$name.csr");
		$t->system(qw/ openssl x509 -req -days 2 -CAcreateserial -CA /,
			"$dir/ca.pem", '-CAkey', "$dir/ca.key", '-in',
			"$dir/$name.csr", '-out', "$dir/$name.pem",
			'-extfile', "$dir/ext");
	}
}
