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
use Record;
use Server;

my ($mode, $output) = @ARGV;

my %QUICK = (
	rounds => 5,
	iterations => 1_000,
	clients => 4,
	crowd => 16,
	filling => 5_000,
	history => [ 0, 100_000 ],
	active => 10_000,
	dangling => 100_000,
	sweep_rounds => 3,
	ends => 10,
	wakeup_rounds => 3,
	deferred => 5);
my %FULL = (
	rounds => 9,
	iterations => 3_000,
	clients => 8,
	crowd => 64,
	filling => 20_000,
	history => [ 0, 1_000_000, 10_000_000 ],
	active => 10_000,
	dangling => 1_000_000,
	sweep_rounds => 3,
	ends => 50,
	wakeup_rounds => 5,
	deferred => 10);
my %size = $mode eq 'full' ? %FULL : %QUICK;

# What the extension promises of its speed, as "<= bound", ">= bound" or "= 0".
my %BUDGET = (
	lifecycle_cpu => '<= 1.05',
	lifecycle_cpu_unprepared => '<= 0.70',
	lifecycle_wal => '<= 1.08',
	lifecycle_with_past => '<= 1.15',
	lifecycle_with_active => '<= 1.15',
	rejected_traces => '= 0',
	heartbeat_traces => '= 0',
	heartbeat_cpu => '<= 0.60',
	heartbeat_rate => '>= 3',
	wakeup_p50 => '<= 1000',
	wakeup_p99 => '<= 10000',
	wait_cpu => '= 0',
	sweep_time => '<= 1.3',
	sweep_memory => '<= 1.2',
	deferred_max => '<= 1000000',
	idle_workers => '= 0');

my @PARTS = (
	[ lifecycle => \&measure_lifecycle ],
	[ rejected => \&measure_rejected ],
	[ calls => \&measure_calls ],
	[ history => \&measure_history ],
	[ sweep => \&measure_sweep ],
	[ wakeups => \&measure_wakeups ],
	[ deferred => \&measure_deferred ]);

# sizes(SHARE): that share of the iterations, in slices of some 20; for load.
sub sizes
{
	my ($share) = @_;
	my $n = int($size{iterations} / $share) || 1;
	return (n => $n, k => int($n / 20) || 1);
}

# ---- the statements, in the language of load ----

my @TABLES = qw(ai_chat_run.ai_chat_runs bench.plain bench.words bench.runs);
my $PLAIN = 'bench.plain';
my $INSERT = "INSERT INTO $PLAIN (chat_id, workspace_id, trigger, status, started_at, updated_at)"
  . q{ VALUES ($chat, $ws, 'user', 'running', now(), now())};
my $GATE = "$INSERT ON CONFLICT (chat_id) WHERE status IN ('pending', 'running') DO NOTHING";
my $THIS_RUN = q{id = $run AND workspace_id = $ws AND status NOT IN ('succeeded', 'failed', 'aborted')};
my $PLAIN_END = "UPDATE $PLAIN SET status = 'succeeded', error = NULL, finished_at = now(), updated_at = now()"
  . " WHERE $THIS_RUN => 1";
my $OUR_END = q{SELECT ai_chat_run.finalize_run($run, $ws, 'completed') => finalized};

my $OUR_BEGIN = 'run <- SELECT ai_chat_run.begin_run($chat, $ws)';
my $PLAIN_BEGIN = "run <- $INSERT RETURNING id";

my %LIFECYCLE = (
	ours => "$OUR_BEGIN\n$OUR_END",
	plain => "$PLAIN_BEGIN\n$PLAIN_END",
	words => "$PLAIN_BEGIN\n$PLAIN_END" =~ s/$PLAIN/bench.words/gr,
	gate => "run <- $GATE RETURNING id\n$PLAIN_END",
	plpgsql => "run <- SELECT bench.begin_run(\$chat, \$ws)\n"
	  . q{SELECT bench.finalize_run($run, $ws, 'completed') => finalized});

