package Test::Tun::Raw;

# (C) the nginx-tun authors

# A TCP endpoint made by hand: packets of any kind put into the device, and
# what comes back out of it.  To be used in the namespace of the device.

use warnings;
use strict;

use IO::Select;
use Socket qw/ inet_ntop inet_pton AF_INET AF_INET6 /;
use Time::HiRes qw/ time /;

use constant {
	AF_PACKET => 17, SOCK_DGRAM => 2, SOL_SOCKET => 1, SO_RCVBUF => 8,
	SIOCGIFINDEX => 0x8933, ETH_P_ALL => 3,
	FIN => 1, SYN => 2, RST => 4, PSH => 8, ACK => 16, URG => 32,
	ECE => 64, CWR => 128,
};

sub new {
	my ($class, %args) = @_;

	socket(my $s, AF_PACKET, SOCK_DGRAM, unpack('n', pack('S', ETH_P_ALL)))
		or die "socket: $!";
	setsockopt($s, SOL_SOCKET, SO_RCVBUF, 4000000);

	my $ifr = pack('a16 i x20', $args{device} || 'tun0', 0);
	ioctl($s, SIOCGIFINDEX, $ifr) or die "no device: $!";
	my $index = unpack('x16 i', $ifr);

	my $v6 = $args{dst} =~ /:/;

	my $self = bless {
		s => $s, v6 => $v6, index => $index, seq => 1000, ack => 0,
		sport => 40000, dport => 80, wnd => 65535, %args,
		family => $v6 ? AF_INET6 : AF_INET,
	}, $class;

	# struct sockaddr_ll

	my $proto = $v6 ? 0x86dd : 0x0800;
	$self->{to} = pack('S n i S C C a8', AF_PACKET, $proto, $index, 0, 0,
		0, '');
	bind($s, pack('S n i S C C a8', AF_PACKET, ETH_P_ALL, $index, 0, 0, 0,
		'')) or die "bind: $!";

	return $self;
}

sub sum {
	my ($data) = @_;
	$data .= "\0" if length($data) % 2;
	my $sum = unpack('%32n*', $data);
	$sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
	return $sum;
}

# a packet: flags, data, options, ... ; what is not given is the endpoint's

