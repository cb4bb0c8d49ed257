#!/usr/bin/perl

# (C) the nginx-tun authors

# Tests for the library of the tests: however a test ends, it leaves nothing,
# and what an nginx or a test does leave is seen.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use File::Temp qw/ tempdir /;
use Test::More;
use Test::Tun;
use Time::HiRes qw/ sleep time /;

plan(skip_all => 'must be root') if $> != 0;

my $dir = tempdir(CLEANUP => 1);
my $lib = abs_path('t/lib');

# a test in the midst of its work: namespaces, nginx, an origin, a program

my $head = <<'EOF_TEST';
use warnings;
use strict;
use Test::More;
use Test::Tun;

my $t = Test::Tun->new();

$t->run(<<'EOC');
%%GLOBALS%%
%%EVENTS%%
stream {
    tun tun0 { address 198.18.0.1/15; netns %%NETNS%%; }
    server { tun_listen tun0; proxy_pass $tun_target; }
}
EOC

$t->origin();
$t->server(9000, sub { sleep(100) });
$t->program('server', qw/ sleep 4711 /);
Test::Tun::connect_to('127.0.0.1', 1);
$t->in('client', sub { Test::Tun::connect_to('10.1.0.2', 9000) ? 1 : 0 });
Test::Tun::spew('DIR/ready', "$t->{dir} @{[ keys %{ $t->{inodes} } ]}\n");
EOF_TEST

# ended by a signal, once and twice, by a death, and by a reader that has gone

for my $case ([ 'INT' ], [ 'TERM' ], [ 'HUP' ], [ 'INT', 'INT' ],
	[ 'TERM', 'INT', 'TERM' ])
{
	my $test = start("sleep(30);\n");
	kill($_, $test->{pid}), sleep(0.01) for @$case;
	ended($test, "@$case");
}

ended(start("die 'on purpose';\n"), 'dies');
ended(start('$t->wait($t->start("client", sub { die "there\n" }));'
	. " exit 3;\n"), 'exits');

{
	my $test = start("sleep(1);\nprint \"ok 1\\n\" for 1 .. 10;\nsleep(30);\n");
	close $test->{fh};
	ended($test, 'nobody reads');
}

# what is left behind is a failure

my $out = output("\$t->done();\n");
unlike($out, qr/^not ok/m, 'an orderly end') or diag($out);

$out = output('$t->ip("client", qw/ tuntap add dev tun9 mode tun /);'
	. "\n\$t->done();\n");
like($out, qr/^not ok \d+ - no device left/m, 'a device is seen');

$out = output('my $pid = fork(); '
	. '$pid or exec { "/bin/sleep" } "$t->{dir}/x", 30;'
	. "\n\$t->done();\nkill 'KILL', \$pid;\n");
like($out, qr/^not ok \d+ - nothing left/m, 'a process is seen');

$out = output('kill "KILL", ($t->workers())[0]; '
	. 'Test::Tun::wait_for(5, sub { $t->error_log() =~ /exited on/ });'
	. "\n\$t->done();\n");
like($out, qr/^not ok \d+ - no alerts/m, 'a worker that died is seen');

$out = output('open(my $fh, ">>", "$t->{dir}/logs/error.log");'
	. ' print $fh "==1==ERROR: AddressSanitizer: x\n"; close $fh;'
	. "\n\$t->done();\n");
like($out, qr/^not ok \d+ - no alerts/m, 'a sanitizer report is seen');

$out = output('kill "STOP", $t->pid();' . "\n\$t->done();\n", 40);
like($out, qr/^not ok \d+ - nginx ends/m, 'an nginx that hangs is seen');

# bytes: no part is like another, the same for the same seed

my $data = Test::Tun::bytes('seed', 1 << 20);
my %blocks = map { substr($data, $_ << 10, 1 << 10) => 1 } 0 .. 1023;

is(length $data, 1 << 20, 'bytes, their number');
is(scalar keys %blocks, 1024, 'bytes, no block twice');
ok($data eq Test::Tun::bytes('seed', 1 << 20), 'bytes, the same again');
ok($data ne Test::Tun::bytes('dees', 1 << 20), 'bytes, others');
is(substr($data, 0, 70000), Test::Tun::bytes('seed', 70000), 'bytes, fewer');

done_testing();

sub start {
	my ($tail) = @_;

	unlink "$dir/ready";

	(my $text = $head) =~ s/DIR/$dir/;
	open(my $file, '>', "$dir/test.pl") or die $!;
	print $file $text, $tail;
	close $file;

	my $pid = open(my $fh, '-|') // die "fork: $!";

	if ($pid == 0) {
		open(STDERR, '>&', \*STDOUT);
		exec $^X, "-I$lib", "$dir/test.pl" or POSIX::_exit(127);
	}

	my $end = time() + 20;
	sleep(0.02) until -s "$dir/ready" || time() > $end;

	open(my $ready, '<', "$dir/ready") or return { pid => $pid, fh => $fh };
	my ($temp, @inodes) = split ' ', <$ready> // '';

	return { pid => $pid, fh => $fh, dir => $temp, inodes => \@inodes };
}

# the process is gone, and so is all that it made

sub ended {
	my ($test, $name) = @_;

	ok($test->{dir} && @{ $test->{inodes} } == 3, "ready, $name");

	{
		local $SIG{ALRM} = sub { kill 'KILL', $test->{pid} };
		alarm(40);
		close $test->{fh} if $test->{fh} && fileno $test->{fh};
		waitpid($test->{pid}, 0);
		alarm(0);
	}

	my %ours = map { $_ => 1 } @{ $test->{inodes} || [] };
	my @left = (glob("/run/netns/tun-$test->{pid}-*"), grep { -e }
		$test->{dir} // ());

	for my $proc (glob('/proc/[0-9]*')) {
		my $inode = (stat "$proc/ns/net")[1] // 0;
		my $cmd = Test::Tun::slurp("$proc/cmdline") =~ tr/\0/ /r;
		push @left, "$proc $cmd" if $ours{$inode}
			|| $test->{dir} && index($cmd, $test->{dir}) >= 0;
	}

	is("@left", '', "nothing left, $name");
}

sub output {
	my ($tail, $timeout) = @_;

	my $test = start($tail);

	local $SIG{ALRM} = sub { kill 'TERM', $test->{pid} };
	alarm($timeout || 30);

	my $fh = $test->{fh};
	my $out = join '', <$fh>;
	close $fh;
	alarm(0);

	return $out;
}
