#!/usr/bin/perl

# (C) the nginx-tun authors

# Runs the unit tests in t/unit: each is a program that prints TAP and links
# the files that a comment at its head names, and lwIP where it says so.

use warnings;
use strict;

use File::Temp qw/ tempdir /;
use Test::More;

use Test::Tun::Unit;

plan(skip_all => 'run make first') unless -e 'build/nginx/ngx_auto_config.h';

my @flags = ('-g', '-O1', @Test::Tun::Unit::WARN,
	@Test::Tun::Unit::SANITIZE);
my @asserts = ('-O1', @Test::Tun::Unit::SANITIZE, '-DNGX_TUN_LWIP_ASSERT=1');

my $dir = tempdir(CLEANUP => 1);

for my $file (sort glob 't/unit/*.c') {
	my ($name) = $file =~ m{([^/]+)\.c$};

	open(my $fh, '<', $file) or die "$file: $!";
	my $text = join('', <$fh>);
	close $fh;

	my ($link) = $text =~ m{/\* link: (.*?) \*/};
	my @files = ($file, split ' ', $link // '');

	if ($text !~ m{^/\* lwip \*/$}m) {

		subtest $name => sub {
			build("$dir/$name", 'cc', @flags, nginx_flags(),
				@files) && tap("$dir/$name");
		};

		next;
	}

	for my $source (lwip_sources()) {

		subtest "$name, " . lwip_version($source) => sub {
			my $lib = lwip_lib($source, 'cc', @asserts);
			ok($lib, 'library');

			build("$dir/$name", 'cc', @flags, $asserts[-1],
				lwip_flags($source), @files, $lib)
				&& tap("$dir/$name");
		};
	}
}

done_testing();
