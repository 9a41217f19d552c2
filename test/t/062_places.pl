# The places that shared memory has are given back, whatever becomes of who took them: a server with place for 20 runs has it
# after hundreds, with CHAOS=full thousands, that were ended, rolled back or deleted, whose commit failed or whose session died;
# and so it is with those for claims, runners and prepared transactions.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Memory;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $PLACES = 20;
my $node = new_server('places', <<~CONF);
	log_statement = none
	log_min_messages = log
	max_connections = 15
	ai_chat_run.max_active_runs = $PLACES
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.stale_after = 0
	ai_chat_run.runner_grace = 1ms
	CONF

# more than there are places
my $n = how_often(50, 5000);

# The worker's first visit of the database comes after server start, and would clean up behind us.
wait_until($node, 'postgres',
	'SELECT boot_sweep_done_at IS NOT NULL AND NOT working FROM ai_chat_run.workers WHERE datname = current_database()');

my $BEGIN = "ai_chat_run.begin_run(gen_random_uuid(), '$WS')";

sub sql { return $node->safe_psql('postgres', $_[0]); }

# all_free(WHAT): all places can be had, but no more.
my $UNTRACKED = 'SELECT untracked FROM ai_chat_run.stats WHERE datname = current_database()';

sub all_free
{
	my ($what) = @_;
	my $before = sql($UNTRACKED);
	my $runs = join ', ', map { "'$_'" } split /\n/, sql("SELECT $BEGIN FROM generate_series(1, $PLACES + 1)");
	is(sql($UNTRACKED) - $before, 1, "after $what: there is place for $PLACES runs, and not for one more");
	sql("SELECT ai_chat_run.finalize_run(id, '$WS', 'completed') FROM $RUNS WHERE id IN ($runs)");
	return;
}

all_free('nothing');

# ---- runs ----

my $ACTIVE = 'finished_at IS NULL';
sql("SELECT ai_chat_run.finalize_run($BEGIN, '$WS', 'completed') FROM generate_series(1, $n)");

# What becomes of them, and how, $n times and more.
my @lives = (
	'calls for runs that have ended' => <<~SQL,
		SELECT ai_chat_run.heartbeat(id, '$WS'), ai_chat_run.request_stop(id, '$WS'), ai_chat_run.record_step(id, '$WS', 1),
			ai_chat_run.finalize_run(id, '$WS', 'error')
		FROM (SELECT id FROM $RUNS LIMIT $n) r
		SQL
	'calls for runs that are not there' => <<~SQL x $n,
		SELECT ai_chat_run.heartbeat(g, '$WS'), ai_chat_run.request_stop(g, '$WS'), ai_chat_run.record_step(g, '$WS', 1),
			ai_chat_run.finalize_run(g, '$WS', 'error') FROM gen_random_uuid() g;
		SQL
	'runs that were finalized' => <<~SQL,
		DO \$\$
		DECLARE
			run uuid;
		BEGIN
			FOR i IN 1 .. 10 * $n LOOP
				run := $BEGIN;
				COMMIT;
				PERFORM ai_chat_run.finalize_run(run, '$WS', 'completed');
				COMMIT;
			END LOOP;
		END \$\$
		SQL
	'runs of one transaction' => "SELECT ai_chat_run.finalize_run($BEGIN, '$WS', 'error') FROM generate_series(1, 10 * $n)",
	'runs that were rolled back' => "BEGIN; SELECT $BEGIN; ROLLBACK;\n" x $n,
	'runs that were rolled back to a savepoint' => "BEGIN; SAVEPOINT s; SELECT $BEGIN; ROLLBACK TO s; COMMIT;\n" x $n,
	'runs of sessions that were terminated' => [
		map { "BEGIN; SELECT $BEGIN; SELECT pg_terminate_backend(pg_backend_pid());" } 1 .. $PLACES + 10 ],
	'runs of prepared transactions' => <<~SQL x $n . <<~SQL x $n,
		BEGIN; SELECT $BEGIN; PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p';
		SELECT ai_chat_run.heartbeat(id, '$WS'), ai_chat_run.finalize_run(id, '$WS', 'completed') FROM $RUNS WHERE $ACTIVE;
		SQL
		BEGIN; SELECT $BEGIN; PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p';
		SQL
	'runs that were swept' => "SELECT $BEGIN; SELECT ai_chat_run.sweep_runs();\n" x $n,
	'runs that somebody ended by hand' =>
	  "SELECT $BEGIN; UPDATE $RUNS SET status = 'failed', finished_at = now() WHERE $ACTIVE;\n" x $n,
	'runs that were deleted' => "SELECT $BEGIN; DELETE FROM $RUNS WHERE $ACTIVE;\n" x $n,
	'runs that went with TRUNCATE' => "SELECT $BEGIN; TRUNCATE $RUNS;\n" x $n,
);
while (my ($what, $sql) = splice @lives, 0, 2)
{
	if (ref $sql)
	{
		$node->psql('postgres', $_, stderr => \my $err) for @$sql;
	}
	else
	{
		sql($sql);
	}
	all_free($what);
}

# Each of two transactions reads what the other writes; the one that commits last fails, after it has told what is to come.
my $loser = $node->background_psql('postgres', on_error_stop => 0);
my $failures = 0;
sql('CREATE TABLE skew (n int)');
for (1 .. $PLACES + 10)
{
	my $skew = 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM skew; INSERT INTO skew VALUES (1);';
	$loser->query_safe("$skew SELECT $BEGIN");
	sql("$skew COMMIT");
	$loser->query('COMMIT');
	$failures++ if answer($loser) =~ /could not serialize access/;
}
is($failures, $PLACES + 10, 'commits that fail');
all_free('runs whose commit failed');
$loser->quit;

