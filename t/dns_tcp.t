#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_dns over TCP: frames in pieces, many at once, limits, times,
# and a client that does not read.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::DNS;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();

$t->system(qw/ openssl req -x509 -newkey rsa:2048 -nodes -subj /, '/CN=dns',
	'-keyout', "$t->{dir}/key.pem", '-out', "$t->{dir}/cert.pem");

resolver($t, '10.1.0.2', sub {
	my ($q, $protocol) = @_;
	my ($name) = asked($q);
	my $text = $name =~ /^big/ ? join(' ', ('x' x 200) x 200)
		: qq{"it is $name"};
	my $reply = reply($q, "$name. 0 TXT $text");
	if ($protocol eq 'udp' && length $reply->data > 1200) {
		$reply = reply($q);
		$reply->header->tc(1);
	}
	return $reply->data;
});

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        listen 10.1.0.1:53;
        listen [fd00:1::1]:53;
        tun_listen tun0 tcp :53;
        tun_dns names;
        tun_dns_pass 10.1.0.2:53;
    }

    server {
        listen 10.1.0.1:853 ssl;
        ssl_certificate     %%DIR%%/cert.pem;
        ssl_certificate_key %%DIR%%/key.pem;
        tun_dns names;
    }

    server {
        listen 10.1.0.1:5301;
        tun_dns names;
        tun_dns_limit tcp=3;
    }
}
EOF

my @servers = (
	[ 'IPv4', 'server', '10.1.0.1' ], [ 'IPv6', 'server', 'fd00:1::1' ],
	[ 'IPv4 in the device', 'client', '198.18.0.2' ],
	[ 'IPv6 in the device', 'client', 'fd00:198:18::2' ],
);

for my $server (@servers) {
	my ($name, $ns, $address) = @$server;

	my $with = sub {
		my ($sub) = @_;
		return $t->in($ns, sub {
			my $s = Test::Tun::connect_to($address, 53)
				or return "connect: $@";
			return $sub->($s);
		});
	};

	# a byte at a time

	is($with->(sub {
		my ($s) = @_;
		for my $byte (split //, frame(question('a.example', 'A')) x 2) {
			syswrite($s, $byte);
			sleep(0.002);
		}
		return join ' ', map { text(read_frame($s)) =~ /^(NOERROR A)/ }
			1 .. 2;
	}), 'NOERROR A NOERROR A', "in pieces, $name");

	# many at once, faked and forwarded ones mixed

	my ($n, $ids, $odd) = $with->(sub {
		my ($s) = @_;
		my $all = '';
		for my $id (1 .. 200) {
			my $q = question("n$id.example", $id % 3 ? 'A' : 'TXT');
			substr($q, 0, 2) = pack('n', $id);
			$all .= frame($q);
		}
		Test::Tun::write_all($s, $all);
		my (%ids, @odd);
		for (1 .. 200) {
			my $answer = read_frame($s) // last;
			my $id = unpack('n', $answer);
			$ids{$id}++;
			my $text = text($answer);
			push @odd, "$id $text" unless $id % 3
				? $text =~ /^NOERROR A=/
				: $text eq qq{NOERROR TXT="it is n$id.example"};
		}
		return (scalar keys %ids, (grep { $_ > 1 } values %ids) + 0,
			"@odd");
	});
	is($n, 200, "pipelined, $name");
	is($ids, 0, "each once, $name");
	is($odd, '', "and right, $name");

	# FIN after questions: their answers come

	is($with->(sub {
		my ($s) = @_;
		Test::Tun::write_all($s, frame(question('a.example', 'A'))
			. frame(question('slow.example', 'TXT')));
		shutdown($s, 1);
		my @all = map { text(read_frame($s)) =~ /^(NOERROR \w+)/ } 1 .. 2;
		my $eof = sysread($s, my $buf, 1);
		return join ' ', sort(@all), $eof;
	}), 'NOERROR A NOERROR TXT 0', "half-closed, $name");

	# a large answer

	is($with->(sub {
		my ($s) = @_;
		Test::Tun::write_all($s, frame(question('big.example', 'TXT')));
		return length read_frame($s);
	}), 40241, "large, $name");

	# frames that are none

	for ([ "\0\0", 'empty' ], [ "\x10\x01", 'of 4097' ]) {
		my ($data, $what) = @$_;
		is($with->(sub {
			my ($s) = @_;
			Test::Tun::write_all($s, frame(question('a.example',
				'A')) . $data);
			my $answer = text(read_frame($s));
			my $time = time();
			my $n = sysread($s, my $buf, 1);
			return ($answer =~ /^NOERROR A/ ? 'answer ' : $answer)
				. ($n ? 'more' : time() - $time < 2 ? 'closed'
					: 'late');
		}), 'answer closed', "frame $what, $name");
	}

	# times

	my $job = $t->start($ns, sub {
		my $s = Test::Tun::connect_to($address, 53);
		my $time = time();
		sysread($s, my $buf, 1);
		return time() - $time;
	});

	my $idle = $t->start($ns, sub {
		my $s = Test::Tun::connect_to($address, 53);
		Test::Tun::write_all($s, frame(question('a.example', 'A')));
		read_frame($s);
		my $time = time();
		my ($n, $error) = (sysread($s, my $buf, 1), $!);
		return (time() - $time, defined $n ? $n : "$error");
	});

	$server->[3] = [ $job, $idle ];
}

