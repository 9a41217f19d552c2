# What operators see: the views stats, workers and active_runs, and health(), on a preloaded server. Counters go with
# commits; stats_reset() concerns the current database; each check of health() is seen well and not well.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $GATE = 'ai_chat_run.ai_chat_runs_one_active_per_chat';
my $node = new_server('observe', <<~CONF);
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.stale_after = 0
	ai_chat_run.finalize_retry_base = 0
	max_logical_replication_workers = 0
	CONF
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION ai_chat_run');

# The launcher finds all databases when it starts.
$node->restart;

# Everybody here looks as a monitoring role does.
$node->safe_psql('postgres', 'CREATE ROLE monitor LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN; CREATE ROLE app LOGIN');
$node->safe_psql('postgres', "SELECT ai_chat_run.grant_app_access('app')");

sub look
{
	my ($query, $db) = @_;
	return $node->safe_psql($db // 'postgres', $query, extra_params => [ '-U', 'monitor' ]);
}

# stats(DATABASE): all counters that are not 0, as "name=n".
sub stats
{
	my ($db) = @_;
	return look(<<~SQL);
		SELECT string_agg(key || '=' || value, ' ' ORDER BY key COLLATE "C")
		FROM ai_chat_run.stats s, jsonb_each_text(to_jsonb(s))
		WHERE s.datname = '$db' AND key NOT IN ('datid', 'datname', 'stats_reset') AND value <> '0'
		SQL
}

# not_ok(DATABASE): the checks of health() that are not ok, and whether there is something to do for exactly these.
sub not_ok
{
	my ($db) = @_;
	return look(<<~SQL, $db);
		SELECT coalesce(string_agg(check_name, ' ' ORDER BY check_name COLLATE "C") FILTER (WHERE NOT ok), 'none')
			|| CASE WHEN bool_and((what_to_do IS NULL) = ok AND detail <> '') THEN '' ELSE ', not explained' END
		FROM ai_chat_run.health()
		SQL
}

# ---- stats ----

wait_until($node, 'postgres', "SELECT count(*) FROM ai_chat_run.workers WHERE boot_sweep_done_at IS NOT NULL
	AND datname IN ('postgres', 'second')", 2);
is(stats('postgres'), '', 'at first nothing has happened');
my @run = map { begin_run($node, 'postgres', $_) } 1 .. 5;
begin_run($node, 'second', 1);
$node->safe_psql('postgres', <<~SQL);
	SELECT ai_chat_run.try_begin_run('@{[chat(1)]}', '$WS');
	SELECT ai_chat_run.heartbeat('$run[0]', '$WS'), ai_chat_run.heartbeat('$run[1]', '$WS');
	SELECT ai_chat_run.request_stop('$run[0]', '$WS');
	SELECT ai_chat_run.finalize_run('$run[0]', '$WS', 'aborted');
	SELECT ai_chat_run.finalize_run('$run[0]', '$WS', 'completed');
	SELECT ai_chat_run.finalize_run('$run[1]', '$WS', 'completed');
	SELECT ai_chat_run.finalize_run('$run[2]', '$WS', 'error');
	BEGIN;
	SELECT ai_chat_run.request_stop('$run[3]', '$WS');
	SELECT ai_chat_run.begin_run('@{[chat(6)]}', '$WS'), ai_chat_run.finalize_run('$run[3]', '$WS', 'completed');
	ROLLBACK;
	BEGIN; SAVEPOINT s;
	SELECT ai_chat_run.finalize_run('$run[3]', '$WS', 'completed');
	ROLLBACK TO s; SAVEPOINT s;
	SELECT ai_chat_run.finalize_run('$run[3]', '$WS', 'error');
	RELEASE s; COMMIT;
	CALL ai_chat_run.await_run('$run[3]', '$WS', '1 h');
	SQL
$node->psql('postgres', "SELECT ai_chat_run.begin_run('@{[chat(5)]}', '$WS')");
is(stats('postgres'),
	'begun=5 finalized_aborted=1 finalized_failed=2 finalized_succeeded=1 heartbeats=2 rejected=2 stops=1 waits=1',
	'calls are counted, once their transactions have committed');
is(stats('second'), 'begun=1', 'each database for itself');

# A write that fails once, since a trigger counts to two, and one that is deferred, and applied by the worker.
my $client = $node->background_psql('postgres');
$node->safe_psql('postgres', <<~SQL);
	CREATE SEQUENCE public.tries;
	CREATE FUNCTION public.fail_once() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		IF nextval('public.tries') = 1 THEN RAISE 'not at once'; END IF;
		RETURN NEW;
	END \$\$;
	CREATE TRIGGER fail_once BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.fail_once();
	SELECT ai_chat_run.stats_reset();
	SET ai_chat_run.finalize_max_attempts = 2;
	SELECT ai_chat_run.finalize_run('$run[4]', '$WS', 'completed');
	DROP TRIGGER fail_once ON $RUNS;
	SQL
is(stats('postgres'), 'finalized_succeeded=1 retries=1', 'a retry is counted');
my $decided = begin_run($node, 'postgres', 7);
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$decided' FOR UPDATE");
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$decided', '$WS', 'completed')"), 'deferred',
	'a client has the row');
is(look('SELECT run_id, deferred FROM ai_chat_run.active_runs'), "$decided|t", 'active_runs: a deferral');
$client->query_safe('COMMIT');
wait_until($node, 'postgres', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations', 0);
wait_until($node, 'postgres', "SELECT deferred || ' ' || settled_later FROM ai_chat_run.stats WHERE datname = 'postgres'",
	'1 1');
pass('a deferral is counted, and that it was settled');

# One that another call meets before the worker does: in a transaction, so that the worker has no part in it.
$node->safe_psql('postgres', <<~SQL);
	SELECT ai_chat_run.stats_reset();
	BEGIN;
	SELECT ai_chat_run.begin_run('@{[chat(8)]}', '$WS', run_id => '@{[chat(108)]}');
	INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
	VALUES ('$WS', '@{[chat(108)]}', 'failed', 'a test');
	SELECT ai_chat_run.finalize_run('@{[chat(108)]}', '$WS', 'completed');
	COMMIT;
	SQL
is(stats('postgres'), 'begun=1 settled_later=1', 'a deferral that the next finalizer meets is settled, and not finalized');

# Begins that are refused for a run that their callers may not know of, or for none at all but a claim.
$node->safe_psql('postgres', <<~SQL);
	SELECT ai_chat_run.begin_run('@{[chat(8)]}', '$WS', run_id => '@{[chat(208)]}');
	SELECT ai_chat_run.stats_reset();
	SELECT ai_chat_run.try_begin_run('@{[chat(8)]}', gen_random_uuid());
	SQL
is(stats('postgres'), 'rejected=1', 'a begin that is refused for a run of another workspace');
my ($waiter) = start_waiting($node, 'postgres',
	"CALL ai_chat_run.supersede_run('@{[chat(8)]}', '@{[chat(208)]}', '$WS', timeout => '1 h')");
is($node->safe_psql('postgres', <<~SQL), "\nfinalized\nbusy", 'a run that is being superseded ends');
	SELECT ai_chat_run.stats_reset();
	BEGIN;
	SELECT ai_chat_run.finalize_run('@{[chat(208)]}', '$WS', 'aborted');
	SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(8)]}', '$WS');
	COMMIT;
	SQL
