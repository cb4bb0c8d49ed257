package Test::Tun::Cgroup;

# (C) the nginx-tun authors

# cgroups of a test's own, that hold processes to a share of a processor, and
# give them that share on a busy machine.  They are of version 2, or of version
# 1 where the machine has its "cpu" controller there.
#
# All of them are gone when the test ends; that goes for their processes first.

use warnings;
use strict;

use Test::Tun;

use constant PERIOD => 100_000;    # us

# beside what else runs: ten times the usual

my %files = (
	cgroup2 => { weight => [ 'cpu.weight', 1000 ] },
	cgroup => { weight => [ 'cpu.shares', 10240 ] },
);

# dies, with the reason, where there can be none

sub new {
	my ($class) = @_;

	my ($type, $root) = mounted();
	my $self = bless { pid => $$, type => $type, root => $root,
		dir => "$root/nginx-tun-test-$$" }, $class;

	if ($type eq 'cgroup2') {
		my $control = "$root/cgroup.subtree_control";

		if (Test::Tun::slurp($control) !~ /\bcpu\b/) {
			put($control, '+cpu');
			$self->{enabled} = 1;
		}
	}

	make($self->{dir});
	put("$self->{dir}/cgroup.subtree_control", '+cpu')
		if $type eq 'cgroup2';

	return $self;
}

sub mounted {
	for (split /\n/, Test::Tun::slurp('/proc/self/mountinfo')) {
		my ($dir, $type, $options)
			= /^(?:\S+ ){4}(\S+) .* - (\S+) \S+ (\S+)/ or next;

		return ($type, $dir) if $type eq 'cgroup2'
			&& Test::Tun::slurp("$dir/cgroup.controllers")
			=~ /\bcpu\b/
			|| $type eq 'cgroup' && $options =~ /(^|,)cpu(,|$)/;
	}

	die "no cgroup with a \"cpu\" controller\n";
}

# a cgroup, with a share of one processor, or with all there are

sub add {
	my ($self, $name, $share) = @_;

	my $dir = "$self->{dir}/$name";
	my $quota = $share ? int $share * PERIOD : undef;

	make($dir);
	put("$dir/$files{$self->{type}}{weight}[0]",
		$files{$self->{type}}{weight}[1]);

	if ($self->{type} eq 'cgroup2') {
		put("$dir/cpu.max", ($quota // 'max') . ' ' . PERIOD);

	} else {
		put("$dir/cpu.cfs_period_us", PERIOD);
		put("$dir/cpu.cfs_quota_us", $quota // -1);
	}
}

sub enter {
	my ($self, $name, $pid) = @_;
	put("$self->{dir}/$name/cgroup.procs", $pid);
}

# what is left of them

sub remove {
	my ($self) = @_;

	return () if $$ != $self->{pid} || $self->{removed}++;

	Test::Tun::wait_for(5, sub {
		rmdir for glob("$self->{dir}/*/"), $self->{dir};
		return !-d $self->{dir};
	});

	put("$self->{root}/cgroup.subtree_control", '-cpu')
		if $self->{enabled};

	return grep { -d } $self->{dir}, glob("$self->{dir}/*/");
}

sub make {
	my ($dir) = @_;
	-d $dir or mkdir $dir or die "$dir: $!\n";
}

# what the kernel refuses is told when the file is closed

sub put {
	my ($file, $data) = @_;

	open(my $fh, '>', $file) or die "$file: $!\n";
	print $fh $data;
	close $fh or die "$file: $!\n";
}

sub DESTROY {
	my ($self) = @_;
	my $status = $?;
	$self->remove();
	$? = $status;
}

1;
