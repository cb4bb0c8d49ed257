#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for a device that is taken away, shut down or changed under nginx.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();
my $dir = $t->{dir};

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        stack   STACK;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :80;
        return ok;
    }
}
EOF

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

sub talk {
	my ($host) = @_;

	local $SIG{ALRM} = sub { die "timed out\n" };
	local $SIG{PIPE} = 'IGNORE';
	alarm(20);

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";
	my $i = 0;

	while (!-e "$dir/end") {
		my $data = Test::Tun::bytes($i++, 20000);
		Test::Tun::write_all($s, $data) == 20000 or return "write: $!";

		my $got = '';
		while (length $got < length $data) {
			sysread($s, $got, 65536, length $got)
				or return "read: $!";
		}

		return 'differs' if $got ne $data;
		sleep(0.05);
	}

	return 'ok';
}

sub jobs {
	unlink "$dir/end";
	return map { my $f = $_;
		map { $t->start('client', \&talk, $f->{server}) } 1 .. 3
	} @Test::Tun::FAMILIES;
}

sub results {
	Test::Tun::spew("$dir/end", '');
	return join ' ', grep { $_ ne 'ok' }
		map { scalar $t->wait($_, 6) // '' } @_;
}

sub ask {
	my ($ns) = @_;

	return $t->in($ns || 'client', sub {
		my $s = Test::Tun::connect_to('192.0.2.1', 80, Timeout => 2)
			or return "$@";
		return scalar Test::Tun::read_all($s);
	});
}

# of all workers, in ticks of 10 ms

sub ticks {
	my $n = 0;

	for my $pid ($t->workers()) {
		my @f = split ' ', Test::Tun::slurp("/proc/$pid/stat")
			=~ s/.*\) //r;
		$n += $f[11] + $f[12];
	}

	return $n;
}

sub idle {
	my ($name) = @_;

	my $ticks = ticks();
	sleep(1);
	cmp_ok(ticks() - $ticks, '<', 20, "no spinning, $name");
}

sub lines {
	my ($re) = @_;
	return scalar(() = $t->error_log() =~ /$re/g);
}

for my $stack (delete $ENV{TUN_STACK} || qw/ lwip system /) {

	Test::Tun::spew("$dir/logs/error.log", '');
	$t->run($conf =~ s/STACK/$stack/r);

	my @workers = $t->workers();

	# another MTU, smaller and larger

	my @jobs = jobs();

	for my $mtu (1300, 9000, 1500) {
		sleep(0.3);
		$t->ip('client', qw/ link set tun0 mtu /, $mtu);
	}

	sleep(0.3);
	is(results(@jobs), '', "flows go on with another MTU, $stack");
	is(ask(), 'ok', "serves, $stack");

	# down for a second: what is lost is sent again

	$t->ip('client', qw/ link set tun0 down /);
	idle("down, $stack");
	$t->ip('client', qw/ link set tun0 up /);
	$t->ip('client', qw/ -6 addr replace fd00:198:18::1\/64 dev tun0 nodad /);
	$t->routes();

	ok(Test::Tun::wait_for(5, sub { ask() eq 'ok' }),
		"serves when it is up again, $stack");
	cmp_ok(lines(qr/\[(?:warn|error|alert|crit)\]/), '<=', 2,
		"a line of each worker at most, $stack");

	# deleted: flows end, and a reload makes it again

	@jobs = jobs();
	sleep(0.3);
	$t->ip('client', qw/ link del tun0 /);
	idle("deleted, $stack");
	Test::Tun::spew("$dir/end", '');

	is(lines(qr/interface was deleted/), 2, "a line of each worker, $stack");
	is(join(' ', $t->workers()), "@workers", "nobody died, $stack");

	$t->{daemons}{$_->{pid}} && kill('KILL', $_->{pid}) for @jobs;
	$t->wait($_, 1) for @jobs;

	$t->reload();
	ok(Test::Tun::wait_for(5, sub {
		$t->routes();
		return ask() eq 'ok';
	}), "serves after a reload, $stack");

	ok($t->stop(), "stop, $stack");
	is(join(' ', $t->devices()), '', "no device, $stack");

	# the network namespace loses its name, and lives on with the device; then
	# there is another one of that name

	$t->netns('other');
	Test::Tun::spew("$dir/logs/error.log", '');
	$t->run($conf =~ s/STACK/$stack/r =~ s/%%NETNS%%/$t->ns('other')/er);
	other_routes();

	unlink "$dir/end";
	@jobs = map { $t->start('other', \&talk, $_->{server}) }
		@Test::Tun::FAMILIES;
	sleep(0.3);

	my $file = '/run/netns/' . $t->ns('other');
	$t->system('ip', 'netns', 'del', $t->ns('other'));

	idle("no namespace, $stack");
	is(lines(qr/\[(?:warn|error|alert|crit|emerg)\]/), 0, "no line, $stack");

	@workers = $t->workers();
	$t->reload();
	ok($t->wait_for_log(qr/\[emerg\].* open\("\Q$file\E"\)/),
		"a reload cannot find it, $stack");
	sleep(0.3);
	is(lines(qr/\[emerg\]/), 1, "one line, $stack");
	is(join(' ', $t->workers()), "@workers", "the old ones stay, $stack");
	is(results(@jobs), '', "and flows go on, $stack");

	$t->netns('other');
	$t->reload();

	ok(Test::Tun::wait_for(5, sub { other_routes(); ask('other') eq 'ok' }),
		"serves in another one of that name, $stack");

	ok($t->stop(), "stop, other, $stack");
	is(join(' ', $t->devices()), '', "no device, other, $stack");
	$t->system('ip', 'netns', 'del', delete $t->{nets}{other});
}

$t->allow_alert(qr/\[emerg\].* of the network namespace failed/);
$t->done();


sub other_routes {
	$t->exec('other', 'ip', $_, qw/ route replace default dev tun0 /)
		for '-4', '-6';
}
