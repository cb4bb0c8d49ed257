#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_status: the counters of devices as JSON.

use warnings;
use strict;

use JSON::PP;
use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

my $http = <<'EOF';
http {
    access_log off;

    server {
        listen 127.0.0.1:8080;

        location = /tun {
            tun_status;
            allow 127.0.0.1;
            deny all;
        }

        location = /denied {
            tun_status;
            deny all;
        }
    }
}
EOF

my $conf = <<'EOF' . $http;
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    tun tun1 {
        address 198.22.0.1/15;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0 :9000;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :9001;
        proxy_pass $tun_target;
        tun_accept early;
    }
}
EOF

sub get {
	my ($uri, @args) = @_;
	my (undef, $out) = $t->exec('gateway', 'curl', '-sS', '-i', @args,
		"http://127.0.0.1:8080$uri");
	return $out;
}

sub status {
	my ($headers, $body) = split /\r\n\r\n/, get('/tun'), 2;
	return decode_json($body);
}

# without a device, and without stream

for my $stream ('', 'stream { }') {
	$t->run("%%GLOBALS%%\n%%EVENTS%%\n$stream\n$http");
	is_deeply(status(), { tun => [] }, "no device, '$stream'");
	$t->stop();
}

$t->server($_, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
}) for 9000, 9001;

$t->run($conf);

my $json = status();

is(scalar @{ $json->{tun} }, 2, 'devices');
is($json->{tun}[0]{name}, 'tun0', 'name');
is($json->{tun}[1]{name}, 'tun1', 'another name');
is($json->{tun}[0]{stack}, 'lwip', 'stack');
is(scalar @{ $json->{tun}[0]{workers} }, 2, 'workers');
is($json->{tun}[0]{total}{flows}, 0, 'no flows');

my $job = $t->start('client', sub {
	my @s = map { Test::Tun::connect_to('10.1.0.2', 9000) } 1 .. 10;

	for my $s (@s) {
		Test::Tun::write_all($s, 'x' x 10000);
		my $n = 0;
		$n += sysread($s, my $buf, 10000) || last while $n < 10000;
	}

	Test::Tun::connect_to('10.1.0.2', 9001);
	Test::Tun::connect_to('10.1.0.2', 1);

	Test::Tun::spew("$t->{dir}/opened", '');
	Test::Tun::wait_for(10, sub { -e "$t->{dir}/seen" });

	return scalar @s;
});

ok(Test::Tun::wait_for(10, sub { -e "$t->{dir}/opened" }), 'opened');

my $tun = status()->{tun}[0];
my $total = $tun->{total};

is($total->{flows}, 11, 'flows');
cmp_ok($total->{active}, '>=', 10, 'active');
is($total->{early}, 1, 'early');
is($total->{refused}, 1, 'refused');
cmp_ok($total->{bytes_in}, '>', 100000, 'bytes in');
cmp_ok($total->{bytes_out}, '>', 100000, 'bytes out');
cmp_ok($total->{packets_in}, '>=', 30, 'packets in');
cmp_ok($total->{packets_out}, '>=', 20, 'packets out');

my @wrong = grep {
	my $name = $_;
	my $sum = 0;
	$sum += $_->{$name} for @{ $tun->{workers} };
	$sum != $total->{$name};
} keys %$total;

is("@wrong", '', 'sums');

Test::Tun::spew("$t->{dir}/seen", '');
$t->wait($job);

ok(Test::Tun::wait_for(15, sub { status()->{tun}[0]{total}{active} == 0 }),
	'active, none again');

$t->reload();
ok(Test::Tun::wait_for(5, sub { $t->workers() == 2
	&& $t->error_log() =~ /gracefully shutting down/ }), 'reload');
is(status()->{tun}[0]{total}{flows}, 11, 'kept over a reload');

# as a page

like(get('/tun'), qr{^HTTP/1.1 200 OK}, 'a page');
like(get('/tun'), qr{^Content-Type: application/json\r$}mi, 'type');
like(get('/tun'), qr{^Cache-Control: no-store\r$}mi, 'is not cached');
like(get('/tun', '-I'), qr{^HTTP/1.1 200 OK}, 'HEAD');
like(get('/tun', '-d', 'x=y'), qr{^HTTP/1.1 405}, 'POST');
like(get('/denied'), qr{^HTTP/1.1 403}, 'denied');

$t->done();
