#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for TCP as RFC 9293 and RFC 5961 say, with segments made by hand.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::Raw;
use Time::HiRes qw/ sleep time /;

use constant { FIN => 1, SYN => 2, RST => 4, PSH => 8, ACK => 16, ECE => 64,
	CWR => 128 };

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
        tun_listen tun0 :80;
        proxy_pass 10.1.0.2:9000;
        proxy_timeout 20s;
    }

    server {
        tun_listen tun0 :81;
        proxy_pass 10.1.0.2:9000;
        tun_accept early;
    }

    server {
        tun_listen tun0 :82;
        proxy_pass 10.1.0.2:9001;
    }
}
EOF

$t->run($conf);

# an echo

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

# much at once

$t->server(9001, sub {
	my ($s) = @_;
	Test::Tun::write_all($s, 'x' x 20000);
	sysread($s, my $buf, 1);
});

my $port = 30000;

for my $family (
	{ name => 'IPv4', src => '198.18.0.77', dst => '203.0.113.9',
		mss => 536, own => '198.18.0.1', broadcast => '198.19.255.255' },
	{ name => 'IPv6', src => 'fd00:198:18::77', dst => '2001:db8::9',
		mss => 1220, own => 'fd00:198:18::1', broadcast => 'ff02::1' })
{
	my $name = $family->{name};

	my $raw = sub {
		my (%args) = @_;
		return Test::Tun::Raw->new(src => $family->{src},
			dst => $family->{dst}, sport => ++$port, %args);
	};

	my $case = sub {
		my ($label, $expected, $sub) = @_;
		$port += 10;
		my ($got) = $t->in('client', $sub);
		is($got, $expected, "$label, $name");
	};

	my $flags = sub { $_[0] ? $_[0]{flags} : 'none' };

	$case->('echo', 'hello', sub {
		my $r = $raw->();
		$r->open() or return 'no answer';
		$r->send_tcp(flags => ACK | PSH, data => 'hello');
		while (my $p = $r->recv_tcp()) {
			return $p->{data} if length $p->{data};
		}
	});

	$case->('wrong checksum', 'none', sub {
		my $r = $raw->();
		$r->send_tcp(flags => SYN, bad_sum => 1);
		return $flags->($r->recv_tcp(0.5));
	});

	$case->('ECN', SYN | ACK, sub {
		my $r = $raw->();
		$r->send_tcp(flags => SYN | ECE | CWR);
		return $flags->($r->recv_tcp());
	});

	$case->('the same SYN, the same number', 'same', sub {
		my $r = $raw->(dport => 81);
		$r->send_tcp(flags => SYN);
		my $one = $r->recv_tcp() or return 'none';
		$r->send_tcp(flags => SYN);
		my $two = $r->recv_tcp() or return 'no second';
		return $one->{seq} == $two->{seq} ? 'same' : 'another';
	});

	$case->('window scale above 14', SYN | ACK, sub {
		my $r = $raw->();
		$r->send_tcp(flags => SYN, options => pack('C*', 3, 3, 15, 0));
		return $flags->($r->recv_tcp());
	});

	$case->('malformed options', SYN | ACK, sub {
		my $r = $raw->();
		$r->send_tcp(flags => SYN, options => pack('C*', 2, 0, 5, 180));
		return $flags->($r->recv_tcp());
	});

	$case->('a segment of nobody', RST, sub {
		my $r = $raw->();
		$r->send_tcp(flags => ACK, ack => 4711);
		my $p = $r->recv_tcp() or return 'none';
		return $p->{seq} == 4711 ? $p->{flags} : "seq $p->{seq}";
	});

	$case->('a reset of nobody', 'none', sub {
		my $r = $raw->();
		$r->send_tcp(flags => RST);
		return $flags->($r->recv_tcp(0.3));
	});

	for my $bad ([ 'own address', dst => $family->{own} ],
		[ 'broadcast', dst => $family->{broadcast} ],
		[ 'land', dst => $family->{src}, sport => 80, dport => 80 ])
	{
		my ($label, %args) = @$bad;

		$case->($label, 'none', sub {
			my $r = $raw->(%args);
			$r->send_tcp(flags => SYN);
			return $flags->($r->recv_tcp(0.3));
		});
	}

	# in an established connection

	my $established = sub {
		my ($label, $expected, $sub) = @_;

		$case->($label, $expected, sub {
			my $r = $raw->();
			$r->open() or return 'no answer';
			my $got = $sub->($r);

			# is it still there?

			$r->send_tcp(flags => ACK | PSH, data => 'alive?');
			while (my $p = $r->recv_tcp()) {
				return $got if $p->{data} eq 'alive?';
				return "$got, reset" if $p->{flags} & RST;
			}
			return "$got, dead";
		});
	};

	$established->('data without ACK', 'none', sub {
		my ($r) = @_;
		$r->send_tcp(flags => PSH, data => 'evil');
		return $flags->($r->recv_tcp(0.3));
	});

	$established->('ACK of unsent data', ACK, sub {
		my ($r) = @_;
		$r->send_tcp(flags => ACK | PSH, data => 'evil',
			ack => $r->{ack} + 100000);
		return $flags->($r->recv_tcp(0.3));
	});

	$established->('ACK from long ago', ACK, sub {
		my ($r) = @_;
		$r->send_tcp(flags => ACK | PSH, data => 'evil',
			ack => $r->{ack} - 10000000);
		return $flags->($r->recv_tcp(0.3));
	});

	$established->('SYN in the window', ACK, sub {
		my ($r) = @_;
		$r->send_tcp(flags => SYN, seq => $r->{seq} + 10);
		return $flags->($r->recv_tcp(0.3));
	});

	$established->('RST in the window', ACK, sub {
		my ($r) = @_;
		$r->send_tcp(flags => RST, seq => $r->{seq} + 10);
		return $flags->($r->recv_tcp(0.3));
	});

	$established->('RST outside of it', 'none', sub {
		my ($r) = @_;
		$r->send_tcp(flags => RST, seq => $r->{seq} - 10);
		return $flags->($r->recv_tcp(0.3));
	});

	$established->('a hundred challenges', 'few', sub {
		my ($r) = @_;
		$r->send_tcp(flags => RST, seq => $r->{seq} + 10) for 1 .. 100;
		my $n = 0;
		$n++ while $r->recv_tcp(0.3);
		return $n <= 2 ? 'few' : $n;
	});

	$case->('RST, exactly', RST, sub {
		my $r = $raw->();
		$r->open() or return 'no answer';
		$r->send_tcp(flags => RST);
		sleep(0.2);
		$r->send_tcp(flags => ACK | PSH, data => 'there?');
		return $flags->($r->recv_tcp());
	});

	$case->('out of order', 'abcdef', sub {
		my $r = $raw->();
		$r->open() or return 'no answer';
		my $seq = $r->{seq};
		$r->send_tcp(flags => ACK | PSH, data => 'def', seq => $seq + 3);
		$r->send_tcp(flags => ACK | PSH, data => 'abc', seq => $seq);
		$r->send_tcp(flags => ACK | PSH, data => 'abc', seq => $seq);
		my $got = '';
		while (length $got < 6 && (my $p = $r->recv_tcp())) {
			$got .= $p->{data};
		}
		return $got;
	});

	$case->('zero window and its probe', 'x', sub {
		my $r = $raw->(dport => 82, wnd => 0);
		my $syn = $r->open(wnd => 1000) or return 'no answer';
		my $end = time() + 5;
		while (time() < $end && (my $p = $r->recv_tcp(2))) {
			return substr($p->{data}, 0, 1) if length $p->{data};
		}
		return 'no probe';
	});

	$case->('retransmission', 'again', sub {
		my $r = $raw->();
		$r->open() or return 'no answer';
		$r->send_tcp(flags => ACK | PSH, data => 'once');
		my $n = 0;
		my $end = time() + 3;
		while (time() < $end && $n < 2 && (my $p = $r->recv_tcp(2))) {
			$n++ if $p->{data} eq 'once';
		}
		return $n >= 2 ? 'again' : 'no more';
	});

	$case->('a client that gives up', 'ended', sub {
		my $r = $raw->();
		$r->send_tcp(flags => SYN);
		$r->send_tcp(flags => RST, seq => $r->{seq} + 1);
		sleep(0.2);
		$r->{seq} = 90000;
		return $r->open() ? 'ended' : 'no answer';
	});

	# TIME-WAIT is left for a new connection

	$case->('TIME-WAIT', 'hello', sub {
		my $r = $raw->();
		$r->open() or return 'no answer';
		$r->send_tcp(flags => ACK | FIN);
		$r->{seq}++;

		while (my $p = $r->recv_tcp()) {
			next unless $p->{flags} & FIN;
			$r->{ack} = $p->{seq} + 1;
			$r->send_tcp(flags => ACK);
			last;
		}

		$r->{seq} += 100000;
		$r->open() or return 'no second answer';
		$r->send_tcp(flags => ACK | PSH, data => 'hello');
		while (my $p = $r->recv_tcp()) {
			return $p->{data} if length $p->{data};
		}
	});

	next if $name eq 'IPv6';

	$case->('IP options', SYN | ACK, sub {
		my $r = $raw->();
		$r->send_tcp(flags => SYN, ip_options => "\x01\x01\x01\x00");
		return $flags->($r->recv_tcp());
	});

	$case->('source route', 'none', sub {
		my $r = $raw->();
		$r->send_tcp(flags => SYN,
			ip_options => pack('C3 a4 C', 131, 7, 4, "\x0a\0\0\1",
				0));
		return $flags->($r->recv_tcp(0.3));
	});

	$case->('fragment', 'none', sub {
		my $r = $raw->();
		$r->send_tcp(flags => SYN, fragment => 0x2000);
		return $flags->($r->recv_tcp(0.3));
	});
}

