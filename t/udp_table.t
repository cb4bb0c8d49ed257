#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for the table of UDP flows: limits, who gives way, ends, and that
# nobody ever gets what another one asked for.

use warnings;
use strict;

use IO::Select;
use Test::More;
use Time::HiRes qw/ sleep time /;

use Test::Tun;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        LIMITS
    }

    server {
        tun_listen tun0 udp;
        proxy_pass $tun_target;
        proxy_timeout 600s;
    }

    server {
        tun_listen tun0 udp :9002;
        proxy_pass $tun_target;
        proxy_timeout 1s;
    }

    # addresses of many servers are one

    server {
        tun_listen tun0 udp 203.0.113.0/24:53;
        proxy_pass 10.1.0.2:9000;
    }

    server {
        tun_listen tun0 udp :9003;
        proxy_pass 10.1.0.2:9000;
        proxy_responses 1;
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

sub run { $t->run($conf =~ s/LIMITS/$_[0]/r) }

$t->udp_server(9000, sub { $_[1] });

# an answer now, soon, late, or never, as the question's second byte says

$t->daemon('server', sub {
	my $s = IO::Socket::IP->new(LocalAddr => '::', V6Only => 0,
		LocalPort => 9002, Type => Socket::SOCK_DGRAM) or die "$@";
	setsockopt($s, Socket::SOL_SOCKET, Socket::SO_RCVBUF, 4000000);

	my ($select, @later) = IO::Select->new($s);

	while (1) {
		while ($select->can_read(@later ? 0.01 : 1)) {
			my $from = recv($s, my $data, 1000, 0) // next;
			my $delay = ord substr $data, 1;

			next if $delay == 255;
			push @later, [ time() + $delay / 50, $data, $from ];
			last if @later > 200 && $later[0][0] < time();
		}

		@later = sort { $a->[0] <=> $b->[0] } @later;

		while (@later && $later[0][0] <= time()) {
			my $l = shift @later;
			send($s, $l->[1], 0, $l->[2]);
		}
	}
});

# the least recently used one gives way, a busy one does not

run('max_udp_flows 20 20;');

is($t->in('client', sub {
	my $busy = Test::Tun::udp_to('10.1.0.2', 9000);
	my @sockets;

	for my $n (1 .. 60) {
		ask($busy, "busy $n") or return "busy, $n";

		push @sockets, Test::Tun::udp_to('10.1.0.2', 9000);
		ask($sockets[-1], "new $n") or return "new, $n";
		sleep(0.02);
	}

	return 'all';
}), 'all', 'least recently used');

my $total = status();
is($total->{udp_flows}, 61, 'least recently used, the busy one stayed');
is($total->{udp_active}, 20, 'least recently used, active');
is($total->{udp_evicted}, 41, 'least recently used, evicted');
is($total->{limited_udp_flows}, 0, 'least recently used, none refused');

# those that are busy all do not give way

sleep(0.3);

is($t->in('client', sub {
	my @sockets = map { Test::Tun::udp_to('10.1.0.2', 9000) } 1 .. 20;
	my $more = Test::Tun::udp_to('10.1.0.2', 9000);

	for my $n (1 .. 5) {
		for (@sockets) {
			ask($_, "busy $n") or return "busy, $n";
		}

		$more->send('more');
	}

	return Test::Tun::udp_recv($more, 0.3) // 'none';
}), 'none', 'all busy');

cmp_ok(status()->{limited_udp_flows}, '>', 0, 'all busy, counted');
ok($t->wait_for_log(qr/\[warn\].*max_udp_flows reached/, 'error.log'),
	'all busy, logged');

$t->stop();

# one source, and another

run('max_udp_flows 40 10;');
$t->in('client', sub {
	$t->run_cmd(10, qw/ ip addr add 198.18.0.9\/32 dev tun0 /);
	return 1;
});

is($t->in('client', sub {
	my @other = map { Test::Tun::udp_to('10.1.0.2', 9000,
		LocalHost => '198.18.0.9') } 1 .. 5;
	ask($_, 'other') or return 'other' for @other;

	my @many = map { Test::Tun::udp_to('10.1.0.2', 9000) } 1 .. 40;

	for (@many) {
		ask($_, 'one of many') or return 'many';
		sleep(0.02);
	}

	return 'all';
}), 'all', 'a source that has many');

$total = status();
is($total->{udp_active}, 15, 'a source that has many, active');
is($total->{udp_evicted}, 30, 'a source that has many, its own give way');

$t->stop();

# ends

run('udp_timeout 1s;');

$t->in('client', sub { ask(Test::Tun::udp_to('10.1.0.2', 9000), 'x') });
is(status()->{udp_active}, 1, 'udp_timeout, active');
ok(Test::Tun::wait_for(5, sub { status()->{udp_active} == 0 }),
	'udp_timeout');

is($t->in('client', sub {
	my $s = Test::Tun::udp_to('203.0.113.1', 53);
	ask($s, "question $_") or return $_ for 1 .. 10;
	return 'all';
}), 'all', 'questions');
is(status()->{udp_active}, 0, 'questions, their flows are over');

is($t->in('client', sub {
	ask(Test::Tun::udp_to('10.1.0.2', 9003), "question $_") or return $_
		for 1 .. 10;
	return 'all';
}), 'all', 'proxy_responses');
is(status()->{udp_active}, 0, 'proxy_responses, over');

$t->stop();

# 50,000 flows one after another, 10,000 a second, through few places

run('max_udp_flows 4000 4000; udp_timeout 3s;');

# what the worker opens for the first one it keeps

is($t->in('client', sub {
	ask(Test::Tun::udp_to('10.1.0.2', 9000), 'first') ? 'yes' : 'no';
}), 'yes', 'before a crowd');

my ($rss, $fds) = ($t->rss(), descriptors());
my ($answered, $seconds) = $t->in('client', \&crowd, 50_000, 5);

diag(sprintf('%d of 50000 answered in %.1f s', $answered, $seconds));
cmp_ok($answered, '>', 48_000, 'a crowd, answered');

is($t->in('client', sub {
	ask(Test::Tun::udp_to('10.1.0.2', 9000), 'and now') ? 'yes' : 'no';
}), 'yes', 'a crowd, another one after it');

($answered) = $t->in('client', \&crowd, 50_000, 5);
cmp_ok($answered, '>', 48_000, 'another crowd');

ok(Test::Tun::wait_for(15, sub { status()->{udp_active} == 0 }),
	'a crowd, gone');

diag($t->rss() - $rss, ' KB more after them');

# a sanitizer keeps 256 MB of what was freed

my $kept = $t->{module} =~ /sanitize/ ? 400 : 8;
cmp_ok($t->rss() - $rss, '<', $kept * 1024, 'a crowd, memory in KB');
ok(Test::Tun::wait_for(15, sub { descriptors() <= $fds }),
	'a crowd, descriptors') or diag(descriptors() . ", not $fds");

$t->stop();

# late answers, and ports that are used again

$t->in('gateway', sub {
	Test::Tun::spew('/proc/sys/net/ipv4/ip_local_port_range',
		'40000 40199');
	return 1;
});

run('max_udp_flows 150 150;');

my ($got, $wrong, $asked) = $t->in('client', \&late, 12);

diag("$asked questions, $got answers, $wrong of somebody else");
is($wrong, 0, 'late answers, none to somebody else');
cmp_ok($got, '>', 100, 'late answers, those in time');

$t->allow_alert(qr/connect\(\) to .* failed|bind\(\) .* failed/);
$t->done();

sub ask {
	my ($s, $data) = @_;

	$s->send($data);

	return ($_[0] && (Test::Tun::udp_recv($s, 2) // '') eq $data);
}

sub status {
	my (undef, $json) = $t->exec('gateway', 'curl', '-sS',
		'http://127.0.0.1:8099/');
	return JSON::PP::decode_json($json)->{tun}[0]{total};
}

sub descriptors {
	my ($pid) = $t->workers();
	return scalar(() = glob "/proc/$pid/fd/*");
}

# a question from each of n sockets, in so many seconds

sub crowd {
	my ($n, $seconds) = @_;

	my ($start, $sent, $answered, @sockets) = (time(), 0, 0);
	my $bits = '';

	while ($sent < $n || @sockets) {
		while ($sent < $n && @sockets < 500
			&& $sent < (time() - $start) / $seconds * $n)
		{
			my $s = Test::Tun::udp_to('10.1.0.2', 9000);
			$s->blocking(0);
			$s->send("crowd $sent");
			push @sockets, [ $s, "crowd $sent", time() ];
			$sent++;
		}

		my @left;

		for (@sockets) {
			if (defined recv($_->[0], my $data, 100, 0)) {
				$answered++ if $data eq $_->[1];

			} elsif (time() - $_->[2] < 1) {
				push @left, $_;
			}
		}

		@sockets = @left;
	}

	return ($answered, time() - $start);
}

# each question has its asker's mark

sub late {
	my ($seconds) = @_;

	my ($asked, $got, $wrong, @sockets) = (0, 0, 0);
	my $start = time();

	while (time() - $start < $seconds) {
		my $s = Test::Tun::udp_to('10.1.0.2', 9002);
		my $dice = int rand 10;
		my $delay = $dice < 5 ? 0 : $dice < 6 ? 255 : int rand 150;
		my $mark = 'm' . chr($delay) . $asked++;

		$s->blocking(0);
		$s->send($mark);
		push @sockets, [ $s, $mark ];

		# sockets stay, so that what comes late is seen

		for (@sockets) {
			while (defined recv($_->[0], my $data, 100, 0)) {
				$data eq $_->[1] ? $got++ : $wrong++;
			}
		}

		shift @sockets if @sockets > 800;
		sleep(0.005);
	}

	return ($got, $wrong, $asked);
}
