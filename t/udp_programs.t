#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for UDP with real programs: a DNS server and dig, iperf3.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$protocol $server_addr $server_port $status';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0 udp;
        proxy_pass $tun_target;
        proxy_buffer_size 64k;
    }

    server {
        tun_listen tun0 tcp;
        proxy_pass $tun_target;
        proxy_half_close on;
    }
}
EOF

$t->program('server', 'dnsmasq', '--keep-in-foreground', '--no-resolv',
	'--no-hosts', '--conf-file=/dev/null', '--user=root', '--pid-file',
	'--address=/shop.example/10.1.0.2', '--address=/shop.example/fd00:1::2',
	'--txt-record=long.example,' . 'x' x 200 . (',' . 'y' x 200) x 6);
$t->program('server', 'iperf3', '-s');

for my $family (@Test::Tun::FAMILIES) {
	my ($name, $host) = @{$family}{qw/ name server /};
	my @dig = ('dig', "\@$host", '+tries=2', '+time=3', '+short');

	ok(Test::Tun::wait_for(5, sub {
		(dig(@dig, 'shop.example'))[0] =~ /^10\.1\.0\.2$/m
	}), "dig, $name");

	like(dig(@dig, 'shop.example', 'AAAA'), qr/^fd00:1::2$/m,
		"dig, AAAA, $name");
	like(dig(@dig, '+tcp', 'shop.example'), qr/^10\.1\.0\.2$/m,
		"dig, TCP, $name");
	like(dig(@dig, '+bufsize=4096', 'long.example', 'TXT'), qr/y{200}/,
		"dig, a long answer, $name");
	like(dig(@dig, '+bufsize=512', 'long.example', 'TXT'), qr/y{200}/,
		"dig, a truncated one, $name");

	for my $reverse ([], [ '-R' ]) {
		my $label = 'iperf3 -u' . (@$reverse ? ' -R' : '') . ", $name";
		my (undef, $out) = $t->exec('client', \20, 'iperf3', '-c',
			$host, '-u', '-b', '10M', '-l', 1200, '-t', 2, '-J',
			@$reverse);
		my $sum = eval { JSON::PP::decode_json($out)->{end}{sum} };

		cmp_ok($sum->{packets} || 0, '>', 1500, "$label, sent")
			or diag($out);
		cmp_ok($sum->{lost_percent} // 100, '<', 1, "$label, lost");
	}
}

ok($t->wait_for_log(qr/^UDP \Q10.1.0.2\E 53 200$/m, 'access.log'),
	'log of a question');

$t->done();

sub dig { ($t->exec('client', \10, @_))[1] }
