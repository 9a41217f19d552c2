# The lifecycle in a table with a past, or with other active runs.
package Past;

use strict;
use warnings;
use Exporter 'import';
use Plan;
use Record;
use Server;

our @EXPORT = qw(measure_history);

# Ids of runs and chats that are in order, as ours and version 7 chats are; chats that are random, with run ids in
# order; and both random. Random ones need a history that is random, too.
my %IDS = (
	'time-ordered ids' => [ 'ordered', \%LIFECYCLE ],
	'random chats' => [ 'random', \%LIFECYCLE, 'r' ],
	'random chats and run ids' => [ 'random', \%LIFECYCLE_GIVEN_ID, 'r' ]);

sub measure_history
{
	for my $history (qw(ordered random))
	{
		my @past = affordable(@{ $size{history} });
		for my $past (@past)
		{
			new_database("past_$past");
			fill("past_$past", 'succeeded', $history, $past, 'ai_chat_run.ai_chat_runs', $PLAIN) if $past;
		}
		for my $ids (grep { $IDS{$_}[0] eq $history } sort keys %IDS)
		{
			measure_past($ids, @past);
		}
		drop_database("past_$_") for @past;
	}
	measure_active();
	return;
}

# The numbers of runs that there is room for: two tables with three indexes each, and the WAL of filling them.
sub affordable
{
	my (@numbers) = @_;
	my $free = (split ' ', (split /\n/, run('df', '-Pk', $ENV{PGDATA}))[1])[3] * 1024;
	my @affordable = grep { $_ * 2 * 350 + 12e9 < $free || $_ < 1_000_000 } @numbers;
	print STDERR "   skipped: $_ finished runs, for which there is not enough room\n"
	  for @numbers[ @affordable .. $#numbers ];
	return @affordable;
}

sub measure_past
{
	my ($ids, @past) = @_;
	my ($history, $lifecycle, @flags) = @{ $IDS{$ids} };
	my $case = "lifecycle with a past of $ids";
	my %scripts;
	for my $past (@past)
	{
		$scripts{"$_ $past"} = "in past_$past\n$lifecycle->{$_}" for qw(ours plain);
	}
	rounds($case, $size{rounds}, sub { load(\%scripts, sizes(1), map { ($_ => undef) } @flags) });

	for my $past (grep { $_ } @past)
	{
		my $after = 'after ' . thousands($past) . ' runs';
		my %budget = $past == $past[-1] ? (cpu_us => $BUDGET{lifecycle_with_past}) : ();
		my ($ours, $plain) = map { [ $case, "$_ $past" ] } qw(ours plain);
		my ($ours_empty, $plain_empty) = map { [ $case, "$_ 0" ] } qw(ours plain);
		for (qw(cpu_us wal))
		{
			compare("lifecycle $after, $ids, against an empty table; $METRICS{$_}", $_, $ours, $ours_empty,
				$budget{$_});
			compare("  the same of plain SQL; $METRICS{$_}", $_, $plain, $plain_empty);
			compare("  ours against plain SQL $after; $METRICS{$_}", $_, $ours, $plain);
		}
	}
	return;
}

# Other runs are active, and ANALYZE has last seen an empty table, or one without an active run: that must not mislead
# the planner.
sub measure_active
{
	my $n = $size{active};
	my $case = "lifecycle with $n active runs";
	my $analyze = 'ANALYZE ai_chat_run.ai_chat_runs, bench.plain';
	my $begin = "SELECT count(ai_chat_run.begin_run(gen_random_uuid(), '00000000-0000-4000-9000-000000000001'))"
	  . " FROM generate_series(1, $n)";
	my $insert = "DO \$\$ BEGIN PERFORM bench.fill('$PLAIN', 'running', 'random', $n); END \$\$";

	new_database($_) for qw(active_none active_analyzed_empty active_analyzed_idle);
	sql('active_none', $analyze);
	sql('active_analyzed_empty', $analyze, $begin, $insert);
	fill('active_analyzed_idle', 'succeeded', 'ordered', $size{filling}, 'ai_chat_run.ai_chat_runs', $PLAIN);
	sql('active_analyzed_idle', $begin, $insert);

	my %scripts;
	for my $state (qw(none analyzed_empty analyzed_idle))
	{
		$scripts{"$_ $state"} = "in active_$state\n$LIFECYCLE{$_}" for qw(ours plain);
	}
	rounds($case, $size{rounds}, sub { load(\%scripts, sizes(1)) });
	drop_database($_) for qw(active_none active_analyzed_empty active_analyzed_idle);

	for ([ 'analyzed_empty', 'analysed when empty' ], [ 'analyzed_idle', 'analysed when none was active' ])
	{
		my ($state, $words) = @$_;
		compare("$case, $words, against an empty table; $METRICS{cpu_us}", 'cpu_us', [ $case, "ours $state" ],
			[ $case, 'ours none' ], $BUDGET{lifecycle_with_active});
		compare("  the same of plain SQL; $METRICS{cpu_us}", 'cpu_us', [ $case, "plain $state" ],
			[ $case, 'plain none' ]);
	}
	return;
}

1;
