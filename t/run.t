#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for what README begins with: the gateway of `make run`, with
# examples/quickstart.conf, and `make demo`.

use warnings;
use strict;

use Test::More;
use Test::Tun;

plan(skip_all => 'a gateway is running')
	if -e '/run/netns/nginx-tun' || -e '/etc/netns/nginx-tun';

my $t = Test::Tun->new();

$t->origin();

# the machine's resolver is in the namespace of the server

my $etc = '/etc/netns/' . $t->ns('gateway');
my $made = mkdir '/etc/netns';
mkdir $etc or die "$etc: $!";
END { if ($etc && $t && $$ == $t->{pid}) {
	unlink "$etc/resolv.conf"; rmdir $etc; rmdir '/etc/netns' if $made } }

Test::Tun::spew("$etc/resolv.conf", "nameserver 10.1.0.2\n");

$t->program('server', 'dnsmasq', '--keep-in-foreground', '--no-resolv',
	'--no-hosts', '--conf-file=/dev/null', '--user=root', '--pid-file',
	'--address=/shop.example/10.1.0.2', '--address=/shop.example/fd00:1::2',
	'--txt-record=text.example,so-it-is');

my $script = <<'EOS';
misc/run examples/quickstart.conf >> $0/run.out 2>&1 &
pid=$!

for i in $(seq 100); do
    grep -q 'Ctrl-C' $0/run.out && break
    sleep 0.1
done

ip netns exec nginx-tun curl -sS -m 10 http://10.1.0.2/
ip netns exec nginx-tun curl -sS -m 10 -g 'http://[fd00:1::2]/'
ip netns exec nginx-tun curl -sS -m 10 http://10.1.0.2:9/
ip netns exec nginx-tun cat /etc/resolv.conf
ip netns exec nginx-tun curl -sS -m 10 -4 http://www.shop.example/
ip netns exec nginx-tun curl -sS -m 10 -6 http://www.shop.example/
ip netns exec nginx-tun dig +short text.example TXT
echo "here $(ip -o link show tun0 2>&1)"

kill -TERM $pid
wait $pid

echo "left $(ip netns list | grep nginx-tun) $(ls /etc/netns | grep nginx-tun$)"
EOS

{
	# what make tells its scripts

	local $ENV{TUN_MODULE} = $t->{module};
	local $ENV{NGINX} = $t->{nginx};
	delete local $ENV{NGINX} if $t->{nginx} eq '/usr/sbin/nginx';

	my (undef, $out) = $t->exec('gateway', \60, 'sh', '-c', $script,
		$t->{dir});
	my $printed = Test::Tun::slurp("$t->{dir}/run.out");

	is(scalar(() = $out =~ /SEE-THIS/g), 4, 'pages') or diag($out);
	like($out, qr/Failed to connect/, 'refused');
	like($out, qr/^nameserver 198\.18\.0\.2$/m, 'resolv.conf');
	like($out, qr/^"so-it-is"$/m, 'what is not faked');
	like($out, qr/^here .*does not exist/m, 'nothing outside');
	like($out, qr/^left \s*$/m, 'nothing left');

	like($printed, qr/ip netns exec nginx-tun curl/, 'what to type next');
	like($printed, qr/-> 10\.1\.0\.2:80 by \S+ 200 /, 'a line for a flow');
	like($printed, qr/-> \[fd00:1::2\]:80 by \S+ 200 /, 'and for another');
	like($printed, qr/-> www\.shop\.example:80 by \S+ 200 /,
		'and for a name');

	my ($rc, $demo) = $t->run_cmd(100, 'misc/demo');
	is($rc, 0, 'demo') or diag($demo);
	like($demo, qr/104857600 bytes/, 'demo, a file');
	like($demo, qr/as on the server/, 'demo, its sum');
	is(scalar(() = $demo =~ /-> shop\.example:80 by shop, /g), 3,
		'demo, names and exits') or diag($demo);
}

$t->done();
