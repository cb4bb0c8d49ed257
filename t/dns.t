#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_dns: what each question is answered, at sockets and in the
# device, of both families and over both protocols.

use warnings;
use strict;

use Net::DNS;
use Test::More;
use Test::Tun;
use Test::Tun::DNS;

my $t = Test::Tun->new();

# not the first address of the machine, and not the one by which it answers

$t->ip('gateway', qw/ addr add 10.1.0.9\/24 dev server /);
$t->ip('gateway', qw/ addr add fd00:1::9\/64 dev server nodad /);

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64 ttl=40s;
    tun_fakeip_zone four:1m 198.20.0.0/24;
    tun_fakeip_zone tiny:1m 198.21.0.0/28;

    tun_fakeip_host names pinned.example 198.18.0.77;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    log_format dns '$protocol $tun_dns_name $tun_dns_type $tun_dns_rcode';

    server {
        listen 0.0.0.0:53 udp;
        listen [::]:53 udp;
        listen 0.0.0.0:53;
        listen [::]:53;
        tun_listen tun0 udp :53;
        tun_listen tun0 tcp :53;
        tun_dns names;
        access_log %%DIR%%/logs/dns.log dns;
    }

    server {
        listen 10.1.0.1:5301 udp;
        tun_dns four;
    }

    server {
        listen 10.1.0.1:5302 udp;
        tun_dns tiny;
    }
}
EOF

# the answer is the same wherever it is asked for

my @servers = (
	[ 'IPv4', 'server', '10.1.0.1' ], [ 'IPv6', 'server', 'fd00:1::1' ],
	[ 'IPv4, another address', 'server', '10.1.0.9' ],
	[ 'IPv6, another address', 'server', 'fd00:1::9' ],
	[ 'IPv4 in the device', 'client', '198.18.0.2' ],
	[ 'IPv6 in the device', 'client', 'fd00:198:18::2' ],
	[ 'another address', 'client', '192.0.2.53' ],
);

my %first;

for my $server (@servers) { for my $tcp (0, 1) {
	my ($name, $ns, $address) = @$server;

	my $does = sub {
		my ($qname, $qtype, %options) = @_;
		return $t->in($ns, sub { ask($address, $qname, $qtype,
			tcp => $tcp, %options) });
	};

	subtest "$name, " . ($tcp ? 'TCP' : 'UDP') => sub {
		my $a = $does->('www.example.com', 'A');
		my $aaaa = $does->('www.example.com', 'AAAA');

		like($a, qr/^NOERROR A=198\.1[89]\.\d+\.\d+$/, 'A');
		like($aaaa, qr/^NOERROR AAAA=fd00:198:18:/, 'AAAA');

		$first{a} //= $a;
		$first{aaaa} //= $aaaa;
		is($a, $first{a}, 'the same A');
		is($aaaa, $first{aaaa}, 'the same AAAA');
		is($does->('wWw.eXample.COM', 'A'), $a, 'in any case');

		isnt($does->('web.example.com', 'A'), $a, 'another name');
		is($does->('pinned.example', 'A'), 'NOERROR A=198.18.0.77',
			'name of the configuration');

		is($does->('www.example.com', $_), 'NOERROR SOA', $_)
			for qw/ HTTPS SVCB DS DNSKEY NSEC RRSIG CDS /;
		is($does->('www.example.com', 'ANY'),
			'NOERROR HINFO=RFC8482 ""', 'ANY');
		is($does->('www.example.com', $_), 'REFUSED', $_)
			for qw/ MX TXT SRV CNAME NS SOA PTR TYPE65280 /;
		is($does->('www.example.com', $_), 'REFUSED', $_)
			for qw/ AXFR IXFR TKEY MAILA MAILB /;
		is($does->('version.bind', 'TXT', class => 'CH'), 'REFUSED',
			'class CH');
		is($does->('www.example.com', 'A', class => 'ANY'), 'REFUSED',
			'class ANY');

		special($does);
		reverse_names($does, $a, $aaaa);
	};
} }

sub special {
	my ($does) = @_;

	is($does->('localhost', 'A'), 'NOERROR A=127.0.0.1', 'localhost');
	is($does->('a.localhost', 'AAAA'), 'NOERROR AAAA=::1', 'a.localhost');
	is($does->('localhost', 'MX'), 'NOERROR SOA', 'localhost, MX');
	is($does->('ipv4only.arpa', 'A'),
		'NOERROR A=192.0.0.170 A=192.0.0.171', 'ipv4only.arpa');
	is($does->('ipv4only.arpa', 'AAAA'), 'NOERROR SOA',
		'ipv4only.arpa, AAAA');
	is($does->('_dns.resolver.arpa', 'SVCB'), 'NOERROR SOA', 'DDR');
	is($does->($_, 'A'), 'NXDOMAIN SOA', $_) for qw/ x.local x.test x.onion
		x.invalid x.alt use-application-dns.net mask.icloud.com
		mask-h2.icloud.com /;
	is($does->($_, 'A'), 'REFUSED', $_) for qw/ router nas.lan
		x.home.arpa . /;
	is($does->('a\032b.example', 'A'), 'NXDOMAIN SOA', 'odd name');
	like($does->('_srv.example', 'A'), qr/^NOERROR A=/, 'underscore');
}

