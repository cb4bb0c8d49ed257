#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for "route" with "netns": the rules are where the device is, and two
# devices do not clean each other.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        route   global;
    }

    SECOND

    server {
        tun_listen tun0;
        return "tun";
    }
}
EOC

my $second = 'tun tun1 { address 198.22.0.1/15; netns %%NETNS%%;'
	. ' route gateway lan0; }';

my ($rc, $out) = $t->try_run($conf =~ s/SECOND/$second/r);
is($rc, 0, 'starts') or diag($out);

for my $host (qw/ 192.0.2.1 2001:db8::1 /) {
	is($t->in('client', sub {
		my $s = Test::Tun::connect_to($host, 80, Timeout => 5)
			or return "$@";
		return scalar Test::Tun::read_all($s);
	}), 'tun', "$host, there");
}

is(rules('gateway'), 0, 'not here');

my $both = rules('client');
like($t->ip('client', qw/ rule show /), qr/iif lan0/, 'both devices');

$t->reload($conf =~ s/SECOND//r);
ok(Test::Tun::wait_for(5, sub {
	$t->ip('client', qw/ rule show /) !~ /iif lan0/
}), 'one is gone');
is(rules('client'), $both - 2, 'the rules of the other are there');

ok($t->stop(), 'ends');
is(rules('client'), 0, 'clean');

$t->done();

sub rules {
	my ($ns) = @_;
	return scalar map { $t->ip($ns, $_, qw/ rule show /) =~ /proto 177/g }
		qw/ -4 -6 /;
}
