package Test::Tun;

# (C) the nginx-tun authors

# Network namespaces, an nginx under test in one of them, and programs in all.
#
#   client    the TUN device lives there, as the default route
#   gateway   nginx under test
#   server    what is asked for: 10.1.0.2, fd00:1::2
#
# With new(forward => 1) the device is in the gateway, and what comes from the
# client, 10.3.0.2 and fd00:3::2 behind a veth, is routed into it.
#
# With TUN_STACK=system in the environment all devices have that stack.
#
# Everything a test made is gone when it ends, however it ends.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use Digest::SHA;
use File::Path qw/ remove_tree /;
use File::Temp qw/ tempdir /;
use IO::Handle;
use IO::Select;
use IO::Socket::IP;
use JSON::PP;
use POSIX qw/ :sys_wait_h /;
use Socket qw/ SOCK_DGRAM SOCK_STREAM SO_LINGER SOL_SOCKET SO_RCVBUF
	TCP_NODELAY /;
use Storable qw/ freeze thaw /;
use Test::More;
use Time::HiRes qw/ sleep time /;

require 'syscall.ph';

use constant CLONE_NEWNET => 0x40000000;

our @FAMILIES = (
	{ name => 'IPv4', server => '10.1.0.2', gateway => '10.1.0.1',
	  client => '198.18.0.1', url => '10.1.0.2', any => '0.0.0.0' },
	{ name => 'IPv6', server => 'fd00:1::2', gateway => 'fd00:1::1',
	  client => 'fd00:198:18::1', url => '[fd00:1::2]', any => '::' },
);

my $self;

sub new {
	my ($class, %options) = @_;

	plan(skip_all => 'must be root') if $> != 0;

	# to nginx itself the variable is a list of inherited sockets

	my $nginx = delete $ENV{NGINX} || '/usr/sbin/nginx';

	my $dir = tempdir('nginx-tun-test-XXXXXX', TMPDIR => 1);
	chmod 0755, $dir;

	$self = bless {
		dir => $dir, pid => $$, n => 0, daemons => {}, nets => {},
		alerts => [], nginx => $nginx,
		module => abs_path($ENV{TUN_MODULE}
			|| 'build/ngx_stream_tun_module.so'),
		options => \%options,
	}, $class;

	# PIPE too: whoever reads the results may be gone first

	$SIG{$_} = sub { exit 1 } for qw/ INT TERM HUP PIPE /;

	mkdir "$dir/$_" for qw/ logs www /;
	$self->topology();

	return $self;
}

sub topology {
	my ($self) = @_;

	$self->netns($_) for qw/ client gateway server /;

	$self->link('gateway', 'server');

	$self->ip('gateway', qw/ addr add 10.1.0.1\/24 dev server /);
	$self->ip('gateway', qw/ addr add fd00:1::1\/64 dev server nodad /);
	$self->ip('server', qw/ addr add 10.1.0.2\/24 dev gateway /);
	$self->ip('server', qw/ addr add fd00:1::2\/64 dev gateway nodad /);

	# whatever address a client asks for is there

	$self->ip('server', qw/ route add local 10.2.0.0\/16 dev lo /);
	$self->ip('server', qw/ route add local fd00:2::\/64 dev lo /);
	$self->ip('gateway', qw/ route add 10.2.0.0\/16 via 10.1.0.2 /);
	$self->ip('gateway', qw/ -6 route add fd00:2::\/64 via fd00:1::2 /);

	$self->forward() if $self->{options}{forward};
}

# what comes from the client is routed by a table of its own

