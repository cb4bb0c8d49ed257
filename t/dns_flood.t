#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_dns_pass with more questions than there are connections, and a
# resolver that answers none of them.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::DNS;
use Time::HiRes qw/ sleep /;

my $t = Test::Tun->new();

resolver($t, '10.1.0.2', sub { undef });

$t->run(<<'EOF');
%%GLOBALS%%
events { worker_connections 256; }

stream {
    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    map $tun_dns_name $fake {
        hostnames;
        .faked.example 1;
        default        0;
    }

    server {
        listen 10.1.0.1:53 udp;
        tun_dns names;
        tun_dns_limit off;
        tun_dns_fake $fake;
        tun_dns_pass 10.1.0.2:53;
    }
}
EOF

my ($faked, $failed, $other) = $t->in('server', sub {
	my @s = map { IO::Socket::IP->new(PeerHost => '10.1.0.1',
		PeerPort => 53, Type => Socket::SOCK_DGRAM) } 1 .. 200;
	my ($faked, $failed, $other) = (0, 0, 0);

	for my $i (1 .. 2000) {
		send($s[$i % 200], question($i % 10 ? "n$i.example"
			: "n$i.faked.example", 'A'), 0);
		sleep(0.01) if $i % 20 == 0;
	}

	my $select = IO::Select->new(@s);

	while (my @ready = $select->can_read(6)) {
		for my $s (@ready) {
			recv($s, my $buf, 4096, 0);
			my $text = text($buf);
			$text =~ /^NOERROR A=198/ ? $faked++
				: $text eq 'SERVFAIL' ? $failed++ : $other++;
		}
	}

	return ($faked, $failed, $other);
});

is($faked, 200, 'all faked ones are answered');
cmp_ok($failed, '>', 1000, 'others are told that there is no answer');
is($other, 0, 'and nothing else');

$t->done();