# Who cannot look at the row leaves a place that he has taken for what he would see. The worker looks for such; one run is
# silent, for its end to tell that the worker was there.
my $insert = "INSERT INTO $RUNS (chat_id, workspace_id, status, updated_at)";
sql("$insert SELECT gen_random_uuid(), '$WS', 'running', now() FROM generate_series(1, $PLACES)");
my @untracked = split /\n/, sql("SELECT id FROM $RUNS WHERE $ACTIVE");
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; LOCK TABLE $RUNS");
my ($ret, $out, $err) = $node->psql('postgres', join '', map { "SELECT ai_chat_run.heartbeat('$_', '$WS');\n" } @untracked);
is(scalar(() = $err =~ /WARNING:  could not record the heartbeat of run/g), $PLACES, 'heartbeats that fail');
$holder->query_safe('ROLLBACK');
sql("BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM $RUNS WHERE $ACTIVE; COMMIT");
sql("$insert VALUES ('@{[chat(1)]}', '$WS', 'running', now() - interval '1 day')");
change_conf($node, 'ai_chat_run.stale_after' => '1ms', 'ai_chat_run.reconcile_interval' => '100ms');
wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE $ACTIVE", 0);
change_conf($node, 'ai_chat_run.stale_after' => '0', 'ai_chat_run.reconcile_interval' => '1h');
all_free('calls that could not look, and a visit of the worker');

# ---- claims ----

# There is one for each backend that there can be, which are fewer than these.
my $chats = "CREATE TEMP TABLE chats AS SELECT ('00000000-0000-4000-8000-1' || lpad(i::text, 11, '0'))::uuid AS chat"
  . " FROM generate_series(1, $n) i;";
my $superseding = <<~SQL;
	DO \$\$
	DECLARE
		chat uuid;
		outcome text;
		run uuid;
	BEGIN
		FOR chat IN SELECT c.chat FROM chats c LOOP
			CALL ai_chat_run.supersede_run(chat, gen_random_uuid(), '$WS', timeout => '0', outcome => outcome, run_id => run);
			CALL ai_chat_run.supersede_run(chat, run, '$WS', timeout => '0', outcome => outcome, run_id => run);
			IF outcome <> 'timeout' THEN
				RAISE 'outcome %', outcome;
			END IF;
		END LOOP;
	END \$\$;
	SQL
sql("$chats $superseding");
sql("$chats SELECT ai_chat_run.request_stop_for_chat(chat, '$WS') FROM chats; SELECT ai_chat_run.sweep_runs()");
my $failing = sql("SELECT ai_chat_run.finalize_run(id, '$WS', 'completed'), id FROM (SELECT $BEGIN AS id) r") =~ s/.*\|//r;
($ret, $out, $err) = $node->psql('postgres', <<~SQL, on_error_stop => 0);
	$chats
	SELECT format('CALL ai_chat_run.supersede_run(%L, %L, %L)', chat, '$failing', '$WS') FROM chats \\gexec
	SQL
is(scalar(() = $err =~ /ERROR:  run .* is not a run of chat/g), $n, 'supersessions that fail');
is(sql("$chats SELECT count(ai_chat_run.begin_run(chat, '$WS')) FROM chats"), $n, 'no claim is left on any chat');
sql('SELECT ai_chat_run.sweep_runs()');

# ---- runners ----

# There is place for twice as many as backends, and some; these are more, in one session.
my $names = how_often(400, 10_000);
my @calls = map { "SELECT ai_chat_run.attach_runner('runner $_');\n" } 1 .. $names;
my @rolled_back = (
	join('', map { "BEGIN; $_ ROLLBACK;\n" } @calls),
	join('', 'BEGIN;', (map { "SAVEPOINT s; $_ ROLLBACK TO s; RELEASE s;\n" } @calls), 'COMMIT;'));
for my $calls (@rolled_back)
{
	is(scalar(() = sql($calls) =~ /^0$/mg), $names, 'runners that are attached, and rolled back');
}

# One that has departed keeps its place until a worker has been there; the last one has a run, for that to be seen.
my $attached = 0;
for (1 .. $names / 50)
{
	my $calls = join '', splice @calls, 0, 50;
	my ($last) = $calls =~ /.*'(.*)'/s;
	$calls .= "DO \$\$ BEGIN PERFORM ai_chat_run.begin_run('@{[chat(1)]}', '$WS', runner => '$last'); END \$\$";
	$attached += () = sql($calls) =~ /^0$/mg;
	wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE $ACTIVE", 0);
}
is($attached, $names, 'runners that are attached, and depart');

# ---- prepared transactions ----

# What is not ours changes nothing of what is known of runs: with the table locked, only what is known can be told.
my $run = sql("SELECT $BEGIN");
my $prepared = "PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p';";
sql(<<~SQL x 20);
	BEGIN; SELECT ai_chat_run.record_step('$run', '$WS', 1);
	UPDATE $RUNS SET runner = 'somebody ' || now() WHERE id = '$run'; $prepared
	SQL
is(sql("SELECT ai_chat_run.heartbeat('$run', '$WS')"), 'continue', 'after transactions that changed runs the row is looked at');
$holder->query_safe("BEGIN; LOCK TABLE $RUNS");
is(sql("BEGIN; INSERT INTO skew VALUES (2); $prepared SELECT ai_chat_run.heartbeat('$run', '$WS')"), 'continue',
	'after one that did not, it is not');
is(sql("SELECT ai_chat_run.heartbeat(gen_random_uuid(), '$WS') IS NULL"), 't', 'nor could it be');
$holder->query_safe('ROLLBACK');
$holder->quit;
$node->stop;
done_testing();
