#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_handshake with real proxies, curl and a server: each program is
# asked over IPv4 and IPv6, for addresses of both and for names that only it
# can find; those that receive the PROXY protocol, plain and behind an nginx
# that wants a certificate; and what each says when it refuses.

use warnings;
use strict;

use Test::More;

use Test::Tun;
use Test::Tun::Proxy;

# programs of the test have names of their own, and nobody else

package Private;

our @ISA = ('Test::Tun');

sub program {
	my ($self, $name, @cmd) = @_;
	return $self->SUPER::program($name, qw/ unshare -m sh -ec /,
		"mount --bind $self->{dir}/hosts /etc/hosts; exec \"\$@\"",
		'sh', @cmd);
}

package main;

my $t = bless Test::Tun->new(), 'Private';
my $dir = $t->{dir};

# what is asked for, by the way to the proxy: plainly, by TLS with a certificate
# of ours and without, the networks of names that have IPv4 and IPv6

my %ways = (
	plain => [ '192.0.2.', '2001:db8:1::', '198.18.10.', '198.18.11.' ],
	tls   => [ '203.0.113.', '2001:db8:2::', '198.18.20.', '198.18.21.' ],
	bare  => [ '198.51.100.', '2001:db8:3::', '198.18.30.', '198.18.31.' ],
);

for my $way (values %ways) {
	$t->ip('server', qw/ route add local /, $_, qw/ dev lo /)
		for "$way->[0]0/24", "$way->[1]/64";
}

$t->server(80, sub {
	my ($s) = @_;
	sysread($s, my $buf, 4096);
	Test::Tun::write_all($s, "HTTP/1.0 200 OK\r\n\r\nat "
		. $s->sockhost() =~ s/^::ffff://r . "\n");
});

# name, port, how it is told; the port of a TLS front is 1000 more

my @programs = (
	[ 'microsocks',                 1081, 'socks5' ],
	[ 'microsocks with a password', 1082,
	  'socks5 user=alice password=secret' ],
	[ 'dante',                      1083, 'socks5' ],
	[ 'dante with a password',      1089,
	  'socks5 user=bob password=secret-too' ],
	[ 'tinyproxy',                  1084, 'http' ],
	[ 'tinyproxy with a password',  1085,
	  'http user=alice password=secret' ],
	[ 'HAProxy',                    1086, 'proxy_v2', 'no names' ],
	[ 'nginx',                      1087, 'proxy_v2', 'no names' ],
);

my (@upstreams, @map, @hosts, @names, %exits);

for my $program (@programs) {
	my ($name, $port, $told, $nameless) = @$program;

	for my $front ('', ', TLS') {
		my $at = $front ? $port + 1000 : $port;
		my $way = $front ? 'tls' : 'plain';

		exits("$name, IPv4$front", $way, "server 10.1.0.2:$at;",
			"tun_handshake $told;");
		exits("$name, IPv6$front", $way, "server [fd00:1::2]:$at;",
			"tun_handshake $told;");
	}
}

# who refuses: the peer that is asked first, and one that does not

sub first { "server 10.1.0.2:$_[0] weight=1000 max_fails=0;"
	. ' server [fd00:1::2]:' . ($_[1] || $_[0]) . ' max_fails=0;' }

my @refusals = (
	[ 'wrong password, microsocks', '2, 255', 'plain',
	  first(1082, 1081), 'tun_handshake socks5 user=alice password=bad;' ],
	[ 'wrong password, dante', '1, 1', 'plain',
	  first(1089), 'tun_handshake socks5 user=bob password=bad;' ],
	[ 'wrong password, tinyproxy', '401, ok', 'plain',
	  first(1085, 1084), 'tun_handshake http user=alice password=bad;' ],
	[ 'no password, tinyproxy', '407, ok', 'plain',
	  first(1085, 1084), 'tun_handshake http;' ],
	[ 'no password, microsocks', '255, ok', 'plain',
	  first(1082, 1081), 'tun_handshake socks5;' ],
	[ 'no password, dante', '255, ok', 'plain',
	  first(1089, 1083), 'tun_handshake socks5;' ],
	[ 'a rule of dante', '2, ok', 'plain',
	  first(1090, 1083), 'tun_handshake socks5;' ],
	[ 'a port for tinyproxy', '403', 'plain',
	  first(1091, 1084), 'tun_handshake http;' ],
	[ 'a port for tinyproxy, tried on', '403, ok', 'plain',
	  first(1091, 1084), 'tun_handshake http final=none;' ],
	[ 'no certificate', 'closed, ok', 'bare',
	  first(2081, 3081), 'tun_handshake socks5;' ],
	[ 'no certificate, CONNECT', 'closed, ok', 'bare',
	  first(2084, 3084), 'tun_handshake http;' ],
);

exits($_->[0], @$_[2 .. 4]) for @refusals;

Test::Tun::spew("$dir/hosts", join '', @hosts);

microsocks($t, 1081);
microsocks($t, 1082, qw/ -u alice -P secret /);
danted($t, 1083);
danted($t, 1089, 'bob', 'secret-too');
tinyproxy($t, 1084);
tinyproxy($t, 1085, 'BasicAuth alice secret');
tinyproxy($t, 1091, 'ConnectPort 443');
blocking(1090);
haproxy(1086);
certificates();
fronts();

my $servers = join '', map { server($_) } sort keys %ways;

$t->run(<<"END");
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '\$server_addr|\$status|\$tun_handshake_status';
    access_log %%DIR%%/logs/access.log main;

    tun_fakeip_zone names:16m 198.18.0.0/15 fd00:198:18::/64;
    @names

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate %%DIR%%/ca.pem;
    proxy_ssl_name proxy.example;

    @upstreams

    map \$server_addr \$exit {
        @map
    }

    $servers
}
END

