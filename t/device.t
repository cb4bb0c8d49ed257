#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for the device: made, taken, configured, left as it was found, and
# what is said when it cannot be had.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();
my $ns = $t->ns('client');

sub conf {
	my ($device, $globals) = @_;
	$globals //= '';
	return <<EOF;
%%GLOBALS%%
%%EVENTS%%
$globals

stream {
    tun tun0 {
        netns %%NETNS%%;
        $device
    }

    server {
        tun_listen tun0;
        return ok;
    }
}
EOF
}

sub links { ($t->exec('client', qw/ ip -o link /))[1] }
sub addresses { ($t->exec('client', qw/ ip -o addr show dev tun0 /))[1] }

sub answers {
	return $t->in('client', sub {
		my $s = Test::Tun::connect_to('192.0.2.1', 80) or return "$@";
		return scalar Test::Tun::read_all($s);
	});
}

my $both = 'address 198.18.0.1/15 fd00:198:18::1/64;';

# a device of our own

$t->run(conf("$both mtu 1400;"));

like(links(), qr/tun0: <.*\bUP\b.*mtu 1400/, 'made, up, mtu');
like(addresses(), qr{inet 198\.18\.0\.1/15 }, 'address');
like(addresses(), qr{inet6 fd00:198:18::1/64 }, 'IPv6 address');
unlike(addresses(), qr/tentative/, 'of use at once');
is(answers(), 'ok', 'serves');

my ($user) = map { (stat "/proc/$_")[4] } $t->workers();
isnt($user, 0, 'worker is unprivileged');

# nothing in the namespace of nginx

unlike(($t->exec('gateway', qw/ ip -o link /))[1], qr/tun0/, 'not elsewhere');

# a reload changes what can be changed, and what cannot leaves all as it was

$t->reload(conf('address 198.18.0.1/15 198.20.0.1/15; mtu 1300;'));

ok(Test::Tun::wait_for(5, sub { links() =~ /tun0:.*mtu 1300/ }),
	'reload, mtu');
like(addresses(), qr{inet 198\.20\.0\.1/15 }, 'reload, address added');
unlike(addresses(), qr/fd00:198:18::1/, 'reload, address removed');
$t->routes();
is(answers(), 'ok', 'reload, serves');

$t->allow_alert(qr/belongs to the interface "other0"/);
$t->ip('client', qw/ link add other0 type veth peer name other1 /);
$t->ip('client', qw{ addr add 203.0.113.1/24 dev other0 });

$t->reload(conf('address 198.18.0.1/15 198.22.0.1/15 203.0.113.1/24;'));

ok($t->wait_for_log(qr/address 203.0.113.1 belongs to the interface/),
	'reload, address taken');
unlike(addresses(), qr/198\.22\.0\.1/, 'reload that failed, address');
like(links(), qr/tun0:.*mtu 1300/, 'reload that failed, mtu');
is(answers(), 'ok', 'reload that failed, serves');

ok($t->stop(), 'stop');
unlike(links(), qr/tun0/, 'gone');

# a persistent device of another user

$t->ip('client', qw/ tuntap add dev tun0 mode tun user 12345 /);
$t->ip('client', qw/ link set tun0 mtu 1234 /);
$t->ip('client', qw{ addr add 198.30.0.1/24 dev tun0 });

$t->run(conf($both));
like(links(), qr/tun0: <.*\bUP\b.*mtu 1500/, 'persistent, up, mtu');
is(answers(), 'ok', 'persistent, serves');
ok($t->stop(), 'persistent, stop');

like(links(), qr/tun0: <(?!.*\bUP\b).*mtu 1234/, 'persistent, as before');
like(addresses(), qr{198\.30\.0\.1/24}, 'persistent, its address');
unlike(addresses(), qr{198\.18\.0\.1|fd00:198:18::1},
	'persistent, ours are gone');

# what cannot be had

