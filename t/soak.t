#!/usr/bin/perl

# (C) the nginx-tun authors

# A long run of all there is at once: new connections, bulk, UDP, DNS, reloads
# and upstreams that fail, every byte checked.  SOAK_SECONDS says how long, and
# a line each 10 seconds what it takes.  Reloads are in the first half, where
# the master must not grow; in the second one the same workers stay.

use warnings;
use strict;

use JSON::PP;
use List::Util qw/ max sum0 /;
use Net::DNS;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

my $seconds = $ENV{SOAK_SECONDS} || 12;
my $step = $seconds < 60 ? 1 : 10;
my $names = 200;

my $t = Test::Tun->new();

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

stream {
    tun_fakeip_zone names:1m 198.18.0.0/22 fd00:198:18::/64;

    upstream pool {
        zone pool 64k;
        server 10.1.0.2:9002 max_fails=1 fail_timeout=1s;
        server 10.1.0.2:9003 backup;
    }

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
        udp_timeout 2s;
    }

    proxy_timeout 10s;

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :7000;
        proxy_pass pool;
        proxy_connect_timeout 1s;
    }

    server {
        tun_listen tun0 udp;
        proxy_pass $tun_target;
        proxy_timeout 2s;
    }

    server {
        tun_listen tun0 udp :9011;
        tun_udp_relay on;
    }

    server {
        tun_listen tun0 udp :53;
        tun_dns names;
    }
}

http {
    access_log off;

    server {
        listen 127.0.0.1:8080;
        location / { tun_status; }
    }
}
EOC

# servers: what comes is sent back

$t->server($_, \&echo) for 9000, 9002, 9003;
$t->udp_server($_, sub { $_[1] }) for 9010, 9011;

# one of the pool refuses new connections at times; those it has go on

refuse('add table inet soak');
refuse('add chain inet soak input { type filter hook input priority 0 ; }');

$t->run($conf);

my $stop = "$t->{dir}/stop";
my $start = time();

