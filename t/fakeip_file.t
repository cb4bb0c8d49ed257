#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for the file of a fake-IP zone: over restarts, kills, upgrades and
# reloads, when it is damaged, and where it cannot be had.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep /;

my $t = Test::Tun->new();
my $dir = $t->{dir};

sub conf {
	my ($stream) = @_;
	return <<EOF;
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    $stream

    server {
        tun_listen tun0;
        return "[\$tun_name]";
    }
}
EOF
}

my $zone = 'tun_fakeip_zone names:12m 198.18.0.0/15 fd00:198:18::/64';
my $host = 'tun_fakeip_host names shop.example 198.18.1.1;';
my $with = "$zone file=names;";
my $file = "$dir/names";
my $addr = '198.18.1.1';
my $addr6 = 'fd00:198:18::101';

sub ask {
	my ($addr) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::connect_to($addr, 80)
			or return $!{ECONNREFUSED} ? 'refused' : "$!";
		return scalar Test::Tun::read_all($s);
	});
}

sub workers_change {
	my ($conf) = @_;
	my $before = join ' ', $t->workers();
	$t->reload($conf);
	return Test::Tun::wait_for(5, sub {
		my ($now) = reverse sort { $a <=> $b } $t->workers();
		return $now && " $before " !~ / $now /;
	});
}

sub kill_all {
	my @pids = ($t->pid(), $t->workers());
	kill 'KILL', @pids;
	Test::Tun::wait_for(5, sub { !grep { Test::Tun::alive($_) } @pids });
	unlink "$dir/logs/nginx.pid";
	return Test::Tun::wait_for(5, sub { !$t->devices() });
}

my $named = '[shop.example]';

# made

$t->run(conf("$with $host tun_fakeip_host names "
	. ('a-rather-long-label.' x 8) . 'example 198.18.1.2;'));

is((stat $file)[2] & 07777, 0600, 'mode');
ok((stat $file)[12] * 512 >= 10 * 1024 * 1024, 'allocated');
is(ask($addr), $named, 'name');

workers_change(conf("$with $host"));
is(ask($addr), $named, 'reload');
ok($t->stop(), 'stop');

# found again

$t->run(conf($with));
is(ask($addr), $named, 'restart');
is(ask($addr6), $named, 'restart, IPv6');
like(ask('198.18.1.2'), qr/^\[(a-rather-long-label\.){8}example\]/,
	'restart, long name');
ok(kill_all(), 'killed');

$t->run(conf($with));
is(ask($addr), $named, 'after kill -9');

# a second nginx

my $second = $t->write_conf(conf($with) =~ s/tun0/tun1/gr
	=~ s{198\.18\.0\.1/15 fd00\S+}{10.9.0.1/24;}r, 'second.conf');
Test::Tun::spew($second, Test::Tun::slurp($second) =~ s/nginx\.pid/2.pid/r
	=~ s/error\.log/second.log/r);

my ($rc, $out) = $t->exec('gateway', $t->{nginx}, '-c', $second, '-p', $dir,
	'-e', 'stderr');
isnt($rc, 0, 'two nginx, fails');
like($out, qr/"[^"]*names" is in use by another process/, 'and says so');
is(ask($addr), $named, 'the first one serves');
is(($t->test_conf(conf($with)))[0], 0, 'a test of the configuration passes');

ok($t->stop(), 'stop');

# an upgrade of the binary has the file from the one before; the device of a
# running nginx is another matter

my $alone = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
env LD_PRELOAD;
env ASAN_OPTIONS;

stream {
    tun_fakeip_zone names:12m 198.18.0.0/15 fd00:198:18::/64 file=names;

    server {
        listen 127.0.0.1:7000;
        return ok;
    }
}
EOF

is(($t->try_run($alone))[0], 0, 'without a device');

my $old = $t->pid();
kill 'USR2', $old;

ok(Test::Tun::wait_for(5, sub {
	-e "$dir/logs/nginx.pid.oldbin" && $t->pid() && $t->pid() != $old
		&& $t->workers()
}), 'a new binary starts');