sub forward {
	my ($self) = @_;

	$self->link('client', 'gateway');

	$self->ip('gateway', qw/ addr add 10.3.0.1\/24 dev client /);
	$self->ip('gateway', qw/ addr add fd00:3::1\/64 dev client nodad /);
	$self->ip('client', qw/ addr add 10.3.0.2\/24 dev gateway /);
	$self->ip('client', qw/ addr add fd00:3::2\/64 dev gateway nodad /);
	$self->ip('client', qw/ route add default via 10.3.0.1 /);
	$self->ip('client', qw/ -6 route add default via fd00:3::1 /);

	$self->ip('gateway', $_, qw/ rule add iif client lookup 100 /)
		for qw/ -4 -6 /;

	$self->in('gateway', sub {
		spew("/proc/sys/net/$_", 1)
			for qw{ ipv4/ip_forward ipv6/conf/all/forwarding };
		spew("/proc/sys/net/ipv4/conf/$_/rp_filter", 0)
			for qw/ all default client server /;
		return 1;
	});
}

# namespaces

sub netns {
	my ($self, $name) = @_;

	my $ns = "tun-$$-$name";

	$self->{nets}{$name} = $ns;
	$self->system('ip', 'netns', 'add', $ns);
	$self->{inodes}{(stat "/run/netns/$ns")[1]} = $name;

	$self->ip($name, qw/ link set lo up /);

	# an address of IPv6 is of use at once

	$self->in($name, sub {
		for my $if (qw/ all default /) {
			spew("/proc/sys/net/ipv6/conf/$if/$_->[0]", $_->[1])
				for [ 'accept_dad', 0 ], [ 'dad_transmits', 0 ];
		}
		return 1;
	});

	return $ns;
}

sub link {
	my ($self, $one, $two) = @_;

	$self->system(qw/ ip link add /, $two, 'netns', $self->{nets}{$one},
		qw/ type veth peer name /, $one, 'netns', $self->{nets}{$two});
	$self->ip($one, qw/ link set /, $two, 'up');
	$self->ip($two, qw/ link set /, $one, 'up');
}

sub ip {
	my ($self, $name, @args) = @_;
	return $self->system('ip', '-n', $self->{nets}{$name}, @args);
}

sub ns { $_[0]{nets}{$_[1]} }

sub system {
	my ($self, @cmd) = @_;
	my ($rc, $out) = $self->run_cmd(10, @cmd);
	die "@cmd: $out" if $rc;
	return $out;
}

# programs

# the exit code and all output of a program, ended after a time

sub run_cmd {
	my ($self, $timeout, @cmd) = @_;

	my $pid = open(my $fh, '-|') // die "fork: $!";

	if ($pid == 0) {
		open(STDERR, '>&', \*STDOUT);
		open(STDIN, '<', '/dev/null');
		exec { $cmd[0] } @cmd or POSIX::_exit(127);
	}

	my ($out, $end) = ('', time() + $timeout);
	my $select = IO::Select->new($fh);

	while ((my $left = $end - time()) > 0) {
		next unless $select->can_read($left);
		last unless sysread($fh, $out, 65536, length $out);
	}

	kill 'KILL', $pid if time() >= $end;
	close $fh;

	return (time() >= $end ? 124 : $? >> 8, $out);
}

sub exec {
	my ($self, $name, @cmd) = @_;
	my $timeout = ref $cmd[0] ? ${ shift @cmd } : 30;
	return $self->run_cmd($timeout, qw/ ip netns exec /,
		$self->{nets}{$name}, @cmd);
}

sub curl {
	my ($self, @args) = @_;
	return $self->exec('client', \60, 'curl', '-sSg', '-m', '50', @args);
}

# runs a sub in a namespace, and returns what it returns

sub in {
	my ($self, $name, $sub, @args) = @_;
	return $self->wait($self->start($name, $sub, @args));
}

sub start {
	my ($self, $name, $sub, @args) = @_;

	pipe(my $r, my $w) or die "pipe: $!";

	my $pid = $self->fork_in($name, sub {
		close $r;
		my @result = eval { $sub->(@args) };
		@result = (undef, $@) if $@;
		print $w freeze(\@result);
		close $w;
	});

	close $w;

	return { pid => $pid, fh => $r };
}

