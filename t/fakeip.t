#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for pools of addresses that stand for names: what their directives
# take, what a session knows of its name, and what a reload leaves of it.

use warnings;
use strict;

use JSON::PP;
use POSIX;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();
my $dir = $t->{dir};

sub conf {
	my ($stream) = @_;
	return <<EOF;
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

http {
    access_log off;

    server {
        listen 127.0.0.1:8080;
        location = /tun { tun_status; }
    }
}

stream {
    log_format main '\$tun_name \$tun_host \$tun_target \$status';
    log_format sniff '\$ssl_preread_server_name [\$tun_target]';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

$stream
    server {
        tun_listen tun0;
        return "[\$tun_name][\$tun_host][\$tun_target]";
    }

    server {
        tun_listen tun0 udp;
        return "[\$tun_name]";
    }

    server {
        tun_listen tun0 :81;
        tun_fakeip_miss sniff;
        return "[\$tun_name][\$tun_host][\$tun_target]";
    }

    server {
        tun_listen tun0 :443;
        tun_fakeip_miss sniff;
        ssl_preread on;
        access_log %%DIR%%/logs/sniff.log sniff;
        return "\$ssl_preread_server_name";
    }

    server {
        tun_listen tun0 :82;
        tun_accept early;
        return "[\$tun_name]";
    }

    server {
        tun_listen tun0 198.18.0.53:80;
        tun_listen tun0 [fd00:198:18::53]:80;
        tun_listen tun0 [fd00:198:18::5:53]:80;
        return "[\$tun_name][\$tun_host][\$tun_target]";
    }

    server {
        tun_listen tun0 :9000;
        proxy_pass 10.1.0.2:9000;
    }
}
EOF
}

my $prefixes = '198.18.0.0/15 fd00:198:18::/64';
my $zone = "tun_fakeip_zone names:12m $prefixes";
my $host = 'tun_fakeip_host names Shop.Example. 198.18.1.1;';

# a flow's answer, or the error of its connect

sub ask {
	my ($addr, $port) = @_;

	return $t->in('client', sub {
		my $start = time();
		my $s = Test::Tun::connect_to($addr, $port || 80);
		return ($!{ECONNREFUSED} ? 'refused' : "$!")
			. (time() - $start > 2 ? ', late' : '') unless $s;
		return scalar Test::Tun::read_all($s);
	});
}

sub datagram {
	my ($addr) = @_;

	return $t->in('client', sub {
		my $s = IO::Socket::IP->new(PeerHost => $addr, PeerPort => 80,
			Proto => 'udp') or return "$@";
		$s->send('x');
		return 'late' unless IO::Select->new($s)->can_read(5);
		my $buf;
		return $buf if defined $s->recv($buf, 1000);
		return $!{ECONNREFUSED} ? 'refused' : "$!";
	});
}

my %addr = (IPv4 => '198.18.1.1', IPv6 => 'fd00:198:18::101');
my %none = (IPv4 => '198.18.7.7', IPv6 => 'fd00:198:18::707');
my %far = (IPv4 => '198.19.7.8', IPv6 => 'fd00:198:18:0:1::707');
my %server = (IPv4 => '198.18.0.53', IPv6 => 'fd00:198:18::53');
my %other = (IPv4 => '192.0.2.1', IPv6 => '2001:db8::1');

sub url { my ($a, $p) = @_; return $a =~ /:/ ? "[$a]:$p" : "$a:$p" }

# what must fail

