#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for writes that the device refuses: it has room for one packet, as
# TUNSETSNDBUF says, and that one waits for another processor.

use warnings;
use strict;

use JSON::PP;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

use constant {
	SYS_PIDFD_OPEN => 434, SYS_PIDFD_GETFD => 438,
	TUNSETSNDBUF => 0x400454d4, INT_MAX => 0x7fffffff,
};

my $t = Test::Tun->new(forward => 1);

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        stack   STACK;
    }

    server {
        tun_listen tun0;
        tun_listen tun0 udp;
        proxy_pass $tun_target;
    }
}

http {
    access_log off;

    server {
        listen 127.0.0.1:8099;
        location / { tun_status; }
    }
}
EOF

$t->server(9000, sub {
	my ($s) = @_;
	sysread($s, my $buf, 100);
	Test::Tun::write_all($s, Test::Tun::bytes(1, 3000000));
});

$t->udp_server(9001, sub { $_[1] });

sub download {
	my ($host) = @_;

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";
	Test::Tun::write_all($s, 'x');
	my $got = Test::Tun::read_all($s) // '';

	return $got eq Test::Tun::bytes(1, 3000000) ? 'same'
		: length($got) . ' bytes';
}

sub echo {
	my ($host) = @_;

	my $s = Test::Tun::udp_to($host, 9001) or return "udp: $@";
	send($s, 'hello', 0);

	return Test::Tun::udp_recv($s, 2) // 'nothing';
}

sub errors {
	my (undef, $json) = $t->exec('gateway',
		qw{ curl -sS http://127.0.0.1:8099/ });
	return decode_json($json)->{tun}[0]{total}{write_errors};
}

# of the queue of a worker, as another process that shares its descriptor

sub set_sndbuf {
	my ($size) = @_;

	my ($worker) = $t->workers();
	my ($fd) = grep { (readlink("/proc/$worker/fd/$_") // '')
		eq '/dev/net/tun' } map { m{(\d+)$} } glob("/proc/$worker/fd/*");

	my $pidfd = syscall(SYS_PIDFD_OPEN, $worker + 0, 0);
	my $tun = syscall(SYS_PIDFD_GETFD, $pidfd, $fd + 0, 0);
	die "pidfd_getfd: $!" if $pidfd < 0 || $tun < 0;

	open(my $fh, '+<&=', $tun) or die "open: $!";
	my $value = pack('i', $size);
	my $rc = ioctl($fh, TUNSETSNDBUF, $value) or die "TUNSETSNDBUF: $!";

	open($fh, '+<&=', $pidfd);
}

sub ticks {
	my ($worker) = $t->workers();
	my @f = split ' ', Test::Tun::slurp("/proc/$worker/stat") =~ s/.*\) //r;
	return $f[11] + $f[12];
}

for my $stack (delete $ENV{TUN_STACK} || qw/ lwip system /) {
	for my $family (@Test::Tun::FAMILIES) {
		my $name = "$stack, $family->{name}";

		$t->run($conf =~ s/STACK/$stack/r);

		$t->exec('gateway', 'sh', '-c', 'echo 3 >'
			. ' /sys/class/net/tun0/queues/rx-0/rps_cpus');

		is($t->in('client', \&download, $family->{server}), 'same',
			"as it is, $name");
		is(errors(), 0, "no error, $name");

		set_sndbuf(1);

		# whether one has to wait depends on the processor it is for

		my @bad;

		ok(Test::Tun::wait_for(20, sub {
			push @bad, grep { $_ ne 'same' }
				map { scalar $t->wait($_) // 'killed' }
				map { $t->start('client', \&download,
					$family->{server}) } 1 .. 3;
			return errors() > 0;
		}), "refused, $name");
		is("@bad", '', "what is refused is sent again, $name");

		my $ticks = ticks();
		sleep(1);
		cmp_ok(ticks() - $ticks, '<', 10, "no spinning, $name");

		set_sndbuf(INT_MAX);
		my $errors = errors();

		is($t->in('client', \&download, $family->{server}), 'same',
			"as before, $name");
		is($t->in('client', \&echo, $family->{server}), 'hello',
			"a datagram, $name");
		is(errors(), $errors, "no error again, $name");

		$t->stop();
	}
}

$t->done();
