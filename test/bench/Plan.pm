# How much is measured, what the extension promises, and the statements that are compared.
package Plan;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(plan sizes thousands $mode %size %BUDGET %METRICS @TABLES $PLAIN $INSERT $THIS_RUN $PLAIN_BEGIN
  $OUR_BEGIN %LIFECYCLE %LIFECYCLE_GIVEN_ID %BEGIN);

my %QUICK = (
	rounds => 4,
	iterations => 1_000,
	clients => 4,
	crowd => 16,
	filling => 5_000,
	history => [ 0, 100_000 ],
	active => 10_000,
	dangling => 200_000,
	sweep_rounds => 2,
	ends => 10,
	wakeup_rounds => 3,
	deferred => 5);
my %FULL = (
	rounds => 7,
	iterations => 3_000,
	clients => 8,
	crowd => 64,
	filling => 20_000,
	history => [ 0, 1_000_000, 10_000_000 ],
	active => 10_000,
	dangling => 1_000_000,
	sweep_rounds => 3,
	ends => 30,
	wakeup_rounds => 5,
	deferred => 10);
our ($mode, %size);

# The plan is that of the mode, quick or full.
sub plan
{
	($mode) = @_;
	%size = $mode eq 'full' ? %FULL : %QUICK;
	return;
}

# sizes(SHARE): that share of the iterations, in slices of some 20; for load.
sub sizes
{
	my ($share) = @_;
	my $n = int($size{iterations} / $share) || 1;
	return (n => $n, k => int($n / 20) || 1);
}

# thousands(NUMBER): as it is said.
sub thousands
{
	my ($n) = @_;
	return $n >= 1_000_000 ? $n / 1_000_000 . ' million' : $n;
}

# What the extension promises of its speed, as "<= bound", ">= bound" or "= 0".
our %BUDGET = (
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

# ---- the statements, in the language of load ----

our @TABLES = qw(ai_chat_run.ai_chat_runs bench.plain bench.words bench.runs);
our $PLAIN = 'bench.plain';
our $INSERT = "INSERT INTO $PLAIN (chat_id, workspace_id, trigger, status, started_at, updated_at)"
  . q{ VALUES ($chat, $ws, 'user', 'running', now(), now())};
my $GATE = "$INSERT ON CONFLICT (chat_id) WHERE status IN ('pending', 'running') DO NOTHING";
our $THIS_RUN = q{id = $run AND workspace_id = $ws AND status NOT IN ('succeeded', 'failed', 'aborted')};
my $PLAIN_END = "UPDATE $PLAIN SET status = 'succeeded', error = NULL, finished_at = now(), updated_at = now()"
  . " WHERE $THIS_RUN => 1";
my $OUR_END = q{SELECT ai_chat_run.finalize_run($run, $ws, 'completed') => finalized};

our $OUR_BEGIN = 'run <- SELECT ai_chat_run.begin_run($chat, $ws)';
our $PLAIN_BEGIN = "run <- $INSERT RETURNING id";

our %LIFECYCLE = (
	ours => "$OUR_BEGIN\n$OUR_END",
	plain => "$PLAIN_BEGIN\n$PLAIN_END",
	words => "$PLAIN_BEGIN\n$PLAIN_END" =~ s/$PLAIN/bench.words/gr,
	gate => "run <- $GATE RETURNING id\n$PLAIN_END",
	plpgsql => "run <- SELECT bench.begin_run(\$chat, \$ws)\n"
	  . q{SELECT bench.finalize_run($run, $ws, 'completed') => finalized});

# With run ids that the client makes, too.
our %LIFECYCLE_GIVEN_ID = (
	ours => "run <- SELECT ai_chat_run.begin_run(\$chat, \$ws, NULL, 'user', \$new)\n$OUR_END",
	plain => $PLAIN_BEGIN =~ s/\(chat_id/(id, chat_id/r =~ s/VALUES \(/VALUES (\$new, /r . "\n$PLAIN_END");

# How each begins a run of $chat, and is told that the chat has one.
our %BEGIN = (
	begin_run => [ 'SELECT ai_chat_run.begin_run($chat, $ws)', '!RN409' ],
	try_begin_run => [ 'SELECT outcome FROM ai_chat_run.try_begin_run($chat, $ws)', 'busy' ],
	insert => [ $INSERT, '!23505' ],
	gate => [ $GATE, '0' ],
	plpgsql => [ 'SELECT bench.begin_run($chat, $ws)', '!RN409' ]);

# The metrics of a row of the table, and how to speak of them.
our %METRICS = (
	cpu_us => 'backend CPU, us',
	wal => 'WAL, bytes',
	xids => 'transaction ids',
	dead => 'dead tuples',
	per_second => 'a second');

1;
