#!/usr/bin/perl

# (C) the nginx-tun authors

# Fuzz tests, each for a short while: FUZZ=300 makes it longer.

use warnings;
use strict;

use File::Temp qw/ tempdir /;
use Test::More;

use Test::Tun::Unit;

my $seconds = $ENV{FUZZ} || 8;

plan(skip_all => 'run make first') unless -e 'build/nginx/ngx_auto_config.h'
	&& lwip_sources();
plan(skip_all => 'package "clang" is missing')
	if system('clang --version >/dev/null 2>&1');

my @flags = ('-g', '-O1', @Test::Tun::Unit::WARN);
my @fuzzer = (@Test::Tun::Unit::SANITIZE, '-fsanitize=fuzzer');
my @library = ('-O1', '-DNGX_TUN_LWIP_ASSERT=1', @Test::Tun::Unit::SANITIZE,
	'-fsanitize=fuzzer-no-link');

my $dir = tempdir(CLEANUP => 1);

# the newest lwIP, the other one has its turn in the unit tests

my ($source) = reverse lwip_sources();

subtest packet => sub {
	build("$dir/packet", 'clang', @flags, @fuzzer, nginx_flags(),
		't/fuzz/packet.c', map { "stack/ngx_tun_packet$_.c" } '',
		'_icmp', '_udp')
		&& fuzz('packet', 2000);
};

subtest fragment => sub {
	build("$dir/fragment", 'clang', @flags, @fuzzer, nginx_flags(),
		't/fuzz/fragment.c', map { "stack/ngx_tun_$_.c" } qw/ flow
		fragment fragment_table packet packet_fragment /)
		&& fuzz('fragment', 2000);
};

subtest fakeip_file => sub {
	build("$dir/fakeip_file", 'clang', @flags, @fuzzer, nginx_flags(),
		't/fuzz/fakeip_file.c', 't/unit/lib/core.c',
		glob('dns/ngx_tun_fakeip*.c')) && fuzz('fakeip_file', 20000);
};

subtest handshake => sub {
	build("$dir/handshake", 'clang', @flags, @fuzzer, nginx_flags(),
		't/fuzz/handshake.c', map {
			"ngx_tun_module/ngx_stream_tun_handshake_$_.c" }
			qw/ destination socks5 http /)
		&& fuzz('handshake', 600);
};

subtest rewrite => sub {
	build("$dir/rewrite", 'clang', @flags, @fuzzer, nginx_flags(),
		't/fuzz/rewrite.c', 'stack/ngx_tun_rewrite.c',
		'stack/ngx_tun_packet.c') && fuzz('rewrite', 2000);
};

subtest lwip => sub {
	my $lib = lwip_lib($source, 'clang', @library);
	ok($lib, 'library');

	build("$dir/lwip", 'clang', @flags, @fuzzer, '-Wl,--wrap=ngx_tun_lwip_assert',
		lwip_flags($source), 't/fuzz/lwip.c', 't/unit/lib/peer.c',
		$lib) && fuzz('lwip', 1000);
};

subtest dns_query => sub {
	build("$dir/dns_query", 'clang', @flags, @fuzzer, nginx_flags(),
		't/fuzz/dns_query.c', map { "dns/ngx_tun_dns_$_.c" }
			qw/ wire name special /)
		&& fuzz('dns_query', 600);
};

subtest dns_answer => sub {
	build("$dir/dns_answer", 'clang', @flags, @fuzzer, nginx_flags(),
		't/fuzz/dns_answer.c', map { "dns/ngx_tun_dns_$_.c" }
			qw/ wire name answer svcb /)
		&& fuzz('dns_answer', 2000);
};

done_testing();

###############################################################################

sub fuzz {
	my ($target, $max) = @_;

	mkdir "$dir/corpus-$target";
	is(system('t/fuzz/corpus', $target, "$dir/corpus-$target"), 0, 'corpus');

	my $out = `$dir/$target -seed=1 -max_total_time=$seconds -max_len=$max \\
		-timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \\
		-artifact_prefix=$dir/ $dir/corpus-$target 2>&1`;
	my $rc = $?;

	is($rc, 0, 'nothing found') or diag($out =~ s/^#.*\n//gmr, map {
		"$_: " . unpack('H*', do {
			local (@ARGV, $/) = $_; <> }) . "\n" }
		glob "$dir/{crash,leak,oom,timeout}-*");

	my ($n) = $out =~ /number_of_executed_units:\s*(\d+)/;
	cmp_ok($n // 0, '>', 100, 'inputs') and note("$n inputs");
}
