package Test::Tun::Proxy;

# (C) the nginx-tun authors

# Destinations and proxies for tests of tun_handshake: what stands behind the
# exits, in the namespace of servers.

use warnings;
use strict;

use Digest::SHA qw/ sha1_hex /;
use Exporter qw/ import /;
use Socket qw/ SO_LINGER SOL_SOCKET /;

use Test::Tun;

use constant MARK => "\nthat was all\n";

our @EXPORT = qw/ bad_proxies hello destinations ask sum session proxy socks5_server finished
	microsocks danted tinyproxy leave listening descriptors settled /;

# 9001 answers a line, 9002 speaks first, 9003 says how much it has got until a
# mark, 9004 sends a lot

sub destinations {
	my ($t) = @_;

	$t->server(9001, sub {
		my ($s) = @_;
		while (sysread($s, my $buf, 65536)) {
			Test::Tun::write_all($s, "echo $buf");
		}
	});

	$t->server(9002, sub {
		my ($s) = @_;
		Test::Tun::write_all($s, "BANNER\n");
		sysread($s, my $buf, 100);
		Test::Tun::write_all($s, "echo $buf");
	});

	$t->server(9003, sub {
		my ($s) = @_;
		counted($s);
	});

	$t->server(9004, sub {
		my ($s) = @_;
		Test::Tun::write_all($s, Test::Tun::bytes(7, 300000));
	});
}

# a line and its answer, the first words of a server that has them, or why not