my @jobs = map { [ $_->[0], $t->start('client', @$_[1 .. $#$_]) ] } (
	[ connections => \&connections, 9000, undef ],
	[ connections => \&connections, 9000, undef ],
	[ pool => \&connections, 7000, '192.0.2.1' ],
	[ bulk => \&bulk, 0 ],
	[ bulk => \&bulk, 1 ],
	[ udp => \&udp, 9010 ],
	[ relay => \&udp, 9011 ],
	[ dns => \&dns ],
);

my (@rows, $refuses);
my ($reloads, $failures, $next) = (0, 0, $start + $step);

while (time() < $start + $seconds) {

	# one second of three

	if ((time() - $start) % 3 < 2) {
		refuse('flush chain inet soak input') if $refuses;
		$refuses = 0;

	} elsif (!$refuses) {
		refuse('add rule inet soak input tcp dport 9002 '
			. 'tcp flags & (syn | ack) == syn reject with tcp reset');
		$refuses = 1;
		$failures++;
	}

	if (time() - $start < $seconds / 2) {
		if ((time() - $start) / 2 > $reloads + 1) {
			$t->reload();
			$reloads++;
		}
	}

	if (time() >= $next) {
		push @rows, row();
		$next += $step;
	}

	sleep(0.1);
}

Test::Tun::spew($stop, '');

for my $job (@jobs) {
	my ($name, $job) = @$job;
	my ($n, @errors) = $t->wait($job);

	is(join("\n", @errors[0 .. ($#errors < 9 ? $#errors : 9)]), '',
		"$name, $n checked");
	cmp_ok($n, '>', $seconds / 2, "$name went on");
}

cmp_ok($reloads, '>=', 2, "$reloads reloads");
cmp_ok($failures, '>=', 2, "$failures failures of an upstream");

ok(Test::Tun::wait_for(30, sub {
	my $total = status()->{tun}[0]{total};
	return !grep { $total->{$_} } qw/ active udp_active pending half_open
		reassembling /;
}), 'no flow is left') or diag(explain(status()->{tun}[0]{total}));

ok(Test::Tun::wait_for(20, sub { $t->workers() == 2 }), 'two workers');
is(status()->{fakeip}[0]{names}, $names, 'names');

# growth: the master over reloads, then workers that are the same

my @first = grep { $_->{at} < $seconds / 2 } @rows;
my @second = grep { $_->{at} > $seconds / 2 + 1.5 } @rows;
shift @second if @second > 3;

grows('master_rss', 2048, @first);

# and two for each worker that there was at the same time

my ($most) = sort { $b <=> $a } map { $_->{workers} } @rows;
grows('master_fds', 4 + 2 * $most, @first);

grows('rss', 6144, @second);
grows('fds', 40, @second);

$t->done();


# the larger half of what was seen, at the end and at first

sub grows {
	my ($name, $most, @rows) = @_;

	my $third = int((@rows + 2) / 3);
	my $before = max(map { $_->{$name} } @rows[0 .. $third - 1]);
	my $after = max(map { $_->{$name} } @rows[-$third .. -1]);

	cmp_ok($after, '<=', $before * 1.1 + $most, "$name, from $before");
}


sub row {
	my $master = $t->pid();
	my @workers = $t->workers();
	my $status = status();
	my $device = $status->{tun}[0];

	my %row = (
		at => time() - $start,
		master_rss => rss($master),
		master_fds => fds($master),
		workers => scalar @workers,
		rss => sum0(map { rss($_) } @workers),
		fds => sum0(map { fds($_) } @workers),
		flows => $device->{total}{active},
		udp => $device->{total}{udp_active},
		slots => $device->{nat_used_ipv4} + $device->{nat_used_ipv6},
		names => $status->{fakeip}[0]{names},
		alerts => scalar(() = $t->error_log() =~ /\[(?:alert|emerg|crit)\]/g),
	);

	note(join ' ', sprintf('%4d s', $row{at}), map { "$_=$row{$_}" }
		qw/ master_rss master_fds workers rss fds flows udp slots names
		alerts /);

	return \%row;
}


sub refuse {
	my ($rc, $out) = $t->exec('server', 'nft', @_);
	is($rc, 0, "nft: $out") if $rc;
}


sub rss { return Test::Tun::slurp("/proc/$_[0]/status") =~ /VmRSS:\s+(\d+)/ ? $1 : 0 }


sub fds { return scalar(() = glob("/proc/$_[0]/fd/*")) }


sub status {
	my (undef, $json) = $t->exec('gateway', qw{ curl -sS
		--retry 3 --retry-connrefused http://127.0.0.1:8080/ });
	return decode_json($json);
}


sub echo {
	my ($s) = @_;
	while (sysread($s, my $buf, 65536)) {
		Test::Tun::write_all($s, $buf);
	}
}


# a flow for each round, of both families

sub connections {
	my ($port, $host) = @_;
	my ($n, @errors) = (0);

	until (-e $stop) {
		my $to = $host
			|| $Test::Tun::FAMILIES[$n % @Test::Tun::FAMILIES]{server};
		my $error = talk($to, $port, "$$ $n", 1 + $n * 977 % 30000, 1);
		push @errors, "round $n to $to: $error" if $error;
		last if @errors > 9;
		$n++;
		sleep(0.02);
	}

	return ($n, @errors);
}


# one flow for some seconds

sub bulk {
	my ($family) = @_;
	my ($n, @errors) = (0);
	my $to = $Test::Tun::FAMILIES[$family]{server};

	until (-e $stop) {
		my $error = talk($to, 9000, "$$ $n", 300_000, 8);
		push @errors, "round $n to $to: $error" if $error;
		last if @errors > 9;
		$n++;
	}

	return ($n * 8, @errors);
}


sub talk {
	my ($host, $port, $seed, $size, $rounds) = @_;

	my $s = Test::Tun::connect_to($host, $port) or return "connect: $@";

	for my $i (1 .. $rounds) {
		my $data = Test::Tun::bytes("$seed $i", $size);
		Test::Tun::write_all($s, $data);

		my $got = '';
		while (length $got < $size) {
			sysread($s, $got, 65536, length $got)
				or return "closed after " . length($got) . ": $!";
		}

		return 'differs' if $got ne $data;
		sleep(0.1) if $rounds > 1;
	}

	return '';
}


# a datagram may be lost, three are not

sub udp {
	my ($port) = @_;
	my ($n, @errors, @sockets) = (0);

	until (-e $stop) {
		my $family = $Test::Tun::FAMILIES[$n % @Test::Tun::FAMILIES];
		my $s = $sockets[$n % 8] ||= Test::Tun::udp_to($family->{server}, $port);
		my $data = Test::Tun::bytes("$$ $n", 1 + $n * 37 % 1400);
		my $got;

		for (1 .. 3) {
			send($s, $data, 0);
			$got = Test::Tun::udp_recv($s, 1);
			$got = Test::Tun::udp_recv($s, 1)
				while defined $got && $got ne $data;
			last if defined $got;
		}

		push @errors, "datagram $n to $family->{server}"
			unless defined $got;
		last if @errors > 9;

		$n++;
		undef $sockets[$n % 8] if $n % 40 == 0;
		sleep(0.02);
	}

	return ($n, @errors);
}


# a name keeps its addresses, and no other name has them

sub dns {
	my ($n, @errors, %name, %address) = (0);

	my $resolver = Net::DNS::Resolver->new(nameservers => [ '198.18.0.2' ],
		udp_timeout => 1, retry => 3, retrans => 1, recurse => 1);

	until (-e $stop && $n >= 2 * $names) {
		my $name = 'name' . $n % $names . '.example';
		my $type = $n / $names % 2 ? 'AAAA' : 'A';

		my $answer = $resolver->query($name, $type);
		my ($address) = map { $_->address() } $answer ? $answer->answer() : ();

		if (!defined $address) {
			push @errors, "$name $type: " . $resolver->errorstring();

		} elsif (($address{"$name $type"} ||= $address) ne $address
			|| ($name{$address} ||= $name) ne $name)
		{
			push @errors, "$name $type: $address";
		}

		last if @errors > 9;
		$n++;
		sleep(0.01);
	}

	return ($n, @errors);
}
