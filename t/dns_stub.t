#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests with the resolver of the C library, which asks for both families from
# one port at once, and with a program that knows a name only.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::DNS;

my $t = Test::Tun->new();

dnsmasq($t, '10.1.0.2', '--address=/real.example/10.1.0.2',
	'--address=/real.example/fd00:1::2');
$t->origin();

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    map $tun_dns_name $fake {
        hostnames;
        default       1;
        .real.example 0;
    }

    map $tun_name $exit {
        shop.example 10.1.0.2:80;
        six.example  [fd00:1::2]:80;
        default      $tun_target;
    }

    log_format flows '$tun_name $exit $protocol';

    server {
        tun_listen tun0 :80;
        proxy_pass $exit;
        access_log %%DIR%%/logs/flows.log flows;
    }

    server {
        tun_listen tun0 udp :53;
        tun_listen tun0 tcp :53;
        tun_dns names;
        tun_dns_fake $fake;
        tun_dns_pass 10.1.0.2:53;
    }
}
EOF

# the C library reads what is mounted over its file

sub with {
	my ($conf, @command) = @_;

	Test::Tun::spew("$t->{dir}/resolv.conf", $conf);

	my (undef, $out) = $t->exec('client', qw/ unshare -m sh -c /,
		'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && "$@"',
		"$t->{dir}/resolv.conf", @command);
	return $out;
}

my $v4 = "nameserver 198.18.0.2\n";
my $v6 = "nameserver fd00:198:18::2\n";

for my $how ([ 'IPv4', $v4 ], [ 'IPv6', $v6 ], [ 'any', "nameserver 192.0.2.53\n" ],
	map { [ $_, "${v4}options $_\n" ] } qw/ use-vc edns0 trust-ad
		single-request single-request-reopen no-tld-query ndots:4 /)
{
	my ($name, $conf) = @$how;

	my $out = with($conf, qw/ getent ahosts www.example.com /);
	like($out, qr/^198\.1[89]\.\d+\.\d+ +STREAM/m, "A, $name");
	like($out, qr/^fd00:198:18:\S+ +STREAM/m, "AAAA, $name");

	like(with($conf, qw/ getent ahosts real.example /),
		qr/^10\.1\.0\.2 (?s:.*)^fd00:1::2 |^fd00:1::2 (?s:.*)^10\.1\.0\.2 /m,
		"forwarded, $name");
}

my ($addr) = with($v4, qw/ getent ahostsv4 shop.example /) =~ /^(\S+)/;
is(with($v4, 'getent', 'hosts', $addr) =~ s/\s+/ /gr, "$addr shop.example ",
	'name of an address');
like(with($v4, qw/ getent ahosts localhost.localhost /), qr/^(127\.0\.0\.1|::1) /,
	'localhost');
is(with($v4, qw/ getent ahosts printer.local /), '', 'no such name');

is(with("nameserver 198.18.0.3\nnameserver 198.18.0.2\noptions rotate\n",
	qw/ getent ahostsv4 shop.example /) =~ /^(\S+)/ ? $1 : '', $addr,
	'two servers');
like(with("search example\n$v4", qw/ getent ahostsv4 shop /), qr/^\Q$addr\E /,
	'search');

# by name alone

for my $name (qw/ shop.example six.example real.example /) {
	for my $family (4, 6) {
		is(with($v4, qw/ curl -sS -m 10 /, "-$family",
			"http://$name/"), "SEE-THIS\n",
			"curl, $name, IPv$family");
	}
}

my $log = join("\n", $t->access_log('flows.log'));
like($log, qr/^shop\.example 10\.1\.0\.2:80 TCP$/m, 'log of a faked name');
like($log, qr/^six\.example \[fd00:1::2\]:80 TCP$/m, 'and of another');
like($log, qr/^(-?) 10\.1\.0\.2:80 TCP$/m, 'log of a real one');

$t->done();
