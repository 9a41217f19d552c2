# ALTER EXTENSION ... UPDATE on a server at work: to a made-up next version that adds a column to the run table, gives an old
# one a new place, writes every row, replaces views and alters a function. Sessions of before go on with their kept plans
# and prepared statements, so do those that wait, attached runners, tracked runs, and a boot sweep that is in the middle of
# it; no begin or end of a run is lost. A fresh installation gets to the next version by the same script.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $departed = 'aborted Run aborted: its runner has departed.';
my $node = new_server('update', <<~CONF);
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.runner_grace = 1ms
	ai_chat_run.sweep_batch_size = 1
	CONF

# ---- the next version ----

# The server looks for scripts in the directory of its installation, which other tests use as well: a name of our own.
my $version = $node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'ai_chat_run'");
my $next = "$version.next$$";
my $script = $node->config_data('--sharedir') . "/extension/ai_chat_run--$version--$next.sql";
open my $fh, '>', $script or plan skip_all => "cannot write $script: $!";
END { unlink $script if defined $script }
print $fh <<~'SQL';
	\echo Use "ALTER EXTENSION ai_chat_run UPDATE" to load this file. \quit
	ALTER TABLE ai_chat_run.ai_chat_runs ADD COLUMN model text NOT NULL DEFAULT 'none';
	ALTER TABLE ai_chat_run.ai_chat_runs ADD COLUMN new_error text;
	UPDATE ai_chat_run.ai_chat_runs SET new_error = error;
	ALTER TABLE ai_chat_run.ai_chat_runs DROP COLUMN error;
	ALTER TABLE ai_chat_run.ai_chat_runs RENAME COLUMN new_error TO error;
	-- The server keeps plans that read such a function's rows by the columns of before, until the function is altered.
	ALTER FUNCTION ai_chat_run.get_run(uuid, uuid) ROWS 1;
	ALTER FUNCTION ai_chat_run.get_latest_for_chat(uuid, uuid) ROWS 1;
	ALTER FUNCTION ai_chat_run.get_active_for_chat(uuid, uuid) ROWS 1;
	ALTER FUNCTION ai_chat_run.heartbeat(uuid, uuid) COST 10;
	CREATE OR REPLACE VIEW ai_chat_run.workers AS
	SELECT d.datname, v.*, d.datallowconn AS connectable
	FROM ai_chat_run.database_visits() v
	JOIN pg_catalog.pg_database d ON d.oid = v.datid
	WHERE d.datallowconn;
	DROP VIEW ai_chat_run.stats;
	CREATE VIEW ai_chat_run.stats AS
	SELECT d.datname, c.begun FROM ai_chat_run.database_counters() c JOIN pg_catalog.pg_database d ON d.oid = c.datid;
	SQL
close $fh or die "could not write $script: $!";

sub update
{
	my ($db) = @_;
	return $node->psql($db, "ALTER EXTENSION ai_chat_run UPDATE TO '$next'");
}

# ---- sessions of before ----

# One of each statement, in a function that a session keeps as well.
my $a_life = <<~SQL;
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
			(SELECT status FROM ai_chat_run.get_active_for_chat(c, w)),
			ai_chat_run.finalize_run(run, w, 'error', 'model error'));
		RETURN concat_ws(' ', active, (SELECT error FROM ai_chat_run.get_run(run, w)),
			(SELECT status FROM ai_chat_run.get_latest_for_chat(c, w)), ai_chat_run.settle_deferred(run));
	END \$\$;
	PREPARE status(uuid) AS SELECT status, error FROM ai_chat_run.get_run(\$1, '$WS');
	PREPARE fail(uuid) AS UPDATE $RUNS SET status = 'failed', error = 'by hand', finished_at = now() WHERE id = \$1;
	SQL
my $lived = 'busy continue continue t t t running finalized model error failed 0';
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe($a_life);
for my $n (1, 2)
{
	is($session->query_safe("SELECT pg_temp.a_life('@{[chat($n)]}')"), $lived, "a life before the update, $n");
	my $run = begin_run($node, 'postgres', 3);
	$session->query_safe("EXECUTE fail('$run')");
	is($session->query_safe("EXECUTE status('$run')"), 'failed|by hand', "prepared statements before the update, $n");
}

