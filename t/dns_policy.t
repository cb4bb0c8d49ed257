#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for what tun_dns does by the configuration: which names are faked, for
# whom, and how often.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::DNS;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();

# a public network: not near, unless an interface is in it

$t->ip('server', qw/ addr add 203.0.113.2\/32 dev lo /);
$t->ip('gateway', qw/ route add 203.0.113.2 via 10.1.0.2 /);
$t->ip('gateway', qw/ addr add 198.51.100.1\/24 dev server /);
$t->ip('server', qw/ addr add 198.51.100.2\/24 dev gateway /);
$t->ip('server', qw/ -6 addr add 2001:db8:5::2\/128 dev lo /);
$t->ip('gateway', qw/ -6 route add 2001:db8:5::2 via fd00:1::2 /);

resolver($t, '10.1.0.2', sub {
	my ($q) = @_;
	my ($name, $type) = asked($q);

	my $reply = reply($q, $type eq 'HTTPS' ? (
			"$name. 60 HTTPS 1 . mandatory=alpn,ipv4hint alpn=h3 "
			. 'ipv4hint=192.0.2.1 ipv6hint=2001:db8::1',
			"$name. 60 HTTPS 2 other.example. alpn=h2",
		) : $type eq 'MX' ? "$name. 60 MX 10 mail.$name."
		: "$name. 60 $type " . ($type eq 'AAAA' ? '2001:db8::7'
			: $type eq 'A' ? '192.0.2.7' : 'text'));
	$reply->push(additional => Net::DNS::RR->new("mail.$name. 60 A 192.0.2.8"))
		if $type eq 'MX';
	return $reply->data;
});

# names as a list of them has

my $many = join('', map { "." . join('', map { chr(97 + $_ % 26) }
	$_, $_ / 26, $_ / 676) . "$_.direct.example 0;\n" } 1 .. 100_000);
Test::Tun::spew("$t->{dir}/many.conf", $many);

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64;

    map_hash_max_size    262144;
    map_hash_bucket_size 128;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    map $tun_dns_name $fake {
        hostnames;
        default         1;
        .real.example   0;
        exact.example   0;
        *.under.example 0;
        ~^ntp\d*\.      0;
        ~^(?<x>y+)\.z   $x;
    }

    map "$tun_dns_type $remote_addr" $fake_by_type {
        "A 10.1.0.2"    0;
        default         1;
    }

    map $tun_dns_name $fake_many {
        hostnames;
        default         1;
        include         %%DIR%%/many.conf;
    }

    map $kind $fake_by_set {
        faked           1;
        default         0;
    }

    log_format dns '$tun_dns_name $tun_dns_type $tun_dns_rcode $fake';

    tun_dns_limit off;

    server {
        listen 10.1.0.1:53 udp;
        listen 10.1.0.1:53;
        listen 0.0.0.0:5353 udp;
        listen [::]:5353 udp;
        tun_listen tun0 udp :53;
        tun_dns names;
        tun_dns_fake $fake;
        tun_dns_pass 10.1.0.2:53;
        access_log %%DIR%%/logs/dns.log dns;
    }

    server {
        listen 10.1.0.1:5301 udp;
        tun_dns names;
        tun_dns_fake $fake_by_type;
        tun_dns_pass 10.1.0.2:53;
        tun_dns_https strip;
        tun_dns_other nodata;
    }

    server {
        listen 0.0.0.0:5302 udp;
        listen [::]:5302 udp;
        tun_dns names public;
        tun_dns_fake $fake_many;
    }

    server {
        listen 10.1.0.1:5303;
        set $kind faked;
        tun_dns names;
        tun_dns_fake $fake_by_set;
    }

    server {
        listen 10.1.0.1:5304 udp;
        tun_dns names;
        tun_dns_limit qps=10 burst=20;
    }

    server {
        listen 10.1.0.1:5305 udp;
        tun_dns names;
        tun_dns_limit names=5r/m;
    }

    server {
        listen 10.1.0.1:5307 udp;
        tun_dns names;
        tun_dns_special localhost doh;
    }

    server {
        listen 10.1.0.1:5308 udp;
        tun_dns names;
        tun_dns_special off;
    }

    server {
        listen 10.1.0.1:5306 udp;
        tun_dns names;
        tun_dns_fake 0;
    }
}
EOF

