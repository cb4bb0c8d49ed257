#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for examples/system-stack.conf: an application connects to google.com,
# which is 198.10.2.2, port 80.

use warnings;
use strict;

use Test::More;
use Test::Tun;

delete $ENV{TUN_STACK};

my $t = Test::Tun->new();

$t->origin();

# the example as it is, but for where things are

my $conf = Test::Tun::slurp('examples/system-stack.conf');

$conf =~ s/load_module .*\n//g;
$conf =~ s{/var/log/nginx}{%%DIR%%/logs};
$conf =~ s/(\nworker_processes)/\n%%GLOBALS%%$1/;
$conf =~ s/^worker_rlimit_nofile (?!20000;).*\n//m;

Test::Tun::spew("$t->{dir}/google.conf", "server 10.1.0.2:80;\n");

my ($rc, $out) = $t->nginx($t->write_conf($conf));
is($rc, 0, 'starts') or diag($out);

my @curl = qw/ curl -sS -m 10 /;

# the name by the example's own DNS server, as every program asks it

Test::Tun::spew("$t->{dir}/resolv.conf", "nameserver 198.10.0.2\n");

($rc, $out) = $t->exec('gateway', qw/ unshare -m sh -c /,
	'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && "$@"',
	"$t->{dir}/resolv.conf", @curl, 'http://google.com:80/');
is($out, "SEE-THIS\n", 'google.com:80');

for my $how ('+notcp', '+tcp') {
	($rc, $out) = $t->exec('gateway', 'dig', '@198.10.0.2', '+short', $how,
		'google.com');
	is($out, "198.10.2.2\n", "its address, $how");
}

($rc, $out) = $t->exec('gateway', qw/ dig @198.10.0.2 +short other.example /);
like($out, qr/^198\.10\.2\.(?!2$)\d+$/, 'another name, another address');

# what the kernel sees of it

my $job = $t->start('gateway', sub {
	my $s = Test::Tun::connect_to('198.10.2.2', 80) or return "$@";
	my ($accepted) = grep { /198\.10\.0\.1(%\w+)?:1313/ }
		`ss -Htn state established`;
	return $accepted // 'nothing';
});

like($t->wait($job), qr/198\.10\.0\.1(%tun0)?:1313\s+198\.10\.\d+\.\d+:\d+/,
	'accepted at 198.10.0.1:1313 from a tuple');

# names and addresses that nobody serves

isnt(($t->exec('gateway', @curl, 'http://198.10.2.3/'))[0], 0,
	'another address');
isnt(($t->exec('gateway', @curl, 'http://198.10.2.2:81/'))[0], 0,
	'another port');

ok($t->wait_for_log(
	qr/198\.10\.0\.1:\d+ -> google\.com:80 by 10\.1\.0\.2:80 200/,
	'tun.log'), 'a line for the flow');

# many at once, from one address

my @jobs = map { $t->start('gateway', sub {
	my $s = Test::Tun::connect_to('198.10.2.2', 80) or return "$@";
	Test::Tun::write_all($s, "GET / HTTP/1.0\r\n\r\n");
	return Test::Tun::read_all($s) =~ /SEE-THIS/ ? 'ok' : 'nothing';
}) } 1 .. 100;

is(scalar(grep { $_ eq 'ok' } map { scalar $t->wait($_) } @jobs), 100,
	'a hundred at once');

$t->done();
