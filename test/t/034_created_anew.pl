# DROP EXTENSION and CREATE EXTENSION again, by one session, while others have the extension in use: with their kept plans,
# column numbers and OIDs they work with the new one; what shared memory knows of the dropped table, who is active, heard,
# or to stop, is not taken for knowledge of the new one, even of runs that have the same ids, and its places are given
# back; who waited for a run waits for the one of that id, or learns that there is no extension any more. If the drop is rolled
# back, all is as it was.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('anew', <<~CONF);
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.stale_after = 0
	ai_chat_run.max_active_runs = 10
	CONF

# run_id(N): ids of our choice, for runs of the old table and of the new one to have the same.
sub run_id
{
	my ($n) = @_;
	return sprintf '00000000-0000-7000-a000-%012d', $n;
}

# begin_as(SESSION, N): begins run N of chat N there; its runner is web-1.
sub begin_as
{
	my ($session, $n) = @_;
	return $session->query_safe(sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', run_id => '%s', runner => 'web-1')),
		chat($n), $WS, run_id($n));
}

# One of each call, and writes of one's own, in a function and in statements that a session keeps.
my $keep = <<~SQL;
	CREATE FUNCTION pg_temp.a_life(c uuid) RETURNS text LANGUAGE plpgsql AS \$\$
	DECLARE
		w constant uuid := '$WS';
		run uuid;
		active text;
	BEGIN
		run := ai_chat_run.begin_run(c, w);
		active := concat_ws(' ', (SELECT outcome FROM ai_chat_run.try_begin_run(c, w)),
			ai_chat_run.record_step(run, w, 1), ai_chat_run.heartbeat(run, w), ai_chat_run.link_assistant_message(run, w, run),
			ai_chat_run.request_stop(run, w), ai_chat_run.request_stop_for_chat(c, w) = run,
			(SELECT status FROM ai_chat_run.get_active_for_chat(c, w)), ai_chat_run.is_locally_active(run),
			ai_chat_run.finalize_run(run, w, 'error', 'model error'));
		RETURN concat_ws(' ', active, (SELECT error FROM ai_chat_run.get_run(run, w)),
			(SELECT status FROM ai_chat_run.get_latest_for_chat(c, w)), ai_chat_run.settle_deferred(run),
			(SELECT count(*) FROM ai_chat_run.active_runs WHERE run_id = run));
	END \$\$;
	PREPARE add(uuid) AS INSERT INTO $RUNS (id, chat_id, workspace_id) VALUES (\$1, \$1, '$WS');
	PREPARE fail(uuid) AS UPDATE $RUNS SET status = 'failed', error = 'by hand', finished_at = now() WHERE id = \$1;
	PREPARE remove(uuid) AS DELETE FROM $RUNS WHERE id = \$1;
	SQL
my $lived = 'busy continue continue t t t running t finalized model error failed 0 0';

# works(SESSION, WHAT): all of that, there.
sub works
{
	my ($session, $what) = @_;
	my $id = run_id(99);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($session->query_safe("SELECT pg_temp.a_life('@{[chat(98)]}')"), $lived, "$what: each call");
	$session->query_safe("EXECUTE $_('$id')") for 'add', 'fail';
	$session->query("EXECUTE fail('$id'); UPDATE $RUNS SET error = 'another' WHERE id = '$id'");
	like($session->{stderr}, qr/ERROR:  run $id is terminal and stays so\n/, "$what: and the triggers");
	$session->{stderr} = '';
	$session->query_safe("EXECUTE remove('$id')");
	return;
}

my ($admin, $other) = map { $node->background_psql('postgres', on_error_stop => 0) } 1, 2;
for ([ $admin, 'the one who drops' ], [ $other, 'another session' ])
{
	$_->[0]->query_safe($keep);
	works($_->[0], "$_->[1], before");
}

# Run 1 is heard, 2 is to stop, which its row bears, 3 as well, which it does not. Four others are active, and known.
begin_as($other, $_) for 1 .. 7;
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '@{[run_id(3)]}' FOR UPDATE");
is($other->query_safe(<<~SQL), "t\nstop", 'a stop is requested');
	SELECT ai_chat_run.request_stop('@{[run_id(2)]}', '$WS');
	SELECT ai_chat_run.heartbeat('@{[run_id(2)]}', '$WS');
	SQL
$other->query("SELECT ai_chat_run.request_stop('@{[run_id(3)]}', '$WS')");
$other->{stderr} = '';
is($other->query_safe("SELECT ai_chat_run.heartbeat('@{[run_id(3)]}', '$WS')"), 'stop', 'and another one, past the row');
$client->query_safe('ROLLBACK');
$client->quit;
my ($waiter) = start_waiting($node, 'postgres', "CALL ai_chat_run.await_run('@{[run_id(1)]}', '$WS', '1 h')");
my ($stops) = start_waiting($node, 'postgres',
	"CALL ai_chat_run.await_stops('web-1', '{@{[run_id(2)]}, @{[run_id(3)]}}', '1 h')");

# ---- undone ----

$admin->query_safe(<<~SQL);
	SET client_min_messages = warning;
	BEGIN;
	DROP EXTENSION ai_chat_run;
	CREATE EXTENSION ai_chat_run;
	SELECT ai_chat_run.begin_run('@{[chat(50)]}', '$WS', run_id => '@{[run_id(50)]}');
	ROLLBACK;
	SQL
