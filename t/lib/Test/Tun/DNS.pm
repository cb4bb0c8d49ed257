package Test::Tun::DNS;

# (C) the nginx-tun authors

# Questions and answers of the DNS, whole ones by Net::DNS and odd ones by
# hand, and resolvers that answer as a test wants.

use warnings;
use strict;

use Exporter qw/ import /;
use IO::Select;
use IO::Socket::IP;
use Net::DNS;
use Socket qw/ SOCK_DGRAM SOCK_STREAM /;
use Test::Tun;

our @EXPORT = qw/ ask ask_raw question text resolver reply asked dnsmasq frame
	read_frame /;

# the answer to a message in bytes, over UDP or TCP; run in a namespace

sub ask_raw {
	my ($server, $data, %options) = @_;

	my $tcp = $options{tcp};
	my $s = IO::Socket::IP->new(PeerHost => $server,
		PeerPort => $options{port} || 53,
		Type => $tcp ? SOCK_STREAM : SOCK_DGRAM,
		$options{from} ? (LocalHost => $options{from}) : ())
		or return undef;

	if ($tcp) {
		Test::Tun::write_all($s, frame($data));
		return read_frame($s, $options{timeout});
	}

	send($s, $data, 0);
	return undef
		unless IO::Select->new($s)->can_read($options{timeout} || 3);
	recv($s, my $buf, 65536, 0) // return undef;
	return $buf;
}

sub frame { return pack('n/a*', $_[0]) }

sub read_frame {
	my ($s, $timeout) = @_;

	my $read = sub {
		my ($n) = @_;
		my $buf = '';
		while (length $buf < $n) {
			return undef unless IO::Select->new($s)
				->can_read($timeout || 3);
			sysread($s, $buf, $n - length $buf, length $buf)
				or return undef;
		}
		return $buf;
	};

	my $len = $read->(2) // return undef;
	return $read->(unpack('n', $len));
}

# a question as Net::DNS makes it; options are those of its EDNS

sub question {
	my ($name, $type, %options) = @_;

	my $q = Net::DNS::Packet->new($name, $type, $options{class} || 'IN');
	$q->header->rd($options{rd} // 1);
	$q->header->cd(1) if $options{cd};
	$q->header->do(1) if $options{do};
	$q->edns->UDPsize($options{size}) if $options{size};

	return $q->data;
}

# asks, and returns the answer as a line: its rcode, counts and records

sub ask {
	my ($server, $name, $type, %options) = @_;
	return text(ask_raw($server, question($name, $type, %options),
		%options));
}

sub text {
	my ($data) = @_;

	return 'no answer' unless defined $data;

	my $p = Net::DNS::Packet->decode(\$data) or return 'not decoded';

	return join(' ', $p->header->rcode, map {
		my $rr = $_;
		$rr->type . ($rr->type eq 'SOA' ? '' : '=' . $rr->rdstring)
	} $p->answer, $p->authority);
}

# a resolver that does with each question what a sub says: what it returns is
# sent, by the protocol that the question came over

sub resolver {
	my ($t, $address, $sub, %options) = @_;

	pipe(my $r, my $w);

	my $pid = $t->daemon($options{ns} || 'server', sub {
		close $r;

		my @args = (LocalHost => $address,
			LocalPort => $options{port} || 53, ReuseAddr => 1);
		my $udp = IO::Socket::IP->new(@args, Type => SOCK_DGRAM)
			or die "udp: $@";
		my $tcp = IO::Socket::IP->new(@args, Type => SOCK_STREAM,
			Listen => 100) or die "tcp: $@";
		close $w;

		my $select = IO::Select->new($udp, $tcp);

		while (1) {
			for my $s ($select->can_read()) {
				if ($s == $udp) {
					my $from = recv($udp, my $buf, 65536, 0);
					next unless defined $from;
					send($udp, $_, 0, $from)
						for grep { defined } $sub->($buf, 'udp',
							$from);
					next;
				}

				if ($s == $tcp) {
					$select->add($tcp->accept());
					next;
				}

				my $buf = read_frame($s);
				my ($out) = defined $buf ? $sub->($buf, 'tcp') : ();

				if (defined $out) {
					Test::Tun::write_all($s, frame($out));
					next;
				}

				$select->remove($s);
				close $s;
			}
		}
	});

	close $w;
	sysread($r, my $buf, 1);

	return $pid;
}

# what a resolver says to a question in bytes: records as text

sub reply {
	my ($q, @records) = @_;

	my $reply = Net::DNS::Packet->decode(\$q)->reply();
	$reply->header->rcode('NOERROR');
	$reply->header->ra(1);
	$reply->push(answer => map { Net::DNS::RR->new($_) } @records);

	return $reply;
}

# the name and the type that are asked for

sub asked {
	my ($q) = @_;
	my ($question) = Net::DNS::Packet->decode(\$q)->question;
	return ($question->qname, $question->qtype);
}

# a real one, with the records that are given as its options

sub dnsmasq {
	my ($t, $address, @options) = @_;

	return $t->program('server', 'dnsmasq', '--keep-in-foreground',
		'--no-daemon', '--conf-file=/dev/null', '--no-resolv',
		'--no-hosts', '--bind-interfaces', '--user=root',
		"--listen-address=$address", '--except-interface=nothing',
		'--log-queries', '--pid-file', '--local-ttl=300', @options);
}

1;