# With run ids that the client makes, too.
my %LIFECYCLE_GIVEN_ID = (
	ours => "run <- SELECT ai_chat_run.begin_run(\$chat, \$ws, NULL, 'user', \$new)\n$OUR_END",
	plain => $PLAIN_BEGIN =~ s/\(chat_id/(id, chat_id/r =~ s/VALUES \(/VALUES (\$new, /r . "\n$PLAIN_END");

# How each begins a run of $chat, and is told that the chat has one.
my %BEGIN = (
	begin_run => [ 'SELECT ai_chat_run.begin_run($chat, $ws)', '!RN409' ],
	try_begin_run => [ 'SELECT outcome FROM ai_chat_run.try_begin_run($chat, $ws)', 'busy' ],
	insert => [ $INSERT, '!23505' ],
	gate => [ $GATE, '0' ],
	plpgsql => [ 'SELECT bench.begin_run($chat, $ws)', '!RN409' ]);

# The metrics of a row of the table, and how to speak of them.
my %METRICS = (
	cpu_us => 'backend CPU, us',
	wal => 'WAL, bytes',
	xids => 'transaction ids',
	dead => 'dead tuples',
	per_second => 'a second',
	latency_us_p99 => 'latency p99, us');

# ---- begin + finalize ----

sub measure_lifecycle
{
	my @cases = (
		[ 'prepared', 1, 'off' ],
		[ 'unprepared', 1, 'off' ],
		[ 'prepared', $size{clients}, 'off' ],
		[ 'unprepared', $size{clients}, 'off' ],
		[ 'prepared', 1, 'on' ],
		[ 'prepared', $size{clients}, 'on' ]);
	# The short run has one of each.
	splice @cases, 3, 2 if $mode eq 'quick';

	new_database('lifecycle');
	for (@cases)
	{
		my ($protocol, $clients, $sync) = @$_;
		my $case = "lifecycle $protocol " . ($clients == 1 ? '1 client' : "$clients clients") . " synchronous_commit=$sync";
		my $share = $sync eq 'on' ? 4 : 1;
		my %options = (d => 'lifecycle', c => $clients, sizes($clients * $share), sync => $sync);
		$options{x} = undef if $protocol eq 'unprepared';

		set_fsync('on') if $sync eq 'on';
		rounds($case, $size{rounds}, sub {
			fill('lifecycle', 'succeeded', 'ordered', $size{filling}, @TABLES);
			return load(\%LIFECYCLE, %options);
		});
		set_fsync('off') if $sync eq 'on';
		show_lifecycle($case, $protocol, $clients, $sync);
	}
	drop_database('lifecycle');
	return;
}

sub show_lifecycle
{
	my ($case, $protocol, $clients, $sync) = @_;
	my %budget = $clients > 1 || $sync eq 'on' ? ()
	  : $protocol eq 'prepared' ? (cpu_us => $BUDGET{lifecycle_cpu}, wal => $BUDGET{lifecycle_wal})
	  : (cpu_us => $BUDGET{lifecycle_cpu_unprepared});
	for my $against (qw(plain words gate plpgsql))
	{
		for my $metric (qw(cpu_us wal per_second xids dead))
		{
			next if $metric =~ /xids|dead/ && !($against eq 'plain' && $budget{wal});
			compare("$case; $METRICS{$metric}, against $against", $metric, [ $case, 'ours' ], [ $case, $against ],
				$against eq 'plain' ? $budget{$metric} : undef);
		}
	}
	return;
}

# ---- a rejected begin ----

sub measure_rejected
{
	my $case = 'rejected begin';
	my $stampede = "stampede of $size{crowd} on one chat";

	new_database('rejected');
	my $fill = sub { fill('rejected', 'succeeded', 'ordered', $size{filling}, @TABLES) };
	rounds($case, $size{rounds}, sub { $fill->(); return reject() });
	rounds($stampede, $size{rounds}, sub { $fill->(); return stampede() });
	drop_database('rejected');

	absolute("$case; $METRICS{$_}", $_, [ $case, 'begin_run' ], $BUDGET{rejected_traces}) for qw(wal dead xids);
	absolute("$case, as try_begin_run; $METRICS{$_}", $_, [ $case, 'try_begin_run' ],
		$BUDGET{rejected_traces}) for qw(wal dead xids);
	for ([ $case, qw(cpu_us per_second wal dead xids) ], [ $stampede, qw(cpu_us wal dead xids) ])
	{
		my ($which, @metrics) = @$_;
		for my $pair ([ 'begin_run', 'insert' ], [ 'begin_run', 'plpgsql' ], [ 'try_begin_run', 'insert' ],
			[ 'try_begin_run', 'gate' ])
		{
			my ($ours, $against) = @$pair;
			compare("$which, $ours against $against; $METRICS{$_}", $_, [ $which, $ours ], [ $which, $against ]) for @metrics;
		}
	}
	return;
}

# A chat with an active run, and begins that are rejected.
sub reject
{
	my %scripts;
	for my $how (keys %BEGIN)
	{
		my ($begin, $rejection) = map { s/\$chat/\$held/r } @{ $BEGIN{$how} };
		$scripts{$how} = "once: held <- SELECT \$chat::uuid\nonce: $begin\n$begin => $rejection";
	}
	return load(\%scripts, d => 'rejected', sizes(1));
}

# Many clients at the same moment, each time on a fresh chat: one begins, all others are rejected. An iteration is an
# attempt.
sub stampede
{
	my %scripts;
	for my $how (keys %BEGIN)
	{
		my ($begin, $rejection) = map { s/\$chat/\$turn/r } @{ $BEGIN{$how} };
		$scripts{$how} = "$begin => $rejection | *";
	}
	my $result = load(\%scripts, d => 'rejected', c => $size{crowd}, sizes($size{crowd} / 4), w => 20, s => undef);
	for my $how (keys %$result)
	{
		my $chats = $result->{$how}{iterations} / $size{crowd};
		my $begun = $result->{$how}{answer_1_2};
		$begun == $chats or die "$how: $begun runs were begun in $chats chats\n";
	}
	return $result;
}

# ---- record_step and heartbeat ----

my %CALL = (
	record_step => [ $OUR_BEGIN, q{SELECT ai_chat_run.record_step($run, $ws, $i) => continue} ],
	'UPDATE of the step' => [ $PLAIN_BEGIN,
		"UPDATE $PLAIN SET step_count = greatest(step_count, \$i), updated_at = now() WHERE $THIS_RUN RETURNING status => running" ],
	heartbeat => [ $OUR_BEGIN, q{SELECT ai_chat_run.heartbeat($run, $ws) => continue} ],
	'UPDATE of the time' => [ $PLAIN_BEGIN, "UPDATE $PLAIN SET updated_at = now() WHERE $THIS_RUN RETURNING status => running" ]);

sub measure_calls
{
	my %scripts = map { ($_ => "once: $CALL{$_}[0]\n$CALL{$_}[1]") } keys %CALL;
	my ($off, $on) = map { "calls synchronous_commit=$_" } qw(off on);

	new_database('calls');
	my $measure = sub {
		fill('calls', 'succeeded', 'ordered', $size{filling}, @TABLES);
		return load(\%scripts, d => 'calls', @_);
	};
	rounds($off, $size{rounds}, sub { $measure->(sizes(1)) });
	set_fsync('on');
	rounds($on, $size{rounds}, sub { $measure->(sizes(4), sync => 'on') });
	set_fsync('off');
	drop_database('calls');

	absolute("heartbeat; $METRICS{$_}", $_, [ $off, 'heartbeat' ], $BUDGET{heartbeat_traces}) for qw(wal dead xids);
	compare("heartbeat against a one-row UPDATE; $METRICS{cpu_us}", 'cpu_us', [ $off, 'heartbeat' ],
		[ $off, 'UPDATE of the time' ], $BUDGET{heartbeat_cpu});
	compare('heartbeat against a one-row UPDATE, synchronous_commit=on; a second', 'per_second', [ $on, 'heartbeat' ],
		[ $on, 'UPDATE of the time' ], $BUDGET{heartbeat_rate});
	compare("record_step against a one-row UPDATE; $METRICS{$_}", $_, [ $off, 'record_step' ], [ $off, 'UPDATE of the step' ])
	  for qw(cpu_us wal dead);
	compare('record_step against a one-row UPDATE, synchronous_commit=on; a second', 'per_second', [ $on, 'record_step' ],
		[ $on, 'UPDATE of the step' ]);
	compare('record_step against a one-row UPDATE; share of HOT', 'hot', [ $off, 'record_step' ],
		[ $off, 'UPDATE of the step' ]);
	return;
}

# ---- the lifecycle in a table with a past ----

# thousands(NUMBER): as it is said.
sub thousands
{
	my ($n) = @_;
	return $n >= 1_000_000 ? $n / 1_000_000 . ' million' : $n;
}

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
	print STDERR "   skipped: $_ finished runs, for which there is not enough room\n" for @numbers[ @affordable .. $#numbers ];
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
		my $budget = $past == $past[-1] ? $BUDGET{lifecycle_with_past} : undef;
		for my $metric (qw(cpu_us wal))
		{
			compare("lifecycle after " . thousands($past) . " runs, $ids, against an empty table; $METRICS{$metric}", $metric,
				[ $case, "ours $past" ], [ $case, 'ours 0' ], $metric eq 'cpu_us' ? $budget : undef);
			compare("  the same of plain SQL; $METRICS{$metric}", $metric, [ $case, "plain $past" ], [ $case, 'plain 0' ]);
			compare("  ours against plain SQL after " . thousands($past) . " runs; $METRICS{$metric}", $metric,
				[ $case, "ours $past" ], [ $case, "plain $past" ]);
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
		compare("  the same of plain SQL; $METRICS{cpu_us}", 'cpu_us', [ $case, "plain $state" ], [ $case, 'plain none' ]);
	}
	return;
}

# ---- the boot sweep ----

my $SWEEP_DONE = 'EXISTS (SELECT FROM ai_chat_run.workers WHERE datname = current_database() AND boot_sweep_done_at IS NOT NULL)';
my $SWEEP_BY_HAND = "UPDATE $PLAIN SET status = 'aborted', error = coalesce(error, 'Run interrupted by a server restart.'),"
  . " finished_at = now(), updated_at = now() WHERE status IN ('pending', 'running')";

sub measure_sweep
{
	my $case = 'boot sweep';
	my $n = $size{dangling};
	my $few = $n / 5;

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
	my $result = load({ ours => $LIFECYCLE{ours} }, d => 'sweep', n => 1_000_000, w => 5, b => 'SELECT 1',
		u => "SELECT NOT $SWEEP_DONE")->{ours};
	return $result;
}

# ---- wake-ups ----

sub measure_wakeups
{
	my @waiters = (1, 10, 100);
	new_database('wakeups');
	for my $waiters (@waiters)
	{
		for my $concerns ('one', 'all')
		{
			next if $waiters == 1 && $concerns eq 'all';
			my @options = (-c => $waiters, -n => $size{ends}, $concerns eq 'all' ? '-a' : '-i');
			my @kinds = (qw(await_run await_stops listen), $concerns eq 'all' ? () : 'poll');
			take_turns("wake-ups $waiters waiting $concerns woken", $size{wakeup_rounds}, \@kinds,
				sub { wakeups('wakeups', $_[0], @options) });
		}
	}
	for my $waiters (@waiters)
	{
		for my $concerns ('one', 'all')
		{
			show_wakeups("$waiters waiting $concerns woken", $waiters == 100);
		}
	}
	measure_notifying();
	drop_database('wakeups');
	return;
}

sub show_wakeups
{
	my ($words, $has_budget) = @_;
	my $case = "wake-ups $words";
	my %budget = $has_budget ? (p50 => $BUDGET{wakeup_p50}, p99 => $BUDGET{wakeup_p99}) : ();
	for (qw(p50 p99))
	{
		absolute("commit to await_run's return, $words; $_, us", "since_commit_us_$_", [ $case, 'await_run' ], $budget{$_});
		absolute("stop to await_stops' return, $words; $_, us", "since_call_us_$_", [ $case, 'await_stops' ], $budget{$_});
		compare("await_run against $_->[1], $words; $_->[2], us", "since_commit_us_$_->[2]", [ $case, 'await_run' ],
			[ $case, $_->[0] ]) for [ 'listen', 'LISTEN', $_ ], [ 'poll', 'polling', $_ ];
		compare("await_stops against LISTEN, $words; $_, us", "since_call_us_$_", [ $case, 'await_stops' ], [ $case, 'listen' ]);
	}
	absolute("$_, $words; CPU of a second's wait, us", 'idle_cpu_us', [ $case, $_ ], $_ eq 'poll' ? undef : $BUDGET{wait_cpu})
	  for qw(await_run await_stops poll);
	return;
}

# Commits that notify go one after the other, the wait for the disk included: why finalize_run does not notify.
sub measure_notifying
{
	for my $sync ('off', 'on')
	{
		my $case = "notifying on each finalize $size{crowd} clients synchronous_commit=$sync";
		my $count = int($size{iterations} / $size{crowd} * ($sync eq 'on' ? 1 : 4));
		set_fsync('on') if $sync eq 'on';
		take_turns($case, $size{rounds}, [ 'lifecycle_notify', 'lifecycle' ],
			sub { pgbench('wakeups', $_[0], $size{crowd}, $count, $sync) });
		set_fsync('off') if $sync eq 'on';
		compare("$case, against not; a second", 'per_second', [ $case, 'lifecycle_notify' ], [ $case, 'lifecycle' ]);
	}
	return;
}

# ---- deferred finalizations ----

sub measure_deferred
{
	my $case = 'deferred finalization';
	new_database('deferred');
	take_turns($case, $size{rounds}, ['ours'], sub { wakeups('deferred', 'deferred', -c => 5, -n => $size{deferred}) });
	take_turns('nothing deferred', 1, ['ours'], sub { watch_idle() });
	drop_database('deferred');

	absolute("$case, from the lock's release to applied; $_, us", "since_commit_us_$_", [ $case, 'ours' ],
		$_ eq 'max' ? $BUDGET{deferred_max} : undef) for qw(p50 max);
	absolute('nothing deferred; workers started in 10 s', 'workers', [ 'nothing deferred', 'ours' ], $BUDGET{idle_workers});
	absolute('nothing deferred; CPU of the launcher in 10 s, us', 'launcher_cpu_us', [ 'nothing deferred', 'ours' ]);
	return;
}

# Ten seconds in which there is nothing to do: the workers that were started, each of which is a process of the
# postmaster's, and the launcher's CPU time.
sub watch_idle
{
	my ($launcher) = processes(qr/ai_chat_run launcher/);
	my %seen;
	my $cpu = sub { return (lines("/proc/$launcher/schedstat"))[0] =~ s/ .*//r };

	pause(0.2) while processes(qr/ai_chat_run worker/);
	my $before = $cpu->();
	for (1 .. 500)
	{
		$seen{$_} = 1 for processes(qr/ai_chat_run worker/);
		pause(0.02);
	}
	return { workers => scalar keys %seen, launcher_cpu_us => ($cpu->() - $before) / 1000 };
}

# ---- the parts that were asked for ----

sub machine
{
	my %machine = (
		kernel => run(qw(uname -sr)),
		cores => run('nproc'),
		server => sql('postgres', 'SHOW server_version'),
		assertions => sql('postgres', 'SHOW debug_assertions'),
		started => sql('postgres', q{SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')}),
		mode => $mode);
	print STDERR "   a server built with assertions is slower than others, and not in all alike\n" if $machine{assertions} eq 'on';
	record('machine', '', 0, \%machine);
	return;
}

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