sub ask {
	my ($t, $host, $port, %options) = @_;

	return $t->in($options{ns} || 'client', sub {
		my $s = Test::Tun::connect_to($host, $port)
			or return $!{ECONNREFUSED} ? 'refused' : "$@";

		local $SIG{ALRM} = sub { die "timeout\n" };
		alarm($options{timeout} || 20);

		my $data = '';

		if (!$options{silent}) {
			Test::Tun::write_all($s, $options{say} // "hello\n");
		}

		my $n = sysread($s, $data, 1000);
		return $!{ECONNRESET} ? 'reset' : "error $!" unless defined $n;
		return $n ? $data : 'closed';
	});
}

# what was sent to 9003, and is told to have come; and what 9004 sends

sub sum {
	my ($t, $host, $size, %options) = @_;

	return $t->in($options{ns} || 'client', sub {
		my $s = Test::Tun::connect_to($host, $options{port} || 9003)
			or return "$@";
		my $data = ($options{prefix} // '')
			. Test::Tun::bytes(3, $size) . MARK;
		Test::Tun::write_all($s, $data);
		sysread($s, my $buf, 100) or return 'closed';
		return $buf eq length($data) . ' ' . sha1_hex($data)
			? 'same' : "different: $buf";
	});
}

# the last line of the log that a test made

sub session {
	my ($t, $sub) = @_;

	my $n = () = $t->access_log();
	my $result = $sub->();

	Test::Tun::wait_for(5, sub { $n < scalar(my @l = $t->access_log()) });

	return ($result, ($t->access_log())[-1]);
}

# a server that misbehaves, or not, as the sub says

sub proxy {
	my ($t, $port, $sub) = @_;
	return $t->server($port, sub {
		$sub->(@_);
		select(undef, undef, undef, 0.05);
	});
}

sub take {
	my ($s, $n) = @_;
	my $data = '';
	while (length $data < $n) {
		sysread($s, $data, $n - length $data, length $data) or return;
	}
	return $data;
}

# a SOCKS5 proxy without authentication that answers with a code, and with 0
# connects; it says all at once and as late as it can

sub socks5_server {
	my ($t, $port, $code, %options) = @_;

	return proxy($t, $port, sub {
		my ($s) = @_;

		take($s, 3) // return;
		select(undef, undef, undef, $options{delay} || 0);
		Test::Tun::write_all($s, "\5\0");

		my $type = take($s, 4) // return;
		$type = ord substr($type, 3);
		my $addr = take($s, $type == 1 ? 4 : $type == 4 ? 16
			: ord take($s, 1));
		my $dport = unpack('n', take($s, 2));

		return Test::Tun::write_all($s, "\5" . chr($code)
			. "\0\1\0\0\0\0\0\0") if $code;

		# a name as its bound address, and the banner behind it

		Test::Tun::write_all($s, "\5\0\0\3\5bound\0\0"
			. ($options{banner} // ''));
		return if $options{close};

		counted($s);
	});
}

sub counted {
	my ($s) = @_;

	my $data = '';
	sysread($s, $data, 65536, length $data) || return
		while substr($data, -length MARK) ne MARK;

	Test::Tun::write_all($s, length($data) . ' ' . sha1_hex($data));
}

# proxies that fail: the port, the name, and what $tun_handshake_status says

sub bad_proxies {
	my ($t) = @_;

	socks5_server($t, 1101, 1);

	proxy($t, 1102, sub {
		my ($s) = @_;
		take($s, 3);
		setsockopt($s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
		close $s;
	});

	proxy($t, 1103, sub { sleep 30 });

	proxy($t, 1104, sub {
		my ($s) = @_;
		take($s, 3);
		Test::Tun::write_all($s, "SSH-2.0-OpenSSH\r\n");
		sysread($s, my $buf, 100);
	});

	proxy($t, 1105, sub { take($_[0], 3) });

	proxy($t, 1106, sub {
		my ($s) = @_;
		take($s, 3);
		Test::Tun::write_all($s, "\5\xff");
		sysread($s, my $buf, 100);
	});

	# half an answer

	proxy($t, 1107, sub {
		my ($s) = @_;
		take($s, 3);
		Test::Tun::write_all($s, "\5");
	});

	return ([ 1101, 'general failure', '1' ], [ 1102, 'reset', 'reset' ],
		[ 1103, 'stall', 'timeout' ], [ 1104, 'garbage', 'garbage' ],
		[ 1105, 'close', 'closed' ], [ 1106, 'no method', '255' ],
		[ 1107, 'half an answer', 'closed' ]);
}

# a ClientHello with a name, for ssl_preread

sub hello {
	my ($name) = @_;

	my $sni = pack('nCn', length($name) + 3, 0, length $name) . $name;
	my $ext = pack('nn', 0, length $sni) . $sni;
	my $body = pack('n', 0x0303) . 'r' x 32 . pack('CnnCC', 0, 2, 0x1301,
		1, 0) . pack('n', length $ext) . $ext;
	my $handshake = pack('CCn', 1, 0, length $body) . $body;

	return pack('Cnn', 22, 0x0301, length $handshake) . $handshake;
}

# real ones, on an address and a port

sub microsocks {
	my ($t, $port, @args) = @_;
	$t->program('server', qw/ microsocks -i :: -p /, $port, @args);
	listening($t, $port);
}

sub danted {
	my ($t, $port, $user, $password) = @_;

	my $dir = $t->{dir};
	my $method = defined $user ? 'username' : 'none';

	Test::Tun::spew("$dir/danted$port.conf", <<"END");
logoutput: $dir/logs/danted.log
internal: 10.1.0.2 port = $port
internal: fd00:1::2 port = $port
external: gateway
udp.connectdst: no
clientmethod: none
socksmethod: $method
user.privileged: root
user.unprivileged: root
client pass { from: 0/0 to: 0/0 }
socks pass { from: 0/0 to: 0/0 }
END

	my @danted = ('danted', '-f', "$dir/danted$port.conf",
		'-p', "$dir/danted$port.pid");

	if (defined $user) {

		# its users are those of the system, which is not touched

		my $hash = $t->system(qw/ openssl passwd -6 /, $password);
		chomp $hash;

		Test::Tun::spew("$dir/passwd", Test::Tun::slurp('/etc/passwd')
			. "$user:x:4711:4711::/:/bin/false\n");
		Test::Tun::spew("$dir/shadow",
			"$user:$hash:19000:0:99999:7:::\n");

		@danted = (qw/ unshare -m sh -c /, "mount --bind $dir/passwd"
			. " /etc/passwd; mount --bind $dir/shadow /etc/shadow;"
			. " exec @danted");
	}

	$t->program('server', @danted);
	listening($t, $port);
}

sub tinyproxy {
	my ($t, $port, @conf) = @_;

	Test::Tun::spew("$t->{dir}/tinyproxy$port.conf", join("\n",
		"Port $port", 'Listen 10.1.0.2', 'Listen fd00:1::2', 'Timeout 60', 'MaxClients 200',
		"LogFile \"$t->{dir}/logs/tinyproxy.log\"", @conf) . "\n");

	$t->program('server', 'tinyproxy', '-d', '-c',
		"$t->{dir}/tinyproxy$port.conf");
	listening($t, $port);
}

sub listening {
	my ($t, $port, $ns) = @_;

	my $ready = Test::Tun::wait_for(10, sub {
		my (undef, $out) = $t->exec($ns || 'server', 'ss', '-Hltn',
			"sport = :$port");
		return $out =~ /LISTEN/;
	});

	die "nothing listens on $port" unless $ready;
}

# clients that are gone before their proxy has answered

sub leave {
	my ($t, $ns, $host, $port, $n) = @_;

	return $t->in($ns, sub {
		for (1 .. $n) {
			my $s = IO::Socket::IP->new(PeerHost => $host,
				PeerPort => $port, Blocking => 0) or next;
			select(undef, undef, undef, 0.002);
			Test::Tun::write_all($s, "hello\n") if $_ % 2;
			setsockopt($s, SOL_SOCKET, SO_LINGER,
				pack('ii', 1, 0)) if $_ % 3;
			close $s;
		}
		return 1;
	});
}

# of all workers

sub descriptors {
	my ($t) = @_;
	my $n = 0;
	$n += () = glob "/proc/$_/fd/*" for $t->workers();
	return $n;
}

# a worker that has just started is not done with opening

sub settled {
	my ($t) = @_;
	my ($n, $same) = (0, 0);

	Test::Tun::wait_for(5, sub {
		my $now = descriptors($t);
		$same = $now == $n ? $same + 1 : 0;
		$n = $now;
		return $same == 10;
	});

	return $n;
}

sub finished {
	my ($t, $n) = @_;
	return Test::Tun::wait_for(10, sub { descriptors($t) <= $n });
}

1;
