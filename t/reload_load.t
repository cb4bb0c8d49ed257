#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for reloads under load, about one a second, with both stacks at once:
# flows whose every byte is compared, new ones all the time, datagrams by
# proxy_pass and by a relay, names and flows to them.  The number of workers,
# addresses, limits and servers change meanwhile, and some configurations
# cannot be applied.
#
# TUN_RELOADS says how many, then with 1 worker, with 2, and in turn.

use warnings;
use strict;

use Errno qw/ EAGAIN EINTR /;
use IO::Select;
use List::Util qw/ max uniq /;
use Net::DNS;
use Socket qw/ getnameinfo NI_NUMERICHOST NI_NUMERICSERV MSG_DONTWAIT
	SOCK_DGRAM /;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

use constant {
	FLOWS => 25,		# of each family and stack, that last all the time
	RATE => 30_000,		# bytes a second of each
	SLOW => 6_000,		# of one more each second, so that all drain
	BEHIND => 100_000,	# bytes that may be on their way
	STALL => 5,		# seconds that a flow may stand still
	LATE => 0.2,		# seconds of a far server
	GAP => 1,		# seconds from one answer to the next
	NAMES => 100,
	PATTERN => 199_999,	# its period is no multiple of any buffer
};

# number of workers: one from each to each, or as the issue is

my @plans = $ENV{TUN_RELOADS}
	? ([ 1 ], [ 2 ], [ 1, 2 ]) : ([ 1, 1, 2, 2 ]);
my $reloads = $ENV{TUN_RELOADS} || 8;

delete $ENV{TUN_STACK};

my $t = Test::Tun->new();
my $dir = $t->{dir};
my $stop = "$dir/stop";

my @nets = ({ ns => 'client', stack => 'lwip' },
	{ ns => 'client2', stack => 'system' });

$t->netns('client2');

# an address that no device may have

$t->ip($_->{ns}, qw/ addr add 192.0.2.77 dev lo /) for @nets;

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%
worker_processes <workers>;

stream {
    tun_fakeip_zone names:12m 198.18.0.0/15 fd00:198:18::/64;
    <devices>

    server {
        tun_listen lwip;
        tun_listen system;
        proxy_pass $tun_target;
        proxy_half_close on;
    }

    server {
        tun_listen lwip :80;
        tun_listen system :80;
        return "answer <n> $tun_host";
    }

    server {
        tun_listen lwip udp :9001;
        tun_listen system udp :9001;
        tun_listen lwip udp :9003;
        tun_listen system udp :9003;
        proxy_pass $tun_target;
        proxy_timeout 30s;
    }

    server {
        tun_listen lwip udp :9002;
        tun_listen system udp :9002;
        tun_udp_relay on;
    }

    server {
        tun_listen lwip udp :53;
        tun_listen system udp :53;
        tun_dns names;
    }

    <server>
}
EOF

sub conf {
	my ($i, $plan, $address) = @_;

	my $more = $address || ($i % 3 ? '' : '198.51.100.1/24 2001:db8:51::1/64');
	my $limit = 1000 + $i;

	my %values = (
		n => $i,
		workers => $plan->[$i % @$plan],
		server => $i % 2 ? 'server { tun_listen lwip :81; return x; }' : '',
		devices => join("\n", map { <<EOF } @nets)
    tun $_->{stack} {
        address     198.18.0.1/15 fd00:198:18::1/64 $more;
        netns       @{[ $t->ns($_->{ns}) ]};
        stack       $_->{stack};
        route       global;
        udp_timeout 4s;
        max_flows   $limit;
    }
EOF
	);

	return $conf =~ s/<(\w+)>/$values{$1}/gr;
}

echo_server(9000);
late_server(9003);

# and the port that a datagram came from

for my $port (9001, 9002) {
	$t->udp_server($port, sub {
		my ($s, $data, $from) = @_;
		return port($from) . " $data";
	});
}

# one process for all flows: those that begin do not hold up the others

