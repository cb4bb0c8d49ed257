#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for TLS that is ended on the side of the device: tun_listen ... ssl.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();
my $dir = $t->{dir};

# certificates: of an authority, a server, a client, and one of nobody's

sub authority {
	my ($name) = @_;
	$t->system(qw/ openssl req -x509 -newkey rsa:2048 -nodes -days 2
		-keyout /, "$dir/$name.key", '-out', "$dir/$name.pem",
		'-subj', "/CN=$name");
}

sub certificate {
	my ($name, $ca, @names) = @_;

	$t->system(qw/ openssl req -newkey rsa:2048 -nodes -keyout /,
		"$dir/$name.key", '-out', "$dir/$name.csr", '-subj',
		"/CN=$name", '-addext', 'subjectAltName='
			. join(',', map { "DNS:$_" } $name, @names));
	$t->system(qw/ openssl x509 -req -days 2 -copy_extensions copyall
		-CAcreateserial -in /, "$dir/$name.csr", '-CA', "$dir/$ca.pem",
		'-CAkey', "$dir/$ca.key", '-out', "$dir/$name.pem");
}

authority($_) for qw/ authority nobody /;
certificate('one.example', 'authority');
certificate('client.example', 'authority');
certificate('stranger.example', 'nobody');

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$server_port $status $ssl_protocol '
                    '$ssl_server_name $ssl_client_verify $ssl_session_reused '
                    '$bytes_sent $bytes_received';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    ssl_certificate     %%DIR%%/one.example.pem;
    ssl_certificate_key %%DIR%%/one.example.key;
    ssl_protocols       TLSv1.2 TLSv1.3;
    ssl_session_cache   shared:ssl:1m;
    ssl_handshake_timeout 1s;

    # to where the client wants to, without TLS

    server {
        tun_listen tun0 ssl;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 tcp :9100-9199 ssl;
        proxy_pass $tun_target;
        proxy_half_close on;
    }

    # without TLS, and with TLS in one server

    server {
        tun_listen tun0 :80;
        tun_listen tun0 :443 ssl;
        proxy_pass $up:80;
        tun_accept early;
    }

    # with TLS again, on the other side

    server {
        tun_listen tun0 :444 ssl;
        proxy_pass $up:8443;
        proxy_ssl on;
        proxy_ssl_verify on;
        proxy_ssl_name one.example;
        proxy_ssl_trusted_certificate %%DIR%%/authority.pem;
    }

    # read by the name in it, and passed on as it is

    server {
        tun_listen tun0 :445;
        ssl_preread on;
        proxy_pass $up:8443;
    }

    server {
        tun_listen tun0 :81 ssl;
        return "$ssl_protocol $ssl_server_name $tun_target\n";
    }

    server {
        tun_listen tun0 :82 ssl;
        ssl_verify_client on;
        ssl_client_certificate %%DIR%%/authority.pem;
        return "$ssl_client_verify $ssl_client_s_dn\n";
    }

    server {
        tun_listen tun0 :83 ssl;
        ssl_verify_client optional;
        ssl_client_certificate %%DIR%%/authority.pem;
        return "$ssl_client_verify $ssl_client_s_dn\n";
    }

    server {
        tun_listen tun0 :84 ssl;
        ssl_protocols TLSv1.2;
        return "$ssl_protocol $ssl_session_reused\n";
    }

    server {
        tun_listen tun0 :85 ssl;
        proxy_pass $up:9;
    }

    server {
        tun_listen tun0 :86 ssl;
        proxy_pass $up:9003;
        proxy_timeout 500ms;
    }

    server {
        tun_listen tun0 :87 ssl;
        deny all;
        proxy_pass $tun_target;
    }

    map $server_addr $up {
        ~:      [fd00:1::2];
        default 10.1.0.2;
    }
}
EOC

$t->run($conf);
$t->origin();

my $big = 20 * 1024 * 1024 + 17;
Test::Tun::spew("$dir/www/big", Test::Tun::bytes('big', $big));
my $digest = Digest::SHA::sha1_hex(Test::Tun::bytes('big', $big));

