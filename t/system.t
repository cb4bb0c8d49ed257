#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for the system stack: what differs from lwIP.  What does not, other
# tests show for both, see t/stacks.t.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::Raw;
use Time::HiRes qw/ sleep time /;

delete $ENV{TUN_STACK};

my $t = Test::Tun->new();

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

http {
    access_log off;

    server {
        listen 127.0.0.1:8099;
        location / { tun_status; }
    }
}

stream {
    log_format main '$remote_addr $remote_port $server_addr $server_port '
                    '$tun_stack $status';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        stack   STACK;
        offload OFFLOAD;
    }

    server {
        tun_listen tun0 :9000-9099;
        proxy_pass $tun_target;
        proxy_half_close on;
    }

    server {
        tun_listen tun0 :7;
        deny all;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :9;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :9100;
        proxy_pass $tun_target;
        proxy_timeout 1s;
    }

    server {
        tun_listen tun0 :80;
        return N;
    }
}
EOC

sub status {
	my ($name) = @_;

	my (undef, $json) = $t->exec('gateway', 'curl', '-sS',
		'http://127.0.0.1:8099/');
	return JSON::PP::decode_json($json)->{tun}[0]{total}{$name};
}

sub conf {
	my (%args) = (STACK => 'system', OFFLOAD => 'on', N => 'one', @_);
	my $text = $conf;
	$text =~ s/\b$_\b/$args{$_}/g for keys %args;
	return $text;
}

# echoes

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

# sends some, and resets

$t->server(9001, sub {
	my ($s) = @_;
	Test::Tun::write_all($s, 'x' x 100000);
	sleep(0.3);
	setsockopt($s, Socket::SOL_SOCKET, Socket::SO_LINGER,
		pack('ii', 1, 0));
});

# ends at once

$t->server(9002, sub { Test::Tun::write_all($_[0], 'bye') });

# says nothing

$t->server(9100, sub { sysread($_[0], my $buf, 1) });

# sends as much as it can

$t->server(9003, sub { Test::Tun::write_all($_[0], 'y' x 300000) });