sub fails {
	my ($name, $re, $conf, $globals) = @_;

	$t->allow_alert($re);

	my $before = $t->error_log();
	my ($rc) = $t->try_run(conf($conf, $globals));
	my $new = substr($t->error_log(), length $before);

	isnt($rc, 0, "$name, fails");
	like($new, $re, "$name, says so");
	is(scalar(() = $new =~ /\[emerg\]/g), 1, "$name, in one line")
		or diag($new);

	$t->stop() unless $rc;
}

fails('several workers of one queue', qr/has a single queue/, $both,
	'worker_processes 2;');

$t->ip('client', qw/ tuntap del dev tun0 mode tun /);

$t->ip('client', qw/ tuntap add dev tun0 mode tap /);
fails('TAP', qr/of that name exists and is a TAP device/, $both);
$t->ip('client', qw/ tuntap del dev tun0 mode tap /);

$t->ip('client', qw/ link add tun0 type veth peer name tun1 /);
fails('another kind', qr/of that name exists and is not a TUN device/, $both);
like(links(), qr/tun0:/, 'another kind, is still there');
$t->ip('client', qw/ link del tun0 /);

fails('address', qr/address 203.0.113.1 belongs to the interface "other0"/,
	'address 198.18.0.1/15 203.0.113.1/24;');
unlike(links(), qr/tun0/, 'address, nothing left');

$t->in('client', sub {
	Test::Tun::spew('/proc/sys/net/ipv6/conf/default/disable_ipv6', 1);
	return 1;
});
fails('no IPv6', qr/cannot add the address fd00:198:18::1\/64.*(IPv6|ipv6)/i,
	$both);
unlike(links(), qr/tun0/, 'no IPv6, nothing left');

$t->run(conf('address 198.18.0.1/15;'));
my $first = $t->pid();

{
	local $t->{nginx} = $t->{nginx};
	my $file = $t->write_conf(conf($both), 'second.conf');
	Test::Tun::spew($file, Test::Tun::slurp($file) =~ s/nginx\.pid/2.pid/r
		=~ s/error\.log/second.log/r);

	my ($rc, $out) = $t->exec('gateway', $t->{nginx}, '-c', $file, '-p',
		$t->{dir}, '-e', 'stderr');
	isnt($rc, 0, 'in use, fails');
	like($out, qr/in use by another process/, 'in use, says so');
}

is(answers(), 'ok', 'in use, the first one serves');
ok($t->stop(), 'in use, stop');

(my $no = conf($both)) =~ s/%%NETNS%%/no-such-namespace/;
$t->allow_alert(qr{open\("/run/netns/no-such-namespace"\)});
my ($rc) = $t->try_run($no);
isnt($rc, 0, 'no namespace, fails');
like($t->error_log(), qr/of the network namespace failed/,
	'no namespace, says so');

# a namespace by its path

(my $path = conf('address 198.18.0.1/15;')) =~ s{%%NETNS%%}{/run/netns/$ns};
$t->run($path);
is(answers(), 'ok', 'namespace by path');
ok($t->stop(), 'namespace by path, stop');

# without the driver

{
	my $file = $t->write_conf(conf('address 198.18.0.1/15;'));
	my ($rc, $out) = $t->exec('gateway', qw/ unshare -m sh -c /,
		'mount -t tmpfs none /dev/net && exec "$@"', 'sh',
		$t->{nginx}, '-c', $file, '-p', $t->{dir}, '-e', 'stderr');
	isnt($rc, 0, 'no driver, fails');
	like($out . $t->error_log(), qr{open\("/dev/net/tun"\) failed},
		'no driver, says so');
	$t->allow_alert(qr{open\("/dev/net/tun"\) failed});
}

# without the privilege

my ($out);
my $file = $t->write_conf(conf('address 198.18.0.1/15;') =~ s/netns.*;//r);
($rc, $out) = $t->exec('gateway', qw/ setpriv --bounding-set -net_admin
	--inh-caps -net_admin /, $t->{nginx}, '-c', $file, '-p', $t->{dir},
	'-e', 'stderr');
isnt($rc, 0, 'no privilege, fails');
like($out . $t->error_log(), qr/CAP_NET_ADMIN is needed/,
	'no privilege, says so');
$t->allow_alert(qr/CAP_NET_ADMIN is needed/);

$t->done();
