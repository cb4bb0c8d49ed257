#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for upgrades of the binary, and for going back: flows, datagrams and
# DNS are served all the time.

use warnings;
use strict;

use Net::DNS;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

my $t = Test::Tun->new();
my $dir = $t->{dir};

# a copy, to be replaced as "make install" does it

my $built = $t->{module};
$t->{module} = "$dir/module.so";
replace_module();

sub replace_module {
	$t->system('cp', $built, "$dir/module.so.new");
	rename("$dir/module.so.new", "$dir/module.so") or die "rename: $!";
}

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes WORKERS;
env LD_PRELOAD;
env ASAN_OPTIONS;

stream {
    tun_fakeip_zone names:12m 198.18.0.0/15 fd00:198:18::/64 file=names;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        stack   STACK;
        route   global;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :80;
        return "N";
    }

    server {
        tun_listen tun0 udp :9001;
        proxy_pass $tun_target;
        proxy_timeout 2s;
    }

    server {
        tun_listen tun0 udp :53;
        tun_dns names;
    }
}
EOF

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
});

$t->udp_server(9001, sub { $_[1] });

# until a file says that it is enough: how often, or what went wrong

sub until_end { -e "$dir/end" }

sub talk {
	my ($host, $n) = @_;

	my $s = Test::Tun::connect_to($host, 9000) or return "connect: $@";
	my $i = 0;

	while (!until_end()) {
		my $data = Test::Tun::bytes("$n $i", 30000);
		Test::Tun::write_all($s, $data);

		my $got = '';
		while (length $got < length $data) {
			sysread($s, $got, 65536, length $got)
				or return "round $i: $!";
		}

		return "round $i differs" if $got ne $data;
		sleep(0.05);
		$i++;
	}

	return $i > 5 ? 'ok' : "$i rounds";
}

sub datagrams {
	my ($host) = @_;

	my $s = Test::Tun::udp_to($host, 9001) or return "udp: $@";
	my $i = 0;

	while (!until_end()) {
		send($s, "datagram $i", 0);
		my $got = Test::Tun::udp_recv($s, 1) // 'none';
		return "datagram $i: $got" if $got ne "datagram $i";
		sleep(0.02);
		$i++;
	}

	return $i > 5 ? 'ok' : "$i datagrams";
}

sub names {
	my ($host) = @_;

	my $s = Test::Tun::udp_to('198.18.0.2', 53) or return "udp: $@";
	my ($i, %seen) = (0);

	while (!until_end()) {
		my $query = Net::DNS::Packet->new('www.example.com', 'A');
		send($s, $query->data(), 0);
		my $got = Test::Tun::udp_recv($s, 1) // return "query $i: none";
		my ($rr) = Net::DNS::Packet->new(\$got)->answer();
		$seen{$rr ? $rr->address() : 'nothing'}++;
		sleep(0.02);
		$i++;
	}

	return "addresses: " . join(' ', %seen) if keys %seen != 1;
	return $i > 5 ? 'ok' : "$i queries";
}

sub connects {
	my ($host) = @_;

	my ($i, $gap) = (0, 0);

	while (!until_end()) {
		my $start = time();
		my $s = Test::Tun::connect_to($host, 80)
			or return "connect $i: $@";
		my $got = Test::Tun::read_all($s);
		return "connect $i: '$got'" if $got !~ /^\w+$/;
		$gap = time() - $start if time() - $start > $gap;
		sleep(0.02);
		$i++;
	}

	return "a gap of $gap s" if $gap > 2;
	return $i > 5 ? 'ok' : "$i connects";
}

sub jobs {
	unlink "$dir/end";

	return map { my $f = $_;
		(map { $t->start('client', \&talk, $f->{server}, $_) } 1 .. 5),
		map { $t->start('client', $_, $f->{server}) }
			\&datagrams, \&connects, \&names
	} @Test::Tun::FAMILIES;
}

