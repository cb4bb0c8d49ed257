#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for the layers and the style of the sources.

use warnings;
use strict;

use Test::More;

my @files = sort(glob('ngx_tun_module/*.[ch] stack/*.[ch] stack/lwip_port/*.h'
	. ' stack/lwip_port/arch/*.h dns/*.[ch]'));

ok(scalar @files, 'sources');

my %text = map { $_ => slurp($_) } @files;

sub slurp {
	my ($file) = @_;
	open(my $fh, '<', $file) or die "$file: $!";
	local $/;
	return <$fh>;
}

# a rule: what must not be found, in which files

sub never {
	my ($rule, $re, $files) = @_;

	my @found;

	for my $file (grep { /$files/ } @files) {
		my $n = 0;
		for my $line (split /\n/, $text{$file}) {
			$n++;
			push @found, "$file:$n: $line" if $line =~ $re;
		}
	}

	is(join("\n", @found), '', $rule);
}

# layers

never('stream and http in the glue only', qr/ngx_(stream|http)/,
	qr/^(stack|dns)/);
never('lwIP in its seam only', qr/#include\s+["<]lwip/,
	qr/^(?!stack\/(ngx_tun_lwip\.c|lwip_port\/))/);
never('no nginx in the seam', qr/#include\s+["<](nginx|ngx_(?!tun_lwip))/,
	qr/^stack\/(ngx_tun_lwip\.[ch]|lwip_port\/)/);
never('stack knows no dns', qr/#include\s+["<]ngx_tun_(dns|fakeip)/,
	qr/^stack/);
never('dns knows no stack',
	qr/#include\s+["<]ngx_tun(_(?!dns|fakeip)\w+)?\.h/, qr/^dns/);
never('pure files hold no connection, allocate and log nothing',
	qr/ngx_connection_t|ngx_event|ngx_log_|ngx_p?c?alloc|malloc\(/,
	qr/^(stack\/ngx_tun_(packet[._]|rewrite\.)|dns\/ngx_tun_dns_(wire|name|special|answer|svcb)\.)/);

# state: one context for lwIP's hooks, elsewhere constants and tables only

{
	my @found;

	for my $file (grep { /\.c$/ } @files) {
		for my $line (split /\n/, $text{$file}) {
			next unless $line =~ /^static\s/;
			next if $line =~ /^static\s+const\s|[(]/;
			next if $line =~ /;\s*$/ && $line =~ /^static\s.*\bctx;/
				&& $file eq 'stack/ngx_tun_lwip.c';
			next unless $line =~ /[;=]\s*$|=\s*\{\s*$/;
			next if $line =~ /ngx_(command|conf_enum|conf_bitmask|conf_num_bounds
				|stream_module|stream_variable|http_module
				|module)_t\b/x;
			next if $line =~ /^static char\s+\*ngx_\w+\[\]/;
			push @found, "$file: $line";
		}
	}

	is(join("\n", @found), '', 'no state in files');
}

# lines

never('80 columns', qr/^.{81}/, qr/./);
never('no tabs', qr/\t/, qr/./);
never('no trailing blanks', qr/\s$/, qr/./);
never('no // comments', qr{(?<!:)//}, qr/\.[ch]$/);
never('no goto but to failed and done',
	qr/goto (?!failed;|done;|invalid;|refuse;|limited;)/, qr/\.c$/);
never('no TODO', qr/\b(TODO|FIXME|XXX)\b/, qr/./);

# shape

use constant { LINES => 800, FUNCTION => 100, NESTING => 4 };

# files that are too long, and how long they may be: to be made shorter

my %longer = (
	'stack/ngx_tun_lwip.c' => 1660,
);

my (@else, @blank, @long, @head, @large, @deep, @null, @forward);

# members that are flags are no pointers, whatever else has their name

my %flag;

for my $file (@files) {
	$flag{$_} = 1 for $text{$file} =~
		/^\s+(?:unsigned|ngx_uint_t|ngx_flag_t|uint\d+_t)\s+(\w+)(?::\d+)?;/mg;
}

$flag{$_} = 1 for qw/ ssl shared /;	# of nginx's own structs

for my $file (@files) {
	my @lines = split /\n/, $text{$file};

	push @head, $file unless $text{$file} =~
		m{\A\n/\*\n \* Copyright \(C\) the nginx-tun};
	push @large, "$file: " . @lines
		if @lines > ($longer{$file} || LINES);

	my %pointer = map { $_ => 1 } $text{$file} =~ /\*(\w+)\s*[,;)=]/g;
	my $start;

	for my $n (0 .. $#lines) {
		my $at = "$file:" . ($n + 1);

		push @else, $at if $lines[$n] =~ /^\s+\} else\b/
			&& $lines[$n - 1] !~ /^(#.*)?$/;

		push @null, "$at: $lines[$n]" if grep {
			my ($name) = /(\w+)$/;
			$pointer{$name} && !$flag{$name}
		} $lines[$n] =~ /!(\w+(?:->\w+|\.\w+)*)\b(?![(\[])/g;

		$start = $n if $lines[$n] eq '{';
		next unless defined $start;

		push @deep, $at if $lines[$n] =~
			/^( +)(?:if|for|while|switch|do)\b/
			&& length($1) / 4 > NESTING;

		next unless $lines[$n] eq '}';

		push @long, "$file:" . ($start + 1) if $n - $start > FUNCTION;
		undef $start;

		push @blank, $at if $file =~ /\.c$/ && $n + 3 <= $#lines
			&& ($lines[$n + 1] ne '' || $lines[$n + 2] ne ''
				|| $lines[$n + 3] eq '');
	}

	# a static function is declared at the top

	for my $name ($text{$file} =~ /^static [^\n;=(]*\n(ngx_\w+)\(/mg) {
		push @forward, "$file: $name" unless $text{$file} =~
			/^static [^\n]*\b\Q$name\E\(|^ +\Q$name\E\(/m;
	}
}

is("@head", '', 'copyright');
is("@else", '', 'a blank line before else');
is(join("\n", @null), '', 'pointers are compared to NULL');
is("@blank", '', 'two blank lines between functions');
is("@long", '', 'no function of more than ' . FUNCTION . ' lines');
is("@deep", '', 'no more than ' . NESTING . ' levels');
is("@forward", '', 'static functions are declared');
is("@large", '', 'no file of more than ' . LINES . ' lines');

my @short = grep { !$text{$_} || ($text{$_} =~ tr/\n//) <= LINES }
	sort keys %longer;
is("@short", '', 'no exception that is not needed');

# what is there is documented

my $readme = slurp('README.md');
my @undocumented;

for my $file (grep { /\.c$/ } @files) {
	for my $block ($text{$file} =~
		/ngx_command_t\s+\w+\[\] = \{(.*?)\n\};/gs) {
		push @undocumented, grep { $readme !~ /^### \Q$_\E$/m }
			$block =~ /ngx_string\("(\w+)"\)/g;
	}

	push @undocumented, grep { $readme !~ /`\$\Q$_\E`/ }
		$text{$file} =~ /ngx_string\("(tun_\w+)"\), NULL, ngx_/g;
}

is("@undocumented", '', 'directives and variables are in README');

done_testing();
