# Event triggers that record what is created, altered and dropped, and ones that forbid it: CREATE, ALTER and DROP
# EXTENSION and grant_app_access() are done whole or not at all, the runs and those who wait for them never mind, and
# the background worker, which nobody logs in, does its work. Where the server has them (17), login triggers, too.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('events', 'ai_chat_run.reconcile_interval = 1h');
my $has_login = $node->safe_psql('postgres', 'SHOW server_version_num') >= 170000;
my @events = qw(ddl_command_start ddl_command_end sql_drop table_rewrite);

$node->safe_psql('postgres', 'CREATE DATABASE watched');
$node->safe_psql('watched', <<~SQL);
	CREATE TABLE public.events (n serial, event text, tag text, object text);
	CREATE FUNCTION public.record() RETURNS event_trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		IF TG_EVENT = 'ddl_command_end' THEN
			INSERT INTO public.events (event, tag, object)
			SELECT TG_EVENT, TG_TAG, object_identity FROM pg_event_trigger_ddl_commands();
		ELSIF TG_EVENT = 'sql_drop' THEN
			INSERT INTO public.events (event, tag, object)
			SELECT TG_EVENT, TG_TAG, object_identity FROM pg_event_trigger_dropped_objects();
		ELSIF TG_EVENT = 'table_rewrite' THEN
			INSERT INTO public.events (event, tag, object)
			VALUES (TG_EVENT, TG_TAG, pg_event_trigger_table_rewrite_oid()::regclass);
		ELSE
			INSERT INTO public.events (event, tag) VALUES (TG_EVENT, TG_TAG);
		END IF;
	END \$\$;
	CREATE FUNCTION public.forbid() RETURNS event_trigger LANGUAGE plpgsql AS
		\$\$BEGIN RAISE 'not in this database' USING ERRCODE = 'EV001'; END\$\$;
	@{[map { "CREATE EVENT TRIGGER record_$_ ON $_ EXECUTE FUNCTION public.record();" } @events]}
	SQL

# recorded(CONDITION): how many events there are of that kind since the last look, which is one of all kinds.
sub recorded
{
	my (@conditions) = @_;
	my $list = join ', ', map { "count(*) FILTER (WHERE $_) > 0" } @conditions;
	return $node->safe_psql('watched', "WITH gone AS (DELETE FROM public.events RETURNING *) SELECT $list FROM gone");
}

# forbidden(EVENT, COMMAND): the SQLSTATE of the command while that event is forbidden, or "ok".
sub forbidden
{
	my ($event, $command) = @_;
	my $err = '';

	# Commands on event triggers fire none.
	$node->safe_psql('watched', "CREATE EVENT TRIGGER forbid ON $event EXECUTE FUNCTION public.forbid()");
	$node->psql('watched', "\\set VERBOSITY sqlstate\n$command", stderr => \$err);
	$node->safe_psql('watched', 'DROP EVENT TRIGGER forbid');
	return $err =~ /ERROR:  (\w{5})/ ? $1 : 'ok';
}

# lead_run(N): a run of chat N from its begin to its end; what its calls answer.
sub lead_run
{
	my ($n) = @_;
	my $run = begin_run($node, 'watched', $n);
	return $node->safe_psql('watched', <<~SQL);
		SELECT ai_chat_run.record_step('$run', '$WS', 1), ai_chat_run.heartbeat('$run', '$WS'),
			ai_chat_run.finalize_run('$run', '$WS', 'completed');
		CALL ai_chat_run.await_run('$run', '$WS', '1 h');
		SQL
}
my $led = "continue|continue|finalized\nsucceeded|";

# ---- CREATE EXTENSION ----

for my $event ('ddl_command_start', 'ddl_command_end')
{
	is(forbidden($event, 'CREATE EXTENSION ai_chat_run'), 'EV001', "CREATE EXTENSION is forbidden at $event");
	is($node->safe_psql('watched', <<~SQL), '0|0|0', 'and nothing is there');
		SELECT (SELECT count(*) FROM pg_extension WHERE extname = 'ai_chat_run'),
			(SELECT count(*) FROM pg_namespace WHERE nspname = 'ai_chat_run'),
			(SELECT count(*) FROM pg_event_trigger WHERE evtname = 'forbid')
		SQL
}
recorded('true');
$node->safe_psql('watched', 'CREATE EXTENSION ai_chat_run');
is(recorded("event = 'ddl_command_start' AND tag = 'CREATE EXTENSION'",
	"event = 'ddl_command_end' AND object = '$RUNS'", "event = 'ddl_command_end' AND object = 'ai_chat_run'"), 't|t|t',
	'CREATE EXTENSION is recorded, and what it makes');
is(lead_run(1), $led, 'and works');

# ---- grants ----

$node->safe_psql('watched', 'CREATE ROLE app LOGIN; CREATE ROLE other LOGIN');
recorded('true');
for my $event ('ddl_command_start', 'ddl_command_end')
{
	is(forbidden($event, "SELECT ai_chat_run.grant_app_access('app')"), 'EV001', "grant_app_access is forbidden at $event");
	is($node->safe_psql('watched', "SELECT has_schema_privilege('app', 'ai_chat_run', 'USAGE')"), 'f', 'and grants nothing');
}
$node->safe_psql('watched', "SELECT ai_chat_run.grant_app_access('app')");
is(recorded("event = 'ddl_command_end' AND tag = 'GRANT'"), 't', 'its grants are recorded');
is($node->safe_psql('watched', "SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(2)]}', '$WS')",
	extra_params => [ '-U', 'app' ]), 'began', 'and work');