for my $server (@servers) {
	my $first = $t->wait($server->[3][0]);
	cmp_ok($first, '>', 4, "no question, $server->[0]");
	cmp_ok($first, '<', 7, "no question, in time, $server->[0]");

	my ($idle, $end) = $t->wait($server->[3][1]);
	cmp_ok($idle, '>', 9, "idle, $server->[0]");
	cmp_ok($idle, '<', 13, "idle, in time, $server->[0]");
	is($end, 0, "an orderly end, $server->[0]");
}

# 1000 questions of one connection

is($t->in('server', sub {
	my $s = Test::Tun::connect_to('10.1.0.1', 5301);
	my $n = 0;
	my $q = frame(question('a.example', 'A')) x 50;
	local $SIG{PIPE} = 'IGNORE';
	while ($n < 1100) {
		Test::Tun::write_all($s, $q);
		for (1 .. 50) { read_frame($s) // return $n; $n++ }
	}
	return $n;
}), 1000, '1000 questions');

# a client that does not read is not read either

my ($sent, $rss) = $t->in('server', sub {
	my $s = Test::Tun::connect_to('10.1.0.1', 53);
	$s->blocking(0);
	my $q = frame(question('big.example', 'TXT')) x 1000;
	my $sent = 0;
	for (1 .. 50) {
		my $n = syswrite($s, $q, length($q) - $sent % length($q),
			$sent % length($q));
		$sent += $n if $n;
		sleep(0.02);
	}
	return ($sent, $t->rss());
});
cmp_ok($rss, '<', 40000, 'memory with a client that does not read');

# connections of one client

is($t->in('server', sub {
	my @s = map { Test::Tun::connect_to('10.1.0.1', 5301) } 1 .. 3;
	$_ && Test::Tun::write_all($_, frame(question('a.example', 'A')))
		for @s;
	my $n = grep { defined read_frame($_) } @s;
	my $more = Test::Tun::connect_to('10.1.0.1', 5301);
	Test::Tun::write_all($more, frame(question('a.example', 'A')));
	my $refused = defined read_frame($more) ? 'answered' : 'refused';
	close $_ for @s;
	sleep(0.2);
	return "$n $refused " . (text(ask_raw('10.1.0.1',
		question('a.example', 'A'), tcp => 1, port => 5301))
		=~ /^(NOERROR)/)[0];
}), '3 refused NOERROR', 'tcp=3');

# over TLS

my (undef, $out) = $t->exec('server', qw/ kdig +tls @10.1.0.1 +short
	a.example A /);
like($out, qr/^198\.1[89]\./, 'over TLS');

$t->done();