# A runner, with a run that shared memory knows, and three who wait.
my $runner = $node->background_psql('postgres');
$runner->query_safe("SELECT ai_chat_run.attach_runner('web-1')");
my %run = map {
	$_ => $node->safe_psql('postgres', sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => 'web-1')), chat($_), $WS)
} 4 .. 8;
my ($by_hand) = start_waiting($node, 'postgres', "CALL ai_chat_run.await_run('$run{5}', '$WS', '1 h')");
my ($stops) = start_waiting($node, 'postgres', "CALL ai_chat_run.await_stops('web-1', '{}', '1 h')");
my ($superseder) = start_waiting($node, 'postgres',
	"CALL ai_chat_run.supersede_run('@{[chat(6)]}', '$run{6}', '$WS', timeout => '1 h')");
is(answer($stops), "{$run{6}}", 'the one who supersedes has requested a stop');
start_call($stops, "CALL ai_chat_run.await_stops('web-1', '{$run{6}}', '1 h')");

# A boot sweep, in a database of its own, that takes a little while for each run.
$node->safe_psql('postgres', 'CREATE DATABASE slow');
$node->safe_psql('slow', <<~SQL);
	CREATE EXTENSION ai_chat_run;
	CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN IF NEW.status = ''aborted'' THEN PERFORM pg_sleep(0.02); END IF; RETURN NEW; END';
	CREATE TRIGGER take_time BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.take_time();
	INSERT INTO $RUNS (chat_id, workspace_id) SELECT ai_chat_run.new_run_id(), '$WS' FROM generate_series(1, 200);
	SQL

# ---- applications that go on all the time ----

# Whoever finds the table locked defers, which is as good.
my $load = <<~SQL;
	DO \$\$
	DECLARE
		w constant uuid := '$WS';
		run uuid;
	BEGIN
		WHILE EXISTS (SELECT FROM public.go_on) LOOP
			run := ai_chat_run.begin_run(gen_random_uuid(), w, trigger => 'load');
			COMMIT;
			PERFORM ai_chat_run.heartbeat(run, w), ai_chat_run.record_step(run, w, 1);
			COMMIT;
			IF ai_chat_run.finalize_run(run, w, 'completed') NOT IN ('finalized', 'deferred') THEN
				RAISE 'run % was not ended', run;
			END IF;
			COMMIT;
		END LOOP;
	END \$\$
	SQL
$node->safe_psql('postgres', 'CREATE TABLE public.go_on (); INSERT INTO public.go_on DEFAULT VALUES');

# more_load(): until more runs than now have ended.
sub more_load
{
	my $ended = "SELECT count(*) FROM $RUNS WHERE trigger = 'load' AND status = 'succeeded'";
	my $n = $node->safe_psql('postgres', $ended);
	wait_until($node, 'postgres', "SELECT ($ended) > $n + 20");
	return;
}
my @applications = map { $node->background_psql('postgres', on_error_stop => 0) } 1, 2;
start_call($_, $load) for @applications;
more_load();

# ---- the update ----