like(answer($waiter), qr/^superseded\|/, 'and it is superseded');
is(stats('postgres'), 'begun=1 finalized_aborted=1 rejected=1', 'a begin that is refused for a claim');
$run[4] = $node->safe_psql('postgres', "SELECT id FROM ai_chat_run.get_active_for_chat('@{[chat(8)]}', '$WS')");
$node->safe_psql('postgres', <<~SQL);
	SELECT ai_chat_run.stats_reset();
	CALL ai_chat_run.supersede_run('@{[chat(8)]}', '$run[4]', '$WS', timeout => '0', force => true);
	SQL
is(stats('postgres'), 'begun=1 finalized_aborted=1 stops=1 waits=1', 'supersede_run with force');
$waiter->quit;
$node->safe_psql('postgres', "DELETE FROM $RUNS WHERE chat_id = '@{[chat(8)]}'");
$node->safe_psql('postgres', 'SELECT ai_chat_run.stats_reset()');
is(stats('postgres') . ' ' . stats('second'), ' begun=1', 'a reset concerns the current database');
is(look("SELECT a.stats_reset > b.stats_reset FROM ai_chat_run.stats a, ai_chat_run.stats b
	WHERE a.datname = 'postgres' AND b.datname = 'second'"), 't', 'which says since when it counts');

# ---- active_runs ----

my $runner = $node->background_psql('postgres');
$runner->query_safe("SELECT ai_chat_run.attach_runner('web-1')");
@run = map {
	$node->safe_psql('postgres', sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => '%s')), chat($_), $WS, "web-$_")
} 1 .. 3;
$node->safe_psql('postgres', <<~SQL);
	UPDATE $RUNS SET updated_at = now() - interval '1 year' WHERE finished_at IS NULL;
	SELECT ai_chat_run.record_step('$run[0]', '$WS', 7);
	SELECT ai_chat_run.heartbeat('$run[1]', '$WS');
	SQL
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run[1]' FOR UPDATE");
$node->psql('postgres', "SELECT ai_chat_run.request_stop('$run[1]', '$WS')");
is(look(<<~SQL), <<~ROWS =~ s/\n\z//r, 'active_runs: what the rows and shared memory tell');
	SELECT ltrim(right(chat_id::text, 12), '0'), workspace_id = '$WS', runner, age >= '0' AND age < '1 day',
		last_seen > now() - interval '1 day', step_count, stop_requested, deferred, attached
	FROM ai_chat_run.active_runs ORDER BY chat_id
	SQL
	1|t|web-1|t|t|7|f|f|t
	2|t|web-2|t|t|0|t|f|f
	3|t|web-3|t|t|0|f|f|f
	ROWS
$client->query_safe('COMMIT');

# ---- a server start ----

# In the second database the boot sweep fails.
$node->safe_psql('second', <<~SQL);
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN RAISE 'not in this database'; END\$\$;
	CREATE TRIGGER refuse BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.refuse();
	SQL
my $life = log_end($node);
$node->restart;
abandon($_) for $client, $runner;
wait_swept($node, $life, 'postgres');
wait_until($node, 'postgres', "SELECT boot_sweep_done_at IS NOT NULL FROM ai_chat_run.workers WHERE datname = 'postgres'");
is(look(<<~SQL), 't|t|3||f', 'workers: a boot sweep');
	SELECT has_extension, boot_sweep_done_at > pg_postmaster_start_time(), runs_swept, last_error, working
	FROM ai_chat_run.workers WHERE datname = 'postgres'
	SQL
is(stats('postgres'), 'swept_at_boot=3', 'stats: counted since server start');
is(not_ok('postgres'), 'none', 'health: all is well');
$node->wait_for_log(qr/boot sweep of database "second" failed/, $life);
wait_until($node, 'postgres', "SELECT last_error IS NOT NULL FROM ai_chat_run.workers WHERE datname = 'second'");
is(look(<<~SQL), 't||0|not in this database|t|t', 'workers: a boot sweep that fails');
	SELECT has_extension, boot_sweep_done_at, runs_swept, last_error, last_error_at > pg_postmaster_start_time(),
		next_due > last_error_at
	FROM ai_chat_run.workers WHERE datname = 'second'
	SQL
is(not_ok('second'), 'boot_sweep', 'health: the boot sweep is not done');
$node->safe_psql('second', "DROP TRIGGER refuse ON $RUNS");
$node->reload;
wait_swept($node, $life, 'second');
wait_until($node, 'second', "SELECT ok FROM ai_chat_run.health() WHERE check_name = 'boot_sweep'");
is(not_ok('second'), 'none', 'health: until it is');

# ---- the other checks ----

is(look(q(SELECT string_agg(check_name, ' ') FROM ai_chat_run.health())), 'preload index worker boot_sweep deferred silent',
	'health: the checks');
my ($definition) = $node->safe_psql('postgres', "SELECT pg_get_indexdef('$GATE'::regclass)");
$node->safe_psql('postgres', "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '$GATE'::regclass");
is(not_ok('postgres'), 'index', 'health: the index is not valid');
$node->safe_psql('postgres', "DROP INDEX $GATE");
is(not_ok('postgres'), 'index', 'health: the index is missing');
$node->safe_psql('postgres', $definition =~ s/UNIQUE //r);
is(not_ok('postgres'), 'index', 'health: the index is not unique');
$node->safe_psql('postgres', "DROP INDEX $GATE; $definition");
is(not_ok('postgres'), 'none', 'health: the index is there again');

# A deferral that nobody applies, with a trigger in the way.
my $run = begin_run($node, 'postgres', 10);
$node->safe_psql('postgres', <<~SQL);
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN RAISE 'not this one'; END\$\$;
	CREATE TRIGGER refuse BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.refuse();
	SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed');
	SQL
is(not_ok('postgres'), 'none', 'health: a deferral that is young');
$node->safe_psql('postgres', "UPDATE ai_chat_run.deferred_finalizations SET deferred_at = now() - interval '2 min'");
is(not_ok('postgres'), 'deferred', 'health: one that is not');
wait_until($node, 'postgres', "SELECT last_error FROM ai_chat_run.workers WHERE datname = 'postgres'", 'not this one');
pass('workers: the worker has failed to apply it');
$node->safe_psql('postgres', "DROP TRIGGER refuse ON $RUNS; SELECT ai_chat_run.settle_deferred()");
is(not_ok('postgres'), 'none', 'health: applied');

# A silent run: with the sweep off none is too silent; else when it should have been swept.
$run = begin_run($node, 'postgres', 11);
$node->safe_psql('postgres', "UPDATE $RUNS SET updated_at = now() - interval '1 year' WHERE id = '$run'");
is(not_ok('postgres'), 'none', 'health: a silent run, and no sweep of such');
$client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
change_conf($node, 'ai_chat_run.stale_after' => '1ms', 'ai_chat_run.reconcile_interval' => '100ms');
wait_until($node, 'postgres', "SELECT NOT ok FROM ai_chat_run.health() WHERE check_name = 'silent'");
is(not_ok('postgres'), 'silent', 'health: a silent run that cannot be swept');
$client->query_safe('COMMIT');
wait_until($node, 'postgres', "SELECT status FROM $RUNS WHERE id = '$run'", 'aborted');
is(not_ok('postgres'), 'none', 'health: swept');
is(look("SELECT swept_stale FROM ai_chat_run.stats WHERE datname = 'postgres'"), 1, 'stats: swept');
$client->query_safe("SELECT ai_chat_run.attach_runner('web-1')");
$node->safe_psql('postgres', <<~SQL);
	SELECT ai_chat_run.begin_run('@{[chat(12)]}', '$WS', runner => 'web-1');
	UPDATE $RUNS SET updated_at = now() - interval '1 year' WHERE finished_at IS NULL;
	SQL
is(not_ok('postgres'), 'none', 'health: a silent run of an attached runner');
change_conf($node, 'ai_chat_run.runner_grace' => '1ms');
$client->quit;
wait_until($node, 'postgres', "SELECT swept_departed FROM ai_chat_run.stats WHERE datname = 'postgres'", 1);
pass('stats: the run of a departed runner');

# ---- who may look ----

for my $role ('nobody', 'app')
{
	for my $query (
		(map { "SELECT * FROM ai_chat_run.$_" } 'active_runs', 'stats', 'workers', 'health()'),
		'SELECT ai_chat_run.stats_reset()')
	{
		my $err;
		$node->psql('postgres', "\\set VERBOSITY sqlstate\n$query;", stderr => \$err, extra_params => [ '-U', $role ]);
		like($err, qr/ERROR:  42501$/, "$role: $query");
	}
}
for my $query (
	"SELECT * FROM $RUNS",
	'SELECT * FROM ai_chat_run.deferred_finalizations',
	"SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS')",
	'SELECT ai_chat_run.sweep_runs()',
	'SELECT ai_chat_run.stats_reset()')
{
	my $err;
	$node->psql('postgres', "\\set VERBOSITY sqlstate\n$query;", stderr => \$err, extra_params => [ '-U', 'monitor' ]);
	like($err, qr/ERROR:  42501$/, "monitor: $query");
}

# ---- no launcher, no preload ----

# There is no place for it.
set_conf($node, max_worker_processes => 0);
$node->restart;
is(not_ok('postgres'), 'boot_sweep worker', 'health: no launcher');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
is(not_ok('postgres'), 'boot_sweep preload worker', 'health: no preload');
$run = begin_run($node, 'postgres', 13);
is(look('SELECT run_id, last_seen IS NOT NULL, stop_requested, attached FROM ai_chat_run.active_runs'), "$run|t|f|f",
	'active_runs works without');
is(look('SELECT (SELECT count(*) FROM ai_chat_run.stats), (SELECT count(*) FROM ai_chat_run.workers)'), '0|0',
	'the others show nothing');
is(look('SELECT what_to_do FROM ai_chat_run.health() LIMIT 1'),
	"Put shared_preload_libraries = 'ai_chat_run' into postgresql.conf and restart the server.", 'health: what to do');
$node->stop;
done_testing();
