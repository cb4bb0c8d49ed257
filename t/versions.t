#!/usr/bin/perl

# (C) the nginx-tun authors

# Builds the module for other versions of nginx that Debian has, and tries the
# main things with each; and for a build of nginx that is not the installed
# one, which must not start.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use Test::More;
use Test::Tun;

plan(skip_all => 'NGINX_SRC is given') if $ENV{NGINX};

my $build = abs_path('build');

# with the environment of this very make nothing else is built

delete @ENV{qw/ MAKEFLAGS MAKELEVEL MFLAGS NGINX TUN_MODULE /};

sub command {
	my (@cmd) = @_;
	my $out = qx{@cmd 2>&1};
	return ($? >> 8, $out);
}

my $conf = <<'EOF';
%%GLOBALS%%
%%EVENTS%%

stream {
    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :443;
        ssl_preread on;
        proxy_pass $ssl_preread_server_name:9003;
    }
}
EOF

my %seen;

for my $version (qw/ 1.26.3 newest /) {

	my $source = "$build/source/nginx-$version";

	my ($rc, $out) = -e "$source/src/core/nginx.c" ? (0, '')
		: command('misc/source', "$build/source", 'nginx', $version);
	is($rc, 0, "source, $version") or diag($out);

	my ($number) = Test::Tun::slurp("$source/src/core/nginx.h")
		=~ /NGINX_VERSION\s+"([\d.]+)"/;

	if ($seen{$number}++) {
		diag("the newest that the archive has is $number");
		next;
	}

	($rc, $out) = command('make', 'build', "NGINX_SRC=$source");
	is($rc, 0, "build, $version is $number") or diag(substr($out, -2000));

	local $ENV{NGINX} = "$build/nginx-$number/nginx";
	local $ENV{TUN_MODULE}
		= "$build/nginx-$number/ngx_stream_tun_module.so";

	my $t = Test::Tun->new();

	$t->system(qw/ openssl req -x509 -newkey rsa:2048 -nodes -days 2
		-keyout /, "$t->{dir}/key.pem", '-out', "$t->{dir}/cert.pem",
		'-subj', '/CN=exit.example');

	$t->origin();
	$t->program('server', qw/ openssl s_server -quiet -WWW -accept 9003
		-key /, "$t->{dir}/key.pem", '-cert', "$t->{dir}/cert.pem");
	$t->run($conf);

	for my $family (@Test::Tun::FAMILIES) {
		my $name = "$family->{name}, $version";

		like(($t->curl("http://$family->{url}/"))[1], qr/SEE-THIS/,
			"curl, $name");
		like(($t->curl("http://$family->{url}:9/"))[1],
			qr/Failed to connect|refused/, "refused, $name");
	}

	ok(Test::Tun::wait_for(5, sub {
		my (undef, $out) = $t->exec('client', \10, qw/ openssl
			s_client -connect 10.1.0.2:443 -servername 10.1.0.2 /);
		return $out =~ /CN\s*=\s*exit\.example/;
	}), "preread, $version");

	$t->reload();
	ok(Test::Tun::wait_for(5, sub {
		($t->curl("http://10.1.0.2/"))[1] =~ /SEE-THIS/ }),
		"reload, $version");

	$t->finish($version);
}

# headers that differ in a bit from what the binary was built of

{
	my $headers = "$build/nginx-other/headers";
	my $objs = "$build/nginx-other/objs";

	command("rm -rf $build/nginx-other; mkdir -p $objs;"
		. " cp -r /usr/share/nginx/src $headers");

	my $file = "$headers/src/core/ngx_connection.h";
	my $text = Test::Tun::slurp($file);
	$text =~ s/(\n\s+unsigned\s+idle:1;)/\n    unsigned other:1;$1/
		or die 'no bit';
	Test::Tun::spew($file, $text);

	my ($rc, $out) = command("LWIP_DIR=$build/lwip misc/configure $headers "
		. abs_path('.') . " $objs && make -s -C $headers "
		. "-f $objs/Makefile modules");
	is($rc, 0, 'build, another build of nginx') or diag(substr($out, -999));

	local $ENV{TUN_MODULE} = "$objs/ngx_stream_tun_module.so";

	my $t = Test::Tun->new();
	($rc) = $t->try_run($conf);
	isnt($rc, 0, 'another build of nginx, fails');

	my $re = qr/was built for another build of nginx/;
	like($t->error_log(), $re, 'another build of nginx, says so');
	$t->allow_alert($re);

	$t->finish('another build of nginx');
}

done_testing();
