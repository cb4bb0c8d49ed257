#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests that what tun_status counts did happen: flows that wait for their
# client, what is sent again, handshakes by their result, and batches.

use warnings;
use strict;

use JSON::PP;
use List::Util qw/ sum /;
use Test::More;
use Test::Tun;
use Test::Tun::Raw;

my $t = Test::Tun->new();

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

# a proxy that closes, and one that works

$t->server(9001, sub { });

$t->program('server', qw/ microsocks -i 10.1.0.2 -p 1080 /);

$t->exec('server', 'nft', $_) for
	'add table inet lost',
	'add chain inet lost input { type filter hook input priority 0 ; }',
	'add rule inet lost input tcp dport 9003 drop';

$t->exec('client', 'nft', $_) for
	'add table inet lost',
	'add chain inet lost input { type filter hook input priority 0 ; }';

$t->run(<<'EOC');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    upstream proxy {
        server 10.1.0.2:1080;
        tun_handshake socks5;
    }

    upstream broken {
        server 10.1.0.2:9001;
        tun_handshake socks5;
    }

    server { tun_listen tun0;       proxy_pass $tun_target; }
    server { tun_listen tun0 :9003; proxy_pass $tun_target; }
    server { tun_listen tun0 :7000; proxy_pass broken; }

    server { tun_listen tun0 :9006; return x; }

    server {
        tun_listen tun0 :9005;
        tun_accept early;
        return x;
    }

    server {
        tun_listen tun0 udp;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 10.1.0.2/32:9000;
        tun_listen tun0 10.1.0.2/32:1;
        proxy_pass proxy;
    }
}

http {
    access_log off;

    server {
        listen 127.0.0.1:8080;
        location / { tun_status; }
    }
}
EOC

ok(Test::Tun::wait_for(10, sub { hello('10.1.0.2', 9000) }), 'by a proxy');

my $total = total();
cmp_ok($total->{handshakes_ok}, '>=', 1, 'a handshake');
is($total->{handshakes_refused}, 0, 'none is refused');

hello('10.1.0.2', 1);
hello('192.0.2.1', 7000);

$total = total();
is($total->{handshakes_refused}, 1, 'a refused one');
is($total->{handshakes_failed}, 1, 'a failed one');

# batches

my $reads = sum map { $total->{$_} } grep { /^reads_/ } keys %$total;
cmp_ok($reads, '>', 0, 'reads');
cmp_ok($reads, '<=', $total->{packets_in}, 'of a packet or more');

SKIP: {
	skip 'the kernel answers, and sends again', 12
		if Test::Tun::stack() eq 'system';

	# a session that has said all before its client is there waits for that
	# one, and no longer

	is($t->in('client', sub {
		my @s = map { Test::Tun::connect_to('10.1.0.2', 9006) } 1 .. 20;
		return join '', map { scalar Test::Tun::read_all($_) } @s;
	}), 'x' x 20, 'answers at once');
	is(total()->{pending}, 0, 'which are not pending');
	is(total()->{limited_pending}, 0, 'nor limited');

	# a session that waits for its upstream, and its client for it

	my $job = $t->start('client', sub {
		my $s = IO::Socket::IP->new(PeerHost => '10.1.0.2',
			PeerPort => 9003, Blocking => 0);
		Test::Tun::wait_for(20, sub { -e "$t->{dir}/seen" });
		return 1;
	});

	ok(Test::Tun::wait_for(10, sub { total()->{pending} == 1 }), 'pending');
	cmp_ok(total()->{active}, '>', 0, 'and active');
	Test::Tun::spew("$t->{dir}/seen", '');
	$t->wait($job);

	# what the client does not get is sent again

	my $before = total()->{retransmits};
	is($before, 0, 'nothing was sent again');

	$job = $t->start('client', sub {
		my $s = Test::Tun::connect_to('fd00:1::2', 9000) or return "$@";
		Test::Tun::spew("$t->{dir}/open", '');
		Test::Tun::wait_for(10, sub { -e "$t->{dir}/lost" });
		Test::Tun::write_all($s, 'x' x 100);
		my $n = 0;
		$n += sysread($s, my $buf, 100) || last while $n < 100;
		return $n;
	});

	ok(Test::Tun::wait_for(10, sub { -e "$t->{dir}/open" }), 'open');
	$t->exec('client', 'nft',
		'add rule inet lost input tcp sport 9000 drop');
	Test::Tun::spew("$t->{dir}/lost", '');

	ok(Test::Tun::wait_for(10, sub { total()->{retransmits} > 0 }),
		'sent again');
	$t->exec('client', 'nft', 'flush chain inet lost input');
	is($t->wait($job), 100, 'and has arrived');

	# what a killed worker had is gone: a flow that is pending beside the one
	# above, one half-open, one of UDP, and a piece of a packet

	$t->start('client', sub {
		my $s = IO::Socket::IP->new(PeerHost => '10.1.0.2',
			PeerPort => 9003, Blocking => 0);
		my $u = Test::Tun::udp_to('10.1.0.2', 9004);
		send($u, 'hello', 0);

		my $r = Test::Tun::Raw->new(src => '198.18.7.7',
			dst => '10.1.0.2', dport => 9005);
		$r->send_tcp(flags => Test::Tun::Raw::SYN);
		$r->send_packet($r->piece(17, 'x' x 2000, 0, 1000, 1));

		Test::Tun::wait_for(20, sub { 0 });
	});

	my @gauges = qw/ pending half_open udp_active reassembling /;
	my $gauges = sub { my $total = total();
		join ' ', map { "$_ $total->{$_}" } @gauges };

	ok(Test::Tun::wait_for(10, sub {
		$gauges->() =~ /^pending [12] half_open 1 udp_active 1 \w+ 1$/
	}), 'one of each') or diag($gauges->());

	my ($worker) = $t->workers();
	kill 'KILL', $worker;

	ok(Test::Tun::wait_for(10, sub {
		my ($pid) = $t->workers();
		return $pid && $pid != $worker;
	}), 'another worker');

	ok(Test::Tun::wait_for(10, sub {
		$gauges->() eq join ' ', map { "$_ 0" } @gauges
	}), 'which has none of them') or diag($gauges->());
}

$t->allow_alert(qr/worker process \d+ exited on signal 9/);
$t->done();


sub hello {
	my ($host, $port) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::connect_to($host, $port) or return 0;
		Test::Tun::write_all($s, 'hello');
		return sysread($s, my $buf, 5) ? 1 : 0;
	});
}


sub total {
	my (undef, $json) = $t->exec('gateway', 'curl', '-sS',
		'http://127.0.0.1:8080/');
	return decode_json($json)->{tun}[0]{total};
}