$t->program('server', qw/ openssl s_server -quiet -rev -accept 8443 -key /,
	"$dir/one.example.key", '-cert', "$dir/one.example.pem");

# what came, and all of it again

$t->server(9001, sub {
	my ($s) = @_;
	sysread($s, my $len, 4);
	$len = unpack 'N', $len;
	my $data = '';

	while (length $data < $len) {
		sysread($s, $data, 262144, length $data) or last;
	}

	Test::Tun::write_all($s, Digest::SHA::sha1_hex($data));
	Test::Tun::write_all($s, $data);
});

# resets the client in the middle of its answer

$t->server(9002, sub {
	my ($s) = @_;
	sysread($s, my $buf, 100);
	Test::Tun::write_all($s, 'half');
	sleep(0.3);
	setsockopt($s, Socket::SOL_SOCKET, Socket::SO_LINGER, pack('ii', 1, 0));
});

# says nothing

$t->server(9003, sub { sleep(20) });

# the server ends first, and goes on reading

$t->server(9101, sub {
	my ($s) = @_;
	Test::Tun::write_all($s, 'first');
	shutdown($s, 1);
	my $data = Test::Tun::read_all($s);
	Test::Tun::spew("$dir/got." . sockhost($s),
		Digest::SHA::sha1_hex($data));
});

sub sockhost { $_[0]->sockhost() =~ /^[\d.:f]*\.\d+$/ ? 'IPv4' : 'IPv6' }

# the client ends first, and is answered then

$t->server(9102, sub {
	my ($s) = @_;
	my $data = Test::Tun::read_all($s);
	sleep(0.3);
	Test::Tun::write_all($s, Digest::SHA::sha1_hex($data));
});

# has enough soon, but reads on

$t->server(9005, sub {
	my ($s) = @_;
	sysread($s, my $buf, 100);
	Test::Tun::write_all($s, 'bye');
	shutdown($s, 1);
	Test::Tun::read_all($s);
});

# all at once, and gone

$t->server(9004, sub {
	my ($s) = @_;
	Test::Tun::write_all($s, Test::Tun::bytes('all', 3000017));
});

my @trust = ('--cacert', "$dir/authority.pem");

sub get {
	my ($family, $port, $path, @args) = @_;

	my ($rc, $out) = $t->curl(@trust, '--connect-to',
		"one.example:$port:$family->{url}:$port", @args,
		"https://one.example:$port$path");

	return $rc ? "$rc $out" : $out;
}

# what a server says that speaks first

sub said {
	my ($family, $port, @args) = @_;

	my (undef, $out) = $t->exec('client', \10, qw/ openssl s_client -quiet
		-verify_return_error -verify_quiet -servername one.example
		-verify_hostname one.example -CAfile /, "$dir/authority.pem",
		'-connect', "$family->{url}:$port", @args);

	return $out;
}

sub key {
	my ($name) = @_;
	return ('-cert', "$dir/$name.pem", '-key', "$dir/$name.key");
}

# how a server ended what was read to its end

sub end_of {
	my ($s) = @_;

	my $errno = $!{ECONNRESET};
	my $ssl = $s->_get_ssl_object();
	my $said = $ssl && Net::SSLeay::get_shutdown($ssl) & 2;

	my $fd = IO::Handle->new_from_fd(fileno($s), 'r');
	my $n = sysread($fd, my $buf, 100);

	return ($said ? 'close_notify, ' : '')
		. ($errno || !defined $n ? 'RST' : 'FIN');
}

# a client that is written here

sub tls {
	my ($family, $port, $sub) = @_;

	return $t->in('client', sub {
		require IO::Socket::SSL;
		my $s = IO::Socket::SSL->new(
			PeerHost => $family->{server}, PeerPort => $port,
			SSL_ca_file => "$dir/authority.pem",
			SSL_hostname => 'one.example',
			SSL_verifycn_name => 'one.example',
			SSL_verifycn_scheme => 'default', Timeout => 10)
			or return 'no TLS: ' . IO::Socket::SSL::errstr();
		local $SIG{ALRM} = sub { die "alarm\n" };
		alarm(50);
		return $sub->($s);
	});
}

# a client without TLS: what comes, and how it ends