is($other->query_safe(<<~SQL), "continue\nstop\nnot_found\nf", 'a drop that is rolled back has changed nothing');
	SELECT ai_chat_run.heartbeat('@{[run_id(1)]}', '$WS');
	SELECT ai_chat_run.heartbeat('@{[run_id(3)]}', '$WS');
	SELECT ai_chat_run.heartbeat('@{[run_id(50)]}', '$WS');
	SELECT ai_chat_run.is_locally_active('@{[run_id(50)]}');
	SQL
works($other, 'another session, after a rollback');
works($admin, 'the one who drops, after a rollback');

# ---- done ----

$admin->query_safe('BEGIN; DROP EXTENSION ai_chat_run; CREATE EXTENSION ai_chat_run; COMMIT');
is($other->query_safe(<<~SQL), "not_found\nnot_found\nnot_found\nf\nnot_found\n0", 'runs of before are not known');
	SELECT ai_chat_run.heartbeat('@{[run_id(1)]}', '$WS');
	SELECT ai_chat_run.heartbeat('@{[run_id(2)]}', '$WS');
	SELECT ai_chat_run.record_step('@{[run_id(3)]}', '$WS', 1);
	SELECT ai_chat_run.is_locally_active('@{[run_id(1)]}');
	CALL ai_chat_run.await_stop('@{[run_id(2)]}', '$WS', '0 s');
	SELECT count(*) FROM ai_chat_run.active_runs;
	SQL
is($other->query_safe("CALL ai_chat_run.await_stops('web-1', '{}', '0 s')"), '', 'nor is it known that they are to stop');
begin_as($other, $_) for 1 .. 3;
is($other->query_safe(<<~SQL), "continue\ncontinue\ncontinue", 'not even by the same ids');
	SELECT ai_chat_run.heartbeat('@{[run_id(1)]}', '$WS');
	SELECT ai_chat_run.heartbeat('@{[run_id(2)]}', '$WS');
	SELECT ai_chat_run.heartbeat('@{[run_id(3)]}', '$WS');
	SQL
is($other->query_safe("CALL ai_chat_run.await_stops('web-1', '{}', '0 s')"), '', 'none of which is to stop');

# Who waits goes by the id, and by the row.
is($other->query_safe("SELECT ai_chat_run.request_stop('@{[run_id(1)]}', '$WS')"), 't', 'a stop of a new one is requested');
is(answer($stops), '{' . run_id(1) . '}', 'who has waited for stops since before is told');
is($other->query_safe("SELECT ai_chat_run.finalize_run('@{[run_id(1)]}', '$WS', 'completed')"), 'finalized', 'it ends');
is(answer($waiter), 'succeeded|', 'who has waited for its end since before is told');
$_->quit for $waiter, $stops;
works($admin, 'the one who drops, after it');
works($other, 'another session, after it');

# ---- places ----

# Of ten places seven were taken by runs of the dropped table. A worker gives them back, which comes for new settings of any
# kind, and, so that we see when, for the end of a run that is held up.
change_conf($node, vacuum_cost_limit => 300);
begin_as($other, 10);
$client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '@{[run_id(10)]}' FOR UPDATE");
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('@{[run_id(10)]}', '$WS', 'completed')"), 'deferred',
	'a finalization is deferred');
$client->query_safe('COMMIT');
$client->quit;
wait_until($node, 'postgres', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations', 0);
wait_until($node, 'postgres', <<~SQL);
	SELECT NOT working AND next_due > now() + interval '10 min' FROM ai_chat_run.workers WHERE datname = 'postgres'
	SQL
my $untracked = "SELECT untracked FROM ai_chat_run.stats WHERE datname = 'postgres'";
my $before = $node->safe_psql('postgres', $untracked);
begin_as($other, $_) for 11 .. 18;
is($node->safe_psql('postgres', $untracked), $before, 'the places of the dropped ones are free');
begin_as($other, 19);
cmp_ok($node->safe_psql('postgres', $untracked), '>', $before, 'and there are no more than that');

# ---- not made anew ----

# What wakes all who wait comes from another database.
$node->safe_psql('postgres', 'CREATE DATABASE elsewhere');
$node->safe_psql('elsewhere', 'CREATE EXTENSION ai_chat_run');
my @waiters = map { (start_waiting($node, 'postgres', "CALL ai_chat_run.$_"))[0] }
  "await_run('@{[run_id(11)]}', '$WS', '1 h')", "await_stop('@{[run_id(11)]}', '$WS', '1 h')", "await_stops('web-2', '{}', '1 h')";
$admin->query_safe('DROP EXTENSION ai_chat_run');
$node->safe_psql('elsewhere', <<~SQL);
	BEGIN; SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS'); PREPARE TRANSACTION 'wakes all';
	COMMIT PREPARED 'wakes all';
	SQL
for (@waiters)
{
	is(answer($_), 'ERROR: relation "ai_chat_run.ai_chat_runs" does not exist', 'who waits learns that there is nothing more');
	$_->quit;
}
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/, 'nobody has crashed');
$_->quit for $admin, $other;
$node->stop;
done_testing();