sub echo_server {
	my ($port) = @_;

	pipe(my $r, my $w) or die "pipe: $!";

	$t->daemon('server', sub {
		my $l = IO::Socket::IP->new(LocalAddr => '::', V6Only => 0,
			LocalPort => $port, Listen => 1024, ReuseAddr => 1,
			Blocking => 0) or die "listen: $@";
		close $r;
		close $w;

		my ($in, $out) = (IO::Select->new($l), IO::Select->new());
		my %left;

		while (1) {
			my ($read, $write) = IO::Select->select($in, $out);

			for my $s (@$read, @$write) {
				if ($s == $l) {
					my $new = $l->accept() or next;
					$new->blocking(0);
					$in->add($new);
					$left{$new} = '';
					next;
				}

				next if !defined $left{$s};
				my $more = echo($s, \$left{$s}, $in->exists($s));

				$out->remove($s);
				$out->add($s) if $left{$s} ne '';
				$in->remove($s) if !$more;
				next if $more || $left{$s} ne '';

				delete $left{$s};
				close $s;
			}
		}
	});

	close $w;
	sysread($r, my $buf, 1);
}

# false: nothing will come

sub echo {
	my ($s, $left, $more) = @_;

	if ($more && length $$left < BEHIND) {
		my $n = sysread($s, $$left, 65536, length $$left);
		$more = $n || !defined $n && $!{EAGAIN};
	}

	if ($$left ne '') {
		my $n = syswrite($s, $$left);
		return if !defined $n && !$!{EAGAIN};
		substr($$left, 0, $n // 0, '');
	}

	return $more;
}

# answers take as long as over an ocean: some of them are on their way while a
# worker changes

sub late_server {
	my ($port) = @_;

	pipe(my $r, my $w) or die "pipe: $!";

	$t->daemon('server', sub {
		my $s = IO::Socket::IP->new(V6Only => 0, LocalAddr => '::',
			LocalPort => $port, Type => SOCK_DGRAM) or die "bind: $@";
		close $r;
		close $w;

		my $select = IO::Select->new($s);
		my @late;

		while (1) {
			my $left = @late ? max(0, $late[0][0] - time()) : undef;

			if ($select->can_read($left)) {
				my $from = recv($s, my $data, 65536, 0);
				push @late, [ time() + LATE, $from,
					port($from) . " $data" ];
			}

			while (@late && $late[0][0] <= time()) {
				my (undef, $from, $data) = @{ shift @late };
				send($s, $data, 0, $from);
			}
		}
	});

	close $w;
	sysread($r, my $buf, 1);
}

sub port {
	my ($from) = @_;
	return (getnameinfo($from, NI_NUMERICHOST|NI_NUMERICSERV))[2];
}

sub alive { !-e $stop }

# Clients return what they did in words, and what was wrong.

# all flows of a family in one process: a pattern goes round, from another
# place of it for each flow, up to the last byte after the last reload

sub flows {
	my ($host) = @_;

	my $pattern = Test::Tun::bytes("flows $host", PATTERN);
	$pattern .= $pattern;

	my (%flows, @bad);
	my ($n, $bytes, $stall) = (0, 0, 0);
	my ($start, $poll) = (time(), IO::Select->new());

	while (!$n || %flows) {

		while (alive() && $n < FLOWS + time() - $start) {
			my $s = Test::Tun::connect_to($host, 9000)
				or return ('', "connect: $@");
			$s->blocking(0);
			$poll->add($s);
			$flows{$s} = { n => $n, s => $s, at => $n * 7919,
				rate => $n++ < FLOWS ? RATE : SLOW, sent => 0,
				got => 0, start => time(), heard => time() };
		}

		for my $f (grep { !$_->{shut} } values %flows) {
			push_bytes($f, \$pattern) // push @bad,
				"flow $f->{n}: write after $f->{sent}: $!";
		}

		my @ready = $poll->can_read(0.02);

		for my $f (map { $flows{$_} } @ready) {
			my $error = pull_bytes($f, \$pattern);
			next if !defined $error;

			push @bad, "flow $f->{n}: $error" if $error ne '';
			$bytes += $f->{got};
			$poll->remove($f->{s});
			delete $flows{$f->{s}};
		}

		for my $f (values %flows) {
			$f->{heard} = time() if $f->{got} == $f->{sent}
				&& !$f->{shut};
			$stall = max($stall, time() - $f->{heard});
		}

		push @bad, "stood still for $stall s" if $stall > STALL;
		last if @bad > 9 || $stall > STALL;
	}

	return (sprintf('%d, %d bytes, %.2f s without one', $n, $bytes, $stall),
		@bad);
}

sub push_bytes {
	my ($f, $pattern) = @_;

	my $due = int($f->{rate} * (time() - $f->{start})) - $f->{sent};
	my $room = BEHIND - ($f->{sent} - $f->{got});

	if (!alive()) {
		$f->{heard} = time();
		return $f->{shut} = shutdown($f->{s}, 1);
	}

	# in small pieces and in large ones

	return 0 if $due < 1 + $f->{n} % 5 * 5000 || $room < $due;

	my $n = syswrite($f->{s}, substr($$pattern,
		($f->{at} + $f->{sent}) % PATTERN, $due > 60000 ? 60000 : $due));
	return $!{EAGAIN} ? 0 : undef unless $n;

	$f->{heard} = time() if $f->{sent} == $f->{got};
	return $f->{sent} += $n;
}

# undef: it goes on, '': the right end

sub pull_bytes {
	my ($f, $pattern) = @_;

	my $n = sysread($f->{s}, my $buf, 65536);

	if (!defined $n) {
		return if $!{EAGAIN} || $!{EINTR};
		return "read after $f->{got} of $f->{sent}: $!";
	}

	if ($n == 0) {
		return $f->{shut} && $f->{got} == $f->{sent}
			? '' : "end after $f->{got} of $f->{sent}";
	}

	return "differs after $f->{got}" if $buf
		ne substr($$pattern, ($f->{at} + $f->{got}) % PATTERN, $n);

	$f->{got} += $n;
	$f->{heard} = time();

	return;
}

# calls it again and again: what is not right, and what comes too late

sub again {
	my ($sub) = @_;

	my ($n, $most, $last, @bad) = (0, 0, time());

	while (alive() && @bad < 10) {
		my $got = $sub->($n++);
		my $gap = time() - $last;
		$last = time();
		$most = max($most, $gap);

		push @bad, "$n: $got" if $got ne 'ok';
		push @bad, sprintf('%d: a gap of %.2f s', $n, $gap)
			if $gap > GAP;
		sleep(0.02);
	}

	push @bad, "no more than $n" if $n < $reloads;

	return (sprintf('%d, %.2f s between', $n, $most), @bad);
}

# new flows whose bytes are compared

sub connections {
	my ($host) = @_;

	return again(sub {
		my $data = Test::Tun::bytes("$$ $_[0]", 1 + $_[0] * 977 % 30000);

		my $s = Test::Tun::connect_to($host, 9000)
			or return "connect: $@";
		Test::Tun::write_all($s, $data);
		shutdown($s, 1);

		my ($got, $error) = Test::Tun::read_all($s);
		return $got eq $data ? 'ok'
			: 'got ' . length($got) . ' of ' . length($data)
			. ", error $error";
	});
}

# a name keeps its addresses, nobody else has them, and flows to them have it

sub names {
	my ($server) = @_;

	my %address;

	my ($did, @bad) = again(sub {
		my ($i) = @_;

		my $name = 'n' . $i % NAMES . '.example';
		my $type = $i / NAMES % 2 ? 'AAAA' : 'A';

		my $address = resolve($server, $name, $type)
			// return "$name $type: no answer";

		$address{"$name $type"}{$address} = 1;
		return 'ok' if $i % 4;

		my $s = Test::Tun::connect_to($address, 80)
			or return "connect to $name: $@";
		my $got = Test::Tun::read_all($s) // '';

		return $got =~ /^answer \d+ \Q$name\E$/
			? 'ok' : "$name $type: got '$got'";
	});

	my @all = map { keys %$_ } values %address;

	push @bad, map { "$_: @{[ keys %{ $address{$_} } ]}" }
		grep { keys %{ $address{$_} } > 1 } sort keys %address;
	push @bad, 'two names have one address' if @all != uniq(@all);

	return ($did, @bad);
}

# each question is from another port, as those of dig are

sub resolve {
	my ($server, $name, $type) = @_;

	my $s = Test::Tun::udp_to($server, 53) or return;
	my $query = Net::DNS::Packet->new($name, $type);

	send($s, $query->data(), 0);
	my $got = Test::Tun::udp_recv($s, 1) // return;
	my $packet = Net::DNS::Packet->new(\$got);

	return if $packet->header()->id() != $query->header()->id();

	my ($rr) = $packet->answer();
	return $rr ? $rr->address() : 'nothing';
}

# numbers from one port, not one after the answer to another

sub datagrams {
	my ($host, $port) = @_;

	my $s = Test::Tun::udp_to($host, $port) or return ('', "udp: $@");

	my $select = IO::Select->new($s);
	my $block = Test::Tun::bytes("datagrams $port", 1400);
	my $data = sub { "$_[0] " . substr($block, 0, $_[0] * 37 % 1400) };

	my ($n, $answers, $last, $most) = (0, 0, time(), 0);
	my (%from, %left, @bad);

	while (alive() || %left && time() - $last < 2) {

		if (alive()) {
			$last = time() unless %left;
			send($s, $data->(++$n), 0) // push @bad, "$n: $!";
			$left{$n} = time();
		}

		while ($select->can_read(0.005)) {
			recv($s, my $got, 65536, MSG_DONTWAIT) // last;

			my ($from, $i) = $got =~ /^(\d+) (\d+) /;
			$from{$from // 'none'} = 1;
			push @bad, 'differs: ' . substr($got, 0, 20)
				if ($got =~ s/^\d+ //r) ne $data->($i // 0);

			$answers += delete $left{$i // 0} ? 1 : 0;
			$most = max($most, time() - $last);
			$last = time();
		}

		last if @bad > 9;
	}

	my @lost = sort { $a <=> $b } keys %left;

	push @bad, @lost . " lost, from $lost[0] to $lost[-1]" if @lost;
	push @bad, sprintf('a gap of %.2f s', $most) if $most > GAP;
	push @bad, "ports @{[ sort keys %from ]}"
		if $port == 9002 ? keys %from > 1 : keys %from < 2;

	return (sprintf('%d of %d, %.2f s between, %d ports', $answers, $n,
		$most, scalar keys %from), @bad);
}

sub ask {
	my ($ns) = @_;

	return $t->in($ns, sub {
		my $s = Test::Tun::connect_to('192.0.2.1', 80) or return "$@";
		return scalar Test::Tun::read_all($s);
	});
}

sub serves {
	my ($i) = @_;
	return !grep { ask($_->{ns}) !~ /^answer $i / } @nets;
}

# addresses of names by a program that others wrote, in both namespaces

sub dig {
	return join ' ', map {
		my $ns = $_->{ns};
		map {
			my ($rc, $out) = $t->exec($ns, qw/ dig +short +tries=1
				@198.18.0.2 /, "dig$_.example", $_ % 2 ? 'A' : 'AAAA');
			$out =~ s/\s+$//r;
		} 1 .. 4;
	} @nets;
}

# a reload whose old workers have left

sub settled {
	my ($i, $plan) = @_;

	my %old = map { $_ => 1 } $t->workers();

	$t->reload(conf($i, $plan));
	Test::Tun::wait_for(10, sub {
		my @workers = $t->workers();
		return @workers == $plan->[$i % @$plan] && !grep { $old{$_} } @workers;
	});

	return master();
}

sub master {
	my $pid = $t->pid();
	my @fds = glob("/proc/$pid/fd/*");

	return { fds => scalar @fds, rss => $t->rss($pid),
		workers => scalar(() = $t->workers()) };
}

# what nobody can serve changes nothing, and says why

sub refused {
	my ($i, $plan, $what, $text, $re) = @_;

	my %workers = map { $_ => 1 } $t->workers();
	my $log = length $t->error_log();

	$t->allow_alert($re);
	$t->reload($text);

	my $lines = '';

	Test::Tun::wait_for(5, sub {
		$lines = substr($t->error_log(), $log);
		return $lines =~ /\[emerg\].*\n/;
	});

	sleep(0.3);

	my @lines = substr($t->error_log(), $log)
		=~ /^.*\[(?:warn|error|crit|alert|emerg)\].*$/mg;

	is(scalar @lines, 1, "one line for $what") or diag(@lines);
	like("@lines", $re, 'and says why');
	ok(serves($i - 1), "still the old one, with $what");
	is(join(' ', grep { !$workers{$_} } $t->workers()), '',
		"no new worker, with $what");

	Test::Tun::spew("$dir/nginx.conf", '');
	$t->write_conf(conf($i - 1, $plan));
}

sub jobs {
	my ($net) = @_;

	return map {
		my $f = $_;
		map {
			my ($name, @args) = @$_;
			{ name => "$name, $f->{name}, $net->{stack}",
			  job => $t->start($net->{ns}, @args) };

		} [ 'flows', \&flows, $f->{server} ],
			[ 'new flows', \&connections, $f->{server} ],
			[ 'datagrams', \&datagrams, $f->{server}, 9001 ],
			[ 'late datagrams', \&datagrams, $f->{server}, 9003 ],
			[ 'relay', \&datagrams, $f->{server}, 9002 ],
			[ 'names', \&names, $f->{client} =~ s/1$/2/r ];

	} @Test::Tun::FAMILIES;
}

for my $plan (@plans) {

	my $name = 'workers ' . join('/', @$plan);

	unlink $stop;
	$t->run(conf(0, $plan));

	for my $net (@nets) {
		$net->{monitor} = $t->daemon($net->{ns}, sub {
			open(STDOUT, '>', "$dir/routes.$net->{ns}")
				or die "routes: $!";
			exec('ip', 'monitor', 'route', 'rule');
		});
	}

	my @jobs = map { jobs($_) } @nets;
	sleep(0.5);

	my (@old, @master);
	my $slowest = 0;
	my $dig = dig();

	for my $i (1 .. $reloads) {
		my $start = time();

		$t->reload(conf($i, $plan));
		Test::Tun::wait_for(5, sub { serves($i) }) or push @old, $i;
		push @master, master();

		my $took = time() - $start;
		$slowest = max($slowest, $took);

		refused($i + 1, $plan, 'an unknown directive',
			conf($i + 1, $plan) . "unknown on;\n",
			qr/unknown directive "unknown"/)
			if $i == 4;

		refused($i + 1, $plan, 'an address of another interface',
			conf($i + 1, $plan, '192.0.2.77/32'), qr/192\.0\.2\.77/)
			if $i == 6;

		my $left = 1 - (time() - $start);
		sleep($left) if $left > 0;
	}

	is("@old", '', sprintf('each reload is in force, %s, %.2f s', $name,
		$slowest));

	is(dig(), $dig, "names have their addresses, $name");

	Test::Tun::spew($stop, '');

	for my $job (@jobs) {
		my ($did, @bad) = $t->wait($job->{job}, 20);
		is(join("\n", @bad), '', "$job->{name}, $name: "
			. ($did // 'nothing'));
	}

	# for each worker at the same time nginx has a channel, and each device
	# a box; both are two descriptors

	my ($first, $last) = @master[2, -1];
	my $most = max(map { $_->{workers} } @master);

	cmp_ok($last->{fds}, '<=', $first->{fds} + (2 + 2 * @nets) * $most,
		"descriptors of the master process, from $first->{fds}, $name");

	# a sanitizer keeps what was freed

	cmp_ok($last->{rss}, '<=', $first->{rss} + 2048,
		"memory of the master process, from $first->{rss}, $name")
		if $t->{module} !~ /sanitize/;

	my $end = time();

	ok(Test::Tun::wait_for(20, sub {
		(() = $t->workers()) == $plan->[$reloads % @$plan];
	}), sprintf('old workers leave, %s, of %d after %.1f s', $name, $most,
		time() - $end));

	my @settled = map { settled($reloads + $_, $plan) } 1 .. 2 * @$plan + 1;

	is($settled[-1]{fds}, $settled[-1 - @$plan]{fds},
		"no more descriptors when all is done, $name");
	cmp_ok($settled[-1]{fds}, '<=', $last->{fds} + 2 * @nets,
		"than before, $name");

	for my $net (@nets) {
		$t->kill_daemon($net->{monitor});

		my $routes = Test::Tun::slurp("$dir/routes.$net->{ns}");
		my @routes = grep { !/198\.51\.100|2001:db8:51:|ff00::/ }
			split /\n/, $routes;

		like($routes, qr/198\.51\.100/, "routes, $net->{stack}");
		is(join("\n", @routes), '', "do not flap, $net->{stack}, $name");
	}

	ok($t->stop(), "stop, $name");
	is(join(' ', $t->devices()), '', "no device, $name");
}

$t->done();
