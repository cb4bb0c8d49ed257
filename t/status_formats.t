#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests that all formats of tun_status say the same: JSON, what a parser of
# Prometheus makes of its text, and the page that a browser shows.

use warnings;
use strict;

use JSON::PP;
use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

# a name that each format has to escape

my $conf = <<'EOC';
%%GLOBALS%%
%%EVENTS%%
worker_processes 2;

stream {
    tun_fakeip_zone names:1m 198.18.0.0/24;

    tun tun0 {
        address 198.18.0.1/15 fd00:198:18::1/64;
        netns   %%NETNS%%;
    }

    tun 'a"<\&' {
        address 198.22.0.1/15;
        netns   %%NETNS%%;
    }

    server {
        tun_listen tun0 udp :53;
        tun_dns names;
    }

    server {
        tun_listen tun0 :80;
        return "hello";
    }
}

http {
    access_log off;

    server {
        listen 127.0.0.1:8080;

        location = /json { tun_status; }
        location = /prometheus { tun_status prometheus; }
        location = /html { tun_status html; }
    }
}
EOC

my ($rc, $out) = $t->test_conf($conf =~ s/tun_status html/tun_status xml/r);
isnt($rc, 0, 'no such format');
like($out, qr/invalid format "xml", it must be .* in .*:\d+/, 'it says so');

($rc, $out) = $t->test_conf($conf =~ s/(tun_status html;)/$1 $1/r);
like($out, qr/"tun_status" directive is duplicate in .*:\d+/, 'duplicate');

$t->run($conf);

# some traffic

is($t->in('client', sub {
	for my $server ('192.0.2.1', '2001:db8::1') {
		my $s = Test::Tun::connect_to($server, 80) or return "$@";
		return 'hello' if Test::Tun::read_all($s) ne 'hello';
	}
	return 'ok';
}), 'ok', 'flows of both families');

$t->exec('client', qw/ dig @198.18.0.2 +short one.example /);

ok(Test::Tun::wait_for(20, sub {
	json()->{tun}[0]{total}{active} == 0
}), 'no flow is left');

# what JSON says, as a list of lines

my $json = json();
my %said = samples($json);
my $n = keys %said;

is($json->{tun}[0]{total}{flows}, 2, 'flows');
is($json->{fakeip}[0]{names}, 1, 'names');
is($json->{dns}[0]{total}{faked}, 1, 'DNS');
cmp_ok($n, '>', 200, "$n values");

# as the parser of Prometheus' own library reads it

my $file = "$t->{dir}/metrics";
my $headers = get('/prometheus', '-D-', '-o', $file);

like($headers, qr{^Content-Type: text/plain; version=0\.0\.4}mi, 'type');

($rc, $out) = $t->run_cmd(30, '/usr/bin/python3', '-c', <<'EOP', $file);
import json, sys
from prometheus_client.parser import text_string_to_metric_families

families = text_string_to_metric_families(open(sys.argv[1]).read())

print(json.dumps([{'name': f.name, 'type': f.type, 'help': f.documentation,
                   'samples': [[s.name, s.labels, s.value]
                               for s in f.samples]} for f in families]))
EOP

is($rc, 0, 'parsed') or diag($out);

my $families = decode_json($out);
my %families;
$families{$_->{name}}++ for @$families;

is(join(' ', grep { $families{$_} > 1 } sort keys %families), '',
	'a metric stands in one place');
is(join(' ', map { $_->{name} } grep {
	$_->{type} !~ /^(counter|gauge)$/ || $_->{help} !~ /^[A-Z].*[^.]$/
} @$families), '', 'each has a type and a help');
is(join(' ', map { $_->{name} } grep {
	my $f = $_;
	grep { $_->[0] ne $f->{name} . ($f->{type} eq 'counter' && '_total') }
		@{ $f->{samples} }
} @$families), '', 'counters end with _total');

my %parsed;

for my $sample (map { @{ $_->{samples} } } @$families) {
	my ($name, $labels, $value) = @$sample;
	next if $name eq 'nginx_tun_info';

	$name =~ s/_total$//;
	$parsed{join ' ', $name, map { "$_=$labels->{$_}" }
		sort { ($a eq 'worker') <=> ($b eq 'worker') } keys %$labels}
		= $value;
}

is_deeply(\%parsed, said(%parsed), 'Prometheus says what JSON says');

my ($info) = grep { $_->{name} eq 'nginx_tun_info' } @$families;
is($info->{samples}[0][1]{stack}, Test::Tun::stack(), 'stack');