sub raw {
	my ($family, $port, $data, $how) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::connect_to($family->{server}, $port)
			or return $!{ECONNREFUSED} ? 'refused' : "$@";
		Test::Tun::write_all($s, $data);
		sleep(0.1);

		setsockopt($s, Socket::SOL_SOCKET, Socket::SO_LINGER,
			pack('ii', 1, 0)) if $how eq 'RST';
		return 'gone' if $how eq 'RST' || $how eq 'close';

		local $SIG{ALRM} = sub { die "alarm\n" };
		alarm(10);
		my ($got, $errno) = Test::Tun::read_all($s);
		return unpack('H*', $got) . ($errno ? ' RST' : ' FIN');
	});
}

###############################################################################

for my $family (@Test::Tun::FAMILIES) {
	my ($name, $url) = ($family->{name}, $family->{url});

	is(get($family, 443, '/'), "SEE-THIS\n", "page, $name");
	like(get($family, 80, '/'), qr/^35 /, "no TLS there, $name");

	my (undef, $plain) = $t->curl("http://$url/");
	is($plain, "SEE-THIS\n", "page without TLS, $name");

	is(Digest::SHA::sha1_hex(get($family, 443, '/big')), $digest,
		"20 MB, $name");

	is(tls($family, 9001, sub {
		my ($s) = @_;
		my $data = Test::Tun::bytes('up', $big);
		Test::Tun::write_all($s, pack('N', $big) . $data);
		my $got = Test::Tun::read_all($s);
		return $got eq Digest::SHA::sha1_hex($data) . $data
			? 'the same ' . end_of($s) : length $got;
	}), 'the same close_notify, FIN', "20 MB there and back, $name");

	like(said($family, 81), qr/^TLSv1\.3 one\.example \Q$url\E:81$/m,
		"return, $name");
	like(said($family, 81, '-tls1_2'), qr/^TLSv1\.2 one\.example/m,
		"return, TLS 1.2, $name");

	# certificates of clients

	like(said($family, 82, key('client.example')),
		qr/^SUCCESS CN=client\.example$/m, "required and there, $name");
	unlike(said($family, 82), qr/SUCCESS|NONE/, "required, $name");
	unlike(said($family, 82, key('stranger.example')), qr/SUCCESS|FAILED/,
		"required, a stranger's, $name");
	like(said($family, 83), qr/^NONE $/m, "optional, $name");
	like(said($family, 83, key('client.example')),
		qr/^SUCCESS CN=client/m, "optional and there, $name");

	# protocols

	like(said($family, 84), qr/^TLSv1\.2 \.$/m, "TLS 1.2 only, $name");
	like(said($family, 84, '-tls1_3'), qr/alert protocol version/,
		"another protocol, $name");

	# a session is taken up again

	said($family, 84, '-sess_out', "$dir/session");
	like(said($family, 84, '-sess_in', "$dir/session"), qr/^TLSv1\.2 r$/m,
		"session reused, $name");

	# TLS on both sides, and TLS that is only read

	for my $port (444, 445) {
		ok(Test::Tun::wait_for(5, sub {
			tls($family, $port, sub {
				my ($s) = @_;
				print $s "hello\n";
				sysread($s, my $buf, 100);
				return $buf;
			}) eq "olleh\n";
		}), "port $port, $name");
	}

	# ends

	is(tls($family, 9004, sub {
		my ($s) = @_;
		my $got = Test::Tun::read_all($s);
		return ($got eq Test::Tun::bytes('all', 3000017)) . ' '
			. end_of($s);
	}), '1 close_notify, FIN', "all and the end, $name");

	is(tls($family, 9002, sub {
		my ($s) = @_;
		print $s "x\n";
		my $got = Test::Tun::read_all($s);
		return "$got " . end_of($s);
	}), 'half RST', "reset by the server, $name");

	like(tls($family, 9005, sub {
		my ($s) = @_;
		local $SIG{PIPE} = 'IGNORE';
		Test::Tun::write_all($s, Test::Tun::bytes('more', 3000017));
		sysread($s, my $got, 100);
		return $got // 'nothing';
	}), qr/^(bye|nothing)$/, "more for a server that has ended, $name");

	for my $case ([ 85, 'no upstream' ], [ 86, 'timeout' ]) {
		is(tls($family, $case->[0], sub {
			my ($s) = @_;
			my $got = Test::Tun::read_all($s);
			return "$got " . end_of($s);
		}), ' RST', "$case->[1], $name");
	}

	is(Test::Tun::refused(raw($family, 87, 'x', 'read')), 'refused',
		"denied, $name");

	# half of it

	is(tls($family, 9101, sub {
		my ($s) = @_;
		my $got = Test::Tun::read_all($s);
		my $end = end_of($s);
		Test::Tun::write_all($s, Test::Tun::bytes('rest', 1000003));
		return "$got $end";
	}), 'first close_notify, FIN', "half close by the server, $name");

	ok(Test::Tun::wait_for(5, sub {
		Test::Tun::slurp("$dir/got.$name") eq
			Digest::SHA::sha1_hex(Test::Tun::bytes('rest', 1000003))
	}), "the rest is read, $name");

	is(tls($family, 9102, sub {
		my ($s) = @_;
		my $ssl = $s->_get_ssl_object();
		Test::Tun::write_all($s, Test::Tun::bytes('half', 1000003));
		Net::SSLeay::shutdown($ssl);
		my $got = '';
		while (length(my $buf = Net::SSLeay::read($ssl) // '')) {
			$got .= $buf;
		}
		return $got . ' ' . end_of($s);
	}), Digest::SHA::sha1_hex(Test::Tun::bytes('half', 1000003))
		. ' close_notify, FIN', "half close by the client, $name");

	# handshakes that do not succeed

	is(raw($family, 81, "GET / HTTP/1.0\r\n\r\n", 'read'), ' FIN',
		"not TLS, $name");
	like(raw($family, 81, "\x17\x03\x01\0\x05hello", 'read'),
		qr/^1503..0002.... FIN$/, "told by an alert, $name");
	is(raw($family, 81, "\x16\x03\x01\x02\0\x01\0", 'close'), 'gone',
		"half a ClientHello, $name");
	is(raw($family, 81, "\x16\x03\x01\x02\0\x01\0", 'RST'), 'gone',
		"and a reset, $name");

	my $start = time();
	is(raw($family, 81, '', 'read'), ' RST', "handshake timeout, $name");
	cmp_ok(time() - $start, '<', 5, "in time, $name");
}

ok($t->wait_for_log(qr/peer closed connection in SSL handshake/),
	'a client that goes');

my @log = $t->access_log();

for my $line (
	qr/^443 200 TLSv1\.3 one\.example NONE \. \d+ \d+$/,
	qr/^80 200 - - - - \d+ \d+$/,
	qr/^9001 200 TLSv1\.3 one\.example NONE \. 20971577 20971541$/,
	qr/^82 200 TLSv1\.3 one\.example SUCCESS \. 26 0$/,
	qr/^84 200 TLSv1\.2 one\.example NONE r \d+ 0$/,
	qr/^84 500 /, qr/^81 500 /, qr/^85 502 TLSv1\.3 /)
{
	is(scalar(grep { $_ =~ $line } @log) > 0, 1, "in the log: $line")
		or diag(join "\n", @log);
}

# configurations

for my $case (
	[ 'no certificate', 'tun_listen tun0 ssl;',
	  qr/no "ssl_certificate" is defined .* in \S*test\.conf:\d+/ ],
	[ 'no key', "tun_listen tun0 ssl; ssl_certificate "
	  . "$dir/one.example.pem;", qr/no "ssl_certificate_key" is defined/ ],
	[ 'udp', 'tun_listen tun0 udp ssl;',
	  qr/"ssl", which is incompatible with "udp"/ ])
{
	my ($rc, $out) = $t->test_conf(<<"EOC");
%%GLOBALS%%
%%EVENTS%%
stream {
    tun tun0 {
        address 198.18.0.1/15;
    }
    server {
        $case->[1]
        return x;
    }
}
EOC
	is($rc, 1, "$case->[0] is an error");
	like($out, $case->[2], "$case->[0]");
}

$t->done();