($rc, $out) = $t->exec('gateway', $t->{nginx}, '-c', $second, '-p', $dir,
	'-e', 'stderr');
isnt($rc, 0, 'another one fails');

kill 'QUIT', $old;
ok(Test::Tun::wait_for(10, sub { !Test::Tun::alive($old) }),
	'the old one ends');

($rc, $out) = $t->exec('gateway', $t->{nginx}, '-c', $second, '-p', $dir,
	'-e', 'stderr');
isnt($rc, 0, 'another one fails still');
like($out, qr/names" is in use by another process/, 'and says so');

ok($t->stop(), 'stop');

$t->run(conf($with));
is(ask($addr), $named, 'after an upgrade');
ok($t->stop(), 'stop');

# other prefixes and another size

$t->run(conf('tun_fakeip_zone names:16m 198.18.1.0/24 key=1 file=names;'));
is(ask($addr), $named, 'file of other prefixes');
cmp_ok((stat $file)[7], '>', 15 * 1024 * 1024, 'is a new file');
ok(!-e "$file.new", 'in the place of the old one');

workers_change(conf($with));
is(ask($addr), $named, 'and back with a reload');
cmp_ok((stat $file)[7], '<', 13 * 1024 * 1024, 'is a new file again');
workers_change(conf("$with $host"));
ok($t->stop(), 'stop');

# damage

my $good = Test::Tun::slurp($file);
my $at = index($good, "\4shop\7example\0");
cmp_ok($at, '>', 0, 'the name is in the file');

sub damaged {
	my ($name, $re, $answer, $sub) = @_;

	my $data = $good;
	$sub->($data) for $data;
	Test::Tun::spew($file, $data);

	my $before = length $t->error_log();
	$t->run(conf($with));
	is(ask($addr), $answer, $name);
	like(substr($t->error_log(), $before), $re, "$name, log") if $re;
	ok($t->stop(), "$name, stop");
}

for my $offset (-26, -10, -1, 2, 12) {
	damaged("damaged entry, $offset", qr/\[warn\].*1 damaged names of/,
		'refused', sub { substr($_, $at + $offset, 1) ^= "\x05" });
}

damaged('damaged elsewhere', undef, $named,
	sub { substr($_, -5) = 'xxxxx' });
damaged('damaged header', qr/\[warn\].*the header of .* is damaged/,
	'refused', sub { substr($_, 20, 1) ^= "\x05" });
damaged('truncated after the name', qr/\[warn\].*has \d+ bytes instead of/,
	$named, sub { substr($_, $at + 100) = '' });
damaged('truncated in the name', qr/\[warn\].*has \d+ bytes instead of/,
	'refused', sub { substr($_, $at + 3) = '' });
damaged('truncated in the header', qr/\[warn\].*header .* is damaged/,
	'refused', sub { substr($_, 30) = '' });
damaged('empty', undef, 'refused', sub { $_ = '' });
damaged('zeros', undef, 'refused', sub { $_ = "\0" x 100000 });

Test::Tun::spew($file, $good);

# a flow that lives holds its address, also one of a worker that is leaving:
# its time of use is in the entry, some bytes before the name

sub used {
	open(my $fh, '<:raw', $file) or return;
	seek($fh, $at - 30 + 16, 0);
	read($fh, my $data, 4);
	return unpack('V', $data);
}

$t->server(9000, sub {
	my ($s) = @_;
	while (sysread($s, my $buf, 1000)) {
		Test::Tun::write_all($s, $buf);
	}
});

my $short = "$zone ttl=1s hold=3s file=names;\n"
	. 'server { tun_listen tun0 :9000; proxy_pass 10.1.0.2:9000; }';

$t->run(conf($short));

my $job = $t->start('client', sub {
	my $s = Test::Tun::connect_to($addr6, 9000) or return "$!";
	sleep(5);
	Test::Tun::write_all($s, 'x');
	return sysread($s, my $buf, 10);
});

sleep(0.5);
my $used = used();
workers_change(conf($short));
sleep(3);
cmp_ok(used(), '>=', $used + 2, 'a flow holds its address');
is($t->wait($job), 1, 'a flow goes on');

sleep(1);
$used = used();
sleep(3);
is(used(), $used, 'and holds it no longer');
ok($t->stop(), 'stop');

Test::Tun::spew($file, $good);

# what is not taken, by nginx -t either

sub fails {
	my ($name, $re) = @_;

	$t->allow_alert($re);

	my ($rc, $out) = $t->test_conf(conf($with));
	isnt($rc, 0, "$name, test fails");
	like($out, $re, "$name, test says so");

	my $before = length $t->error_log();
	($rc) = $t->try_run(conf($with));
	isnt($rc, 0, "$name, fails");
	like(substr($t->error_log(), $before), $re, "$name, says so");

	$t->stop() unless $rc;
}

chown 65534, -1, $file;
fails('wrong owner', qr/names" is owned by uid 65534 instead of 0/);
chown 0, -1, $file;

chmod 0644, $file;
fails('wrong mode', qr/names" is accessible to others/);
chmod 0600, $file;

rename $file, "$file.real";
symlink "$file.real", $file;
fails('symbolic link', qr/names" is a symbolic link, which is not followed/);
unlink $file;
ok(Test::Tun::slurp("$file.real") eq $good, 'what it points to is unchanged');

link "$file.real", $file;
fails('two names', qr/names" is not a regular file of one name/);
unlink $file;

mkdir $file;
fails('directory', qr/names" (failed \(21|is not a regular file)/);
rmdir $file;

$t->system('mkfifo', '-m', '600', $file);
fails('pipe', qr/names" is not a regular file/);
unlink $file;

Test::Tun::spew($file, "127.0.0.1 localhost\n");
chmod 0600, $file;
fails('another file', qr/names" is not a file of fake-IP names/);
is(Test::Tun::slurp($file), "127.0.0.1 localhost\n", 'it is unchanged');
unlink $file;

# a full disk, and one that cannot be written

mkdir "$dir/small";

sub mounted {
	my ($options, @args) = @_;

	my $conf = $t->write_conf(conf("$zone file=small/names;"), 'small.conf');

	return $t->exec('gateway', qw/ unshare -m sh -c /,
		"mount -t tmpfs -o $options none $dir/small && "
		. '"$@" 2>&1; rc=$?; ls ' . "$dir/small; exit \$rc", 'sh',
		$t->{nginx}, '-c', $conf, '-p', $dir, '-e', 'stderr', @args);
}

$t->allow_alert(qr/cannot allocate|cannot be made in|\(30: Read-only/);

($rc, $out) = mounted('size=4m');
isnt($rc, 0, 'full disk, fails');
like($out . $t->error_log(),
	qr{cannot allocate \d+ bytes for "\S+/small/names" \(28: },
	'full disk, says so');
unlike($out, qr/^names$/m, 'full disk, leaves nothing');

($rc, $out) = mounted('ro');
isnt($rc, 0, 'read-only directory, fails');
like($out . $t->error_log(), qr{small/names" failed \(30: Read-only},
	'read-only directory, says so');

($rc, $out) = mounted('ro', '-t');
isnt($rc, 0, 'read-only directory, test fails');
like($out, qr{names" cannot be made in "\S*small" \(30: Read-only},
	'read-only directory, test says so');

# a reload that fails leaves names where they are

$t->allow_alert(qr/belongs to the interface "other0"/);
$t->ip('client', qw/ link add other0 type veth peer name other1 /);
$t->ip('client', qw{ addr add 203.0.113.1/24 dev other0 });

$t->run(conf("$with $host"));
$t->reload(conf('tun_fakeip_zone names:13m 198.18.1.0/24 file=names;')
	=~ s/address /address 203.0.113.1\/24 /r);
ok($t->wait_for_log(qr/address 203.0.113.1 belongs to the interface/),
	'reload fails');
is(ask($addr6), $named, 'reload fails, name');
ok(Test::Tun::wait_for(2, sub { !-e "$file.new" }),
	'reload fails, no file is left');
ok($t->stop(), 'stop');

$t->run(conf($with));
is(ask($addr), $named, 'and after a restart');

$t->done();
