#!/usr/bin/perl

# (C) the nginx-tun authors

# Runs the unit tests in t/unit: each is a program that prints TAP and links
# the files that a comment at its head names.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use File::Temp qw/ tempdir /;
use Test::More;

my $objs = 'build/nginx';
my $nginx = '/usr/share/nginx/src/src';
my $lwip = abs_path('build/lwip');

plan(skip_all => 'run make first') unless -e "$objs/ngx_auto_config.h";

my @flags = (qw/ -g -O1 -W -Wall -Wpointer-arith -Wno-unused-parameter -Werror /,
	'-fsanitize=address,undefined', '-fno-sanitize-recover=undefined',
	map { "-I$_" } "$nginx/core", "$nginx/event", "$nginx/os/unix", $objs,
	'stack');

my $dir = tempdir(CLEANUP => 1);

for my $file (sort glob 't/unit/*.c') {
	my ($name) = $file =~ m{([^/]+)\.c$};

	open(my $fh, '<', $file) or die "$file: $!";
	my ($link) = join('', <$fh>) =~ m{/\* link: (.*?) \*/};
	close $fh;

	my @cmd = ('cc', @flags, '-o', "$dir/$name", $file,
		split ' ', $link // '');

	subtest $name => sub {
		my $out = `@cmd 2>&1`;
		is($?, 0, 'compiles') or diag($out);

		$out = `$dir/$name 2>&1`;
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
	};
}

done_testing();