my $start = time();
my ($rc, $out) = $t->test_conf($conf);
my $took = time() - $start;
is($rc, 0, 'configuration') or diag(substr $out, 0, 2000);
cmp_ok($took, '<', 2, '100,000 names are read') and note("$took s");

$t->run($conf);

sub at { my ($port, @args) = @_; return $t->in('server', sub {
	ask('10.1.0.1', @args, port => $port) }) }

# by name

my %real = map { $_ => 1 } qw/ real.example www.real.example exact.example
	a.under.example ntp.example ntp3.pool.example /;

for my $name (sort(keys %real), qw/ www.exact.example under.example
	unreal.example www.example ntpx.example yy.zone /, 'REAL.Example')
{
	like(at(53, $name, 'A'), $real{lc $name} ? qr/A=192\.0\.2\.7$/
		: qr/A=198\.1[89]\./, $name);
}

# two questions on one connection get their own answers

is($t->in('server', sub {
	my $s = Test::Tun::connect_to('10.1.0.1', 53);
	my @all;
	for my $name (qw/ www.example real.example web.example www.example
		exact.example /)
	{
		Test::Tun::write_all($s, frame(question($name, 'A')));
		push @all, text(read_frame($s)) =~ /A=198/ ? 'faked' : 'real';
	}
	return "@all";
}), 'faked real faked faked real', 'one connection');

# and two from one port, the first of which waits

is($t->in('client', sub {
	my $s = IO::Socket::IP->new(PeerHost => '198.18.0.2', PeerPort => 53,
		Type => Socket::SOCK_DGRAM);
	send($s, question($_, 'A'), 0) for qw/ w1.real.example www.example /;
	my %got;
	for (1 .. 2) {
		IO::Select->new($s)->can_read(3) or last;
		recv($s, my $buf, 4096, 0);
		my ($name) = asked($buf);
		$got{$name} = text($buf) =~ /A=198/ ? 'faked' : 'real';
	}
	return join ' ', map { "$_ $got{$_}" } sort keys %got;
}), 'w1.real.example real www.example faked', 'one port');

is($t->in('server', sub {
	my $s = Test::Tun::connect_to('10.1.0.1', 5303);
	my @all;
	for (1 .. 3) {
		Test::Tun::write_all($s, frame(question("a$_.example", 'A')));
		push @all, text(read_frame($s)) =~ /A=198/ ? 'faked' : 'real';
	}
	return "@all";
}), 'faked faked faked', 'what "set" has set stays');

my $log = join("\n", $t->access_log('dns.log'));
like($log, qr/^www\.exact\.example A NOERROR 1$/m, 'log');
like($log, qr/^real\.example A NOERROR 0$/m, 'log of a real one');

# by type and client; other types

is(at(5301, 'www.example', 'A'), 'NOERROR A=192.0.2.7', 'by type, real');
like(at(5301, 'www.example', 'AAAA'), qr/AAAA=fd00:198/, 'by type, faked');
is(at(5301, 'www.example', 'TXT'), 'NOERROR SOA', 'tun_dns_other nodata');
is(at(53, 'www.example', 'TXT'), 'NOERROR TXT=text',
	'tun_dns_other forward');
is(at(53, 'www.example', 'HTTPS'), 'NOERROR SOA', 'tun_dns_https empty');
is(at(5306, 'www.example', 'A'), 'REFUSED', 'nothing is faked');

is(at(5307, $_->[0], 'A'), $_->[1], "some are special, $_->[0]") for
	[ 'localhost', 'NOERROR A=127.0.0.1' ],
	[ 'use-application-dns.net', 'NXDOMAIN SOA' ];
like(at(5307, $_, 'A'), qr/A=198/, "some are not, $_")
	for qw/ x.test x.local x.lan router ipv4only.arpa /;
