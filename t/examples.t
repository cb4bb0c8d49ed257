#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for examples: each is run as it is, but for its paths.

use warnings;
use strict;

use File::Path qw/ make_path remove_tree /;
use Test::More;
use Test::Tun;

my $t = Test::Tun->new(forward => 1);
my $dir = $t->{dir};

# a resolver, a proxy of the office and its backup, a host of the world

$t->ip('server', 'addr', 'add', "192.0.2.$_/32", 'dev', 'gateway')
	for 10, 11, 53, 80;
$t->ip('gateway', qw/ route add 192.0.2.0\/24 via 10.1.0.2 /);

$t->program('server', 'dnsmasq', '--keep-in-foreground', '--no-resolv',
	'--no-hosts', '--conf-file=/dev/null', '--user=root', '--pid-file',
	'--listen-address=192.0.2.53', '--bind-interfaces',
	'--host-record=world.example,192.0.2.80', '--local=/example/', '--txt-record=txt.example,text');

answers('192.0.2.10', 443, 'the office');
answers('192.0.2.80', 443, 'the world');

# its host knows a DNS server, and that is the gateway

my $etc = '/etc/netns/' . $t->ns('client');
my $made = mkdir '/etc/netns';
mkdir $etc or die "$etc: $!";
END { if ($etc && $t && $$ == $t->{pid}) {
	unlink "$etc/resolv.conf"; rmdir $etc; rmdir '/etc/netns' if $made } }

Test::Tun::spew("$etc/resolv.conf", "nameserver 10.3.0.1\n");

start('split-by-name');

is(fetch('www.office.example', '-4'), 'the office', 'a name of the office');
is(fetch('world.example', '-4'), 'the world', 'another name');
is(fetch('world.example', '-6'), 'the world', 'another name, IPv6');

my (undef, $out) = $t->exec('client', 'dig', '+short', 'txt.example', 'TXT');
like($out, qr/^"text"$/m, 'what is not faked');

($out) = map { $_->[1] } [ $t->exec('client', 'dig', '+short', '-x',
	'198.18.0.1') ];
is($out, '', 'no name for the device');

my ($office, $world) = (
	qr/^\S+ 10\.3\.0\.2 www\.office\.example:443 by office /m,
	qr/^\S+ 10\.3\.0\.2 world\.example:443 by world\.example:443 /m);

ok($t->wait_for_log(qr/${office}192\.0\.2\.10:443 200 /, 'flows.log'),
	'a line for the office');
ok($t->wait_for_log(qr/${world}192\.0\.2\.80:443 200 /, 'flows.log'),
	'a line for the world');

$t->stop();

$t->done();

sub start {
	my ($name) = @_;

	my $conf = Test::Tun::slurp("examples/$name.conf");

	$conf =~ s/^load_module .*\n//mg;
	$conf =~ s/^(worker_processes|error_log) .*\n//mg;
	$conf =~ s/^events \{.*?^\}\n//ms;
	$conf =~ s{/var/lib/nginx/}{$dir/};
	$conf =~ s{ logs/}{ $dir/logs/}g;

	$t->run("%%GLOBALS%%\n%%EVENTS%%\n$conf");
}

sub fetch {
	my ($name, @args) = @_;

	my (undef, $out) = $t->exec('client', \20, 'curl', '-sS', '-m', 10,
		@args, "http://$name:443/");
	return $out =~ s/\n//gr;
}

sub answers {
	my ($address, $port, $text) = @_;

	$t->daemon('server', sub {
		my $l = IO::Socket::IP->new(LocalAddr => $address,
			LocalPort => $port, Listen => 10, ReuseAddr => 1)
			or die "listen: $@";

		while (my $s = $l->accept()) {
			sysread($s, my $buf, 4096);
			print $s "HTTP/1.0 200 OK\r\n\r\n$text\n";
			close $s;
		}
	});
}
