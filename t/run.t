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
echo "here $(ip -o link show tun0 2>&1)"

kill -TERM $pid
wait $pid

echo "left $(ip netns list | grep nginx-tun) $(ls /etc/netns 2>/dev/null)"
EOS

{
	# what make tells its scripts

	local $ENV{TUN_MODULE} = $t->{module};
	local $ENV{NGINX} = $t->{nginx};
	delete local $ENV{NGINX} if $t->{nginx} eq '/usr/sbin/nginx';

	my (undef, $out) = $t->exec('gateway', \60, 'sh', '-c', $script,
		$t->{dir});
	my $printed = Test::Tun::slurp("$t->{dir}/run.out");

	is(scalar(() = $out =~ /SEE-THIS/g), 2, 'pages') or diag($out);
	like($out, qr/Failed to connect/, 'refused');
	like($out, qr/options use-vc/, 'resolv.conf');
	like($out, qr/^here .*does not exist/m, 'nothing outside');
	like($out, qr/^left \s*$/m, 'nothing left');

	like($printed, qr/ip netns exec nginx-tun curl/, 'what to type next');
	like($printed, qr/-> 10\.1\.0\.2:80 200 /, 'a line for a flow');
	like($printed, qr/-> \[fd00:1::2\]:80 200 /, 'and for another');

	my ($rc, $demo) = $t->run_cmd(100, 'misc/demo');
	is($rc, 0, 'demo') or diag($demo);
	like($demo, qr/104857600 bytes/, 'demo, a file');
	like($demo, qr/as on the server/, 'demo, its sum');
}

$t->done();
