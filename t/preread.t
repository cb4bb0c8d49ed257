#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for sessions that read before they know their upstream: ssl_preread.

use warnings;
use strict;

use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

for my $name (qw/ one two /) {
	$t->system(qw/ openssl req -x509 -newkey rsa:2048 -nodes -days 2
		-keyout /, "$t->{dir}/$name.key", '-out',
		"$t->{dir}/$name.pem", '-subj', "/CN=$name.example");
}

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    log_format main '$ssl_preread_server_name $status';
    access_log %%DIR%%/logs/access.log main;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    map $ssl_preread_server_name $exit {
        hostnames;
        one.example  10.1.0.2:9001;
        .two.example 10.1.0.2:9002;
        default      10.1.0.2:9;
    }

    server {
        tun_listen tun0;
        ssl_preread on;
        preread_timeout 1s;
        proxy_pass $exit;
    }
}
EOF

my $n = 0;

for my $name (qw/ one two /) {
	$t->program('server', qw/ openssl s_server -quiet -WWW -accept /,
		9001 + $n++, '-key', "$t->{dir}/$name.key",
		'-cert', "$t->{dir}/$name.pem");
}

sub subject {
	my ($host, $name) = @_;
	my (undef, $out) = $t->exec('client', \10, qw/ openssl s_client
		-connect /, $host, '-servername', $name);
	return $out =~ /subject=\s*CN\s*=\s*(\S+)/ ? $1 : 'none';
}

for my $family (@Test::Tun::FAMILIES) {
	my $to = "$family->{url}:443";

	ok(Test::Tun::wait_for(5, sub {
		subject($to, 'one.example') eq 'one.example' }),
		"first name, $family->{name}");
	is(subject($to, 'www.two.example'), 'two.example',
		"second name, $family->{name}");
	is(subject($to, 'no.example'), 'none',
		"another name, $family->{name}");

	# one that says nothing is answered, and after a time ended

	is($t->in('client', sub {
		my $s = Test::Tun::connect_to($family->{server}, 443);
		return $s ? 'connected' : "$@";
	}), 'connected', "is answered first, $family->{name}");
}

ok(scalar(grep { $_ eq 'www.two.example 200' } $t->access_log()),
	'name in the log');

$t->done();
