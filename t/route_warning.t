#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for the warning about settings of the kernel that break a route mode:
# one line, with all of them, where they matter.

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
        address ADDRESS;
        route   ROUTE;
    }

    server {
        tun_listen tun0;
        return tun;
    }
}
EOF

my $both = '198.18.0.1/15 fd00:198:18::1/64';

# what is set, and what is named then

for my $case (
	[ 'gateway server', $both, 0, 0, 0, 'ip_forward forwarding' ],
	[ 'gateway server', $both, 1, 0, 0, 'rp_filter ip_forward forwarding' ],
	[ 'gateway server', $both, 2, 0, 1, 'ip_forward' ],
	[ 'gateway server', $both, 0, 1, 0, 'forwarding' ],
	[ 'gateway server', $both, 1, 1, 1, 'rp_filter' ],
	[ 'gateway server', $both, 2, 1, 1, '' ],
	[ 'gateway server', '198.18.0.1/15', 0, 1, 0, '' ],
	[ 'gateway server', '198.18.0.1/15', 0, 0, 1, 'ip_forward' ],
	[ 'gateway server', 'fd00:198:18::1/64', 1, 0, 0, 'forwarding' ],
	[ 'global', $both, 1, 0, 0, '' ],
	[ 'fakeip', $both, 1, 0, 0, '' ],
	[ 'off', $both, 1, 0, 0, 'rp_filter' ],
	[ 'off', $both, 2, 0, 0, '' ],
	[ 'off', $both, 0, 1, 1, '' ],
	[ 'off', 'fd00:198:18::1/64', 1, 0, 0, '' ],
) {
	my ($route, $address, $filter, $forward, $forward6, $names) = @$case;

	my $name = "$route, $address, rp_filter $filter, ip_forward $forward, "
		. "forwarding $forward6";

	sysctl('net.ipv4.ip_forward', $forward);
	sysctl('net.ipv6.conf.all.forwarding', $forward6);
	sysctl("net.ipv4.conf.$_.rp_filter", $filter) for qw/ all default /;

	Test::Tun::spew("$t->{dir}/logs/error.log", '');

	my ($rc, $out) = $t->try_run($conf =~ s/ADDRESS/$address/r
		=~ s/ROUTE/$route/r);
	is($rc, 0, "starts, $name") or diag($out);

	my @lines = grep { /\[warn\]/ } split /\n/, $t->error_log();

	is(scalar @lines, $names ? 1 : 0, "lines, $name")
		or diag(join "\n", @lines);

	is(join(' ', grep { "@lines" =~ /net\.ipv\d\.[\w.]*\b\Q$_\E is \d/ }
		qw/ rp_filter ip_forward forwarding /), $names,
		"what they name, $name") or diag("@lines");

	my ($mode) = split / /, $route;

	like("@lines", qr/tun "tun0": .*"route $mode"/, "for whom, $name")
		if $names;

	$t->stop();
}

$t->done();

###############################################################################

sub sysctl {
	my ($name, $value) = @_;
	my ($rc, $out) = $t->exec('gateway', qw/ sysctl -qw /, "$name=$value");
	die $out if $rc;
}