is(update('postgres'), 0, 'the update, with sessions at work');
more_load();
$node->safe_psql('postgres', 'DELETE FROM public.go_on');
$_->query('') for @applications;
is(join('', map { $_->{stderr} =~ /^(\S* ?ERROR.*)/m ? $1 : '' } @applications), '', 'none of them has failed');
wait_until($node, 'postgres', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations', 0);
is($node->safe_psql('postgres', "SELECT status, count(*) > 40 FROM $RUNS WHERE trigger = 'load' GROUP BY 1"), 'succeeded|t',
	'and each run has ended as it was told to');

# ---- sessions of before, afterwards ----

for my $n (1, 2)
{
	is($session->query_safe("SELECT pg_temp.a_life('@{[chat($n)]}')"), $lived, "a life after the update, $n");
	my $run = begin_run($node, 'postgres', 3);
	$session->query_safe("EXECUTE fail('$run')");
	is($session->query_safe("EXECUTE status('$run')"), 'failed|by hand', "prepared statements after the update, $n");
	$session->query("UPDATE $RUNS SET error = 'another' WHERE id = '$run'");
	like($session->{stderr}, qr/ERROR:  run $run is terminal and stays so\n.*DETAIL:  Column "error"/s,
		"what is final has a new place, $n");
	$session->{stderr} = '';
	$session->query_safe("UPDATE $RUNS SET model = 'small' WHERE id = '$run'");
	is($session->query_safe("SELECT model, error FROM ai_chat_run.get_run('$run', '$WS')"), 'small|by hand',
		"what is new is not, $n");
}
is($session->query_safe("SELECT ai_chat_run.heartbeat('$run{4}', '$WS'), ai_chat_run.is_locally_active('$run{4}')"),
	'continue|t', 'a tracked run is still tracked');
is($session->query_safe("SELECT attached FROM ai_chat_run.active_runs WHERE run_id = '$run{4}'"), 't',
	'an attached runner still attached');
is($session->query_safe("SELECT count(*) FROM ai_chat_run.stats WHERE begun > 0"), 1, 'the new views are there');

# Those who wait are told by the columns of the new table.
$session->query_safe("EXECUTE fail('$run{5}')");
is(answer($by_hand), 'failed|by hand', 'who waits for the end of a run is woken by it');
$session->query_safe("UPDATE $RUNS SET stop_requested_at = now() WHERE id = '$run{4}'");
is(answer($stops), "{$run{4}}", 'who waits for stops is woken by one');
is($session->query_safe("SELECT ai_chat_run.finalize_run('$run{6}', '$WS', 'aborted')"), 'finalized', 'the target ends');
like(answer($superseder), qr/^superseded\|/, 'who waits for the slot gets it');
$_->quit for $by_hand, $stops, $superseder;

# The worker has come before the update, and comes after it.
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run{8}' FOR UPDATE");
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run{8}', '$WS', 'completed')"), 'deferred',
	'a finalization is deferred');
$client->query_safe('COMMIT');
wait_until($node, 'postgres', "SELECT status FROM $RUNS WHERE id = '$run{8}'", 'succeeded');
pass('and applied by the worker');
$runner->quit;
wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE id = '$run{7}' AND status = 'running'", 0);
is(runs($node, 'postgres', 4, 7), "4 $departed\n7 $departed", 'so are the runs of a departed runner aborted');
$_->quit for $client, $session, @applications;

# ---- the update during a boot sweep ----

my $life = log_end($node);
$node->restart;
wait_until($node, 'slow', "SELECT count(*) > 10 FROM $RUNS WHERE status = 'aborted'");
is(update('slow'), 0, 'the update, in the middle of a boot sweep');
my $left = $node->safe_psql('slow', "SELECT count(*) > 0 FROM $RUNS WHERE finished_at IS NULL");
is($left, 't', 'of which something is left');
wait_until($node, 'slow', "SELECT count(*) FROM $RUNS WHERE finished_at IS NULL", 0);
is($node->safe_psql('slow', "SELECT concat_ws(' ', status, error), count(*) FROM $RUNS GROUP BY 1"), "$swept|200",
	'and is swept in its turn');
wait_until($node, 'postgres', workers(), 0);
my $n = 0;
$n += $_ for swept_lines($node, $life) =~ /^slow: (\d+)$/mg;
is($n, 200, 'none twice');
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/, 'nobody has crashed');

# ---- a fresh installation ----

$node->safe_psql('postgres', 'CREATE DATABASE fresh');
is($node->psql('fresh', "CREATE EXTENSION ai_chat_run VERSION '$next'"), 0, 'a fresh one of the next version');

# columns(DATABASE): what the script has changed of the table and the views.
sub columns
{
	my ($db) = @_;
	return $node->safe_psql($db, <<~'SQL');
		SELECT attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull
		FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
		WHERE relnamespace = 'ai_chat_run'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
		ORDER BY relname, attnum
		SQL
}
is(columns('fresh'), columns('postgres'), 'is what the update makes of an old one');
$node->stop;
done_testing();
