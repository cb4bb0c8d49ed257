#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for configurations that must not pass, and what is said of them.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

my $tun = 'tun tun0 { address 198.18.0.1/15; }';
my $server = 'server { tun_listen tun0; return ok; }';

# found by what nginx does with a configuration after it is read

$t->allow_alert(qr/has 2 queues for 1 worker/);

sub conf { "%%GLOBALS%%\n%%EVENTS%%\nstream {\n$_[0]\n}\n" }

# what is wrong, the message, the line of the stream block that it names

my @bad = (
	[ 'tun { address 198.18.0.1/15; }',
		'invalid number of arguments in "tun" directive', 1 ],
	[ 'tun tun0 { }', 'no "address" in tun "tun0"', 1 ],
	[ 'tun a/b { address 198.18.0.1/15; }', 'invalid device name "a/b"', 1 ],
	[ 'tun tun% { address 198.18.0.1/15; }', 'invalid device name', 1 ],
	[ 'tun .. { address 198.18.0.1/15; }', 'invalid device name ".."', 1 ],
	[ 'tun a123456789012345 { address 198.18.0.1/15; }',
		'invalid device name', 1 ],
	[ "$tun\n$tun", 'duplicate tun "tun0", the first is in .*:\d+', 2 ],
	[ 'tun tun0 { address; }', 'invalid number of arguments', 1 ],
	[ 'tun tun0 { address 198.18.0/15; }', 'invalid address "198.18.0/15"',
		1 ],
	[ 'tun tun0 { address 198.18.0.1/33; }', 'invalid address', 1 ],
	[ 'tun tun0 { address 198.18.0.1/0; }', 'invalid address', 1 ],
	[ 'tun tun0 { address 198.18.0.1/; }', 'invalid address', 1 ],
	[ 'tun tun0 { address 198.18.0.1/1x; }', 'invalid address', 1 ],
	[ 'tun tun0 { address 224.0.0.1/24; }', 'invalid address', 1 ],
	[ 'tun tun0 { address 0.0.0.0/24; }', 'invalid address', 1 ],
	[ 'tun tun0 { address fd00::1/129; }', 'invalid address', 1 ],
	[ 'tun tun0 { address ff02::1/64; }', 'invalid address', 1 ],
	[ 'tun tun0 { address example.com; }', 'invalid address', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15 198.18.0.1/16; }',
		'duplicate address "198.18.0.1/16"', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; mtu 100; }',
		'value must be between 576 and 65535', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; mtu 65536; }',
		'value must be between 576 and 65535', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; mtu x; }', 'invalid number', 1 ],
	[ "tun tun0 { address 198.18.0.1/15;\nmtu 1500; mtu 1500; }",
		'"mtu" directive is duplicate', 2 ],
	[ 'tun tun0 { address fd00::1/64; mtu 1279; }',
		'"mtu" of tun "tun0" must be at least 1280', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; icmp maybe; }',
		'invalid value "maybe"', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; icmp drop; icmp reply; }',
		'"icmp" directive is duplicate', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; offload maybe; }',
		'invalid value "maybe" in "offload"', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; stack kernel; }',
		'invalid value "kernel"', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; queues 0; }',
		'invalid number of queues "0"', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; queues 257; }',
		'invalid number of queues "257"', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; queues 2; }',
		'tun "tun0" has 2 queues for 1 worker processes', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; max_flows -1; }',
		'invalid number', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; colour red; }',
		'unknown directive "colour"', 1 ],
	[ 'tun tun0 { address 198.18.0.1/15; server { } }',
		'"server" directive is not allowed here', 1 ],
	[ 'mtu 1500;', '"mtu" directive is not allowed here', 1 ],

	[ $server, 'unknown tun "tun0"', 1 ],
	[ 'tun_listen tun0;', '"tun_listen" directive is not allowed here', 1 ],
	[ "$tun\nserver { tun_listen; return ok; }",
		'invalid number of arguments in "tun_listen"', 2 ],
	[ "$tun\nserver { tun_listen tun0 :0; return ok; }",
		'invalid prefix or port ":0"', 2 ],
	[ "$tun\nserver { tun_listen tun0 :80-70; return ok; }",
		'invalid prefix or port', 2 ],
	[ "$tun\nserver { tun_listen tun0 :70000; return ok; }",
		'invalid prefix or port', 2 ],
	[ "$tun\nserver { tun_listen tun0 :; return ok; }",
		'invalid prefix or port', 2 ],
	[ "$tun\nserver { tun_listen tun0 10.0.0.1/8; return ok; }",
		'invalid prefix or port "10.0.0.1/8"', 2 ],
	[ "$tun\nserver { tun_listen tun0 10.0.0.0/33; return ok; }",
		'invalid prefix or port', 2 ],
	[ "$tun\nserver { tun_listen tun0 [10.0.0.0/8]:80; return ok; }",
		'invalid prefix or port', 2 ],
	[ "$tun\nserver { tun_listen tun0 [fd00::/8; return ok; }",
		'invalid prefix or port', 2 ],
	[ "$tun\nserver { tun_listen tun0 sctp; return ok; }",
		'invalid prefix or port "sctp"', 2 ],
	[ "$tun\nserver { tun_listen tun0 :80 :81; return ok; }",
		'invalid parameter ":81"', 2 ],
	[ "$tun\n$server\n$server", '"tun_listen tun0" conflicts', 3 ],
	[ "$tun\nserver { tun_listen tun0 :80-90; return a; }\n"
		. 'server { tun_listen tun0 :85-95; return b; }',
		'"tun_listen tun0 :85-95" conflicts with '
		. '"tun_listen tun0 :80-90" in .*:\d+', 3 ],
	[ "$tun\nserver { tun_listen tun0; tun_accept later; return ok; }",
		'invalid value "later"', 2 ],
);

for my $case (@bad) {
	my ($conf, $message, $line) = @$case;

	(my $name = $conf) =~ s/\s+/ /g;

	my ($rc, $out) = $t->test_conf(conf($conf));

	# the configuration has so many lines before the block's first one

	my $file = Test::Tun::slurp("$t->{dir}/test.conf");
	my $before = () = ($file =~ /\A(.*?)^stream \{/ms)[0] =~ /\n/g;
	$line += $before + 1;

	ok($rc, "fails: $name");
	like($out, qr/\[emerg\].*(?:$message).* in .*:$line\b/, "says so: $name");
}

# and such that must

for my $conf ("$tun\n$server", "$server\n$tun",
	"$tun\nserver { tun_listen tun0 10.0.0.0/8:80; tun_listen tun0 :80;"
		. ' return ok; }',
	'tun tun0 { address 10.0.0.1/8; mtu 576; queues auto; max_flows 10; }',
	'tun tun0 { address 198.18.0.1/15; }'
		. 'tun tun1 { address 198.20.0.1/15; }'
		. 'server { tun_listen tun0; tun_listen tun1; return ok; }',
	'tun tun0 { address 198.18.0.1/15; }'
		. 'server { tun_listen tun0; listen 198.18.0.1:53; return ok; }')
{
	(my $name = $conf) =~ s/\s+/ /g;

	my ($rc, $out) = $t->test_conf(conf($conf));
	is($rc, 0, "passes: $name") or diag($out);
}

# a test opens no device

my (undef, $links) = $t->exec('gateway', qw/ ip -o link /);
unlike($links, qr/tun\d/, 'no device');

$t->done();