sub wait {
	my ($self, $job, $timeout) = @_;

	my ($out, $end) = ('', time() + ($timeout || 60));
	my $select = IO::Select->new($job->{fh});

	while ((my $left = $end - time()) > 0) {
		next unless $select->can_read($left);
		last unless sysread($job->{fh}, $out, 65536, length $out);
	}

	kill 'KILL', $job->{pid} if time() >= $end;
	waitpid($job->{pid}, 0);
	delete $self->{daemons}{$job->{pid}};

	my $result = eval { thaw($out) } || [ undef, 'timed out' ];

	diag($result->[1]) if !defined $result->[0] && $result->[1];
	return wantarray ? @$result : $result->[0];
}

# a process of the test's own in a namespace

sub daemon {
	my ($self, $name, $sub, @args) = @_;
	return $self->fork_in($name, sub { $sub->(@args) });
}

# a program that runs until the test ends

sub program {
	my ($self, $name, @cmd) = @_;

	return $self->fork_in($name, sub {
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', "$self->{dir}/logs/programs.log");
		open(STDERR, '>&', \*STDOUT);
		CORE::exec(@cmd);
	});
}

sub fork_in {
	my ($self, $name, $sub) = @_;

	my $pid = fork() // die "fork: $!";

	if ($pid) {
		$self->{daemons}{$pid} = 1;
		return $pid;
	}

	$SIG{$_} = 'DEFAULT' for qw/ INT TERM HUP PIPE /;

	open(my $ns, '<', "/run/netns/$self->{nets}{$name}") or die "ns: $!";
	syscall(&SYS_setns, fileno($ns), CLONE_NEWNET) == 0 or die "setns: $!";

	eval { $sub->() };
	warn $@ if $@;

	POSIX::_exit($@ ? 1 : 0);
}

sub kill_daemon {
	my ($self, $pid, $signal) = @_;

	kill $signal || 'KILL', $pid;
	waitpid($pid, 0);
	delete $self->{daemons}{$pid};
}

# a TCP server in the namespace of servers: for each connection a process

sub server {
	my ($self, $port, $sub, %options) = @_;

	pipe(my $r, my $w) or die "pipe: $!";

	my $pid = $self->daemon($options{ns} || 'server', sub {
		close $r;
		my $l = IO::Socket::IP->new(LocalAddr => '::', V6Only => 0,
			LocalPort => $port, Listen => 4096, ReuseAddr => 1,
			Proto => 'tcp') or die "listen: $@";
		close $w;

		local $SIG{CHLD} = 'IGNORE';

		while (1) {
			my $s = $l->accept() or next;

			if ($options{inline}) {
				$sub->($s);
				next;
			}

			my $child = fork() // die "fork: $!";
			next if $child;

			close $l;
			eval { $sub->($s) };
			close $s;
			POSIX::_exit(0);
		}
	});

	close $w;
	sysread($r, my $buf, 1);

	return $pid;
}

# bytes as they were sent: the same for the same seed, fast to make and check

# datagrams of both families: what the sub returns for a socket, the data and
# the sender is sent back, in a list of datagrams

sub udp_server {
	my ($self, $port, $sub, %options) = @_;

	pipe(my $r, my $w) or die "pipe: $!";

	my $pid = $self->daemon($options{ns} || 'server', sub {
		close $r;
		my $s = IO::Socket::IP->new(V6Only => 0,
			LocalAddr => $options{host} // '::',
			LocalPort => $port, Type => SOCK_DGRAM) or die "bind: $@";
		setsockopt($s, SOL_SOCKET, SO_RCVBUF, 4000000);
		close $w;

		while (1) {
			my $from = recv($s, my $data, 65536, 0) // next;
			send($s, $_, 0, $from) for $sub->($s, $data, $from);
		}
	});

	close $w;
	sysread($r, my $buf, 1);

	return $pid;
}

