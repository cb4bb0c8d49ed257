#!/usr/bin/perl

# (C) the nginx-tun authors

# The tests of TCP, UDP and ICMP once more, with the system stack.  What is not
# here tests lwIP itself, or nothing of a stack.

use warnings;
use strict;

use Test::More;

use Test::Tun::Unit;

plan(skip_all => 'must be root') if $> != 0;

$ENV{TUN_STACK} = 'system';

for my $name (qw/ tcp udp icmp half_close truth forward reload mtu iperf many
	access upstream listen preread ssl log status js leave load reader device
	rollback buffer /)
{
	subtest $name => sub { tap($^X, qw{ -I t/lib }, "t/$name.t") };
}

done_testing();