# sizes of packets are seen where the kernel does not cut them

$t->stop();
$t->run($conf =~ s/(netns .*)/$1 offload off;/r);

for my $family (
	{ name => 'IPv4', src => '198.18.0.77', dst => '203.0.113.9',
		none => 536, mss => 1460, less => 1000 - 40 },
	{ name => 'IPv6', src => 'fd00:198:18::77', dst => '2001:db8::9',
		none => 1220, mss => 1440, less => 1300 - 60 })
{
	my $sizes = sub {
		my ($options, $big) = @_;
		$port += 10;

		return ($t->in('client', sub {
			my $r = Test::Tun::Raw->new(src => $family->{src},
				dst => $family->{dst}, sport => $port,
				dport => 82);
			$r->open(options => $options) or return 'no answer';
			my $p = $r->recv_tcp(2) or return 'no data';
			my $size = length $p->{data};

			return $size unless $big;

			# the packet did not arrive: a router says so

			$big->($r, $p);
			1 while $p = $r->recv_tcp(0.05);
			$r->send_tcp(flags => ACK);

			while ($p = $r->recv_tcp(2)) {
				return length $p->{data} if $p->{data};
			}

			return 'no more';
		}))[0];
	};

	my $name = $family->{name};
	my $mtu = $family->{less} + ($name eq 'IPv4' ? 40 : 60);

	is($sizes->(''), $family->{none}, "no MSS, $name");
	is($sizes->(pack('C C n', 2, 4, 65000)), $family->{mss},
		"MSS above the MTU, $name");
	is($sizes->(pack('C C n', 2, 4, 900)), 900, "MSS, $name");

	is($sizes->(pack('C C n', 2, 4, 1460), sub {
		my ($r, $p) = @_;
		$r->send_too_big($mtu, $p->{seq});
	}), $family->{less}, "packet too big, $name");

	is($sizes->(pack('C C n', 2, 4, 1460), sub {
		my ($r, $p) = @_;
		$r->send_too_big($mtu, $p->{seq} - 1000000);
	}), $family->{mss}, "packet too big, forged, $name");
}

# rubbish

my ($sent) = $t->in('client', sub {
	my $r = Test::Tun::Raw->new(src => '198.18.0.77', dst => '203.0.113.9');
	my $good = $r->packet(flags => SYN, options => pack('C C n', 2, 4, 1460));
	srand(1);

	for my $i (1 .. 3000) {
		my $p = $good;
		substr($p, int rand length $p, 1) = chr int rand 256
			for 0 .. rand 4;
		$p = substr($p, 0, int rand(length($p) + 1)) if rand() < 0.3;
		$r->send_packet($p) if length $p;
	}

	return 1;
});

is($sent, 1, 'rubbish');

is(($t->in('client', sub {
	my $s = Test::Tun::connect_to('192.0.2.1', 80) or return "$@";
	Test::Tun::write_all($s, 'x');
	sysread($s, my $buf, 1);
	return $buf;
}))[0], 'x', 'still serves');

is(scalar(() = $t->workers()), 1, 'the same worker');

$t->done();
