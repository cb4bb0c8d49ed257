#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for pings of clients behind a gateway.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new(forward => 1);

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/30 fd00:198:18::1/64;
        icmp    ICMP;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }
}
EOF

sub ping {
	my (undef, $out) = $t->exec('client', qw/ ping -n -c 1 -W 1 /, @_);
	return $out;
}

for my $icmp (qw/ reply forward /) {
	$t->run($conf =~ s/ICMP/$icmp/r);

	for my $family (@Test::Tun::FAMILIES) {
		my $name = "$icmp, $family->{name}";

		like(ping($family->{server}), qr/ 1 received/, $name);
		like(ping($family->{server}, qw/ -s 1400 /), qr/ 1 received/,
			"$name, large");

		next if $icmp eq 'reply';

		# the first hop is the kernel of the gateway, the next is ours

		my $next = $family->{client} =~ s/1$/2/r;

		like(ping($family->{server}, qw/ -t 2 /),
			qr/From \Q$next\E icmp_seq=1 Time/,
			"$name, time exceeded");
	}

	$t->stop();
}

$t->done();