sub results {
	Test::Tun::spew("$dir/end", '');
	return join "\n", grep { $_ ne 'ok' } map { scalar $t->wait($_, 5) // '' }
		@_;
}

sub ask {
	return $t->in('client', sub {
		my $s = Test::Tun::connect_to('192.0.2.1', 80) or return "$@";
		return scalar Test::Tun::read_all($s);
	});
}

sub conf {
	my ($stack, $workers, $answer) = @_;
	return $conf =~ s/STACK/$stack/r =~ s/WORKERS/$workers/r
		=~ s/"N"/"$answer"/r;
}

sub upgrade {
	my ($old) = @_;

	kill 'USR2', $old;

	return Test::Tun::wait_for(5, sub {
		my $pid = -e "$dir/logs/nginx.pid.oldbin" && $t->pid();
		return $pid && $pid != $old && $t->workers() ? $pid : 0;
	});
}

sub routes {
	my (undef, $out) = $t->exec('client', 'sh', '-c', 'ip rule; ip -6 rule;'
		. ' ip route show table all; ip -6 route show table all');
	return $out =~ s/ (used|expires|users|age) \w+//gr;
}

for my $stack (delete $ENV{TUN_STACK} || qw/ lwip system /) {

	$t->run(conf($stack, 2, 'old'));

	my $before = routes();

	my @jobs = jobs();
	sleep(0.5);

	my $old = $t->pid();
	$t->write_conf(conf($stack, 2, 'new'));

	ok(my $new = upgrade($old), "a new binary starts, $stack");

	kill 'WINCH', $old;

	ok(Test::Tun::wait_for(5, sub { ask() eq 'new' }),
		"new flows meet the new binary, $stack");

	sleep(0.5);
	kill 'QUIT', $old;
	sleep(0.5);

	is(results(@jobs), '', "nothing is lost, $stack");

	ok(Test::Tun::wait_for(10, sub { !Test::Tun::alive($old) }),
		"the old one ends, $stack");

	is(routes(), $before, "routes and rules stay, $stack");

	# a reload of it, and another upgrade

	@jobs = jobs();
	sleep(0.3);
	replace_module();
	$t->reload(conf($stack, 2, 'newer'));
	ok(Test::Tun::wait_for(5, sub { ask() eq 'newer' }),
		"reload of the new one, $stack");

	ok(upgrade($new), "another upgrade, $stack");
	kill 'QUIT', $new;
	sleep(0.5);

	is(results(@jobs), '', "nothing is lost again, $stack");

	ok(Test::Tun::wait_for(10, sub { !Test::Tun::alive($new) }),
		"and ends, $stack");

	ok($t->stop(), "stop, $stack");
	is(join(' ', $t->devices()), '', "no device, $stack");
}

# back to the old one: without an end of its workers, and after it

for my $case ([ 'lwip' ], [ 'system' ], [ 'lwip', 1 ], [ 'system', 1 ]) {
	my ($stack, $winch) = @$case;
	my $name = $stack . ($winch ? ', after WINCH' : '');

	$t->run(conf($stack, 2, 'old'));

	my $before = routes();
	my $old = $t->pid();
	$t->write_conf(conf($stack, 2, 'new'));

	my @jobs = jobs();
	sleep(0.3);

	ok(my $new = upgrade($old), "a new binary starts, $name");
	sleep(0.3);

	if ($winch) {
		kill 'WINCH', $old;
		ok(Test::Tun::wait_for(5, sub { ask() eq 'new' }),
			"new flows meet it, $name");
		kill 'HUP', $old;
		sleep(0.3);
	}

	kill 'QUIT', $new;

	ok(Test::Tun::wait_for(5, sub { !Test::Tun::alive($new) }),
		"the new one ends, $name");

	sleep(1);
	is(results(@jobs), '', "nothing is lost, $name");
	is(ask(), 'old', "the old one serves, $name");
	is(routes(), $before, "routes and rules stay, $name");

	ok($t->stop(), "stop, $name");
	is(join(' ', $t->devices()), '', "no device, $name");
}

# what no binary wrote, and descriptors of something else

for my $case (
	[ 'garbage', qr/NGX_TUN is not of a binary/ ],
	[ '1 tun0:1', qr/NGX_TUN is not of a binary/ ],
	[ '2 tun0:999999', qr/NGX_TUN is not of a binary/ ],
	[ '2 :1', qr/NGX_TUN is not of a binary/ ],
	[ '2 tun0:1,1,-1,-1,-1,0,0,0,1500,500,1', qr/NGX_TUN is not of/ ],
	[ '2 tun0:1,0,0,-1,-1,0,0,0,1500,500,1', qr/is no shared memory/ ],
	[ '2 tun0:1,1,-1,-1,-1,0,0,0,1500,500,0,1,2', qr/is no queue of/ ],
	[ '2 tun0:1,0,-1,-1,-1,0,0,0,1500,500,77', qr/is no queue of the/ ],
	[ '2 tun0:1,0,0,0,-1,0,0,0,1500,500,1', qr/no shared|named twice/ ])
{
	my ($value, $re) = @$case;

	my $file = $t->write_conf(conf('lwip', 1, 'old'));
	Test::Tun::spew("$dir/logs/error.log", '');

	my ($rc, $out) = $t->exec('gateway', 'env', "NGX_TUN=$value",
		$t->{nginx}, '-p', $dir, '-c', $file, '-e',
		"$dir/logs/error.log");

	is($rc, 0, "starts with '$value'") or diag($out);

	my @lines = $t->error_log() =~ /^.*NGX_TUN.*$/mg;
	is(scalar @lines, 1, 'one line');
	like("@lines", $re, 'and says why');

	$t->routes();
	is(ask(), 'old', 'and serves');
	$t->stop();
}

# the module is another file after an install, and the service has its drop-in

{
	local $ENV{DESTDIR} = "$dir/root";

	my ($rc, $out) = $t->run_cmd(10, 'misc/install', $built);
	is($rc, 0, 'install') or diag($out);

	my $file = (glob("$dir/root/usr/*/nginx/modules/*tun*.so"))[0];
	my $inode = (stat $file)[1];
	my $unit = "$dir/root/etc/systemd/system/nginx.service.d/tun.conf";

	open(my $held, '<', $file) or die "$file: $!";
	is(($t->run_cmd(10, 'misc/install', $built))[0], 0, 'and again');
	isnt((stat $file)[1], $inode, 'a new file');

	my $text = Test::Tun::slurp($unit);
	like($text, qr/^\[Service\]$/m, 'a section');
	like($text, qr/^LimitNOFILE=\d{5,}$/m, 'descriptors');

	my ($stop) = $text =~ /^TimeoutStopSec=(\d+)$/m;
	my ($quit) = $text =~ m{^ExecStop=.*QUIT/(\d+)}m;
	cmp_ok($stop, '>', $quit, 'time to stop');

	$t->run_cmd(10, 'misc/install', '--remove');
	ok(!-e $file && !-e $unit, 'removed');
}

$t->done();