# a socket connected to a server of datagrams, and an answer from it or undef

sub udp_to {
	my ($host, $port, %options) = @_;
	return IO::Socket::IP->new(PeerHost => $host, PeerPort => $port,
		Type => SOCK_DGRAM, %options);
}

sub udp_recv {
	my ($s, $timeout) = @_;

	return unless IO::Select->new($s)->can_read($timeout || 5);
	recv($s, my $data, 65536, 0) // return;
	return $data;
}

sub bytes {
	my ($seed, $size) = @_;

	my ($block, $data) = ('', '');
	$block .= Digest::SHA::sha512("$seed:$_") for 0 .. 1023;

	# no block is like another: one in the place of another is seen

	for my $n (0 .. $size / length $block) {
		$data .= $block ^ Digest::SHA::sha512("$seed $n") x 1024;
	}

	return substr($data, 0, $size);
}

sub write_all {
	my ($s, $data) = @_;

	my $off = 0;

	while ($off < length $data) {
		my $n = syswrite($s, $data, length($data) - $off, $off);
		next if !defined $n && $!{EINTR};
		return $off unless $n;
		$off += $n;
	}

	return $off;
}

sub read_all {
	my ($s) = @_;

	my $data = '';

	while (1) {
		my $n = sysread($s, $data, 262144, length $data);
		return wantarray ? ($data, $! + 0) : $data unless defined $n;
		last unless $n;
	}

	return wantarray ? ($data, 0) : $data;
}

sub connect_to {
	my ($host, $port, %options) = @_;
	return IO::Socket::IP->new(PeerHost => $host, PeerPort => $port,
		Type => SOCK_STREAM, Timeout => 20, %options);
}

# nginx

sub write_conf {
	my ($self, $conf, $file) = @_;

	my $dir = $self->{dir};
	my $ns = $self->{nets}{client};
	my $modules = '';

	my (undef, $built) = $self->run_cmd(10, $self->{nginx}, '-V');

	if ($built =~ /--with-stream=dynamic/) {
		$modules = "load_module /usr/lib/nginx/modules/"
			. "ngx_stream_module.so;\n";
	}

	for my $module (@{ $self->{options}{modules} || [] }) {
		$modules .= "load_module /usr/lib/nginx/modules/$module;\n";
	}

	$modules .= "load_module $self->{module};\n";

	my $globals = "${modules}pid $dir/logs/nginx.pid;\n"
		. "error_log $dir/logs/error.log info;\n"
		. "worker_rlimit_nofile 20000;\n";

	if ($ENV{TUN_STACK}) {
		$conf =~ s/^(\s*tun\s+\w+\s*\{)$/$1 stack $ENV{TUN_STACK};/mg;
	}

	$conf =~ s/%%GLOBALS%%/$globals/;
	$conf =~ s/%%NETNS%%/$ns/g;
	$conf =~ s/%%DIR%%/$dir/g;
	$conf =~ s{%%EVENTS%%}{events { worker_connections 8192; }};

	$file ||= 'nginx.conf';
	spew("$dir/$file", $conf);

	return "$dir/$file";
}

sub nginx {
	my ($self, $conf, @args) = @_;
	return $self->exec('gateway', \30, $self->{nginx}, '-p', $self->{dir},
		'-c', $conf, '-e', "$self->{dir}/logs/error.log", @args);
}

# nginx -t, as (exit code, messages)

sub test_conf {
	my ($self, $conf) = @_;

	my $file = $self->write_conf($conf, 'test.conf');
	my ($rc, $out) = $self->exec('gateway', $self->{nginx}, '-t',
		'-p', $self->{dir}, '-c', $file, '-e', 'stderr');

	return ($rc, $out);
}

sub run {
	my ($self, $conf) = @_;

	my ($rc, $out) = $self->try_run($conf);
	die "nginx did not start: $out" . $self->error_log() if $rc;

	$self->routes();

	return $self;
}

sub try_run {
	my ($self, $conf) = @_;
	return $self->nginx($self->write_conf($conf));
}

sub routes {
	my ($self) = @_;

	if ($self->{options}{forward}) {
		$self->ip('gateway', $_, qw/ route replace default dev tun0
			table 100 /) for qw/ -4 -6 /;
		return;
	}

	$self->exec('client', qw/ ip route replace default dev tun0 /);
	$self->exec('client', qw/ ip -6 route replace default dev tun0 /);
}

sub reload {
	my ($self, $conf) = @_;

	$self->write_conf($conf) if defined $conf;
	kill 'HUP', $self->pid();
}

sub pid {
	my ($self) = @_;
	my $pid = slurp("$self->{dir}/logs/nginx.pid");
	return $pid =~ /(\d+)/ ? $1 : undef;
}

sub workers {
	my ($self) = @_;
	my $pid = $self->pid() or return;
	return split ' ', slurp("/proc/$pid/task/$pid/children");
}

# resident memory of a process or of the first worker, in KB

sub rss {
	my ($self, $pid) = @_;
	($pid) = $self->workers() unless $pid;
	return slurp("/proc/$pid/status") =~ /VmRSS:\s+(\d+)/ ? $1 : undef;
}

sub stop {
	my ($self, $signal, $timeout) = @_;

	my $pid = $self->pid() or return 1;

	kill $signal || 'TERM', $pid;

	return wait_for($timeout || 10, sub { !alive($pid) })
		|| (kill('KILL', $pid) && 0);
}

# a process that has ended may wait for its parent yet

sub alive {
	my ($pid) = @_;
	return slurp("/proc/$pid/stat") =~ /\) [^ZX]/;
}

