#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_handshake with proxies that fail: another one is tried, by
# nginx's own rules, and nothing of the client is lost.

use warnings;
use strict;

use Test::More;

use Test::Tun;
use Test::Tun::Proxy;

my $t = Test::Tun->new();

destinations($t);
microsocks($t, 1081);
my @bad = bad_proxies($t);
socks5_server($t, 1111, 5);
socks5_server($t, 1112, 0, banner => "BANNER\n");
socks5_server($t, 1114, 0, banner => "BANNER\n", delay => 0.6);
socks5_server($t, 1115, 0, banner => "BANNER\n", close => 1);

proxy($t, 1113, sub {
	my ($s) = @_;
	my $buf = '';
	sysread($s, $buf, 1000, length $buf) || return while $buf !~ /\r\n\r\n/;
	my ($code) = $buf =~ /:(\d+) HTTP/;
	Test::Tun::write_all($s, "HTTP/1.1 $code No\r\n\r\nbecause\n");
});

my $good = 'server 10.1.0.2:1081';
my $socks = 'tun_handshake socks5 timeout=500ms';

my (@upstreams, @map);

sub exits {
	my ($n, @lines) = @_;
	push @upstreams, "upstream u$n { @lines }\n";
	push @map, sprintf("10.2.0.%d u%d; fd00:2::%x u%d;\n", $n, $n, $n, $n);
}

# each bad one before a good one, weighted so that it is the first

for my $n (0 .. $#bad) {
	exits($n + 1, "server 10.1.0.2:$bad[$n][0] max_fails=0 weight=1000;"
		. " $good max_fails=0; $socks;");
}

my @all = map { "10.1.0.2:$_->[0]" } @bad;
my $all = join '', map { "server $_ max_fails=0;" } @all;

exits(20, "$all $socks;");
exits(21, "$all $good backup; $socks;");
exits(22, "server 10.1.0.2:1104 weight=1000 fail_timeout=1m; $good; $socks;");
exits(23, "server 10.1.0.2:1111 max_fails=1 fail_timeout=1m;"
	. " $good backup; $socks;");
exits(24, "server 10.1.0.2:1111; $good backup; $socks final=none;");
exits(25, "server 10.1.0.2:1104 max_fails=0 weight=1000;"
	. " $good max_fails=0; $socks;");
exits(33, 'zone u33 64k;', map("server 10.1.0.2:$_ max_fails=0;",
	1101, 1104, 1105, 1106), "$good max_fails=0;",
	'tun_handshake socks5 timeout=10s;');
exits(26, "server 10.1.0.2:1112; $socks;");
exits(27, "server 10.1.0.2:9 max_fails=0 weight=1000; $good max_fails=0; $socks;");
exits(28, "hash \$remote_addr;", map("server 10.1.0.2:$_ max_fails=5;",
	1101, 1104, 1105), "$socks;");
exits(29, "$all $good max_fails=0; $socks;");
exits(30, "server 10.1.0.2:1113; server 10.1.0.2:1105 backup;"
	. ' tun_handshake http final=403,502;');

exits(31, 'server 10.1.0.2:1114; tun_handshake socks5 timeout=5s;');
exits(32, "server 10.1.0.2:1115; $socks;");

my $conf = <<"END";
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

    server {
        tun_listen tun0;
        proxy_pass \$exit;
    }

    server {
        tun_listen tun0 10.2.1.0/24;
        tun_listen tun0 fd00:2::1:0/112;
        proxy_pass u29;
        ssl_preread on;
    }

    server {
        tun_listen tun0 :9011;
        proxy_pass u25;
        proxy_next_upstream off;
    }

    server {
        tun_listen tun0 :9012;
        proxy_pass u20;
        proxy_next_upstream_tries 2;
    }

    server {
        tun_listen tun0 :9013;
        proxy_pass u20;
        proxy_next_upstream_timeout 1ms;
    }

    server {
        tun_listen tun0 :9014;
        proxy_pass \$exit;
        proxy_connect_timeout 200ms;
    }

    upstream o { $all $good backup;
                 $socks destination=10.2.0.1:\$server_port; }

    server {
        listen 9001;
        listen 9003;
        listen [::]:9001;
        listen [::]:9003;
        proxy_pass o;
    }
}
END

$t->run($conf);

my $fds = settled($t);

