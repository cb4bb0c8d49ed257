#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for TCP through a TUN device: bytes both ways, IPv4 and IPv6, with and
# without offloads.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        offload OFFLOAD;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }
}
EOF

my $size = 20 * 1024 * 1024 + 17;

# what is uploaded comes back as a sum, then what was asked for is sent

$t->server(9000, sub {
	my ($s) = @_;

	my $line = '';
	sysread($s, $line, 1, length $line) or return until $line =~ /\n/;
	my ($seed, $up, $down) = split ' ', $line;

	my $data = '';
	while (length $data < $up) {
		sysread($s, $data, 262144, length $data) or return;
	}

	my $sum = Digest::SHA::sha1_hex($data);
	Test::Tun::write_all($s, "$sum\n");
	Test::Tun::write_all($s, Test::Tun::bytes("down$seed", $down));
});

sub transfer {
	my ($host, $seed, $up, $down) = @_;

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";

	my $data = Test::Tun::bytes("up$seed", $up);
	Test::Tun::write_all($s, "$seed $up $down\n" . $data);

	my $got = Test::Tun::read_all($s);

	return 'up differs' unless $got =~ s/^([0-9a-f]{40})\n//
		&& $1 eq Digest::SHA::sha1_hex($data);
	return 'down differs, ' . length $got
		unless $got eq Test::Tun::bytes("down$seed", $down);
	return 'ok';
}

for my $offload (qw/ on off /) {

	(my $c = $conf) =~ s/OFFLOAD/$offload/;
	$t->run($c);

	for my $family (@Test::Tun::FAMILIES) {
		my $name = "$family->{name}, offload $offload";
		my $host = $family->{server};

		is($t->in('client', \&transfer, $host, 0, 5, 7), 'ok',
			"small, $name");
		is($t->in('client', \&transfer, $host, 1, $size, 1), 'ok',
			"up, $name");
		is($t->in('client', \&transfer, $host, 2, 1, $size), 'ok',
			"down, $name");

		my @jobs = map {
			$t->start('client', \&transfer, $host, $_, 700000 + $_,
				900000 + $_)
		} 1 .. 50;

		my @bad = grep { $_ ne 'ok' } map { scalar $t->wait($_) } @jobs;
		is("@bad", '', "50 at once, $name");
	}

	ok($t->stop(), "stop, offload $offload");
}

$t->done();
