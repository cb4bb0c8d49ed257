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
        listen 10.1.0.1:8080;

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

    tun 'tun"\1' {
        address 198.22.0.1/15;
        netns   %%NETNS%%;
        queues  1;
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

# counters whose total is not the sum of the workers' ones

sub sums {
	my ($json) = @_;
	my @wrong;

	for my $tun (@{ $json->{tun} }) {
		for my $name (keys %{ $tun->{total} }) {
			my $sum = 0;
			$sum += $_->{$name} for @{ $tun->{workers} };
			push @wrong, $name if $sum != $tun->{total}{$name};
		}
	}

	return "@wrong";
}

# without a device, and without stream

for my $stream ('', 'stream { }') {
	$t->run("%%GLOBALS%%\n%%EVENTS%%\n$stream\n$http");
	is_deeply(status(), { tun => [], dns => [], fakeip => [] }, "no device, '$stream'");
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
is($json->{tun}[1]{name}, 'tun"\1', 'another name');
is($json->{tun}[0]{stack}, Test::Tun::stack(), 'stack');
is(scalar @{ $json->{tun}[$_]{workers} }, 2, "workers of device $_") for 0, 1;

# the fields of the table in README.md, and no others

my ($table) = Test::Tun::slurp('README.md')
	=~ /^### tun_status.*?^\| counter.*?\n\|---.*?\n(.*?)\n\n/ms;
my @names = map { /`(\w+)`/g } map { /^\| (.*?) \|/ } split /\n/, $table;

for my $stat ($json->{tun}[0]{total}, @{ $json->{tun}[1]{workers} }) {
	is(join(' ', sort keys %$stat), join(' ', sort @names), 'counters');
}

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
is($total->{early}, Test::Tun::stack() eq 'lwip' ? 1 : $total->{flows},
	'early');
is($total->{refused}, 1, 'refused');
cmp_ok($total->{bytes_in}, '>', 100000, 'bytes in');
cmp_ok($total->{bytes_out}, '>', 100000, 'bytes out');
cmp_ok($total->{packets_in}, '>=', 30, 'packets in');
cmp_ok($total->{packets_out}, '>=', 20, 'packets out');

is(sums(status()), '', 'sums');

is($_->{tun}[1]{total}{flows}, 0, 'no flows of another device') for status();

Test::Tun::spew("$t->{dir}/seen", '');
$t->wait($job);

ok(Test::Tun::wait_for(15, sub { status()->{tun}[0]{total}{active} == 0 }),
	'active, none again');

# while they change

$job = $t->start('client', sub {
	my $s = Test::Tun::connect_to('10.1.0.2', 9000);

	while (!-e "$t->{dir}/asked") {
		Test::Tun::write_all($s, 'x' x 20000);
		my $n = 0;
		$n += sysread($s, my $buf, 20000) || last while $n < 20000;
	}

	return 1;
});

my $before = status()->{tun}[0]{total}{bytes_in};
my @wrong = grep { $_ } map { sums(status()) } 1 .. 100;
my $after = status()->{tun}[0]{total}{bytes_in};

Test::Tun::spew("$t->{dir}/asked", '');
$t->wait($job);

is("@wrong", '', 'sums while they change');
cmp_ok($after, '>', $before, 'they changed');

# what is no protocol of ours, and what nothing listens for

$t->in('client', sub {
	my $s = IO::Socket::IP->new(PeerHost => '10.1.0.2', PeerPort => 53,
		Proto => 'udp') or return "$@";
	syswrite($s, 'x');

	# RFC 3692: for experiments

	socket(my $raw, Socket::AF_INET, Socket::SOCK_RAW, 253)
		or return "$!";
	send($raw, 'x', 0, Socket::pack_sockaddr_in(0,
		Socket::inet_aton('10.1.0.2')));

	Test::Tun::connect_to($_->{server}, 1) for @Test::Tun::FAMILIES;
	return 1;
});

$total = status()->{tun}[0]{total};

cmp_ok($total->{unsupported}, '>=', 1, 'unsupported');
is($total->{refused}, 4, 'refused, of both families, and UDP');
is($total->{icmp_errors}, 1, 'refused UDP, an error');

# over a reload, with fewer workers too

sub reload {
	my ($workers) = @_;
	my %old = map { $_ => 1 } $t->workers();

	$t->reload($conf =~ s/worker_processes \d/worker_processes $workers/r);

	return Test::Tun::wait_for(10, sub {
		my @workers = $t->workers();
		return @workers == $workers && !grep { $old{$_} } @workers;
	});
}

my $kept = status()->{tun}[0];

ok(reload(2), 'reload');
is(status()->{tun}[0]{total}{flows}, $kept->{total}{flows},
	'kept over a reload');

ok(reload(1), 'reload with a worker less');

$tun = status()->{tun}[0];
$total = $tun->{total};

is($total->{flows}, $kept->{total}{flows}, 'kept with a worker less');
cmp_ok($tun->{workers}[1]{bytes_in}, '>=', $kept->{workers}[1]{bytes_in},
	'of a worker that is no more');
is($tun->{workers}[$_]{flows}, $kept->{workers}[$_]{flows},
	"flows of worker $_") for 0, 1;

# as a page

like(get('/tun'), qr{^HTTP/1.1 200 OK}, 'a page');
like(get('/tun'), qr{^Content-Type: application/json\r$}mi, 'type');
like(get('/tun'), qr{^Cache-Control: no-store\r$}mi, 'is not cached');
like(get('/tun', '-I'), qr{^HTTP/1.1 200 OK.*\r\n\r\n\z}s, 'HEAD');
like(get('/tun', '-d', 'x=y'), qr{^HTTP/1.1 405}, 'POST');
like(get('/tun', '-X', $_), qr{^HTTP/1.1 405}, $_) for qw/ PUT DELETE OPTIONS /;
like(get('/denied'), qr{^HTTP/1.1 403}, 'denied');

my (undef, $out) = $t->exec('server', 'curl', '-sS', '-i',
	'http://10.1.0.1:8080/tun');
like($out, qr{^HTTP/1.1 403}, 'denied by address');

$t->done();
