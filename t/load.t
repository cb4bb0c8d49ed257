#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests that the module loads into the stock nginx, and hides what it holds.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

my ($rc, $out) = $t->test_conf(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15;
    }
}
EOF

is($rc, 0, 'loads') or diag($out);
like($out, qr/test is successful/, 'test of the configuration');

($rc, $out) = $t->test_conf("%%GLOBALS%%\n%%EVENTS%%\n");
is($rc, 0, 'without stream');

($rc, $out) = $t->test_conf("%%GLOBALS%%\n%%EVENTS%%\nstream { }\n");
is($rc, 0, 'without a device');

($rc, $out) = $t->run_cmd(10, qw/ nm -D --defined-only /, $t->{module});

my @names = map { (split)[2] } split /\n/, $out;
my @foreign = grep { !/^ngx_(stream_tun|http_tun|tun|modules|module_names|module_order)/
	&& !/^__odr_asan/ }
	@names;

is("@foreign", '', 'symbols of lwIP are hidden');
ok(scalar(grep { $_ eq 'ngx_modules' } @names), 'symbols of a module');

$t->done();