sub asks {
	my ($host, $port, $text, %options) = @_;

	my $s = Test::Tun::connect_to($host, $port, %options)
		or return $!{ECONNREFUSED} ? 'refused' : "connect: $!";
	Test::Tun::write_all($s, $text // '') or return "write: $!"
		if length($text // '');

	my $got = '';

	while (!length $text || length $got < length $text) {
		my $n = sysread($s, $got, 65536, length $got);
		return length($got) . ($!{ECONNRESET} ? ' reset' : " $!")
			unless defined $n;
		last unless $n;
	}

	return $got;
}

sub ask { my @args = @_; return $t->in('client', sub { asks(@args) }) }

sub sockets {
	my ($rc, $out) = $t->exec('client', qw/ ss -Htn /, @_);
	return $out;
}

my ($v4, $v6) = @Test::Tun::FAMILIES;

my $closed = qr/^(0 reset|connect: Connection reset by peer|)$/;

###############################################################################

$t->run(conf());

my (undef, $listens) = $t->exec('client', qw/ ss -Hltn /);
is(scalar(() = $listens =~ /%tun0:1313/g), 4,
	'a listener for each worker and family');

for my $family ($v4, $v6) {
	my ($host, $name) = @{$family}{qw/ server name /};
	my $client = $family->{client};

	is(ask($host, 9000, 'hello'), 'hello', "bytes, $name");
	is(ask($host, 80), 'one', "a session without an upstream, $name");

	# an address of the network of the tuples is as good as another

	my $fake = $family == $v4 ? '198.18.7.7' : 'fd00:198:18::7';
	is(ask($fake, 80), 'one', "an address of the network, $name");

	# before an answer, and after it

	is(ask($host, 9200), 'refused', "no listen takes it, $name");
	like(ask($host, 7), qr/reset/, "denied, $name");
	like(ask($host, 9), qr/reset/, "refused by the server, $name");
	like(ask($host, 9100), qr/reset/, "timed out, $name");
	is(ask($host, 9001), '100000 reset', "reset by the server, $name");
	is(ask($host, 9002), 'bye', "an orderly end, $name");

	# what reaches the listener without us

	my $got = ask($client, 1313);
	like($got, $closed, "a local process, $name");

	$got = ask($client, 1313, '', LocalAddr => $client, LocalPort => 7777);
	like($got, $closed, "with the device's address, $name");

	unlike(join("\n", $t->access_log()), qr/ 1313 /,
		"is no session, $name");
}

like(join("\n", $t->access_log()), qr/^198\.18\.0\.1 \d+ 10\.1\.0\.2 9000 system 200$/m,
	'addresses');
like(join("\n", $t->access_log()),
	qr/^fd00:198:18::1 \d+ fd00:1::2 9000 system 200$/m, 'addresses, IPv6');

# packets by hand

for my $family ($v4, $v6) {
	my ($host, $name) = @{$family}{qw/ server name /};
	my $src = $family == $v4 ? '10.9.9.9' : 'fd00:9::9';

	my ($flags, $peers, $again, $low) = $t->in('client', sub {
		my $raw = Test::Tun::Raw->new(src => $src, dst => $host,
			dport => 9002);

		$raw->send_tcp(flags => Test::Tun::Raw::ACK, ack => 5);
		my $rst = $raw->recv_tcp(2) or return 'no answer';

		# the server ends first, and the tuple stays in TIME-WAIT

		my @peers;

		for my $seq (1000, 500000000) {
			$raw->{seq} = $seq;
			$raw->open() or return (1, "no answer to $seq");
			push @peers, join ' ', `ss -Htna` =~
				/1313\s+(\S+)/g;

			my $p;
			while ($p = $raw->recv_tcp(2)) {
				last if $p->{flags} & Test::Tun::Raw::FIN;
			}

			return (1, 'no FIN') unless $p;

			$raw->{ack} = $p->{seq} + length($p->{data}) + 1;
			$raw->send_tcp(flags => Test::Tun::Raw::ACK
				| Test::Tun::Raw::FIN);
			$raw->recv_tcp(1);
		}

		return ($rst->{flags} & Test::Tun::Raw::RST, \@peers);
	});

	ok($flags, "a segment of no flow is refused, $name");
	ok(ref $peers, "TIME-WAIT, $name") or diag($peers);

	my %seen;
	$seen{$_}++ for map { split ' ' } @{ ref $peers ? $peers : [] };
	ok(scalar(grep { $_ == 2 } values %seen),
		"the same flow meets the same tuple, $name")
		or diag(explain($peers));
}

# a segment in fragments: what was read of it goes no further

for my $family ($v4, $v6) {
	my ($host, $name) = @{$family}{qw/ server name /};
	my $before = status('unsupported');

	is($t->in('client', sub {
		my $raw = Test::Tun::Raw->new(dst => $host, dport => 9002,
			src => $family == $v4 ? '10.9.9.7' : 'fd00:9::7');
		my $syn = $raw->packet(flags => Test::Tun::Raw::SYN,
			options => "\1" x 4, data => 'x' x 16);
		my $tcp = substr($syn, $raw->{v6} ? 40 : 20);

		$raw->send_packet($raw->piece(6, $tcp, @$_, id => 78))
			for [ 0, 24, 1 ], [ 24, 40, 0 ];

		return $raw->recv_tcp(0.5) ? 'answer' : 'none';
	}), 'none', "a SYN in fragments, $name");

	cmp_ok(status('unsupported'), '>', $before, "is counted, $name");
}

# the listener's end is in FIN-WAIT-2, for the client says nothing more

for my $family ($v4, $v6) {
	my ($host, $name) = @{$family}{qw/ server name /};
	my $src = $family == $v4 ? '10.9.9.8' : 'fd00:9::8';

	my ($state, $challenge, $after, $other) = $t->in('client', sub {
		my $raw = Test::Tun::Raw->new(src => $src, dst => $host,
			dport => 9002, sport => 41000);
		$raw->open() or return 'no answer';

		my $p;
		while ($p = $raw->recv_tcp(2)) {
			last if $p->{flags} & Test::Tun::Raw::FIN;
		}

		return 'no FIN' unless $p;

		# the end of the session comes with an ACK of ours

		$raw->{ack} = $p->{seq} + length($p->{data}) + 1;
		$raw->send_tcp(flags => Test::Tun::Raw::ACK);
		sleep(0.2);

		my ($state) = `ss -Htna` =~ /^(FIN-WAIT-2)\s.*:1313\s/m;

		# another flow is not disturbed

		my $two = Test::Tun::Raw->new(src => $src, dst => $host,
			dport => 9002, sport => 41001);
		my $other = $two->open();

		# the same one anew: the kernel asks, and believes the RST

		$raw->{seq} = 900000;
		$raw->send_tcp(flags => Test::Tun::Raw::SYN, ack => 0);
		my $q = $raw->recv_tcp(2) or return ($state, 'none');

		$raw->send_tcp(flags => Test::Tun::Raw::RST,
			seq => $q->{ack}, ack => 0);
		my $r = $raw->open();

		$_->send_tcp(flags => Test::Tun::Raw::RST, ack => 0)
			for $raw, $two;

		return ($state, $q->{flags}, $r ? $r->{flags} : 'none',
			$other ? $other->{flags} : 'none');
	});

	is($state, 'FIN-WAIT-2', "FIN-WAIT-2, $name");
	is($challenge, Test::Tun::Raw::ACK, "is asked, $name");
	is($after, Test::Tun::Raw::SYN | Test::Tun::Raw::ACK, "anew, $name");
	is($other, Test::Tun::Raw::SYN | Test::Tun::Raw::ACK,
		"another flow, $name");
}

# a firewall that tracks connections, and one that is told not to

my $rules = <<'EON';
add table inet t
add chain inet t i { type filter hook input priority 0; }
add chain inet t o { type filter hook output priority 0; }
add rule inet t i ct state invalid counter drop
add rule inet t o ct state invalid counter drop
add rule inet t i tcp dport 1313 ct state untracked counter accept
add rule inet t i tcp dport 1313 counter accept
EON

my $notrack = <<'EON';
add table inet tun
add chain inet tun pre { type filter hook prerouting priority raw; }
add chain inet tun out { type filter hook output priority raw; }
add rule inet tun pre iif tun0 notrack
add rule inet tun out oif tun0 notrack
EON

for my $case ([ 'conntrack', $rules, 'tracked' ],
	[ 'notrack', $notrack . $rules, 'untracked' ])
{
	my ($name, $text, $how) = @$case;

	Test::Tun::spew("$t->{dir}/rules", $text);
	$t->exec('client', 'nft', '-f', "$t->{dir}/rules");

	is(join(' ', map { ask($_->{server}, 9000, "$name$_->{name}") }
		$v4, $v6), join(' ', map { "$name$_->{name}" } $v4, $v6),
		"bytes, $name");

	my (undef, $list) = $t->exec('client', qw/ nft list ruleset /);
	my ($untracked) = $list =~ /untracked counter packets (\d+)/;
	my ($tracked) = $list =~ /dport 1313 counter packets (\d+)/;

	cmp_ok($how eq 'tracked' ? $tracked : $untracked, '>', 5,
		"packets are $how");
	is($how eq 'tracked' ? $untracked : $tracked, 0, "and not else");

	$t->exec('client', qw/ nft flush ruleset /);
}

# a reload, a worker that is killed, and a restart at once

my $job = $t->start('client', sub {
	my $s = Test::Tun::connect_to('10.1.0.2', 9000) or return "$@";

	for my $i (1 .. 30) {
		Test::Tun::write_all($s, "round $i");
		sysread($s, my $buf, 100) or return "round $i";
		return "got $buf" if $buf ne "round $i";
		sleep(0.1);
	}

	return 'ok';
});

sleep(0.3);

for my $n (qw/ two three /) {
	$t->reload(conf(N => $n));
	ok(Test::Tun::wait_for(5, sub { ask('10.1.0.2', 80) eq $n }),
		"reload, $n");
}

is($t->wait($job), 'ok', 'a flow that was there goes on');
ok(Test::Tun::wait_for(10, sub { $t->workers() == 2 }), 'old workers leave');

my ($victim) = $t->workers();
kill 'KILL', $victim;
$t->allow_alert(qr/exited on signal 9/);

ok(Test::Tun::wait_for(5, sub {
	my @w = $t->workers();
	@w == 2 && !grep { $_ == $victim } @w }), 'a worker is killed');

is(join(' ', map { ask('10.1.0.2', 9000, "n$_") } 1 .. 20),
	join(' ', map { "n$_" } 1 .. 20), 'and flows begin');

$job = $t->start('client', sub { asks('10.1.0.2', 9100) });
sleep(0.3);

ok($t->stop(), 'stop');
like($t->wait($job), qr/reset/, 'flows are reset');

$t->run(conf());
is(join(' ', map { ask($_->{server}, 9000, "hi") } $v4, $v6, $v4, $v6),
	'hi hi hi hi', 'a restart');
ok($t->stop(), 'stop again');

# the path to the client is narrower

$t->run(conf(OFFLOAD => 'off'));

for my $family ($v4, $v6) {
	my ($host, $name) = @{$family}{qw/ server name /};
	my $src = $family == $v4 ? '10.9.9.9' : 'fd00:9::9';

	my ($before, $after, $bytes) = $t->in('client', sub {
		my $raw = Test::Tun::Raw->new(src => $src, dst => $host,
			dport => 9003);
		$raw->open() or return;

		my $p;
		while ($p = $raw->recv_tcp(2)) {
			last if length $p->{data};
		}

		return unless $p;
		my $before = length $p->{data};

		# nothing is acknowledged: what was too big is sent again

		$raw->send_too_big(1300, $p->{seq});

		my ($after, $end) = (0, time() + 5);

		while (time() < $end) {
			my $q = $raw->recv_tcp(1) or next;
			next unless $q->{seq} == $p->{seq};
			$after = length $q->{data};
			last if $after < $before;
		}

		return ($before, $after);
	});

	cmp_ok($before // 0, '>', 1300, "a full segment, $name");
	cmp_ok($after // 0, '>', 0, "sent again, $name");
	cmp_ok($after // 9999, '<=', 1260, "smaller after ICMP, $name");
}

ok($t->stop(), 'stop');

# what the kernel does not let in

$t->in('client', sub {
	CORE::system('nft', 'add table inet t; add chain inet t i '
		. '{ type filter hook input priority 0; }; '
		. 'add rule inet t i iif lo accept; '
		. 'add rule inet t i tcp dport 1313 drop');
	return 1;
});

$t->run(conf());
like($t->error_log(), qr/\[warn\].*"tun0": the kernel does not answer/,
	'a firewall is noticed');
ok($t->stop(), 'stop');

$t->run(conf(STACK => 'system fallback=lwip'));
like($t->error_log(), qr/goes on with lwIP/, 'and lwIP takes over');
is(ask($_->{server}, 9000, 'hello'), 'hello', "bytes by lwIP, $_->{name}")
	for $v4, $v6;
is(ask('10.1.0.2', 9), 'refused', 'refused by lwIP');
like(join("\n", $t->access_log()), qr/9000 lwip 200/, '$tun_stack');
ok($t->stop(), 'stop');

$t->exec('client', qw/ nft flush ruleset /);

# a worker without a queue accepts too; where fewer of them stay after a reload,
# they have the sockets of all, so that who waits there is not reset

$t->run(conf() =~ s/(netns .*)/$1 queues 1;/r);

is($t->in('client', sub {
	my @s = map { Test::Tun::connect_to('10.1.0.2', 9000) } 1 .. 40;
	my $good = 0;

	for my $s (grep { $_ } @s) {
		Test::Tun::write_all($s, 'round');
		sysread($s, my $buf, 5);
		$good++ if $buf eq 'round';
	}

	return $good;
}), 40, 'one queue, two workers');

$t->reload(conf(N => 'alone') =~ s/(netns .*)/$1 queues 1;/r
	=~ s/worker_processes 2/worker_processes 1/r);
ok(Test::Tun::wait_for(5, sub { ask('10.1.0.2', 80) eq 'alone' }),
	'one worker');
ok(Test::Tun::wait_for(10, sub { $t->workers() == 1 }), 'is left');

(undef, $listens) = $t->exec('client', qw/ ss -Hltn /);
is(scalar(() = $listens =~ /%tun0:1313/g), 4, 'with all listeners');
is(join(' ', map { ask('10.1.0.2', 9000, "n$_") } 1 .. 20),
	join(' ', map { "n$_" } 1 .. 20), 'flows of one worker');

# more than the device should have

$t->reload(conf(N => 'few') =~ s/(netns .*)/$1 queues 1; max_flows 20;/r
	=~ s/worker_processes 2/worker_processes 1/r);
ok(Test::Tun::wait_for(5, sub { ask('10.1.0.2', 80) eq 'few' }), 'few');
ok(Test::Tun::wait_for(10, sub { $t->workers() == 1 }), 'and alone');

my ($served) = $t->in('client', sub {
	my @s = map { Test::Tun::connect_to('10.1.0.2', 9000) } 1 .. 25;
	my %got;

	for my $s (grep { $_ } @s) {
		$! = 0;
		syswrite($s, 'round');
		sysread($s, my $buf, 5);
		$got{$buf eq 'round' ? 'served' : 'other'}++;
	}

	return $got{served};
});

is($served, 20, 'max_flows');
ok($t->wait_for_log(qr/"tun0": max_flows reached/), 'is noted');

# what needs a restart is refused, and all goes on

$t->reload(conf(STACK => 'lwip'));
ok($t->wait_for_log(qr/"tun0": another "stack" needs a restart/),
	'another stack');
$t->allow_alert(qr/another "stack" needs a restart/);
is(ask('10.1.0.2', 80), 'few', 'goes on');
ok($t->stop(), 'stop');

# another listener, fewer tuples

$t->run(conf(STACK => 'system listen=198.18.0.1:4000 tuples=64 client=40'));
(undef, $listens) = $t->exec('client', qw/ ss -Hltn /);
like($listens, qr/198\.18\.0\.1%tun0:4000/, 'listen=');
like($listens, qr/\[fd00:198:18::1\]%tun0:1313/, 'the other family');

my $refused = $t->in('client', sub {
	my @s = map { Test::Tun::connect_to('10.1.0.2', 9000) } 1 .. 45;
	return scalar grep { !$_ } @s;
});

is($refused, 5, 'client=');
ok($t->wait_for_log(qr/no tuple for another connection/), 'is noted');
ok($t->stop(), 'stop');

# what cannot be had

for my $case (
	[ 'tun_accept', conf() =~ s/(listen tun0 :80;)/$1 tun_accept connected;/r,
		qr/"tun_accept connected" cannot be had/ ],
	[ 'network', conf() =~ s{198.18.0.1/15}{198.18.0.1}r,
		qr/no IPv4 "address" of tun "tun0" has a network/ ],
	[ 'address', conf(STACK => 'system listen=198.18.0.2:1313'),
		qr/is not at an "address" of tun "tun0"/ ],
	[ 'port', conf(STACK => 'system listen=198.18.0.1'),
		qr/invalid parameter "listen=198.18.0.1"/ ],
	[ 'twice', conf(STACK => 'system tuples=1k tuples=2k'),
		qr/invalid parameter "tuples=2k"/ ],
	[ 'of lwIP', conf(STACK => 'lwip fallback=lwip'),
		qr/invalid parameter "fallback=lwip"/ ],
	[ 'unknown', conf(STACK => 'systems'), qr/invalid value "systems"/ ],
) {
	my ($name, $text, $re) = @$case;
	my ($rc, $out) = $t->test_conf($text);
	isnt($rc, 0, "error, $name");
	like($out, $re, "message, $name");
	like($out, qr/ in \S+:\d+/, "place, $name");
}

my ($rc, $out) = $t->test_conf(conf());
is($rc, 0, 'nginx -t without the device') or diag($out);

$t->done();