sub wait_for {
	my ($timeout, $sub) = @_;

	my $end = time() + $timeout;

	while (time() < $end) {
		my $rc = $sub->();
		return $rc if $rc;
		sleep(0.02);
	}

	return $sub->();
}

sub wait_for_log {
	my ($self, $re, $file, $timeout) = @_;
	return wait_for($timeout || 5, sub {
		return slurp("$self->{dir}/logs/" . ($file || 'error.log'))
			=~ $re;
	});
}

sub error_log { slurp($_[0]{dir} . '/logs/error.log') }

sub access_log {
	my ($self, $file) = @_;
	return split /\n/, slurp("$self->{dir}/logs/" . ($file || 'access.log'));
}

# the stack that devices have, where a test does not say

sub stack { $ENV{TUN_STACK} ? (split ' ', $ENV{TUN_STACK})[0] : 'lwip' }

# the kernel answers first: it resets what lwIP refuses

sub refused {
	my ($got) = @_;

	return $got if stack() ne 'system';
	return $got =~ /^(connected|.*reset by peer| RST|)$/ ? 'refused' : $got;
}

# a core message that a test provokes on purpose

sub allow_alert {
	my ($self, $re) = @_;
	push @{ $self->{alerts} }, $re;
}

# an nginx that serves files of www/ in the namespace of servers

sub origin {
	my ($self) = @_;

	my $dir = $self->{dir};

	spew("$dir/origin.conf", <<EOF);
user root;
error_log $dir/logs/origin.log;
pid $dir/logs/origin.pid;
worker_rlimit_nofile 20000;
events { worker_connections 8192; }
http {
    access_log off;
    client_body_temp_path $dir/body;
    server {
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        root $dir/www;
    }
}
EOF
	spew("$dir/www/index.html", "SEE-THIS\n");

	$self->system(qw/ ip netns exec /, $self->{nets}{server},
		'/usr/sbin/nginx', '-p', $dir, '-c', "$dir/origin.conf",
		'-e', "$dir/logs/origin.log");
}

# what iperf3 measures between client and server: its JSON