my @bad = (
	[ 'tun_fakeip_zone names:12m;', 'invalid number of arguments' ],
	[ "tun_fakeip_zone names $prefixes;", '"names" is not a name and a size' ],
	[ "tun_fakeip_zone :12m $prefixes;", '":12m" is not a name and a size' ],
	[ "tun_fakeip_zone names:x $prefixes;", 'invalid zone size "names:x"' ],
	[ "tun_fakeip_zone names:8m $prefixes;",
		'"names" is too small for its prefixes, it needs \d{4,5}k' ],
	[ "tun_fakeip_zone names:10k 198.18.0.0/28;", 'is too small' ],
	[ "tun_fakeip_zone names:12m 198.18.0.1/15;",
		'"198.18.0.1/15" is neither a prefix nor a parameter' ],
	[ "tun_fakeip_zone names:12m 198.18.0.0;", 'is neither a prefix' ],
	[ "tun_fakeip_zone names:12m 198.18.0.0/33;", 'is neither a prefix' ],
	[ "tun_fakeip_zone names:12m 198.18.0.0/31;", 'must be from /8 to /30' ],
	[ "tun_fakeip_zone names:12m 0.0.0.0/0;", 'must be from /8 to /30' ],
	[ "tun_fakeip_zone names:12m fd00::/127;", 'must be from /8 to /126' ],
	[ "tun_fakeip_zone names:12m 198.18.0.0/15 198.20.0.0/15;",
		'"198.20.0.0/15" is a second prefix of its family' ],
	[ "tun_fakeip_zone names:12m 198.18.0.0/15 fd00::/112;",
		'fewer addresses than the IPv4 one, it must be a /111 at most' ],
	[ "tun_fakeip_zone names:12m ttl=30s hold=1h;", 'no prefix of' ],
	[ "$zone ttl=1h;", '"hold".*"names" must be longer than "ttl": '
		. '3600 and 3600 seconds' ],
	[ "$zone ttl=10 hold=5;", 'must be longer than "ttl": 5 and 10' ],
	[ "$zone ttl=0;", 'invalid time "ttl=0"' ],
	[ "$zone hold=soon;", 'invalid time "hold=soon"' ],
	[ "$zone hold=999d;", 'invalid time "hold=999d"' ],
	[ "$zone file=;", '"file=" is neither a prefix nor a parameter' ],
	[ "$zone keep;", '"keep" is neither a prefix nor a parameter' ],
	[ "$zone;\n$zone;", 'duplicate fake-IP zone "names", the first is in' ],
	[ "$zone; tun_fakeip_zone other:12m 198.19.0.0/16;",
		'the IPv4 prefixes of the fake-IP zones "names" and "other" overlap' ],
	[ "$zone; tun_fakeip_zone other:12m 10.0.0.0/16 fd00::/16;",
		'the IPv6 prefixes of the fake-IP zones "names" and "other" overlap' ],
	[ "$zone file=a; tun_fakeip_zone other:12m 10.0.0.0/16 file=a;",
		'is that of two fake-IP zones, "names" and "other"' ],
	[ $host, 'unknown fake-IP zone "names"' ],
	[ "$zone; tun_fakeip_host names shop 10.0.0.1;",
		'the address 10.0.0.1 of "shop" is not one that' ],
	[ "$zone; tun_fakeip_host names shop 198.18.0.0;", 'is not one that' ],
	[ "$zone; tun_fakeip_host names shop 198.19.255.255;",
		'is not one that' ],
	[ "$zone; tun_fakeip_host names shop fd00:198:18:0:1::1;",
		'is not one that' ],
	[ "$zone; tun_fakeip_host names shop 198.18.0.1;",
		'the address 198.18.0.1 of "shop" belongs to a device' ],
	[ "$zone; tun_fakeip_host names shop fd00:198:18::53;",
		'belongs to a device, or to a server that listens there' ],
	[ "$zone; tun_fakeip_host names shop here;", '"here" is not an address' ],
	[ "$zone; tun_fakeip_host names sh..op 198.18.1.1;",
		'"sh..op" is not the name of a host' ],
	[ "$zone; tun_fakeip_host names s/p 198.18.1.1;",
		'"s/p" is not the name of a host' ],
	[ "$zone; $host\ntun_fakeip_host names other fd00:198:18::101;",
		'"tun_fakeip_host" of "other" fd00:198:18::101 conflicts with that '
		. 'of "Shop.Example." 198.18.1.1 in .*:\d+ in' ],
	[ "$zone; $host tun_fakeip_host names shop.example 198.18.1.2;",
		'conflicts with that of "Shop.Example." 198.18.1.1' ],
	[ "$zone; tun_fakeip_miss drop;", 'invalid value "drop"' ],
	[ "$zone file=none/names;", '"[^"]*none/names" cannot be made in' ],
);

$t->allow_alert(qr/cannot be made in/);

for my $case (@bad) {
	my ($conf, $message) = @$case;

	(my $name = $conf) =~ s/\s+/ /g;

	my ($rc, $out) = $t->test_conf(conf($conf));
	ok($rc, "fails: $name");
	like($out, qr/\[emerg\].*(?:$message)/, "says so: $name");
	like($out, qr/ in \S+:\d+\n/, "and where: $name")
		unless $conf =~ /none/;
}

for my $conf ("$zone;", "$host $zone;", "$zone ttl=1s hold=2s key=secret;",
	'tun_fakeip_zone names:1m 10.0.0.0/30;',
	'tun_fakeip_zone names:12m fd00::/64;',
	"$zone file=names; tun_fakeip_zone other:12m 10.0.0.0/16 file=other;")
{
	my ($rc, $out) = $t->test_conf(conf($conf));
	is($rc, 0, "passes: $conf") or diag($out);
}

ok(!-e "$dir/names", 'a test makes no file');

# sessions

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 1000)) {
		Test::Tun::write_all($s, $buf);
	}
});

$t->run(conf("$zone; $host"));

for my $f (qw/ IPv4 IPv6 /) {
	is(ask($addr{$f}), '[shop.example][shop.example][shop.example:80]',
		"$f, name");
	is(ask($none{$f}), 'refused', "$f, no name");
	is(ask($far{$f}), 'refused', "$f, no name, far away");
	is(ask($none{$f}, 81), '[][][]', "$f, no name, but sniff");
	is(ask($addr{$f}, 81), '[shop.example][shop.example][shop.example:81]',
		"$f, name, and sniff");
	is(ask($server{$f}), "[][$server{$f}][" . url($server{$f}, 80) . ']',
		"$f, the address of a server");
	is(ask($other{$f}), "[][$other{$f}][" . url($other{$f}, 80) . ']',
		"$f, an address of no pool");
}

