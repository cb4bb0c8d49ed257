#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_dns_pass: real resolvers, and such that fail in every way.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::DNS;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();

$t->ip('server', qw/ addr add /, "10.1.0.$_/24", qw/ dev gateway /)
	for 3 .. 12;

# real ones: dnsmasq, and unbound with it behind

dnsmasq($t, '10.1.0.3', '--address=/a.example/192.0.2.7',
	'--address=/a.example/2001:db8::7', '--cname=alias.example,h.example',
	'--host-record=h.example,192.0.2.7',
	'--mx-host=a.example,mx.a.example,10', '--txt-record=t.example,text',
	'--srv-host=_sip.example,x.a.example,5060', '--no-negcache',
	'--address=/nx.example/', '--ptr-record=9.2.0.192.in-addr.arpa,p.example',
	map { '--txt-record=long.example,' . $_ x 200 } 'a' .. 'j');

Test::Tun::spew("$t->{dir}/unbound.conf", <<'EOF');
server:
    interface: 10.1.0.4
    access-control: 10.0.0.0/8 allow
    username: ""
    chroot: ""
    directory: "/tmp"
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    module-config: "iterator"
    do-not-query-localhost: no
    local-zone: "u.example." static
    local-data: "u.example. 300 IN A 192.0.2.9"
    local-data: "u.example. 300 IN MX 5 mx.u.example."
    local-data: "mx.u.example. 300 IN A 192.0.2.10"
    local-data: "u.example. 300 IN SOA ns. host. 1 2 3 4 60"
remote-control:
    control-enable: no
EOF
$t->program('server', 'unbound', '-c', "$t->{dir}/unbound.conf");

# answers by what the name says; each says how often it was asked

my $odd = sub {
	my ($who, $odd) = @_;

	return sub {
		my ($q, $protocol) = @_;
		my ($name, $type) = asked($q);

		open(my $fh, '>>', "$t->{dir}/logs/$who.log");
		print $fh "$protocol $name $type " . unpack('n', $q) . "\n";
		close $fh;

		return $odd->($q, $name, $type, $protocol);
	};
};

my $good = sub {
	my ($q, $name, $type, $protocol) = @_;
	return reply($q, "$name. 300 A 192.0.2.20")->data;
};

my %late;

my $kinds = sub {
	my ($q, $name, $type, $protocol) = @_;
	my $data = reply($q, "$name. 300 A 192.0.2.20")->data;

	return $data if $name =~ /^plain/;
	return reply($q, "$name. 1 A 192.0.2.20")->data if $name =~ /^short/;
	return reply($q, "$name. 300 A 198.18.3.4")->data if $name =~ /^fake/;
	return undef if $name =~ /^silent/;

	# those of others before the one of ours

	return (("\0\0" . substr($data, 2)), $data) if $name =~ /^id/
		&& substr($q, 0, 2) ne "\0\0";
	return (substr($q, 0, 2) . substr(reply(question('evil.example', 'A'),
		"evil.example. 300 A 192.0.2.66")->data, 2), $data)
		if $name =~ /^name/;
	return ($q, $data) if $name =~ /^echo/;
	return (substr($data, 0, 20), 'x', '', $data) if $name =~ /^cut/;
	return (substr($data, 0, length($data) - 14), $data)
		if $name =~ /^half/;

	if ($name =~ /^slow/) { sleep(0.3); return $data }
	if ($name =~ /^late/) {
		return undef if $late{$name}++;
		sleep(1.3);
		return $data;
	}

	if ($name =~ /^nx/) {
		my $reply = reply($q);
		$reply->header->rcode('NXDOMAIN');
		$reply->push(authority => Net::DNS::RR->new(
			'example. 300 SOA ns. host. 1 2 3 4 2'));
		return $reply->data;
	}

	if ($name =~ /^(servfail|refused)/) {
		my $reply = reply($q);
		$reply->header->rcode(uc $1);
		return $reply->data;
	}

	if ($name =~ /^tc/) {
		return $data if $protocol eq 'tcp';
		my $reply = reply($q);
		$reply->header->tc(1);
		return $reply->data;
	}

	return undef;
};