# ---- ALTER ----

my $run = begin_run($node, 'watched', 3);
my ($waiter) = start_waiting($node, 'watched', "CALL ai_chat_run.await_run('$run', '$WS', '1 h')");
my $session = $node->background_psql('watched');
is($session->query_safe("SELECT ai_chat_run.record_step('$run', '$WS', 1)"), 'continue', 'a session with plans of its own');
my $rewrite = "ALTER TABLE $RUNS ADD COLUMN mood float8 DEFAULT random()";
my $drop = "ALTER EXTENSION ai_chat_run DROP FUNCTION ai_chat_run.map_turn_status(text)";
is(forbidden('table_rewrite', $rewrite), 'EV001', 'a rewrite of the table is forbidden');
is(forbidden('ddl_command_end', $drop), 'EV001', 'ALTER EXTENSION is forbidden');
is($session->query_safe("SELECT ai_chat_run.record_step('$run', '$WS', 2)"), 'continue', 'nobody minds');
recorded('true');
$node->safe_psql('watched', "$rewrite; $drop; ALTER EXTENSION ai_chat_run ADD FUNCTION ai_chat_run.map_turn_status(text)");
is(recorded("event = 'table_rewrite' AND object = '$RUNS'", "event = 'ddl_command_end' AND tag = 'ALTER EXTENSION'"), 't|t',
	'both are recorded');
is($session->query_safe("SELECT ai_chat_run.record_step('$run', '$WS', 3)"), 'continue', 'the session goes on after a rewrite');
is($session->query_safe("SELECT step_count FROM ai_chat_run.get_run('$run', '$WS')"), 3, 'with the right row');
is($session->query_safe("SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')"), 'finalized', 'to its end');
is(answer($waiter), 'succeeded|', 'who waits is told');

# ---- the background worker ----

# Each event is forbidden; the worker has to apply what was deferred, and to sweep.
sub defer
{
	my ($n) = @_;
	my $id = begin_run($node, 'watched', $n);
	my $rows = $node->background_psql('watched');

	$rows->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$id' FOR UPDATE");
	is($node->safe_psql('watched', "SELECT ai_chat_run.finalize_run('$id', '$WS', 'completed')"), 'deferred',
		'a finalization is deferred');
	$rows->query_safe('COMMIT');
	$rows->quit;
	return $id;
}

my @login = $has_login ? 'login' : ();
$_->quit for $session, $waiter;
$run = begin_run($node, 'watched', 4);
$node->safe_psql('watched', join ';', map { "CREATE EVENT TRIGGER never_$_ ON $_ EXECUTE FUNCTION public.forbid()" } @events);
$run = defer(5);
wait_until($node, 'watched', "SELECT status FROM $RUNS WHERE id = '$run'", 'succeeded');
pass('it is applied where all events are forbidden');
$node->safe_psql('watched', "CREATE EVENT TRIGGER never_login ON login EXECUTE FUNCTION public.forbid()") if $has_login;
SKIP:
{
	skip('there are no login triggers before 17', 1) unless $has_login;
	isnt($node->psql('watched', 'SELECT 1'), 0, 'nobody can log in');
}
my $life = log_end($node);
$node->stop('immediate');
$node->start;
wait_swept($node, $life, 'watched');
if ($has_login)
{
	set_conf($node, event_triggers => 'off');
	$node->reload;
	wait_until($node, 'watched', 'SELECT true');
}
is(runs($node, 'watched', 2, 4), join("\n", map { "$_ aborted Run interrupted by a server restart." } 2, 4),
	'the boot sweep is done where all events are forbidden');
$node->safe_psql('watched', join ';', map { "DROP EVENT TRIGGER never_$_" } @events, @login);
change_conf($node, event_triggers => 'on') if $has_login;

# ---- DROP EXTENSION ----

$run = begin_run($node, 'watched', 6);
($waiter) = start_waiting($node, 'watched', "CALL ai_chat_run.await_run('$run', '$WS', '1 h')");
for my $event ('ddl_command_start', 'sql_drop', 'ddl_command_end')
{
	is(forbidden($event, 'DROP EXTENSION ai_chat_run'), 'EV001', "DROP EXTENSION is forbidden at $event");
	is($node->safe_psql('watched', "SELECT ai_chat_run.heartbeat('$run', '$WS')"), 'continue', 'and all goes on');
}
is($node->safe_psql('watched', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')"), 'finalized', 'to the end');
is(answer($waiter), 'succeeded|', 'who waits is told');
recorded('true');
$node->safe_psql('watched', 'DROP EXTENSION ai_chat_run');
is(recorded("event = 'sql_drop' AND object = '$RUNS'", "event = 'sql_drop' AND object = 'ai_chat_run'"), 't|t',
	'DROP EXTENSION is recorded, and what it takes along');
$node->safe_psql('watched', 'CREATE EXTENSION ai_chat_run');
is(lead_run(7), $led, 'it can be made anew');
$waiter->quit;
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/, 'nobody has crashed');
unlike(log_since($node, 0), qr/WARNING:  .* of database "watched" failed/, 'nor has a worker failed');
$node->stop;
done_testing();
