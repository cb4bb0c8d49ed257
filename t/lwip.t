#!/usr/bin/perl

# (C) the nginx-tun authors

# lwIP's own unit tests, with the options of the module.

use warnings;
use strict;

use File::Temp qw/ tempdir /;
use Test::More;

use Test::Tun::Unit;

plan(skip_all => 'run make first') unless lwip_sources();
plan(skip_all => 'package "check" is missing')
	unless -e '/usr/include/check.h';

# as many as there are, and one of ours

my %tests = ('lwIP 2.1.3' => 51, 'lwIP 2.2.1' => 66);

my @flags = ('-g', '-O0', '-w', '-fno-strict-aliasing',
	'-DNGX_TUN_LWIP_ASSERT=1', @Test::Tun::Unit::SANITIZE);

my $dir = tempdir(CLEANUP => 1);

# it is included, and there is nothing to say in it

open(my $fh, '>', "$dir/config.h") or die "$dir/config.h: $!";
close $fh;

for my $source (lwip_sources()) {
	my $version = lwip_version($source);

	subtest $version => sub {
		my $unit = "$source/test/unit";

		plan(skip_all => 'no tests in the source')
			unless -e "$unit/tcp/test_tcp.c";

		my @tests = grep { -e } map { "$unit/$_.c" } qw{ tcp/tcp_helper
			tcp/test_tcp tcp/test_tcp_oos tcp/test_tcp_state
			core/test_pbuf core/test_def };

		my @core = grep { !m{/ipv4/(autoip|acd|dhcp|etharp|igmp)|/ipv6/(
			dhcp6|ethip6|mld6)|/core/(altcp|dns|raw|udp)}x }
			glob "$source/src/core/{,ipv4/,ipv6/}*.c";

		# its own options are in the folder of the tests

		my $out = "$dir/" . $version =~ s/\W//gr;

		build($out, 'cc', @flags, '-It/unit/lwip', "-I$dir",
			'-Istack/lwip_port', "-I$source/src/include",
			"-idirafter $unit", 't/unit/lwip/suites.c', @tests,
			@core, '-lcheck', '-lsubunit', '-lm', '-lrt',
			'-lpthread') || return;

		is(tap($out), $tests{$version}, 'all tests')
			if exists $tests{$version};
	};
}

done_testing();