resolver($t, '10.1.0.5', $odd->(kinds => $kinds));
resolver($t, '10.1.0.6', $odd->(good => $good));
resolver($t, '10.1.0.7', $odd->(silent => sub { undef }));
resolver($t, '10.1.0.8', $odd->(servfail => sub {
	my $reply = reply($_[0]);
	$reply->header->rcode('SERVFAIL');
	return $reply->data;
}));

# one that asks whoever it was asked by: a loop

resolver($t, '10.1.0.9', $odd->(loop => sub {
	my ($q) = @_;
	my $s = IO::Socket::IP->new(PeerHost => '10.1.0.1', PeerPort => 5306,
		Type => Socket::SOCK_DGRAM);
	send($s, $q, 0);
	IO::Select->new($s)->can_read(2) or return undef;
	recv($s, my $buf, 4096, 0);
	return $buf;
}));

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    log_format dns '$tun_dns_name $tun_dns_type $tun_dns_rcode';

    tun_dns_limit off;
    tun_dns_fake  0;

    upstream real { server 10.1.0.3:53; }
    upstream unbound { zone unbound 64k; server 10.1.0.4:53; }
    upstream kinds { server 10.1.0.5:53 max_fails=0; }
    upstream next { server 10.1.0.7:53 max_fails=1 fail_timeout=60s;
                    server 10.1.0.6:53 backup; }
    upstream failing { server 10.1.0.8:53; server 10.1.0.6:53 backup; }
    upstream closed { server 10.1.0.10:53; server 10.1.0.6:53 backup; }
    upstream both { hash $tun_dns_name;
                    server 10.1.0.5:53; server 10.1.0.6:53; }
    upstream nobody { server 10.1.0.10:53; server 10.1.0.11:53; }

    server { listen 10.1.0.1:5300 udp; listen 10.1.0.1:5300;
             tun_dns names; tun_dns_pass real; }
    server { listen 10.1.0.1:5301 udp; tun_dns names; tun_dns_pass unbound; }
    server { listen 10.1.0.1:5302 udp; listen 10.1.0.1:5302;
             tun_listen tun0 udp :53;
             tun_dns names; tun_dns_pass kinds;
             access_log %%DIR%%/logs/dns.log dns; }
    server { listen 10.1.0.1:5303 udp; tun_dns names; tun_dns_pass next; }
    server { listen 10.1.0.1:5304 udp; tun_dns names; tun_dns_pass failing; }
    server { listen 10.1.0.1:5305 udp; tun_dns names; tun_dns_pass closed; }
    server { listen 10.1.0.1:5306 udp; tun_dns names;
             tun_dns_pass 10.1.0.9:53; }
    server { listen 10.1.0.1:5307 udp; tun_dns names; tun_dns_pass both; }
    server { listen 10.1.0.1:5308 udp; tun_dns names; tun_dns_pass nobody; }
    server { listen 10.1.0.1:5309 udp; tun_dns names; tun_dns_pass kinds;
             tun_dns_cache off; }
}
EOF

sub at { my ($port, @args) = @_; return $t->in('server', sub {
	ask('10.1.0.1', @args, port => $port, timeout => 7) }) }

sub asked_for {
	my ($who, $re) = @_;
	return scalar grep { /$re/ } $t->access_log("$who.log");
}

# real resolvers

ok(Test::Tun::wait_for(5, sub { at(5301, 'u.example', 'A') =~ /192/ }),
	'unbound');

is(at(5300, 'x.a.example', 'A'), 'NOERROR A=192.0.2.7', 'A');
is(at(5300, 'x.a.example', 'AAAA'), 'NOERROR AAAA=2001:db8::7', 'AAAA');
is(at(5300, 'alias.example', 'A'),
	'NOERROR CNAME=h.example. A=192.0.2.7', 'CNAME');
is(at(5300, 'a.example', 'MX'), 'NOERROR MX=10 mx.a.example.', 'MX');
is(at(5300, 't.example', 'TXT'), 'NOERROR TXT=text', 'TXT');
is(at(5300, '_sip.example', 'SRV'), 'NOERROR SRV=0 0 5060 x.a.example.',
	'SRV');
