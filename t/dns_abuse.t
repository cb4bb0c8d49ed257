#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for tun_dns with what is no DNS: messages with bytes changed, cut and
# put together, to the server and from its resolver.

use warnings;
use strict;

use Test::More;
use Test::Tun;
use Test::Tun::DNS;
use Time::HiRes qw/ sleep /;

my $t = Test::Tun->new();

srand(1);

my @seeds;

for my $target (qw/ dns_query dns_answer /) {
	mkdir "$t->{dir}/$target";
	$t->system('t/fuzz/corpus', $target, "$t->{dir}/$target");
	push @seeds, [ map { Test::Tun::slurp($_) }
		sort glob "$t->{dir}/$target/*" ];
}

my ($queries, $answers) = @seeds;
substr($_, 0, 1) = '' for @$answers;

# a message that is hardly one any more

sub mutate {
	my ($data) = @_;

	for (1 .. 1 + rand(4)) {
		my $n = int(rand(length($data) || 1));
		my $how = int(rand(4));

		substr($data, $n, 1) = chr(rand(256)) if $how == 0 && length $data;
		substr($data, $n) = '' if $how == 1 && rand(3) < 1;
		substr($data, $n, 0) = substr($data, 0, rand(40)) if $how == 2;
		substr($data, $n, 2) = pack('n', 0xc000 + rand(80))
			if $how == 3 && length($data) > $n + 2;
	}

	return $data;
}

# the id and often the question are right, else nobody looks further

resolver($t, '10.1.0.2', sub {
	my ($q, $protocol) = @_;
	my $data = $answers->[rand @$answers];
	my $end = 12;

	$end += 1 + ord(substr $q, $end) while ord(substr $q, $end);
	my ($other) = $data =~ /^.{12}(.*?\0....)/s;
	$data = substr($data, 0, 12) . substr($q, 12, $end + 5 - 12)
		. substr($data, 12 + length($other // ''))
		if rand(3) > 1;
	$data = mutate($data) if rand(2) > 1;
	$data .= "\0" while length $data < 12;

	return substr($q, 0, 2) . substr($data, 2);
});

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    tun_fakeip_zone names:1m 198.18.0.0/24 fd00:198:18::/64;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    map $tun_dns_name $fake {
        hostnames;
        default     1;
        .example    0;
        ~^w+\.(.*)$ $1;
    }

    log_format dns '$tun_dns_name $tun_dns_type $tun_dns_rcode';
    access_log %%DIR%%/logs/dns.log dns;

    tun_dns_limit off;
    tun_dns_https strip;

    server {
        listen 10.1.0.1:53 udp;
        listen 10.1.0.1:53;
        listen [::]:53 udp;
        tun_listen tun0 udp :53;
        tun_listen tun0 tcp :53;
        tun_dns names;
        tun_dns_fake $fake;
        tun_dns_pass 10.1.0.2:53;
    }
}
EOF

my @workers = $t->workers();

for my $at ([ 'server', '10.1.0.1' ], [ 'server', 'fd00:1::1' ],
	[ 'client', '198.18.0.2' ], [ 'client', 'fd00:198:18::2' ])
{
	my ($ns, $address) = @$at;

	cmp_ok($t->in($ns, sub {
		my $s = IO::Socket::IP->new(PeerHost => $address,
			PeerPort => 53, Type => Socket::SOCK_DGRAM);
		my $n = 0;
		for my $i (1 .. 4000) {
			send($s, mutate($queries->[rand @$queries]), 0);
			sleep(0.01) if $i % 50 == 0;
			while (IO::Select->new($s)->can_read(0)) {
				recv($s, my $buf, 65536, 0) // last;
				$n++;
			}
		}
		return $n;
	}), '>', 100, "answers from $address");

	next if $address =~ /^fd00:1:/;

	cmp_ok($t->in($ns, sub {
		my $n = 0;
		local $SIG{PIPE} = 'IGNORE';
		for my $i (1 .. 60) {
			my $s = Test::Tun::connect_to($address, 53) or next;
			my $data = join('', map { frame(mutate(
				$queries->[rand @$queries])) } 1 .. 20);
			$data = mutate($data) if $i % 3 == 0;
			Test::Tun::write_all($s, $data);
			$n++ while defined read_frame($s, 0.05);
			close $s;
		}
		return $n;
	}), '>', 100, "over TCP from $address");
}

# questions whose answers are of all kinds

cmp_ok($t->in('server', sub {
	my $s = IO::Socket::IP->new(PeerHost => '10.1.0.1', PeerPort => 53,
		Type => Socket::SOCK_DGRAM);
	my $n = 0;
	for my $i (1 .. 1500) {
		send($s, question("n$i.example", (qw/ A AAAA MX TXT SRV HTTPS
			NS SOA NAPTR /)[rand 9]), 0);
		sleep(0.01) if $i % 10 == 0;
		while (IO::Select->new($s)->can_read($i == 1500 ? 6 : 0)) {
			recv($s, my $buf, 65536, 0) // last;
			$n++;
			last if $n == 1500;
		}
	}
	return $n;
}), '>', 1400, 'all kinds of answers');

is(join(' ', $t->workers()), "@workers", 'the worker is the same');
like($t->in('server', sub { ask('10.1.0.1', 'a.alive', 'A') }),
	qr/^(NOERROR A=198|SERVFAIL)/, 'and answers');

$t->done();