for my $family (@Test::Tun::FAMILIES) {
	my $name = $family->{name};
	my $host = sub { $name eq 'IPv4' ? "10.2.0.$_[0]"
		: sprintf('fd00:2::%x', $_[0]) };

	for my $n (0 .. $#bad) {
		my ($port, $what, $status) = @{ $bad[$n] };
		my $h = $host->($n + 1);

		my ($got, $line) = session($t, sub { ask($t, $h, 9001) });

		is($got, "echo hello\n", "$what, another one, $name");
		like($line, qr/^\Q$h\E\ 9001\|200\|10.1.0.2:$port,\ 10.1.0.2:1081
			\|$status,\ ok\|\d\.\d{3},\ \d\.\d{3}$/x,
			"$what, log, $name");
	}

	is(ask($t, $host->(1), 9002, silent => 1), "BANNER\n",
		"server first, $name");

	is(ask($t, $host->(31), 9014, silent => 1), "BANNER\n",
		"a timeout of its own, $name");

	is($t->in('client', sub {
		my $s = Test::Tun::connect_to($host->(32), 9001) or return "$@";
		return scalar Test::Tun::read_all($s);
	}), "BANNER\n", "the end with the answer, $name");

	# all of them

	my $lines = () = $t->error_log() =~ /\[(?:warn|error)\]/g;
	my ($got, $line) = session($t, sub { ask($t, $host->(20), 9001) });
	my (undef, $status, $addrs, $said) = split /\|/, $line;

	is($got, 'refused', "none is good, $name");
	is(scalar(() = $t->error_log() =~ /\[(?:warn|error)\]/g), $lines + @bad,
		"a line for each, $name");
	is($status, 502, "none is good, status, $name");
	is_deeply([ sort split /, /, $addrs ], [ sort @all ],
		"each is tried once, $name");
	is_deeply([ sort split /, /, $said ], [ sort map { $_->[2] } @bad ],
		"what each said, $name");

	is(ask($t, $host->(21), 9001), "echo hello\n", "backup, $name");
	is(sum($t, $host->(21), 500000), 'same', "backup, bytes, $name");

	# bytes that were read before there was an upstream

	my $preread = $name eq 'IPv4' ? '10.2.1.1' : 'fd00:2::1:1';
	is(sum($t, $preread, 500000, prefix => hello('a.example')), 'same',
		"ssl_preread, $name");

	# an error about the destination

	for (1 .. 3) {
		($got, $line) = session($t, sub { ask($t, $host->(23), 9001) });
		is($got, 'refused', "destination, $name");
		like($line, qr/\|502\|10.1.0.2:1111\|5\|/, 'does not fail');
	}

	is(ask($t, $host->(24), 9001), "echo hello\n", "final=none, $name");

	for my $code (403, 502) {
		($got, $line) = session($t, sub { ask($t, $host->(30), $code) });
		is($got, 'refused', "CONNECT, $code, $name");
		like($line, qr/\|502\|10.1.0.2:1113\|$code\|/, 'no other one');
	}

	# nginx's own rules

	for (1, 2) {
		is(ask($t, $host->(22), 9001), "echo hello\n",
			"max_fails, $name");
	}

	($got, $line) = session($t, sub { ask($t, $host->(22), 9001) });
	like($line, qr/\|200\|10.1.0.2:1081\|ok\|/, "marked down, $name");

	($got, $line) = session($t, sub { ask($t, $host->(1), 9011) });
	like($line, qr/\|502\|10.1.0.2:1104\|garbage\|/, "next off, $name");

	($got, $line) = session($t, sub { ask($t, $host->(1), 9012) });
	like($line, qr/\|502\|[^,]+, [^,|]+\|/, "two tries, $name");

	($got, $line) = session($t, sub { ask($t, $host->(1), 9013) });
	like($line, qr/\|502\|/, "next timeout, $name");

	($got, $line) = session($t, sub { ask($t, $host->(27), 9001) });
	is($got, "echo hello\n", "no connection, another one, $name");
	like($line, qr/\|10.1.0.2:9, 10.1.0.2:1081\|-, ok\|-, /,
		"no handshake, $name");

	($got, $line) = session($t, sub { ask($t, $host->(28), 9001) });
	my %tried = map { $_ => 1 } split /, /, (split /\|/, $line)[2];
	is(scalar keys %tried, 3, "hash, $name");

	is(ask($t, $host->(26), 9001, silent => 1), "BANNER\n",
		"banner with the answer, $name");
	is(sum($t, $host->(26), 200000, port => 9005) =~ /^different: BANNER/,
		1, "and bytes after it, $name");

	# ordinary sockets

	is(ask($t, $family->{gateway}, 9001, ns => 'server'), "echo hello\n",
		"listen, $name");
	is(sum($t, $family->{gateway}, 500000, ns => 'server'), 'same',
		"listen, bytes, $name");
}

ok(finished($t, $fds), 'no descriptor left');

# many of them

# a handshake that goes on over a reload

my @jobs = map {
	my $n = $_;
	$t->start('client', sub { ask($t, "10.2.0.$n", 9001) });
} 3, 31;

select(undef, undef, undef, 0.2);
my ($old) = $t->workers();
$t->reload();

is($t->wait($jobs[0]), "echo hello\n", 'stalled, over a reload');
is($t->wait($jobs[1]), "BANNER\n", 'slow, over a reload');

ok(Test::Tun::wait_for(10, sub { !Test::Tun::alive($old) }),
	'the old worker ends');

$fds = settled($t);

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
	my ($n, $port) = @_;

	my @jobs = map {
		$t->start('client', sub {
			my $good = 0;
			for (1 .. $n / 20) {
				my $s = Test::Tun::connect_to('10.2.0.33', $port)
					or next;
				Test::Tun::write_all($s, "hello\n");
				sysread($s, my $buf, 100);
				$good++ if ($buf // '') eq "echo hello\n";
			}
			return $good || '0';
		});
	} 1 .. 20;

	my $good = 0;
	$good += $t->wait($_, 120) for @jobs;
	return $good;
};

is($many->(400, 9001), 400, 'sessions');
ok(finished($t, $fds), 'as many descriptors as before') or diag(descriptors($t));

my $rss = $t->rss();

is($many->(2000, 9001), 2000, '2,000 sessions');
ok(finished($t, $fds), 'and still')
	or diag(descriptors($t) . " descriptors, not $fds");
cmp_ok($t->rss() - $rss, '<', $t->{module} =~ /sanitize/ ? 400000 : 1024,
	'no memory lost');

unlike($t->error_log(), qr/upstream timed out/, 'nothing misleading');
like($t->error_log(), qr/\[warn\].*socks5 proxy 10.1.0.2:1104 answered what/,
	'who said what');

$t->done();