is(ask('fd00:198:18::5:53'), '[][fd00:198:18::5:53][[fd00:198:18::5:53]:80]',
	'IPv6, the address of a server beyond the pool');

is(scalar(() = $t->error_log() =~ /\[info\].*without a name, refused/g), 4,
	'refused flows are logged');
is(scalar(grep { / 502$/ } $t->access_log()), 4, 'as sessions');

# what is sniffed, and what was answered before it could be refused

for my $f (qw/ IPv4 IPv6 /) {
	$t->exec('client', qw/ openssl s_client -servername /, "$f.example",
		'-connect', url($none{$f}, 443));
	ok($t->wait_for_log(qr/^\L$f\E.example \[\]$/mi, 'sniff.log'),
		"$f, sniffed");

	is(ask($addr{$f}, 82), '[shop.example]', "$f, early, name");
	is($t->in('client', sub {
		my $s = Test::Tun::connect_to($none{$f}, 82)
			or return $!{ECONNRESET} ? 'reset' : "$!";
		my (undef, $error) = Test::Tun::read_all($s);
		return $error == POSIX::ECONNRESET() ? 'reset' : $error;
	}), 'reset', "$f, early, no name");
}

# datagrams too

for my $f (qw/ IPv4 IPv6 /) {
	is(datagram($addr{$f}), '[shop.example]', "$f, UDP, name");
	is(datagram($none{$f}), 'refused', "$f, UDP, no name");
}

# counters

sub status {
	my (undef, $out) = $t->exec('gateway', 'curl', '-sS',
		'http://127.0.0.1:8080/tun');
	return decode_json($out)->{fakeip};
}

my ($fakeip, @more) = @{ status() };

is(scalar @more, 0, 'status, one pool');
is($fakeip->{name}, 'names', 'status, name');
is($fakeip->{names}, 1, 'status, names');
is($fakeip->{capacity}, 131072 - 2 - 3 - 1, 'status, all but ours');
is($fakeip->{found}, 8, 'status, addresses with a name');
is($fakeip->{missed}, 13, 'status, and without');

my ($table) = Test::Tun::slurp('README.md')
	=~ /^`fakeip` has the pools.*?^\| counter.*?\n\|---.*?\n(.*?)\n\n/ms;
my @fields = ('name', map { /`(\w+)`/g } map { (split /\|/)[1] }
	split /\n/, $table);

is(join(' ', sort @fields), join(' ', sort keys %$fakeip),
	'status, as README says');

# names are kept over a reload: those that were pinned are as others then

sub workers_change {
	my ($conf) = @_;
	my $before = join ' ', $t->workers();
	$t->reload($conf);
	return Test::Tun::wait_for(5, sub {
		my @now = grep { " $before " !~ / $_ / } $t->workers();
		return @now == 2;
	});
}

my $named = '[shop.example][shop.example][shop.example:80]';

for my $case (
	[ 'another hold', "$zone hold=2h;", $named ],
	[ 'other key and size', "tun_fakeip_zone names:13m $prefixes key=another;",
		$named ],
	[ 'half of it', 'tun_fakeip_zone names:13m 198.18.0.0/16 '
		. 'fd00:198:18::/64;', $named ],
	[ 'a part of it', 'tun_fakeip_zone names:13m 198.18.1.0/24;', $named ],
	[ 'a new family', 'tun_fakeip_zone names:13m 198.18.0.0/15 '
		. 'fd00:198:19::/64;', $named ],
	[ 'another IPv6 address', "$zone;", 'refused' ])
{
	my ($name, $conf, $answer) = @$case;

	ok(workers_change(conf($conf)), "reload, $name");
	is(ask($addr{IPv4}), $answer, "reload, $name, name");
}

# a session has one name, whatever becomes of the pool

workers_change(conf("$zone; $host"));

sub talk {
	my ($addr, $n) = @_;
	my $s = Test::Tun::connect_to($addr, 9000) or return "$!";
	for (1 .. $n) {
		Test::Tun::write_all($s, 'x');
		sysread($s, my $buf, 10) or return 'closed';
		sleep(0.1);
	}
	return 'ok';
}

my $job = $t->start('client', \&talk, $addr{IPv4}, 20);

sleep(0.5);
workers_change(conf("$zone; tun_fakeip_host names news.example 198.18.1.1;"));
is(ask($addr{IPv4}), '[news.example][news.example][news.example:80]',
	'another name');
is($t->wait($job), 'ok', 'a session goes on');
ok($t->wait_for_log(qr/^shop.example shop.example shop.example:9000 200$/m,
	'access.log'), 'with the name that it had');

ok($t->stop(), 'stop');

# without a file names end with nginx

$t->run(conf("$zone;"));
is(ask($addr{IPv4}), 'refused', 'restart without a file');

$t->done();