for my $program (@programs) {
	my ($name, undef, undef, $nameless) = @$program;

	for my $label (map { ("$name, IPv4$_", "$name, IPv6$_") } '', ', TLS') {
		my ($n, $way) = @{ $exits{$label} };
		my ($inet, $inet6, $four, $six) = @{ $ways{$way} };
		my $hex = sprintf '%x', $n;

		is(page("$inet$n"), "at $inet$n", "$label, to IPv4");
		is(page("[$inet6$hex]"), "at $inet6$hex", "$label, to IPv6");

		next if $nameless;

		is(page("$four$n"), "at $inet$n", "$label, to a name");
		is(page("$six$n"), "at $inet6$hex",
			"$label, to a name of IPv6");
	}
}

# the kernel has answered before

my $refused = Test::Tun::stack() eq 'system' ? qr/^curl: .*reset by peer/
	: qr/^curl: \(7\) .*connect/;

for my $refusal (@refusals) {
	my ($label, $says) = @$refusal;
	my ($n, $way) = @{ $exits{$label} };
	my $host = $ways{$way}[0] . $n;

	my ($got, $line) = session($t, sub { page($host) });
	my $good = $says =~ /ok$/;

	like($got, $good ? qr/^at $host$/ : $refused, $label);
	is($line, "$host|" . ($good ? 200 : 502) . "|$says", "$label, log");
}

$t->done();

###############################################################################

# an upstream, which has the number that is the end of its addresses

sub exits {
	my ($label, $way, @lines) = @_;

	my $n = 10 + keys %exits;
	my $hex = sprintf '%x', $n;
	my ($inet, $inet6, $four, $six) = @{ $ways{$way} };

	push @upstreams, "upstream u$n { @lines }\n";
	push @map, map { "$_ u$n;\n" } "$inet$n", "$inet6$hex", "$four$n",
		"$six$n";
	push @names, "tun_fakeip_host names four$n.example $four$n;\n",
		"tun_fakeip_host names six$n.example $six$n;\n";
	push @hosts, "$inet$n four$n.example\n$inet6$hex six$n.example\n";

	$exits{$label} = [ $n, $way ];
}