sub iperf {
	my ($self, $host, @args) = @_;

	if (!$self->{iperf}) {
		$self->{iperf} = $self->program('server', qw/ iperf3 -s /);
		wait_for(5, sub { $self->in('server',
			sub { connect_to('::1', 5201) ? 1 : 0 }) });
	}

	# it serves one at a time, and may still be busy with the last

	my $json;

	wait_for(5, sub {
		my (undef, $out) = $self->exec('client', \60, qw/ iperf3 -J -c /,
			$host, @args);
		$json = eval { decode_json($out) } || { error => $out };
		return ($json->{error} // '') !~ /busy/;
	});

	return $json;
}

# files

sub spew {
	my ($file, $data) = @_;
	open(my $fh, '>', $file) or die "$file: $!";
	print $fh $data;
	close $fh;
}

sub slurp {
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	local $/;
	return scalar(<$fh>) // '';
}

# the end

sub done {
	my ($self) = @_;

	$self->finish();
	done_testing();
}

sub finish {
	my ($self, $name) = @_;

	$name = defined $name ? ", $name" : '';

	ok($self->stop(), "nginx ends$name");
	is(join(' ', $self->devices()), '', "no device left$name");

	my @bad = grep {
		my $line = $_;
		!grep { $line =~ $_ } @{ $self->{alerts} };
	} grep {
		/\[(alert|crit|emerg)\]|Sanitizer|runtime error:/
			|| /exited on signal/
	} split /\n/, $self->error_log();

	is(join("\n", @bad), '', "no alerts, no sanitizer reports$name");

	$self->cleanup();

	is(join("\n", $self->left()), '', "nothing left$name");
}

sub devices {
	my ($self) = @_;

	return map {
		my $ns = $_;
		my $links = $self->ip($ns, qw/ -o link show type tun /);
		map { "$_ in $ns" } $links =~ /^\d+: ([^:@]+)/mg;
	} sort keys %{ $self->{nets} };
}

# namespaces, files, and processes: those in a namespace, even if it has no
# name any more, and those with the test's directory in their arguments

sub left {
	my ($self) = @_;

	my @left = grep { -e } map { "/run/netns/$_" } values %{ $self->{nets} };
	push @left, $self->{dir} if -e $self->{dir} && !$ENV{TUN_TEST_LEAVE};

	for my $proc (grep { $_ ne "/proc/$$" } glob("/proc/[0-9]*")) {
		next unless $proc =~ m{/(\d+)$} && alive($1);
		my $inode = (stat "$proc/ns/net")[1] // 0;
		my $cmd = slurp("$proc/cmdline") =~ tr/\0/ /r;

		push @left, "$proc $cmd" if $self->{inodes}{$inode}
			|| index($cmd, $self->{dir}) >= 0;
	}

	return @left;
}

sub cleanup {
	my ($self) = @_;

	return if $$ != $self->{pid} || $self->{clean}++;

	# another signal must not leave half of it

	local @SIG{qw/ INT TERM HUP PIPE /} = ('IGNORE') x 4;

	$self->stop();

	my $origin = slurp("$self->{dir}/logs/origin.pid");
	kill 'TERM', $1 if $origin =~ /(\d+)/;

	$self->kill_daemon($_) for keys %{ $self->{daemons} };

	# processes of daemons that outlived them

	for my $ns (values %{ $self->{nets} }) {
		my (undef, $pids) = $self->run_cmd(5, qw/ ip netns pids /, $ns);
		my @pids = $pids =~ /^(\d+)$/mg;
		kill 'KILL', @pids;
		wait_for(5, sub { !grep { alive($_) } @pids });
		$self->run_cmd(5, qw/ ip netns del /, $ns);
	}

	remove_tree($self->{dir}) unless $ENV{TUN_TEST_LEAVE};
}

END {
	my $status = $?;
	$self->cleanup() if $self;
	$? = $status;
}

1;
