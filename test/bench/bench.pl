# bench.pl quick|full OUTPUT
#
# Measures the extension against what one would write by hand, in one run on the same server. bench.sh starts it.
# Prints a table of ratios; OUTPUT, a CSV file, gets each single measurement. BENCH_ONLY, a list with commas, picks
# parts.
#
# These are shared, noisy machines. So the variants that are compared take turns, a few iterations each, and that in
# several rounds, each with tables made anew. A ratio is taken within each round; what is shown is the median of the
# rounds, with the least and the greatest. CPU time is that of the backends alone. Each round begins with a CHECKPOINT,
# and a warm-up that takes the full-page images of the pages that all iterations write.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Calls;
use Past;
use Plan;
use Record;
use Server;
use Sweep;
use Wakeups;

my ($mode, $output) = @ARGV;

my @PARTS = (
	[ lifecycle => \&measure_lifecycle ],
	[ rejected => \&measure_rejected ],
	[ calls => \&measure_calls ],
	[ history => \&measure_history ],
	[ sweep => \&measure_sweep ],
	[ wakeups => \&measure_wakeups ],
	[ deferred => \&measure_deferred ]);

sub machine
{
	my %machine = (
		kernel => run(qw(uname -sr)),
		cores => run('nproc'),
		server => sql('postgres', 'SHOW server_version'),
		assertions => sql('postgres', 'SHOW debug_assertions'),
		started => sql('postgres', q{SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')}),
		mode => $mode);
	print STDERR "   a server built with assertions is slower than others, and not in all alike\n"
	  if $machine{assertions} eq 'on';
	record('machine', '', 0, \%machine);
	return;
}

plan($mode);
record_to($output);
set_part('machine');
machine();
my %only = map { $_ => 1 } split /,/, $ENV{BENCH_ONLY} // '';
for my $name (keys %only)
{
	grep { $_->[0] eq $name } @PARTS or die "there is no part \"$name\"\n";
}
for (@PARTS)
{
	my ($name, $measure) = @$_;
	next if %only && !$only{$name};
	print STDERR "== $name\n";
	set_part($name);
	$measure->();
}
print_table();