sub reverse_names {
	my ($does, $a, $aaaa) = @_;

	my ($v4) = $a =~ /A=(.*)/;
	my ($v6) = $aaaa =~ /AAAA=(.*)/;

	is($does->($v4, 'PTR'), 'NOERROR PTR=www.example.com.', 'PTR');
	is($does->($v6, 'PTR'), 'NOERROR PTR=www.example.com.', 'PTR, IPv6');
	is($does->('198.18.0.77', 'PTR'), 'NOERROR PTR=pinned.example.',
		'PTR of the configuration');
	is($does->('198.18.3.3', 'PTR'), 'NXDOMAIN SOA', 'PTR without a name');
	is($does->('77.0.18.198.in-addr.arpa', 'TXT'), 'NOERROR SOA',
		'another type');
	is($does->('19.198.in-addr.arpa', 'NS'), 'NOERROR SOA',
		'within the zone');
	is($does->('198.in-addr.arpa', 'NS'), 'REFUSED', 'beyond it');
	is($does->('192.168.1.1', 'PTR'), 'NXDOMAIN SOA', 'private');
	is($does->('8.8.8.8', 'PTR'), 'REFUSED', 'elsewhere');
}

# the message itself

my $raw = sub { my ($data, %options) = @_; return $t->in('server', sub {
	ask_raw('10.1.0.1', $data, timeout => 1, %options) // '' }) };

my $q = question('eXample.COM', 'A');
substr($q, 0, 2) = "\x12\x34";
my $answer = $raw->($q . 'bytes after it');

is(substr($answer, 0, 2), "\x12\x34", 'id');
is(unpack('n', substr($answer, 2)), 0x8180, 'flags: QR, RD and RA');
like($answer, qr/\x07eXample\x03COM\0/, 'case of the question');
is(substr($answer, 29, 12), "\xc0\x0c\0\1\0\1\0\0\0\x28\0\4", 'owner and ttl');
is(length $answer, 45, 'nothing more');

is(unpack('n', substr($raw->("\0\1\0\x30" . substr($q, 4)), 2)), 0x8090,
	'CD is copied, AD is not');

my $edns = Net::DNS::Packet->decode(\ $raw->(question('example.com', 'A',
	size => 4096, do => 1)));
is($edns->edns->UDPsize, 1232, 'EDNS');
ok($edns->header->do, 'DO');
is(scalar $edns->edns->options, 0, 'no options');

my $nodata = Net::DNS::Packet->decode(\ $raw->(question('example.com',
	'HTTPS')));
my ($soa) = $nodata->authority;
is(join(' ', $soa->name, $soa->ttl, $soa->minimum), 'example.com 40 40',
	'SOA');

# what is malformed; t/unit/dns.c has all of it

sub rcode { return length $_[0] ? ord(substr $_[0], 3) & 15 : 'none' }

my $header = pack('n6', 1, 0x100, 1, 0, 0, 0);

is(rcode($raw->($_->[1])), $_->[2], $_->[0]) for (
	[ 'short', substr($q, 0, 11), 'none' ],
	[ 'an answer', "\0\1\x81\x80" . substr($q, 4), 'none' ],
	[ 'no question', substr($q, 0, 12), 1 ],
	[ 'half a question', substr($q, 0, 20), 1 ],
	[ 'TC', "\0\1\3\0" . substr($q, 4), 1 ],
	[ 'two questions', pack('n6', 1, 0x100, 2, 0, 0, 0)
		. substr($q, 12) x 2, 1 ],
	[ 'an answer in it', pack('n6', 1, 0x100, 1, 1, 0, 0)
		. substr($q, 12), 1 ],
	[ 'pointer', "$header\xc0\x0c\0\1\0\1", 1 ],
	[ 'two OPTs', pack('n6', 1, 0x100, 1, 0, 0, 2) . substr($q, 12)
		. pack('CnnNn', 0, 41, 1232, 0, 0) x 2, 1 ],
	[ 'UPDATE', "\0\1\x28\0" . substr($q, 4), 4 ],
	[ 'NOTIFY', "\0\1\x20\0" . substr($q, 4), 4 ],
	[ 'TSIG', pack('n6', 1, 0x100, 1, 0, 0, 1) . substr($q, 12)
		. pack('CnnNn', 0, 250, 255, 0, 0), 5 ],
);

my $badvers = $raw->(pack('n6', 1, 0x100, 1, 0, 0, 1) . substr($q, 12)
	. pack('CnnNn', 0, 41, 1232, 1 << 16, 0));
is(Net::DNS::Packet->decode(\$badvers)->header->rcode, 'BADVERS', 'EDNS 1');

# pools of one family, and a small one

my $at = sub { my ($port, @args) = @_; return $t->in('server', sub {
	ask('10.1.0.1', @args, port => $port) }) };

like($at->(5301, 'example.com', 'A'), qr/A=198\.20\.0\.\d+/, 'only IPv4');
is($at->(5301, 'example.com', 'AAAA'), 'NOERROR SOA', 'no AAAA');

my @all = $t->in('server', sub { map { ask('10.1.0.1', "n$_.example.com", 'A',
	port => 5302) } 1 .. 20 });

my %seen;
$seen{$_}++ for grep { /^NOERROR/ } @all;
cmp_ok(keys %seen, '>=', 12, 'small zone');
is((grep { $_ > 1 } values %seen), 0, 'no address twice');
is($all[-1], 'SERVFAIL', 'nothing is free');
is($at->(5302, 'n1.example.com', 'A'), $all[0], 'the first keeps its own');

# other programs

for my $args ([], ['+tcp'], ['+bufsize=512'], ['+noedns'], ['+dnssec'],
	['+cookie'], ['+subnet=192.0.2.0/24'], ['-6', '@fd00:1::1'])
{
	my ($rc, $out) = $t->exec('server', 'dig',
		(grep { /@/ } @$args) ? () : '@10.1.0.1', qw/ +short +tries=1
		pinned.example A /, @$args);
	is($out, "198.18.0.77\n", "dig @$args");
}

my (undef, $hosts) = $t->exec('server', qw/ host -t A pinned.example
	10.1.0.1 /);
like($hosts, qr/has address 198\.18\.0\.77/, 'host');

# glibc asks for both families from one port at once

is(join(' ', $t->in('client', sub {
	my $s = IO::Socket::IP->new(PeerHost => '198.18.0.2',
		PeerPort => 53, Type => Socket::SOCK_DGRAM);
	my %got;
	send($s, question('both.example', $_), 0) for qw/ A AAAA /;
	for (1 .. 2) {
		IO::Select->new($s)->can_read(3) or last;
		recv($s, my $buf, 4096, 0);
		$got{(text($buf) =~ /(A+)=/)[0]}++;
	}
	return sort keys %got;
})), 'A AAAA', 'both from one port');

my $log = join("\n", $t->access_log('dns.log'));
like($log, qr/^TCP www\.example\.com HTTPS NOERROR$/m, 'log');
like($log, qr/^UDP a\\x5C032b\.example A NXDOMAIN$/m, 'log of an odd name');
like($log, qr/^UDP - - FORMERR$/m, 'log without a question');
like($log, qr/^UDP - - -$/m, 'log without an answer');

# mistakes

$t->allow_alert(qr/of "tun_dns_pass" in .*test\.conf/);

my $conf = sub { my ($main, $server) = @_; return ($t->test_conf(<<EOF))[1] };
%%GLOBALS%%
%%EVENTS%%
stream {
    $main
    server {
        listen 127.0.0.1:5399 udp;
        $server
    }
}
EOF

my $zone = 'tun_fakeip_zone z:1m 198.22.0.0/24;';

like($conf->('', 'tun_dns names;'), qr/names.*test\.conf:\d+/, 'no zone');
like($conf->($zone, 'tun_dns z private;'),
	qr/invalid parameter "private" in .*test\.conf:\d+/, 'parameter');
like($conf->($zone, 'tun_dns z; tun_dns z;'), qr/duplicate/, 'twice');
like($conf->($zone, "tun_dns z; tun_dns_limit $_;"),
	qr/invalid parameter ".*test\.conf:\d+/, "tun_dns_limit $_")
	for qw{ qps=x burst=-1 names=10 names=10r/s tcp= foo=1 };
like($conf->($zone, 'tun_dns z; tun_dns_https some;'), qr/invalid value/,
	'tun_dns_https');
like($conf->($zone, 'tun_dns z; tun_dns_cache 1k;'), qr/invalid size "1k"/,
	'tun_dns_cache');
like($conf->($zone, 'return ""; tun_dns_pass 127.0.0.1:53;'),
	qr/"tun_dns_pass", but no "tun_dns"/, 'tun_dns_pass alone');
like($conf->($zone, 'tun_dns z; tun_dns_pass nowhere;'), qr/nowhere/,
	'unknown upstream');
like($conf->($zone, "tun_dns z; tun_dns_pass $_->[0];"),
	qr/\[emerg\].*resolver \Q$_->[0]\E .*test\.conf:\d+ $_->[1]/,
	"$_->[0] $_->[1]") for (
		[ '127.0.0.1:5399', 'is this server itself' ],
		[ '198.22.0.9:53', 'is an address of the fake-IP zone' ]);
like($conf->("$zone upstream u { server 192.0.2.1:53;"
	. ' server 127.0.0.1:5399 backup; }', 'tun_dns z; tun_dns_pass u;'),
	qr/resolver 127\.0\.0\.1:5399 .*is this server/, 'in an upstream');
like($conf->($zone, "listen 5398 udp; tun_dns z; tun_dns_pass $_->[0];"),
	$_->[1] ? qr/is this server itself/ : qr/test is successful/,
	"any address, $_->[0]") for [ '127.0.0.1:5398', 1 ],
		[ '127.0.0.1:5397', 0 ], [ '192.0.2.1:5398', 0 ];
like($conf->($zone, 'tun_dns z public; tun_dns_limit off;'),
	qr/test is successful/, 'correct');

$t->done();