is(at(5300, 'nx.example', 'A'), 'NXDOMAIN', 'NXDOMAIN');
is(at(5300, '192.0.2.9', 'PTR'), 'NOERROR PTR=p.example.', 'PTR');
is(at(5301, 'u.example', 'MX'), 'NOERROR MX=5 mx.u.example.',
	'unbound, MX');
like(at(5301, 'none.u.example', 'A'), qr/^NXDOMAIN SOA$/,
	'unbound, NXDOMAIN');

is(() = at(5300, 'long.example', 'TXT', tcp => 1) =~ /TXT=/g, 10,
	'long, over TCP');

my $tc = Net::DNS::Packet->decode(\ $t->in('server', sub {
	ask_raw('10.1.0.1', question('long.example', 'TXT'), port => 5300) }));
ok($tc->header->tc, 'long, over UDP: TC');
is(scalar $tc->answer, 0, 'without records');

my (undef, $dig) = $t->exec('server', qw/ dig @10.1.0.1 -p 5300 +short
	long.example TXT /);
is(() = $dig =~ /^"/mg, 10, 'long, dig');

is(at(5300, 'x.a.example', 'A', rd => 0), 'REFUSED', 'RD=0');

# what is kept, and for how long

is(at(5302, 'plain.example', 'A'), 'NOERROR A=192.0.2.20', 'first') for 1 .. 3;
is(at(5302, 'PLAIN.example', 'A'), 'NOERROR A=192.0.2.20', 'in any case');
is(asked_for('kinds', 'plain.example A'), 1, 'asked once');
at(5302, 'plain.example', 'A', do => 1);
is(asked_for('kinds', 'plain.example A'), 2, 'DO is another question');

at(5302, 'short.example', 'A') for 1 .. 3;
is(asked_for('kinds', 'short.example A'), 1, 'short TTL');
is(at(5302, 'nx.example', 'A'), 'NXDOMAIN SOA', 'NXDOMAIN') for 1 .. 2;
is(asked_for('kinds', 'nx.example A'), 1, 'NXDOMAIN is kept');
at(5302, 'servfail.example', 'A') for 1 .. 2;
is(asked_for('kinds', 'servfail.example A'), 1, 'SERVFAIL is kept');
sleep(2.2);

my $left = Net::DNS::Packet->decode(\ $t->in('server', sub {
	ask_raw('10.1.0.1', question('plain.example', 'A'), port => 5302) }));
my $ttl = ($left->answer)[0]->ttl;
cmp_ok($ttl, '<', 299, 'TTL that is left');
cmp_ok($ttl, '>', 280, 'and not less');

at(5302, 'short.example', 'A');
is(asked_for('kinds', 'short.example A'), 2, 'short TTL is over');
at(5302, 'nx.example', 'A');
is(asked_for('kinds', 'nx.example A'), 2, 'so is that of NXDOMAIN');

is(at(5302, 'fake.example', 'A'), 'NOERROR A=198.18.3.4', 'fake') for 1 .. 2;
is(asked_for('kinds', 'fake.example A'), 2, 'an address of ours is not kept');
like($t->error_log(), qr/\[warn\].*an address of the fake-IP zone/,
	'but noted');

at(5309, 'plain2.example', 'A') for 1 .. 2;
is(asked_for('kinds', 'plain2.example A'), 2, 'tun_dns_cache off');

# equal questions are one

my @all = $t->in('server', sub {
	my @s = map { IO::Socket::IP->new(PeerHost => '10.1.0.1',
		PeerPort => 5302, Type => Socket::SOCK_DGRAM) } 1 .. 20;
	send($_, question('slow.example', 'A'), 0) for @s;
	return map { IO::Select->new($_)->can_read(3)
		? do { recv($_, my $buf, 4096, 0); text($buf) } : 'none' } @s;
});
is(scalar(grep { $_ eq 'NOERROR A=192.0.2.20' } @all), 20, 'all are answered');
is(asked_for('kinds', 'slow.example A'), 1, 'asked once');

# what comes that was not asked for

is(at(5302, "$_.example", 'A'), 'NOERROR A=192.0.2.20', $_)
	for qw/ id name echo cut half /;
is(at(5302, 'tc.example', 'A'), 'NOERROR A=192.0.2.20', 'truncated');
is(join(' ', map { /^(\w+) tc/ } $t->access_log('kinds.log')), 'udp tcp',
	'over TCP then');

# ids

my @ids = map { /^udp \S+ \S+ (\d+)/ } $t->access_log('kinds.log');
my %ids = map { $_ => 1 } @ids;
cmp_ok(keys %ids, '>', @ids * 0.9, 'ids differ');
cmp_ok(scalar(grep { $_ > 32767 } @ids), '>', @ids / 6, 'all over');

# other servers

my $time = time();
is(at(5303, 'one.example', 'A'), 'NOERROR A=192.0.2.20', 'silent');
cmp_ok(time() - $time, '<', 2, 'in time');
$time = time();
is(at(5303, 'two.example', 'A'), 'NOERROR A=192.0.2.20', 'failed before');
cmp_ok(time() - $time, '<', 0.5, 'at once');
is(asked_for('silent', 'two'), 0, 'is not asked again');

is(at(5304, 'one.example', 'A'), 'NOERROR A=192.0.2.20', 'SERVFAIL');
is(at(5305, 'one.example', 'A'), 'NOERROR A=192.0.2.20', 'closed');
is(at(5308, 'one.example', 'A'), 'SERVFAIL', 'all closed');

is(at(5302, 'refused.example', 'A'), 'REFUSED', 'REFUSED');

$time = time();
is(at(5302, 'silent.example', 'A'), 'SERVFAIL', 'nobody answers');
my $took = time() - $time;
cmp_ok($took, '>', 4, 'after a while');
cmp_ok($took, '<', 6, 'but not for long');
is(asked_for('kinds', 'silent.example'), 3, 'asked three times');

# the first is late, and the second does not come

is(at(5302, 'late.example', 'A'), 'NOERROR A=192.0.2.20', 'a late answer');

# balanced by name

at(5307, "plain$_.both", 'A') for 1 .. 20;
my $first = asked_for('kinds', 'both');
cmp_ok($first, '>', 2, 'hash, one');
cmp_ok($first, '<', 18, 'hash, other');
is($first + asked_for('good', 'both'), 20, 'hash, all');

# loops

is(at(5306, 'loop.example', 'A'), 'SERVFAIL', 'a loop');
like($t->error_log(), qr/\[warn\].*came back/, 'is noted');
cmp_ok(asked_for('loop', 'loop'), '<=', 3, 'and ends');

# over TCP and in the device, and clients that do not wait

is($t->in('client', sub { ask('198.18.0.2', 'plain.example', 'A') }),
	'NOERROR A=192.0.2.20', 'in the device');
is(at(5302, 'slow2.example', 'A', tcp => 1), 'NOERROR A=192.0.2.20',
	'over TCP');

$t->in('server', sub {
	for my $n (1 .. 4) {
		my $s = Test::Tun::connect_to('10.1.0.1', 5302);
		Test::Tun::write_all($s, frame(question("slow$n.x", 'A')) x 3);
		$s->setsockopt(Socket::SOL_SOCKET, Socket::SO_LINGER,
			pack('ii', 1, 0)) if $n % 2;
		close $s;
	}
	return 1;
});
sleep(0.5);
sleep(1.5);
is(at(5302, 'plain9.example', 'A'), 'NOERROR A=192.0.2.20',
	'after clients that went');

my $log = join("\n", $t->access_log('dns.log'));
like($log, qr/^silent\.example A SERVFAIL$/m, 'log');
like($log, qr/^slow2\.example A NOERROR$/m, 'log, TCP');

# a reload with questions under way

my $job = $t->start('server', sub { ask('10.1.0.1', 'slow30.example', 'A',
	port => 5302) });
sleep(0.1);
$t->reload();
is($t->wait($job), 'NOERROR A=192.0.2.20', 'reload');

$t->done();
