#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for njs on flows: js_access, js_preread, js_filter, js_set.

use warnings;
use strict;

use Test::More;
use Test::Tun;

plan(skip_all => 'no ngx_stream_js_module')
	unless -e '/usr/lib/nginx/modules/ngx_stream_js_module.so';

my $t = Test::Tun->new(modules => [ 'ngx_stream_js_module.so' ]);

Test::Tun::spew("$t->{dir}/flow.js", <<'EOF');
var bytes = 0;

function access(s) {
    if (s.variables.tun_port == 9002) {
        s.deny();
        return;
    }

    s.allow();
}

function preread(s) {
    s.on('upload', function (data) {
        if (data.length >= 4) {
            s.off('upload');
            s.done();
        }
    });
}

function upper(s) {
    s.on('download', function (data, flags) {
        s.send(data.toUpperCase(), flags);
    });
}

function to(s) {
    return s.variables.tun_target + '!';
}

export default { access, preread, upper, to };
EOF

$t->run(<<'EOF');
%%GLOBALS%%
%%EVENTS%%

stream {
    js_import flow from %%DIR%%/flow.js;
    js_set $to flow.to;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0;
        js_access flow.access;
        js_filter flow.upper;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :9001;
        js_preread flow.preread;
        proxy_pass $tun_target;
    }

    server {
        tun_listen tun0 :9003;
        return $to;
    }
}
EOF

for my $port (9000, 9001, 9002) {
	$t->server($port, sub {
		my ($s) = @_;
		sysread($s, my $buf, 100);
		Test::Tun::write_all($s, "got $buf");
	});
}

sub ask {
	my ($host, $port) = @_;

	return $t->in('client', sub {
		my $s = Test::Tun::connect_to($host, $port)
			or return $!{ECONNREFUSED} ? 'refused' : "$@";
		Test::Tun::write_all($s, 'hello');
		return scalar Test::Tun::read_all($s);
	});
}

for my $family (@Test::Tun::FAMILIES) {
	my ($host, $url, $name) = @{$family}{qw/ server url name /};

	is(ask($host, 9000), 'GOT HELLO', "js_filter, $name");
	is(ask($host, 9001), 'got hello', "js_preread, $name");
	is(Test::Tun::refused(ask($host, 9002)), 'refused',
		"js_access, $name");
	is(ask($host, 9003), "$url:9003!", "js_set, $name");
}

$t->done();
