#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for half-closed connections, and for the last bytes of those that end
# while they are on the way.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
        proxy_half_close on;
    }
}
EOF

$t->run($conf);

my $size = 3000017;

# the server speaks after the client has ended

$t->server(9000, sub {
	my ($s) = @_;
	my $data = Test::Tun::read_all($s);
	sleep(0.3);
	Test::Tun::write_all($s, Digest::SHA::sha1_hex($data) . $data);
});

# the server ends first, and goes on reading

$t->server(9001, sub {
	my ($s) = @_;
	Test::Tun::write_all($s, 'first');
	shutdown($s, 1);
	my $data = Test::Tun::read_all($s);
	Test::Tun::spew("$t->{dir}/got", Digest::SHA::sha1_hex($data));
});

# all at once, and gone

$t->server(9002, sub {
	my ($s) = @_;
	Test::Tun::write_all($s, Test::Tun::bytes('all', $size));
});

for my $family (@Test::Tun::FAMILIES) {
	my $host = $family->{server};

	is($t->in('client', sub {
		my $s = Test::Tun::connect_to($host, 9000) or return "$@";
		my $data = Test::Tun::bytes('half', $size);
		Test::Tun::write_all($s, $data);
		shutdown($s, 1);
		my $got = Test::Tun::read_all($s);
		return $got eq Digest::SHA::sha1_hex($data) . $data
			? 'ok' : 'got ' . length $got;
	}), 'ok', "client ends first, $family->{name}");

	unlink "$t->{dir}/got";

	is($t->in('client', sub {
		my $s = Test::Tun::connect_to($host, 9001) or return "$@";
		my $got = Test::Tun::read_all($s);
		sleep(0.3);
		Test::Tun::write_all($s, Test::Tun::bytes('rest', $size));
		close $s;
		return $got;
	}), 'first', "server ends first, $family->{name}");

	ok(Test::Tun::wait_for(5, sub { -s "$t->{dir}/got" }), 'rest arrived');
	is(Test::Tun::slurp("$t->{dir}/got"),
		Digest::SHA::sha1_hex(Test::Tun::bytes('rest', $size)),
		"bytes after the server's end, $family->{name}");

	# a slow reader still gets the last bytes of an upstream that is gone

	is($t->in('client', sub {
		my $s = Test::Tun::connect_to($host, 9002) or return "$@";
		sleep(1);
		my ($got, $errno) = Test::Tun::read_all($s);
		return $got eq Test::Tun::bytes('all', $size) && !$errno
			? 'ok' : 'got ' . length($got) . " $errno";
	}), 'ok', "last bytes, $family->{name}");
}

# a worker that leaves waits for them, too

my $job = $t->start('client', sub {
	my $s = Test::Tun::connect_to('10.1.0.2', 9002, Sockopts => [ [
		Socket::SOL_SOCKET, Socket::SO_RCVBUF, 65536 ] ]) or return "$@";
	my $got = '';

	while (1) {
		my $n = sysread($s, $got, 65536, length $got) or last;
		sleep(0.02);
	}

	return $got eq Test::Tun::bytes('all', $size)
		? 'ok' : 'got ' . length $got;
});

sleep(0.4);

my $pid = $t->pid();
my $start = time();
kill 'QUIT', $pid;

is($t->wait($job), 'ok', 'last bytes of a worker that leaves');
ok(Test::Tun::wait_for(10, sub { !Test::Tun::alive($pid) }), 'and then it leaves');
cmp_ok(time() - $start, '<', 10, 'in time');

$t->done();