sub server {
	my ($way) = @_;

	my ($inet, $inet6, $four, $six) = @{ $ways{$way} };
	my $ssl = $way eq 'plain' ? '' : 'proxy_ssl on;';

	$ssl .= ' proxy_ssl_certificate %%DIR%%/client.pem;'
		. ' proxy_ssl_certificate_key %%DIR%%/client.key;'
		if $way eq 'tls';

	return "server { proxy_pass \$exit; $ssl "
		. join(' ', map { "tun_listen tun0 $_;" } "${inet}0/24",
			"$inet6/64", "${four}0/24", "${six}0/24")
		. " }\n";
}

sub page {
	my ($host) = @_;

	my (undef, $out) = $t->exec('client', qw/ curl -gsS -m 10 /,
		"http://$host/");
	chomp $out;
	return $out;
}

# dante with a rule against the port

sub blocking {
	my ($port) = @_;

	Test::Tun::spew("$dir/danted$port.conf", <<"END");
logoutput: $dir/logs/danted.log
internal: 10.1.0.2 port = $port
external: gateway
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: root
client pass { from: 0/0 to: 0/0 }
socks block { from: 0/0 to: 0/0 port = 80 }
socks pass { from: 0/0 to: 0/0 }
END
	$t->program('server', 'danted', '-f', "$dir/danted$port.conf",
		'-p', "$dir/danted$port.pid");
	listening($t, $port);
}

# goes on to where the header says

sub haproxy {
	my ($port) = @_;

	Test::Tun::spew("$dir/haproxy.cfg", <<"END");
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
listen in
    bind 10.1.0.2:$port,fd00:1::2:$port accept-proxy
    server there *:0
END
	$t->program('server', qw/ haproxy -db -f /, "$dir/haproxy.cfg");
	listening($t, $port);
}

# an nginx for the header too, and one in front of all that wants a certificate;
# on ports 2000 more one that does not

sub fronts {
	my @ports = map { $_->[1] } @programs;

	Test::Tun::spew("$dir/front.conf", join "\n",
		'load_module /usr/lib/nginx/modules/ngx_stream_module.so;',
		"user root; daemon off; pid $dir/front.pid;",
		"error_log $dir/logs/front.log info;",
		'events { worker_connections 2048; } stream {',
		"ssl_certificate $dir/proxy.example.pem;",
		"ssl_certificate_key $dir/proxy.example.key;",
		"ssl_client_certificate $dir/ca.pem;",
		'map $proxy_protocol_server_addr $to {',
		'~: [$proxy_protocol_server_addr];',
		'default $proxy_protocol_server_addr; }',
		'server { listen 1087 proxy_protocol;',
		'listen [::]:1087 proxy_protocol;',
		'proxy_pass $to:$proxy_protocol_server_port; }',
		(map { front($_ + 1000, $_, 'on'), front($_ + 2000, $_, 'off') }
			@ports), '}', '');

	$t->program('server', '/usr/sbin/nginx', '-c', "$dir/front.conf",
		'-e', "$dir/logs/front.log");
	listening($t, $_) for 1087, 2081;
}

sub front {
	my ($at, $port, $verify) = @_;
	return "server { listen $at ssl; listen [::]:$at ssl;"
		. " ssl_verify_client $verify; proxy_pass 10.1.0.2:$port; }";
}

sub certificates {
	my @key = qw/ openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256
		-nodes /;

	$t->system(@key, qw{ -x509 -days 2 -subj /CN=ca -keyout },
		"$dir/ca.key", '-out', "$dir/ca.pem");

	for my $name (qw/ proxy.example client /) {
		Test::Tun::spew("$dir/ext", "subjectAltName=DNS:$name\n");
		$t->system(@key, '-subj', "/CN=$name", '-keyout',
			"$dir/$name.key", '-out', "$dir/$name.csr");
		$t->system(qw/ openssl x509 -req -days 2 -CAcreateserial -CA /,
			"$dir/ca.pem", '-CAkey', "$dir/ca.key", '-in',
			"$dir/$name.csr", '-out', "$dir/$name.pem",
			'-extfile', "$dir/ext");
	}
}
