#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for UDP: flows as sessions, sizes, replies, ends.

use warnings;
use strict;

use Test::More;
use Time::HiRes qw/ sleep time /;

use Test::Tun;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$remote_addr $remote_port $server_addr $server_port '
                    '$protocol $tun_target $status $bytes_received '
                    '$bytes_sent';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        offload OFFLOAD;
    }

    server {
        tun_listen tun0 udp;
        proxy_pass $tun_target;
        proxy_buffer_size 64k;
        proxy_timeout 1s;
    }

    server {
        tun_listen tun0 udp :9001;
        proxy_pass $tun_target;
        proxy_buffer_size 1k;
    }

    server {
        tun_listen tun0 udp :9002;
        proxy_pass $tun_target;
        proxy_requests 1;
        proxy_responses 1;
    }

    server {
        tun_listen tun0 udp :9003;
        deny all;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 udp :9004;
        return "$remote_port\n";
    }

    server {
        tun_listen tun0 udp 203.0.113.0/24:53;
        tun_listen tun0 udp [2001:db8::/32]:53;
        proxy_pass 10.1.0.2:9000;
    }

    server {
        tun_listen tun0 tcp;
        proxy_pass $tun_target;
    }
}

http {
    access_log off;

    server {
        listen 127.0.0.1:8099;
        location / { tun_status; }
    }
}
EOF

# without a server for all of them

my $none = $conf =~ s/tun_listen tun0 udp;/tun_listen tun0 udp :1;/r;

$t->udp_server(9000, sub { $_[1] });
$t->udp_server(9001, sub { $_[1] });
$t->udp_server(9002, sub {
	join ' ', $_[1], (Socket::unpack_sockaddr_in6($_[2]))[0];
});
$t->udp_server(9005, sub { map { "$_ $_[1]" } 1 .. 60 });
$t->udp_server(9006, sub { '' });

for my $offload ('on', 'off') {
	$t->run($conf =~ s/OFFLOAD/$offload/r);

	for my $family (@Test::Tun::FAMILIES) {
		flows($family, "$family->{name}, offload $offload");
	}

	$t->stop();
}

$t->run($none =~ s/OFFLOAD/on/r);

for my $family (@Test::Tun::FAMILIES) {
	like(error_of($family->{server}, 9000), qr/refused/,
		"no server, $family->{name}");
}

$t->done();

sub flows {
	my ($family, $label) = @_;
	my $host = $family->{server};

	# of all sizes, in both directions

	for my $size (0, 1, 64, 512, 1400, 1472, 1473, 8000, 65000, 65507) {
		is($t->in('client', \&echoes, $host, 9000, $size), 'same',
			"$size bytes, $label");
	}

	is($t->in('client', \&many, $host), 60, "sixty answers, $label");
	is($t->in('client', \&empty, $host), 'empty', "empty answer, $label");

	my ($port) = $t->in('client', sub {
		my $s = Test::Tun::udp_to($host, 9000);
		$s->send('hello');
		return Test::Tun::udp_recv($s) eq 'hello' ? $s->sockport() : 0;
	});

	my $url = $host =~ /:/ ? "[$host]" : $host;
	my $line = "$family->{client} $port $host 9000 UDP $url:9000 200 5 5";

	ok($t->wait_for_log(qr/^\Q$line\E$/m, 'access.log'),
		"log, proxy_timeout, $label");

	# what the proxy's buffer does not hold, it never gets a part of

	my $oversized = status('udp_oversized');

	is($t->in('client', \&echoes, $host, 9001, 1024), 'same',
		"as large as the buffer, $label");
	is($t->in('client', \&echoes, $host, 9001, 1025), 'none, 1',
		"larger than the buffer, $label");

	is($t->in('client', sub {
		my $s = Test::Tun::udp_to($host, 9001);
		return join ' ', map {
			$s->send('x' x $_);
			length(Test::Tun::udp_recv($s, 1) // '') == $_ || 'none'
		} 1, 1025, 2;
	}), '1 none 1', "one that is larger, $label");

	is(status('udp_oversized'), $oversized + 2,
		"larger than the buffer, counted, $label");

	my ($first, $second) = $t->in('client', sub {
		my $s = Test::Tun::udp_to($host, 9002);
		return map { $s->send('x'); Test::Tun::udp_recv($s) } 1 .. 2;
	});

	like("$first $second", qr/^x \d+ x \d+$/, "proxy_requests, $label");
	isnt($first, $second, "proxy_requests, new upstream port, $label");

	# refused

	like(error_of($host, 9999), qr/refused/, "closed port, $label");
	like(error_of($host, 9003), qr/No route|denied/, "denied, $label");

	($port, my $answer) = $t->in('client', sub {
		my $s = Test::Tun::udp_to($host, 9004);
		$s->send('x');
		return ($s->sockport(), Test::Tun::udp_recv($s));
	});

	is($answer, "$port\n", "return, $label");

	# a question: the session ends with its answer

	my $active = status('udp_active');

	is($t->in('client', sub {
		my $s = Test::Tun::udp_to($host =~ /:/ ? '2001:db8::53'
			: '203.0.113.53', 53);
		$s->send('question');
		return Test::Tun::udp_recv($s);
	}), 'question', "one question, $label");

	cmp_ok(status('udp_active'), '<=', $active, "one question, over, $label");
}

# the first datagram, and one of a flow that is there

sub echoes {
	my ($host, $port, $size) = @_;

	my $s = Test::Tun::udp_to($host, $port) or return "socket: $@";
	setsockopt($s, Socket::SOL_SOCKET, Socket::SO_SNDBUF, 1000000);

	for my $n (1 .. 2) {
		my $data = Test::Tun::bytes("$size $n", $size);
		defined $s->send($data) or return "send: $!";
		my $got = Test::Tun::udp_recv($s, 2) // return "none, $n";
		return 'other' if $got ne $data;
	}

	return 'same';
}

sub many {
	my ($host) = @_;

	my $s = Test::Tun::udp_to($host, 9005);
	setsockopt($s, Socket::SOL_SOCKET, Socket::SO_RCVBUF, 1000000);
	$s->send('x' x 1000);

	my $n = 0;

	while ($n < 60 && defined(my $got = Test::Tun::udp_recv($s, 2))) {
		$n++ if $got eq $n + 1 . ' ' . 'x' x 1000;
	}

	return $n;
}

sub empty {
	my ($host) = @_;

	my $s = Test::Tun::udp_to($host, 9006);
	$s->send('x');
	my $got = Test::Tun::udp_recv($s);

	return defined $got ? $got eq '' ? 'empty' : $got : 'none';
}

sub error_of {
	my ($host, $port) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::udp_to($host, $port);

		for (1 .. 20) {
			send($s, 'x', 0) // return "$!";
			return "$!" if IO::Select->new($s)->can_read(0.1)
				&& !defined recv($s, my $data, 100, 0);
		}

		return 'none';
	});
}

sub status {
	my ($name) = @_;

	my $json = $t->exec('gateway', \60, 'curl', '-sS', 'http://127.0.0.1:8099/');
	return JSON::PP::decode_json($json)->{tun}[0]{total}{$name};
}
