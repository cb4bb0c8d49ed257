#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for a gateway: the device is where nginx is, and clients are hosts
# behind another interface, whose packets are routed into it.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new(forward => 1);

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$remote_addr $remote_port $server_addr $server_port';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        mtu     MTU;
        offload OFFLOAD;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
        proxy_half_close on;
    }

    server {
        tun_listen tun0 :7;
        deny all;
        proxy_pass $tun_target;
    }
}
EOC

my $size = 5 * 1024 * 1024 + 17;

# who came, and what came

$t->server(9000, sub {
	my ($s) = @_;
	my $data = Test::Tun::read_all($s);
	Test::Tun::write_all($s, $s->peerhost() . "\n$data");
});

my %source = (IPv4 => '10.3.0.2', IPv6 => 'fd00:3::2');

# a device, and a client's link, each narrower than the other

for my $case ([ 1500, 1500, 'on' ], [ 1500, 1500, 'off' ],
	[ 1280, 1500, 'on' ], [ 1280, 1500, 'off' ],
	[ 9000, 1500, 'on' ], [ 9000, 1500, 'off' ],
	[ 1500, 1300, 'on' ], [ 1500, 1300, 'off' ])
{
	my ($mtu, $link, $offload) = @$case;

	$t->ip('client', qw/ link set gateway mtu /, $link);
	$t->ip('gateway', qw/ link set client mtu /, $link);

	$t->run($conf =~ s/MTU/$mtu/r =~ s/OFFLOAD/$offload/r);

	for my $family (@Test::Tun::FAMILIES) {
		my ($name, $host) = @{$family}{qw/ name server /};
		my $label = "$name, mtu $mtu behind $link, offload $offload";

		my ($rc, $port) = $t->in('client', \&transfer, $host);

		is($rc, "ok, from $family->{gateway}", "both ways, $label");

		my $line = "$source{$name} $port $host 9000";
		ok($t->wait_for_log(qr/^\Q$line\E$/m, 'access.log'),
			"client and target, $label");

		is(Test::Tun::refused(connects($host, 9)), 'refused',
			"refused, $label");
		is(Test::Tun::refused(connects($host, 7)), 'refused',
			"denied, $label");
	}

	$t->stop();
}

$t->done();

sub transfer {
	my ($host) = @_;

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";
	my $data = Test::Tun::bytes("to $host", $size);

	Test::Tun::write_all($s, $data);
	shutdown($s, 1);

	my ($from, $got) = split /\n/, scalar Test::Tun::read_all($s), 2;

	return ($got eq $data ? "ok, from " . ($from =~ s/^::ffff://r)
		: 'got ' . length $got, $s->sockport());
}

sub connects {
	my ($host, $port) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::connect_to($host, $port);
		return $s ? 'connected' : $!{ECONNREFUSED} ? 'refused' : "$@";
	});
}
