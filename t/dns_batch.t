#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_dns where listening sockets are read in batches: access, limits
# and logs as with sessions, sessions where there must be some, and load.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::DNS;

my $t = Test::Tun->new(modules => [ 'ngx_stream_js_module.so' ]);

$t->ip('server', qw/ addr add 10.1.0.3\/24 dev gateway /);

resolver($t, '10.1.0.2', sub {
	my ($q) = @_;
	my ($name) = asked($q);
	return reply($q, "$name. 60 A 192.0.2.7")->data;
});

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

stream {
    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64;
    limit_conn_zone $binary_remote_addr zone=clients:1m;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    log_format dns '$remote_addr $tun_dns_name $tun_dns_rcode $status '
                   '$bytes_received $bytes_sent $kind $protocol';

    map $tun_dns_name $fake {
        hostnames;
        default       1;
        .real.example 0;
    }

    tun_dns_limit off;

    server {
        listen 10.1.0.1:53 udp;
        listen [fd00:1::1]:53 udp;
        set $kind exact;
        tun_dns names;
        tun_dns_fake $fake;
        tun_dns_pass 10.1.0.2:53;
        limit_conn clients 1;
        allow 10.1.0.2;
        allow fd00:1::2;
        deny all;
        access_log %%DIR%%/logs/dns.log dns;
    }

    server {
        listen 0.0.0.0:5301 udp;
        listen [::]:5301 udp;
        set $kind any;
        tun_dns names;
        tun_dns_fake $fake;
        tun_dns_pass 10.1.0.2:53;
        limit_conn clients 1;
        deny 10.1.0.3;
        access_log %%DIR%%/logs/dns.log dns;
    }

    server {
        listen 10.1.0.1:5302 udp reuseport rcvbuf=4m;
        tun_dns names;
    }
}
EOF

# Debian's njs may wait before the content, and so there are sessions with it

for my $how ('batches', 'sessions') {
	if ($how eq 'batches') {
		my $modules = delete $t->{options}{modules};
		$t->run($conf);
		$t->{options}{modules} = $modules;

	} else {
		ok($t->stop(), 'stop');
		Test::Tun::spew("$t->{dir}/logs/dns.log", '');
		$t->run($conf);
		ok($t->wait_for_log(qr/needs a session for each DNS query/),
			'sessions');
	}

	my $logged = $t->error_log();

	for my $at ([ '10.1.0.1', 'fd00:1::1', 53, 'exact' ],
		[ '10.1.0.1', 'fd00:1::1', 5301, 'any' ])
	{
		my ($v4, $v6, $port, $kind) = @$at;

		my $does = sub {
			my ($address, $name, @options) = @_;
			return $t->in('server', sub { ask($address, $name, 'A',
				port => $port, timeout => 1, @options) });
		};

		like($does->($v4, 'www.example'), qr/A=198/,
			"$how, $kind, IPv4");
		like($does->($v6, 'www.example'), qr/A=198/,
			"$how, $kind, IPv6");
		is($does->($v4, "a.$how.$kind.real.example"),
			'NOERROR A=192.0.2.7', "$how, $kind, forwarded");
		is($does->($v4, "a.$how.$kind.real.example"),
			'NOERROR A=192.0.2.7', "$how, $kind, kept");
		is($does->($v4, 'www.example', from => '10.1.0.3'),
			'no answer', "$how, $kind, denied");

		my $log = join("\n", $t->access_log('dns.log'));

		for (
			"10\\.1\\.0\\.2 www\\.example NOERROR 200 29 45 $kind UDP",
			"fd00:1::2 www\\.example NOERROR 200 29 45 $kind UDP",
			"10\\.1\\.0\\.2 a\\.$how\\.$kind\\.real\\.example "
				. "NOERROR 200 \\d+ \\d+ $kind UDP",
			"10\\.1\\.0\\.3 - - 403 29 0 $kind UDP")
		{
			like($log, qr/^$_$/m, "$how, $kind, log");
		}

		# what had no session of its own is not noted

		my $notes = () = substr($t->error_log(), length $logged) =~
			/client \[fd00:1::2\]:\d+ connected to \S+:$port/g;
		is($notes, "$how $kind" eq 'batches exact' ? 0 : 1,
			"$how, $kind, session");

		is(() = $log =~ /a\.$how\.$kind\.real/g, 2,
			"$how, $kind, logged once");
	}
}

like($t->error_log(), qr/\[error\].*access forbidden by rule.*, udp client: /,
	'error log');

# many at once, some of which must not be answered, from both families

my $q = question('www.example', 'A');

my (undef, $good) = $t->in('server', sub {
	my $s = IO::Socket::IP->new(PeerHost => '10.1.0.1', PeerPort => 5302,
		Type => Socket::SOCK_DGRAM);
	setsockopt($s, Socket::SOL_SOCKET, Socket::SO_RCVBUF, 4000000);
	my ($n, $good) = (0, 0);
	for my $id (1 .. 2000) {
		send($s, $id % 5 == 0 ? 'x' : $id % 7 == 0
			? pack('n', $id) . 'x' x 3000
			: pack('n', $id) . substr($q, 2), 0);
	}
	while (IO::Select->new($s)->can_read(1)) {
		recv($s, my $buf, 4096, 0);
		$n++;
		$good++ if text($buf) =~ /^NOERROR A=198/;
	}
	return ($n, $good);
});
is($good, 1372, 'all good ones are answered');

# load

Test::Tun::spew("$t->{dir}/queries", join('', map { "n$_.example.com A\n"
	. "n$_.example.com AAAA\n" } 1 .. 5000));

my ($rss) = 0;
for my $round (1 .. 2) {
	my ($rc, $out) = $t->exec('server', \60, qw/ dnsperf -s 10.1.0.1
		-p 5302 -l 3 -c 10 -d/, "$t->{dir}/queries");

	my ($lost) = $out =~ /Queries lost:\s+(\d+)/;
	my ($rcodes) = $out =~ /Response codes:\s+(.*)/;

	is($lost, 0, 'dnsperf, none lost');
	like($rcodes, qr/^NOERROR \d+ \(100\.00%\)$/, 'dnsperf, all answered');

	my ($qps) = $out =~ /(Queries per second:\s+[\d.]+)/;
	note($qps);

	# a sanitizer keeps what was freed

	cmp_ok($t->rss(), '<', $rss * 1.1 + 200, 'memory does not grow')
		if $rss && $t->{nginx} !~ /sanitized/;
	$rss = $t->rss();
}

$t->done();