# as a browser shows it

my $browser = "$t->{dir}/browser";

($rc, $out) = $t->exec('gateway', \60, 'chromium',
	qw/ --headless --no-sandbox --disable-gpu --disable-quic --no-first-run
	--disable-background-networking --disable-component-update
	--disable-sync --virtual-time-budget=5000 /,
	"--user-data-dir=$browser", '--dump-dom',
	'http://127.0.0.1:8080/html');

my ($dom) = $out =~ /(<html.*<\/html>)/s;
ok($dom, 'shown') or diag($out);

like($dom, qr/id="state"[^>]*>as of \d/, 'it refreshes');
unlike($dom, qr/(src|href)="(?!data:,)/, 'nothing from elsewhere');
unlike($dom, qr{https?://}, 'no address');

my %shown;

for my $section ($dom =~ /<section(.*?)<\/section>/sg) {
	my ($group) = $section =~ /data-group="(\w+)"/;
	my ($name) = $section =~ /<h2>(?:Device|Names of|DNS of) (.*?)(?: <small|<\/h2)/;
	my $prefix = $group eq 'tun' ? 'nginx_tun' : "nginx_tun_$group";
	my $label = $group eq 'tun' ? 'device' : 'zone';

	$name =~ s/&lt;/</g;
	$name =~ s/&amp;/&/g;
	$name =~ s/&quot;/"/g;

	for my $row ($section =~ /<tr>(<th>.*?)<\/tr>/sg) {
		my ($metric) = $row =~ /<th>(\w+)<\/th>/ or next;
		my ($total, @workers) = $row =~ /<td class="n[^"]*">(\d+)<\/td>/g;
		my $key = "${prefix}_$metric";

		if (!@workers) {
			$shown{"$key $label=$name"} = $total;
			next;
		}

		my $sum = 0;

		for my $i (0 .. $#workers) {
			$shown{"$key $label=$name worker=$i"} = $workers[$i];
			$sum += $workers[$i];
		}

		is($total, $sum, "total of $metric") if $total != $sum;
	}
}

is_deeply(\%shown, said(%shown), 'the page shows what JSON says');

# a request may ask for another

like(get('/html?format=json'), qr/^\{"tun":/, 'JSON of a page');
like(get('/json?format=html'), qr/^<!DOCTYPE html>/, 'a page of JSON');
like(get('/json?format=prometheus'), qr/^# HELP /, 'Prometheus');
like(get('/json?format=xml', '-i'), qr{^HTTP/1.1 400}, 'no such format');
like(get("/$_", '-I'), qr{^HTTP/1.1 200}, "HEAD, $_")
	for qw/ json prometheus html /;

# nothing to say

$t->stop();
$t->run($conf =~ s/^stream \{.*?^\}$//msr);

is(get('/prometheus'), '', 'without a device, Prometheus');
like(get('/html'), qr/There is no device/, 'without a device, a page');

$t->done();


sub get {
	my ($uri, @args) = @_;
	my (undef, $out) = $t->exec('gateway', 'curl', '-sS', @args,
		"http://127.0.0.1:8080$uri");
	return $out;
}


sub json { return decode_json(get('/json')) }


# what JSON said; the kernel may send a packet of its own meanwhile, so a value
# that has grown since may be any in between

sub said {
	my (%other) = @_;
	my %expected = %said;
	my %now = samples(json());

	for my $key (keys %said) {
		my $value = $other{$key} // next;
		$expected{$key} = $value
			if $said{$key} <= $value && $value <= $now{$key};
	}

	return \%expected;
}


# what JSON says, named as in Prometheus

sub samples {
	my ($json) = @_;
	my %samples;

	for my $group (sort keys %$json) {
		my $prefix = $group eq 'tun' ? 'nginx_tun' : "nginx_tun_$group";
		my $label = $group eq 'tun' ? 'device' : 'zone';

		for my $object (@{ $json->{$group} }) {
			my %own = %$object;
			my $name = delete $own{name};
			my $workers = delete $own{workers} || [];
			delete @own{qw/ stack total /};

			$samples{"${prefix}_$_ $label=$name"} = $own{$_}
				for keys %own;

			for my $i (0 .. $#$workers) {
				$samples{"${prefix}_$_ $label=$name worker=$i"}
					= $workers->[$i]{$_}
					for keys %{ $workers->[$i] };
			}
		}
	}

	return %samples;
}
