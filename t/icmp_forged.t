#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for answers to forwarded pings that nobody asked for.

use warnings;
use strict;

use Socket qw/ inet_pton pack_sockaddr_in pack_sockaddr_in6 SOCK_RAW /;
use Test::More;
use Test::Tun;
use Test::Tun::Raw;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        icmp    forward;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }
}
EOF

my @families = (
	{ name => 'IPv4', src => '198.18.0.77', dst => '10.1.0.2',
	  other => '10.2.0.9', gateway => '10.1.0.1', bad_sum => 1,
	  reply => 0, error => [ 3, 13 ], redirect => 5 },
	{ name => 'IPv6', src => 'fd00:198:18::77', dst => 'fd00:1::2',
	  other => 'fd00:2::9', gateway => 'fd00:1::1', bad_sum => 1,
	  reply => 129, error => [ 1, 1 ], redirect => 137 },
);

# the server's kernel is silent, what answers is made here

$t->in('server', sub {
	Test::Tun::spew("/proc/sys/net/$_", 1)
		for qw{ ipv4/icmp_echo_ignore_all ipv6/icmp/echo_ignore_all };
	return 1;
});

for my $f (@families) {
	$t->daemon('server', sub { answer($f) });
}

sleep(0.3);

sub answer {
	my ($f) = @_;

	my $r = Test::Tun::Raw->new(device => 'gateway', src => $f->{dst},
		dst => $f->{gateway});

	# one that takes IP headers, from any source

	socket(my $s, $r->{family}, SOCK_RAW, 255) or die "socket: $!";
	my $addr = inet_pton($r->{family}, $f->{gateway});
	my $to = $r->{v6} ? pack_sockaddr_in6(0, $addr)
		: pack_sockaddr_in(0, $addr);

	while (1) {
		my $p = $r->recv_icmp(60) or next;
		next unless $p->{type} == 8 || $p->{type} == 128;

		for (answers($f, $r, $p)) {
			my ($delay, $packet) = ref $_ ? @$_ : (0, $_);
			sleep($delay);
			send($s, $packet, 0, $to) or warn "send: $!";
		}
	}
}

sub answers {
	my ($f, $r, $p) = @_;

	my $reply = sub {
		my ($data, %a) = @_;
		return $r->icmp_packet($f->{reply}, 0, pack('n n',
			$a{id} // $p->{id}, $a{seq} // $p->{seq}) . $data, %a);
	};

	my $error = sub {
		my ($type, $code, %a) = @_;
		my $quote = $r->icmp_packet($a{type} // $p->{type}, 0,
			pack('n n', $a{id} // $p->{id}, $p->{seq})
			. $p->{data}, src => $f->{gateway}, dst => $f->{dst},
			%a);
		return $r->icmp_packet($type, $code, "\0" x 4 . $quote,
			src => $f->{other});
	};

	return $reply->('right') if $p->{data} eq 'right';
	return $error->(@{ $f->{error} }) if $p->{data} eq 'error';
	return [ 1, $reply->('soon') ] if $p->{data} eq 'soon';
	return [ 10.5, $reply->('late') ] if $p->{data} eq 'late';

	return $reply->('twice'), $reply->('twice') if $p->{data} eq 'twice';

	return (
		$reply->('source', src => $f->{other}),
		$reply->('number', seq => $p->{seq} + 1),
		$reply->('old number', seq => $p->{seq} - 5),
		$reply->('id', id => $p->{id} ^ 1),
		$reply->('id', id => $p->{id} ^ 0x8000),
		$reply->('checksum', bad_sum => 1),
		$error->(@{ $f->{error} }, dst => $f->{other}),
		$error->(@{ $f->{error} }, id => $p->{id} ^ 1),
		$error->(@{ $f->{error} }, type => $f->{reply}),
		$error->(@{ $f->{error} }, protocol => 17),
		$error->($f->{redirect}, 0),
		$reply->('end'),
	);
}

# what the client gets of it

sub asks { $t->wait(start(@_)) }

sub start {
	my ($f, $data, $timeout) = @_;

	return $t->start('client', sub {
		my $r = Test::Tun::Raw->new(src => $f->{src},
			dst => $f->{dst});

		$r->send_packet($r->echo_packet(4711, 100, $data));

		my @got;

		while (my $p = $r->recv_icmp($timeout || 0.5)) {
			next if $p->{type} > 132;
			push @got, $p;
		}

		return \@got;
	});
}

sub data { join(' ', map { $_->{data} } @{ $_[0] }) }

for my $f (@families) {
	is(data(asks($f, 'right')), 'right', "answer, $f->{name}");
	is(data(asks($f, 'twice')), 'twice twice', "twice, $f->{name}");
	is(data(asks($f, 'wrong')), 'end', "wrong answers, $f->{name}");

	# an error, and in it the request as the client made it

	my ($e) = @{ asks($f, 'error') };
	my ($quote) = $t->in('client', sub {
		my $r = Test::Tun::Raw->new(src => $f->{src},
			dst => $f->{dst});
		return $r->parse_icmp($e->{data});
	});

	is("$e->{src} $e->{type} $e->{code} $e->{good}",
		"$f->{other} @{ $f->{error} } 1", "error, $f->{name}");
	is("$quote->{src} $quote->{dst} $quote->{id} $quote->{seq}"
		. " $quote->{data} $quote->{good}",
		"$f->{src} $f->{dst} 4711 100 error 1", "quote, $f->{name}");

	is(data(asks($f, 'soon', 2)), 'soon', "soon, $f->{name}");
}

my @late = map { start($_, 'late', 12) } @families;

is(data($t->wait($late[$_])), '', "too late, $families[$_]{name}") for 0, 1;

$t->done();