like(at(5308, $_, 'A'), qr/A=198/, "none is special, $_")
	for qw/ localhost mask.icloud.com router /;
is(at(5308, '.', 'A'), 'REFUSED', 'but the root');

my $mx = Net::DNS::Packet->decode(\ $t->in('server', sub { ask_raw('10.1.0.1',
	question('shop.example', 'MX')) }));
is(scalar $mx->answer, 1, 'MX');
is(scalar(grep { $_->type eq 'A' } $mx->additional), 0,
	'without its address');

my $https = $t->in('server', sub { ask_raw('10.1.0.1',
	question('www.example', 'HTTPS'), port => 5301) });
is(join(' ', map { unpack('H*', $_->rdata) }
	Net::DNS::Packet->decode(\$https)->answer),
	'000100' . '000000020001' . '00010003026833', 'tun_dns_https strip');
unlike($https, qr/\xc0\x00\x02\x01|\x20\x01\x0d\xb8/, 'no hints');

my $verbatim = $t->in('server', sub { ask_raw('10.1.0.1',
	question('exact.example', 'HTTPS')) });
like($verbatim, qr/\xc0\x00\x02\x01/, 'hints of a real name');

# 100,000 names

like(at(5302, 'www.example', 'A'), qr/A=198/, 'none of many');
is(at(5302, 'x.' . ($many =~ /^\.(\S+)/m)[0], 'A'), 'REFUSED', 'one of many');
is(at(5302, ($many =~ /.*^\.(\S+)/ms)[0], 'A'), 'REFUSED', 'the last of many');

# sources

sub from {
	my ($from, $to, $port) = @_;
	return $t->in('server', sub { ask($to, 'www.example', 'A', from => $from,
		port => $port, timeout => 1) });
}

like(from('10.1.0.2', '10.1.0.1', 5353), qr/A=198/, 'private');
like(from('198.51.100.2', '198.51.100.1', 5353), qr/A=198/, 'on-link');
is(from('203.0.113.2', '10.1.0.1', 5353), 'no answer', 'public');
is(from('2001:db8:5::2', 'fd00:1::1', 5353), 'no answer', 'public, IPv6');
like(from('203.0.113.2', '10.1.0.1', 5302), qr/A=198/, 'of a public server');
like(from('2001:db8:5::2', 'fd00:1::1', 5302), qr/A=198/,
	'of a public server, IPv6');

$t->ip('gateway', qw/ addr add 203.0.113.1\/24 dev server /);
ok(Test::Tun::wait_for(10, sub { from('203.0.113.2', '10.1.0.1', 5353)
	=~ /A=198/ }), 'an interface that came later');

# limits of a client

my $count = sub {
	my ($port, $n, $name) = @_;
	return $t->in('server', sub {
		my $s = IO::Socket::IP->new(PeerHost => '10.1.0.1',
			PeerPort => $port, Type => Socket::SOCK_DGRAM);
		my %got;
		send($s, question($name =~ s{%d}{$_}r, "A"), 0) for 1 .. $n;
		while (IO::Select->new($s)->can_read(0.5)) {
			recv($s, my $buf, 4096, 0);
			$got{(text($buf) =~ /^(\w+)/)[0]}++;
		}
		return join ' ', map { "$_ $got{$_}" } sort keys %got;
	});
};

my ($answers) = $count->(5304, 60, 'www.example') =~ /^NOERROR (\d+)$/;
cmp_ok($answers, '>=', 20, 'burst');
cmp_ok($answers, '<=', 24, 'and no more');
sleep(1);
($answers) = $count->(5304, 60, 'www.example') =~ /^NOERROR (\d+)$/;
cmp_ok($answers, '>=', 9, 'a second later');
cmp_ok($answers, '<=', 20, 'and no more');

is($count->(5305, 20, 'new%d.example'), 'NOERROR 5 REFUSED 15',
	'new names of a client');
is($count->(5305, 20, 'www.example'), 'NOERROR 20', 'but not old ones');

$t->done();
