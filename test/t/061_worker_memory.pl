# The launcher goes on for as long as the server does, and a worker through as many steps as there is work: neither needs more
# memory for that. The launcher is made to send hundreds of workers, with CHAOS=full thousands. Each task of a worker gets
# thousands of runs, most of them a step for each; what it uses is noted by a trigger of the run table, in the worker itself.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Memory;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $DATABASES = 8;
my $node = new_server('worker_memory', <<~CONF);
	log_statement = none
	log_min_messages = debug1
	full_page_writes = off
	max_wal_size = 4GB
	ai_chat_run.sweep_batch_size = 1
	ai_chat_run.stale_after = 0
	ai_chat_run.runner_grace = 1ms
	CONF
make_memory($node);

# ---- the launcher ----

my @databases = map { "visited_$_" } 1 .. $DATABASES;
for my $db (@databases)
{
	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
	$node->safe_psql($db, 'CREATE EXTENSION ai_chat_run');
	begin_run($node, $db, 1);
}

# wait_visits(OFFSET, N): until the launcher has asked for so many workers since.
sub wait_visits
{
	my ($offset, $n) = @_;
	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $visits = () = log_since($node, $offset) =~ /DEBUG:  registering background worker "ai_chat_run/g;
		return if $visits >= $n;
		select undef, undef, undef, 0.05;
	}
	die 'gave up waiting for workers';
}

my $launcher = $node->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE backend_type = 'ai_chat_run launcher'");
my $visits = how_often(120, 10_000);
change_conf($node, 'ai_chat_run.reconcile_interval' => '100ms');
wait_visits(log_end($node), 5 * $DATABASES);
my $offset = log_end($node);
my $before = logged_memory($node, $launcher);
wait_visits($offset, $visits);
my $growth = logged_memory($node, $launcher) - $before;
cmp_ok($growth, '<', 2000, "the launcher uses $growth bytes more after $visits visits");
change_conf($node, 'ai_chat_run.reconcile_interval' => '1h');

# ---- the worker ----

# Of the runs whose step_count says so: how much memory there is when a task has come to them. What kind they are is in their
# column trigger.
$node->safe_psql('postgres', <<~SQL);
	CREATE TABLE noted (kind text, n int, pid int, look text);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		INSERT INTO noted VALUES (OLD.trigger, OLD.step_count, pg_backend_pid(), memory());
		RETURN NULL;
	END \$\$;
	CREATE TRIGGER note AFTER UPDATE OR DELETE ON $RUNS FOR EACH ROW WHEN (OLD.step_count > 0) EXECUTE FUNCTION note();
	SQL

my $runs = how_often(2000, 50_000);

# add_runs(KIND, COLUMNS, VALUES, FIRST): so many runs of that kind, with these columns, after that statement. Each task takes
# them in the order in which they are added. What is done for the first note fills the caches for the others.
my $kinds = 0;

sub add_runs
{
	my ($kind, $columns, $values, $first) = @_;
	my $chat = sprintf "('%08d-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid", $kinds++;
	$node->safe_psql('postgres', ($first // '') . <<~SQL);
		INSERT INTO $RUNS (chat_id, workspace_id, trigger, step_count, $columns)
		SELECT $chat, '$WS', '$kind', CASE WHEN i IN (200, 300, $runs) THEN i ELSE 0 END, $values
		FROM generate_series(1, $runs) i
		SQL
	return;
}

# check_worker(KIND, TASK): when all these runs are done.
sub check_worker
{
	my ($kind, $task) = @_;
	my $waiting = $kind eq 'old' ? 'true' : 'finished_at IS NULL';
	wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE trigger = '$kind' AND $waiting", 0);
	my @looks = looks($node->safe_psql('postgres', "SELECT look FROM noted WHERE kind = '$kind' ORDER BY n"));
	is($node->safe_psql('postgres', "SELECT count(DISTINCT pid), count(*) FROM noted WHERE kind = '$kind'"), '1|3',
		"$task: all of $runs runs by one worker");
	stays_flat($task, @looks[ 1, 2 ]);
	return;
}

# The first two are due at server start. Of the deferred finalizations a step takes a hundred; each note is at the end of one.
add_runs('deferred', 'status', "'running'");
$node->safe_psql('postgres', <<~SQL);
	INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
	SELECT workspace_id, id, 'failed', 'a test' FROM $RUNS WHERE trigger = 'deferred'
	SQL
add_runs('dangling', 'status', "'running'");
$node->restart;
check_worker('deferred', 'applying deferred finalizations');
check_worker('dangling', 'boot sweep');

add_runs('departed', 'status, runner', q('running', 'worker'), "SELECT ai_chat_run.attach_runner('worker');\n");
check_worker('departed', 'aborting runs of a departed runner');

add_runs('silent', 'status, updated_at', q('running', now() - interval '1 day'));
change_conf($node, 'ai_chat_run.stale_after' => '1ms');
check_worker('silent', 'sweep of silent runs');

# A step of retention looks at the next 10 000 runs; that there are so many each time is what the young ones are for.
add_runs('old', 'status, finished_at', q('failed', now() - interval '1 day'));
add_runs('young', 'status, finished_at', q('failed', now())) for 1 .. 10_000 / $runs;
change_conf($node, 'ai_chat_run.sweep_batch_size' => 10, 'ai_chat_run.retention' => '1h');
check_worker('old', 'retention');

$node->stop;
done_testing();
