#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_udp_relay to names: the datagrams go to the host, and the
# answers come from the address that the client knows.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

$t->program('server', 'dnsmasq', '--keep-in-foreground', '--no-resolv',
	'--no-hosts', '--conf-file=/dev/null', '--user=root', '--pid-file',
	'--local=/example/', '--host-record=one.example,10.1.0.2,fd00:1::2',
	'--host-record=two.example,10.1.0.2,fd00:1::2',
	'--host-record=four.example,10.1.0.2');
$t->udp_server($_, sub { "$_[1] " . (Socket::unpack_sockaddr_in6($_[2]))[0] })
	for 9000, 9001;

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun_fakeip_zone names:1m 198.19.0.0/24 fd00:198:19::/120;
    resolver 10.1.0.2;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/48;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0 udp;
        tun_udp_relay on filtering=port;
    }

    server {
        tun_listen tun0 udp :53;
        tun_dns names;
    }
}
EOF

$t->in('client', sub {
	$t->run_cmd(10, qw/ ip -6 route add fd00:198:19::\/120 dev tun0 /);
	return 1;
});

for my $family (@Test::Tun::FAMILIES) {
	my $name = $family->{name};
	my ($type, $none) = $name eq 'IPv4' ? ('A', '198.19.0.250')
		: ('AAAA', 'fd00:198:19::fa');
	my %fake = map { $_ => address("$_.example", $type) }
		qw/ one two four gone /;

	isnt($fake{one}, '', "an address, $name");
	isnt($fake{one}, $fake{two}, "another one, $name");

	my ($port, @got) = $t->in('client', sub {
		my $s = client($family);
		my @got = map { exchange($s, @$_) } [ $fake{one}, 9000 ],
			[ $fake{one}, 9000 ], [ $fake{one}, 9001 ];
		return ($s->sockport(), @got);
	});

	like($got[0], qr/^x (\d+) from \Q$fake{one}\E 9000$/,
		"the answer's address, $name");
	is($got[1], $got[0], "one port, $name");
	is($got[2], $got[0] =~ s/9000$/9001/r, "another port of it, $name");

	# two names of one host, one after the other

	is($t->in('client', sub {
		return exchange(client($family), $fake{two}, 9000);
	}) =~ s/\d+ from/from/r, "x from $fake{two} 9000",
		"another name, $name");

	# what cannot be had

	like($t->in('client', \&refused, $fake{gone}), qr/refused/,
		"no such name, $name");
	like($t->in('client', \&refused, $none), qr/refused|No route/,
		"no name, $name");
	like($t->in('client', \&refused, $fake{four}), qr/refused/,
		"no address of the family, $name") if $type eq 'AAAA';
}

$t->done();

sub address {
	my ($name, $type) = @_;

	my (undef, $out) = $t->exec('client', 'dig', '@198.18.0.2', '+short',
		'+tries=2', $name, $type);
	return $out =~ /^([\da-f.:]+)$/m ? $1 : '';
}

sub client {
	my ($family) = @_;

	return IO::Socket::IP->new(LocalHost => $family->{client},
		Type => Socket::SOCK_DGRAM) || die "$@";
}

sub exchange {
	my ($s, $host, $port) = @_;

	my $v6 = $host =~ /:/;
	my $to = $v6 ? Socket::pack_sockaddr_in6($port,
			Socket::inet_pton(Socket::AF_INET6, $host))
		: Socket::pack_sockaddr_in($port, Socket::inet_aton($host));

	defined send($s, 'x', 0, $to) or return "send: $!";
	return 'none' unless IO::Select->new($s)->can_read(3);
	my $from = recv($s, my $data, 100, 0) // return "recv: $!";

	my ($p, $a) = $v6 ? Socket::unpack_sockaddr_in6($from)
		: Socket::unpack_sockaddr_in($from);
	return "$data from " . Socket::inet_ntop($v6 ? Socket::AF_INET6
		: Socket::AF_INET, $a) . " $p";
}

sub refused {
	my ($host) = @_;

	my $s = Test::Tun::udp_to($host, 9000);

	for (1 .. 20) {
		send($s, 'x', 0) // return "$!";
		return "$!" if IO::Select->new($s)->can_read(0.2)
			&& !defined recv($s, my $data, 100, 0);
	}

	return 'none';
}
