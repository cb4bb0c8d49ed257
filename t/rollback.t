#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for several devices of which one cannot be had: the others are left as
# they were, at a start and at a reload.  And for what needs no device at all.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        mtu     1400;
        netns   %%NETNS%%;
    }

    SECOND

    server {
        tun_listen tun0;
        return "ANSWER";
    }
}
EOC

sub conf { $conf =~ s/SECOND/$_[0]/r =~ s/ANSWER/$_[1] || 'first'/er }

my $second = 'tun tun1 { address ADDRESS; netns %%NETNS%%; }';
my $good = $second =~ s/ADDRESS/198.22.0.1\/15/r;
my $bad = $second =~ s/ADDRESS/203.0.113.1\/24/r;

$t->ip('client', qw/ link add other0 type veth peer name other1 /);
$t->ip('client', qw{ addr add 203.0.113.1/24 dev other0 });
$t->allow_alert(qr/address 203.0.113.1 belongs to the interface "other0"/);

my $before = state();

# a start

my ($rc) = $t->try_run(conf($bad));
isnt($rc, 0, 'second device, fails');
is(state(), $before, 'second device, nothing left');

# a start with a persistent device before the one that fails

$t->ip('client', qw/ tuntap add dev tun0 mode tun user 12345 /);
$t->ip('client', qw/ link set tun0 mtu 1234 /);
$t->ip('client', qw{ addr add 198.30.0.1/24 dev tun0 });

my $persistent = state();

($rc) = $t->try_run(conf($bad));
isnt($rc, 0, 'persistent and second, fails');
is(state(), $persistent, 'persistent, as it was');

$t->ip('client', qw/ tuntap del dev tun0 mode tun /);
is(state(), $before, 'as in the beginning');

# reloads

$t->run(conf(''));
is(answer(), 'first', 'serves');

my $running = state();

$t->reload(conf($bad, 'second'));
ok($t->wait_for_log(qr/address 203.0.113.1 belongs/), 'reload, says so');
becomes($running, 'reload, nothing left');
is(answer(), 'first', 'reload, the old configuration serves');

# one that can be had, and one that cannot, in either order

my $third = ($good =~ s/tun1/tun2/r) . "\n" . $bad;

for my $more ($third, join "\n", reverse split /\n/, $third) {
	my $n = () = $t->error_log() =~ /203.0.113.1 belongs/g;

	$t->reload(conf($more, 'second'));
	ok(Test::Tun::wait_for(5, sub {
		$n < (() = $t->error_log() =~ /203.0.113.1 belongs/g)
	}), 'reload with a good one, says so');
	becomes($running, 'reload with a good one, nothing left');
	is(answer(), 'first', 'reload with a good one, serves');
}

$t->reload(conf($good, 'second'));
ok(Test::Tun::wait_for(5, sub { answer() eq 'second' }), 'and then it works');
like(state(), qr{tun1 .*198\.22\.0\.1/15}, 'two devices');

$t->reload(conf('', 'third'));
ok(Test::Tun::wait_for(5, sub { answer() eq 'third' }), 'without the second');
ok(Test::Tun::wait_for(5, sub { state() !~ /tun1/ }), 'it is gone');

# a test and a signal need neither the driver nor a privilege

sub poor {
	my (@args) = @_;

	my $file = $t->write_conf(conf($good, 'third'), 'poor.conf');

	return $t->exec('gateway', qw/ unshare -m sh -c /,
		'mount -t tmpfs none /dev/net && exec setpriv '
		. '--bounding-set -net_admin,-sys_admin '
		. '--inh-caps -net_admin,-sys_admin "$@"', 'sh',
		$t->{nginx}, '-p', $t->{dir}, '-c', $file, '-e', 'stderr',
		@args);
}

my ($code, $out) = poor('-t');
is($code, 0, 'test without a device') or diag($out);

my @workers = $t->workers();
($code, $out) = poor('-s', 'reload');
is($code, 0, 'signal without a device') or diag($out);
ok(Test::Tun::wait_for(5, sub { my @now = $t->workers();
	@now == 1 && "@now" ne "@workers" }), 'is heard');
is(answer(), 'third', 'and serves');

($code, $out) = poor('-s', 'quit');
is($code, 0, 'quit') or diag($out);
ok(Test::Tun::wait_for(5, sub { !$t->pid() }), 'has ended');
is(state(), $before, 'at the end, as in the beginning');

$t->done();

# interfaces, flags, MTUs and addresses; no index, no carrier, no lifetime

sub state {
	my $links = $t->ip('client', qw/ -o link /);
	my $addr = $t->ip('client', qw/ -o addr /);
	my %state;

	while ($links =~ /^\d+: ([^:@\s]+)\S* <(\S+)> mtu (\d+)/mg) {
		my ($name, $flags, $mtu) = ($1, $2, $3);
		$state{$name} = join(' ', $name, $flags =~ /\bUP\b/ ? 'up' : '',
			$mtu);
	}

	for (sort $addr =~ /^\d+: (\S+\s+inet6? \S+)/mg) {
		my ($name, undef, $address) = split ' ';
		$state{$name} .= " $address" unless $address =~ /^fe80/;
	}

	return join "\n", map { $state{$_} } sort keys %state;
}

# the error is logged first, and then undone what was done

sub becomes {
	my ($expected, $name) = @_;
	Test::Tun::wait_for(2, sub { state() eq $expected });
	is(state(), $expected, $name);
}

sub answer {
	return $t->in('client', sub {
		system('ip route replace default dev tun0');
		my $s = Test::Tun::connect_to('192.0.2.1', 80) or return "$@";
		return scalar Test::Tun::read_all($s);
	});
}
