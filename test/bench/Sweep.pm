# The boot sweep of the runs that a dead server left, against one UPDATE.
package Sweep;

use strict;
use warnings;
use Exporter 'import';
use Plan;
use Record;
use Server;

our @EXPORT = qw(measure_sweep);

my $SWEEP_DONE = 'EXISTS (SELECT FROM ai_chat_run.workers'
  . ' WHERE datname = current_database() AND boot_sweep_done_at IS NOT NULL)';
my $SWEEP_BY_HAND = "UPDATE $PLAIN SET status = 'aborted', finished_at = now(), updated_at = now(),"
  . " error = coalesce(error, 'Run interrupted by a server restart.') WHERE status IN ('pending', 'running')";

sub measure_sweep
{
	my $case = 'boot sweep';
	my $n = $size{dangling};
	my $few = $n / 2;

	new_database('sweep');
	take_turns($case, $size{sweep_rounds}, [ 'ours', 'ours few', 'ours with begins', 'plain' ], sub {
		my ($variant) = @_;
		my $table = $variant eq 'plain' ? $PLAIN : 'ai_chat_run.ai_chat_runs';
		fill('sweep', 'running', 'random', $variant eq 'ours few' ? $few : $n, $table);
		sql('sweep', 'CHECKPOINT');
		restart();
		return sweep_by_hand($n) if $variant eq 'plain';
		return begin_while_sweeping() if $variant eq 'ours with begins';
		return watch_sweep();
	});
	rounds('begins without a boot sweep', $size{sweep_rounds}, sub {
		load({ ours => $LIFECYCLE{ours} }, d => 'sweep', n => $size{iterations});
	});
	drop_database('sweep');

	my $what = 'boot sweep of ' . thousands($n) . ' runs';
	compare("$what against one UPDATE; seconds", 'seconds', [ $case, 'ours' ], [ $case, 'plain' ], $BUDGET{sweep_time});
	compare("$what against one UPDATE; WAL, bytes", 'wal', [ $case, 'ours' ], [ $case, 'plain' ]);
	compare("$what against one UPDATE; CPU, s", 'cpu_s', [ $case, 'ours' ], [ $case, 'plain' ]);
	compare("$what against " . thousands($few) . "; the worker's own memory, kB", 'memory_kb', [ $case, 'ours' ],
		[ $case, 'ours few' ], $BUDGET{sweep_memory});
	compare("begin + finalize meanwhile, against without; $_", "latency_us_$_", [ $case, 'ours with begins' ],
		[ 'begins without a boot sweep', 'ours' ]) for qw(p50 p99 max);
	return;
}

# From when the server takes connections until the sweep is done; and what the worker has used by then.
sub watch_sweep
{
	my $start_wal = start_of_wal();
	my ($memory_kb, $cpu_s) = (0, 0);
	until (sql('sweep', "SELECT $SWEEP_DONE") eq 't')
	{
		for (1 .. 5)
		{
			my ($pid) = processes(qr/ai_chat_run worker/) or last;
			my ($rss) = map { /^RssAnon:\s+(\d+)/ } lines("/proc/$pid/status");
			my ($ns) = map { /^(\d+)/ } lines("/proc/$pid/schedstat");
			$memory_kb = $rss if $rss && $rss > $memory_kb;
			$cpu_s = $ns / 1e9 if $ns;
			pause(0.01);
		}
	}
	my ($seconds, $swept, $wal) = split /\|/, sql('sweep', <<~SQL);
		SELECT extract(epoch FROM boot_sweep_done_at) - @{[opened_at()]}, runs_swept,
			pg_current_wal_insert_lsn() - '$start_wal'
		FROM ai_chat_run.workers WHERE datname = current_database()
		SQL
	return {
		seconds => $seconds,
		swept => $swept,
		wal => $wal,
		$memory_kb ? (memory_kb => $memory_kb, cpu_s => $cpu_s) : () };
}

# Where the WAL stood when the server was stopped: a checkpoint.
sub start_of_wal
{
	my ($lsn) = run('pg_controldata') =~ /^Latest checkpoint location:\s+(\S+)/m;
	return $lsn;
}

# When the server began to take connections, which its log tells to the millisecond.
sub opened_at
{
	my ($time) = map { /^(\S+ \S+) UTC .*database system is ready to accept connections/ } lines('server.log');
	return sql('postgres', "SELECT extract(epoch FROM '$time+00'::timestamptz)");
}

# With a cold cache, as the sweep has it.
sub sweep_by_hand
{
	my ($n) = @_;
	my $result = load({ plain => "$SWEEP_BY_HAND => $n" }, d => 'sweep', n => 1, w => 0)->{plain};
	return {
		seconds => 1 / $result->{per_second},
		swept => $n,
		wal => $result->{wal},
		cpu_s => $result->{cpu_us} / 1e6 };
}

sub begin_while_sweeping
{
	return load({ ours => $LIFECYCLE{ours} }, d => 'sweep', n => 1_000_000, w => 5, b => 'SELECT 1',
		u => "SELECT NOT $SWEEP_DONE")->{ours};
}

1;