sub packet {
	my ($self, %p) = @_;

	%p = (%$self, data => '', options => '', ip_options => '', %p);

	my $src = inet_pton($self->{family}, $p{src});
	my $dst = inet_pton($self->{family}, $p{dst});

	$p{options} .= "\0" while length($p{options}) % 4;

	my $tcp = pack('n n N N C C n n n', $p{sport}, $p{dport},
		$p{seq} & 0xffffffff, $p{ack} & 0xffffffff,
		$p{offset} // (5 + length($p{options}) / 4) << 4, $p{flags},
		$p{wnd}, 0, 0) . $p{options} . $p{data};

	my $pseudo = $self->{v6}
		? $src . $dst . pack('N N', length $tcp, 6)
		: $src . $dst . pack('n n', 6, length $tcp);

	substr($tcp, 16, 2) = pack('n', ~sum($pseudo . $tcp) & 0xffff)
		^ ($p{bad_sum} ? "\x12\x34" : "\0\0");

	return pack('N n C C', 6 << 28, length $tcp, 6, 64) . $src . $dst . $tcp
		if $self->{v6};

	my $ihl = 5 + length($p{ip_options}) / 4;
	my $ip = pack('C C n n n C C n', 0x40 | $ihl, 0,
		$ihl * 4 + length $tcp, 0, $p{fragment} // 0x4000, 64, 6, 0)
		. $src . $dst . $p{ip_options};
	substr($ip, 10, 2) = pack('n', ~sum($ip) & 0xffff);

	return $ip . $tcp;
}

sub send_packet {
	my ($self, $packet) = @_;
	return send($self->{s}, $packet, 0, $self->{to});
}

sub send_tcp { my $self = shift; $self->send_packet($self->packet(@_)) }

# any packet: the protocol, what follows the IP header, and what of that is not
# the endpoint's; ip_options are extension headers of IPv6, the first of them
# is next_header

sub ip_packet {
	my ($self, $proto, $payload, %p) = @_;

	%p = (%$self, ip_options => '', ttl => 64, fragment => 0, %p);

	my $src = inet_pton($self->{family}, $p{src});
	my $dst = inet_pton($self->{family}, $p{dst});

	return pack('N n C C', 6 << 28, length($p{ip_options} . $payload),
		$p{next_header} // $proto, $p{ttl}) . $src . $dst
		. $p{ip_options} . $payload if $self->{v6};

	my $ihl = 5 + length($p{ip_options}) / 4;
	my $ip = pack('C C n n n C C n', 0x40 | $ihl, 0,
		$ihl * 4 + length $payload, $p{ip_id} // 1, $p{fragment}, $p{ttl},
		$proto, 0)
		. $src . $dst . $p{ip_options};
	substr($ip, 10, 2) = pack('n', ~sum($ip) & 0xffff);

	return $ip . $payload;
}

# a UDP datagram; len is what its header says, bad_sum and no_sum its checksum

sub udp_payload {
	my ($self, $data, %p) = @_;

	%p = (%$self, %p);

	my $len = 8 + length $data;
	my $udp = pack('n n n n', $p{sport}, $p{dport}, $p{len} // $len, 0)
		. $data;
	my $pseudo = inet_pton($self->{family}, $p{src})
		. inet_pton($self->{family}, $p{dst})
		. ($self->{v6} ? pack('N N', $len, 17) : pack('n n', 17, $len));

	substr($udp, 6, 2) = pack('n', (~sum($pseudo . $udp) & 0xffff) || 0xffff)
		^ ($p{bad_sum} ? "\x12\x34" : "\0\0") unless $p{no_sum};

	return $udp;
}

sub udp_packet {
	my ($self, $data, %p) = @_;
	return $self->ip_packet(17, $self->udp_payload($data, %p), %p);
}

# a piece of a datagram: the protocol, offset and end in its payload, and
# whether more follow

sub piece {
	my ($self, $proto, $payload, $from, $to, $more, %p) = @_;

	my $data = substr($payload, $from, $to - $from);
	my $place = $self->{v6} ? $from | ($more ? 1 : 0)
		: $from >> 3 | ($more ? 0x2000 : 0);
	my $id = $p{id} // 1;

	return $self->ip_packet($proto, $data, %p, next_header => 44,
		ip_options => pack('C C n N', $proto, 0, $place, $id))
		if $self->{v6};

	return $self->ip_packet($proto, $data, %p, fragment => $place, ip_id => $id);
}

# an ICMP message: type, code, all after the checksum

sub icmp_packet {
	my ($self, $type, $code, $rest, %p) = @_;

	my $proto = $self->{v6} ? 58 : 1;
	my $icmp = pack('C C n', $type, $code, 0) . $rest;
	my $pseudo = $self->{v6}
		? inet_pton($self->{family}, $p{src} // $self->{src})
			. inet_pton($self->{family}, $p{dst} // $self->{dst})
			. pack('N N', length $icmp, 58) : '';

	substr($icmp, 2, 2) = pack('n', ~sum($pseudo . $icmp) & 0xffff)
		^ ($p{bad_sum} ? "\x12\x34" : "\0\0");

	return $self->ip_packet($p{protocol} // $proto, $icmp, %p);
}

sub echo_packet {
	my ($self, $id, $seq, $data, %p) = @_;
	return $self->icmp_packet($self->{v6} ? 128 : 8, 0,
		pack('n n', $id, $seq) . $data, %p);
}

# the next ICMP message to anybody, taken apart, or nothing after a time

sub recv_icmp {
	my ($self, $timeout) = @_;

	my $end = time() + ($timeout // 1);
	my $select = IO::Select->new($self->{s});

	while ((my $left = $end - time()) > 0) {
		next unless $select->can_read($left);

		my $from = recv($self->{s}, my $buf, 70000, 0);
		next unless defined $from;
		next if (unpack('S n i S C', $from))[4] == 4;

		my $p = $self->parse_icmp($buf) or next;
		return $p;
	}

	return;
}

sub parse_icmp {
	my ($self, $buf) = @_;

	my %p;
	my $v6 = $self->{v6};

	return unless ord($buf) >> 4 == ($v6 ? 6 : 4)
		&& ord(substr $buf, $v6 ? 6 : 9) == ($v6 ? 58 : 1);

	@p{qw/ src dst /} = map { inet_ntop($self->{family}, $_) }
		$v6 ? unpack('x8 a16 a16', $buf) : unpack('x12 a4 a4', $buf);

	$p{ttl} = ord substr($buf, $v6 ? 7 : 8);

	my $icmp = substr($buf, $v6 ? 40 : (ord($buf) & 15) * 4);
	my $pseudo = $v6 ? substr($buf, 8, 32) . pack('N N', length $icmp, 58)
		: '';

	@p{qw/ type code id seq /} = unpack('C C x2 n n', $icmp);
	$p{data} = substr($icmp, 8);
	$p{good} = sum($pseudo . $icmp) == 0xffff
		&& ($v6 || sum(substr $buf, 0, 20) == 0xffff);

	return \%p;
}

# what a router says of a packet that came to this endpoint

sub send_too_big {
	my ($self, $mtu, $seq) = @_;

	my $about = $self->packet(src => $self->{dst}, dst => $self->{src},
		sport => $self->{dport}, dport => $self->{sport}, seq => $seq,
		flags => ACK, data => 'x' x 20);

	my $src = inet_pton($self->{family}, $self->{src});
	my $dst = inet_pton($self->{family}, $self->{dst});

	my $icmp = $self->{v6} ? pack('C C n N', 2, 0, 0, $mtu) . $about
		: pack('C C n n n', 3, 4, 0, 0, $mtu) . $about;
	my $pseudo = $self->{v6} ? $src . $dst . pack('N N', length $icmp, 58)
		: '';
	substr($icmp, 2, 2) = pack('n', ~sum($pseudo . $icmp) & 0xffff);

	if ($self->{v6}) {
		return $self->send_packet(pack('N n C C', 6 << 28, length $icmp,
			58, 64) . $src . $dst . $icmp);
	}

	my $ip = pack('C C n n n C C n', 0x45, 0, 20 + length $icmp, 0, 0, 64,
		1, 0) . $src . $dst;
	substr($ip, 10, 2) = pack('n', ~sum($ip) & 0xffff);

	return $self->send_packet($ip . $icmp);
}

# the next packet to this endpoint, or nothing after a time

sub recv_tcp {
	my ($self, $timeout, %filter) = @_;

	my $end = time() + ($timeout // 1);
	my $select = IO::Select->new($self->{s});

	while ((my $left = $end - time()) > 0) {
		next unless $select->can_read($left);

		my $from = recv($self->{s}, my $buf, 70000, 0);
		next unless defined $from;

		# what we sent is seen, too

		next if (unpack('S n i S C', $from))[4] == 4;

		my $p = $self->parse($buf) or next;
		next if $p->{sport} != $self->{dport}
			|| $p->{dport} != $self->{sport};
		return $p;
	}

	return;
}

sub parse {
	my ($self, $buf) = @_;

	my ($len, $tcp);

	if ($self->{v6}) {
		return unless ord($buf) >> 4 == 6 && ord(substr $buf, 6) == 6;
		$tcp = substr($buf, 40);

	} else {
		return unless ord($buf) >> 4 == 4 && ord(substr $buf, 9) == 6;
		$tcp = substr($buf, (ord($buf) & 15) * 4);
	}

	my %p;
	@p{qw/ sport dport seq ack offset flags wnd /}
		= unpack('n n N N C C n', $tcp);
	$p{options} = substr($tcp, 20, ($p{offset} >> 4) * 4 - 20);
	$p{data} = substr($tcp, ($p{offset} >> 4) * 4);

	return \%p;
}

# opens a connection by hand, returns the SYN|ACK

sub open {
	my ($self, %p) = @_;

	$self->send_tcp(flags => SYN, options => pack('C C n', 2, 4, 1460),
		%p);
	my $p = $self->recv_tcp(3) or return;
	return $p unless ($p->{flags} & (SYN | ACK | RST)) == (SYN | ACK);

	$self->{seq}++;
	$self->{ack} = $p->{seq} + 1;
	$self->send_tcp(flags => ACK);

	return $p;
}

1;
