package Test::Tun::Unit;

# (C) the nginx-tun authors

# Programs in C that link parts of the module, or lwIP behind its seam.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use Digest::SHA qw/ sha1_hex /;
use Exporter qw/ import /;
use File::Path qw/ make_path /;
use Test::More;

our @EXPORT = qw/ lwip_sources lwip_version lwip_lib lwip_flags nginx_flags
	build tap /;

our @SANITIZE = ('-fsanitize=address,undefined',
	'-fno-sanitize-recover=undefined');
our @WARN = qw/ -W -Wall -Wpointer-arith -Wno-unused-parameter -Werror /;

# what nginx leaves to exit() is no leak, here all leaks are ours

$ENV{ASAN_OPTIONS} = 'detect_leaks=1:allocator_may_return_null=1';

# all versions that are there, or the one that was built with

sub lwip_sources {
	my @sources = grep { -e "$_/src/core/tcp.c" } glob 'build/lwip-[0-9]*';

	return map { abs_path($_) } @sources ? @sources
		: grep { -e "$_/src/core/tcp.c" } 'build/lwip';
}

sub lwip_version {
	return $_[0] =~ m{lwip-([\d.]+)$} ? "lwIP $1" : 'lwIP';
}

# liblwip.a of one version, made as the module's is; kept in build/unit

sub lwip_lib {
	my ($source, $cc, @flags) = @_;

	my $key = substr(sha1_hex(join ' ', $source, $cc, @flags), 0, 8);
	my $dir = abs_path('build') . "/unit/$key";

	make_path($dir);

	my $out = `make -s -f stack/lwip_port/lwip.mk STACK=stack \\
		LWIP_DIR=$source OUT=$dir CC=$cc CFLAGS='@flags' 2>&1`;

	diag($out) if $?;

	return $? ? undef : "$dir/liblwip.a";
}

sub lwip_flags {
	my ($source) = @_;

	return map { "-I$_" } 'stack/lwip_port', 'stack',
		"$source/src/include";
}

sub nginx_flags {
	my $src = '/usr/share/nginx/src/src';

	return map { "-I$_" } "$src/core", "$src/event", "$src/os/unix",
		'build/nginx', 'stack', 'dns', 'ngx_tun_module';
}

sub build {
	my ($program, @args) = @_;

	my $out = `@args -o $program 2>&1`;
	is($?, 0, 'compiles') or diag($out);

	return $? == 0;
}

# what a program says, as tests; returns how many they were

sub tap {
	my (@command) = @_;

	my $out = `@command 2>&1`;
	my $rc = $?;

	my ($plan) = $out =~ /^1\.\.(\d+)$/m;
	my $n = 0;

	for my $line (split /\n/, $out) {
		next unless $line =~ /^(not )?ok \d+(?: - (.*))?/;
		$n++;
		ok(!$1, $2);
	}

	is($n, $plan, 'all have run') or diag($out);
	is($rc, 0, 'ends well') or diag($out);

	return $n;
}

1;
