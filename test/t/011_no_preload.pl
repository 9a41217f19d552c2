# Without shared_preload_libraries all functions of the run's lifecycle work, and nothing happens by itself: a crash
# leaves runs and what was deferred as they are, until somebody sweeps by hand.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('bare', "shared_preload_libraries = ''");

my $run = begin_run($node, 'postgres', 1);
is($node->safe_psql('postgres', <<~SQL), <<~OUT =~ s/\n\z//r, 'the lifecycle');
	SELECT outcome, run_id = '$run' FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$WS');
	SELECT ai_chat_run.record_step('$run', '$WS', 1);
	SELECT ai_chat_run.link_assistant_message('$run', '$WS', gen_random_uuid());
	SELECT ai_chat_run.request_stop_for_chat('@{[chat(1)]}', '$WS') = '$run';
	SELECT ai_chat_run.request_stop('$run', '$WS');
	SELECT ai_chat_run.heartbeat('$run', '$WS');
	SELECT ai_chat_run.finalize_run('$run', '$WS', ai_chat_run.map_turn_status('aborted'));
	SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed');
	SELECT ai_chat_run.record_step('$run', '$WS', 2);
	SELECT status, step_count FROM ai_chat_run.get_run('$run', '$WS');
	SELECT status FROM ai_chat_run.get_latest_for_chat('@{[chat(1)]}', '$WS');
	SELECT count(*) FROM ai_chat_run.get_active_for_chat('@{[chat(1)]}', '$WS');
	SELECT ai_chat_run.purge_runs('1 hour');
	SQL
	busy|t
	continue
	t
	t
	t
	stop
	finalized
	already_finalized
	finalized
	aborted|1
	aborted
	0
	0
	OUT
$run = begin_run($node, 'postgres', 2);
is($node->safe_psql('postgres', <<~SQL), 't', 'a heartbeat is written to the row');
	BEGIN;
	SELECT FROM $RUNS WHERE id = '$run' AND ai_chat_run.heartbeat(id, workspace_id) = 'continue';
	SELECT updated_at > created_at FROM $RUNS WHERE id = '$run';
	COMMIT;
	SQL

# ---- what needs preloading ----

my $waiting = "'$run', '$WS', '1 h'";
for my $call (
	"CALL ai_chat_run.await_run($waiting)",
	"CALL ai_chat_run.await_stop($waiting)",
	"CALL ai_chat_run.await_stops('web-1')",
	"CALL ai_chat_run.supersede_run('@{[chat(2)]}', '$run', '$WS')",
	"SELECT ai_chat_run.attach_runner('web-1')",
	"SELECT ai_chat_run.is_locally_active('$run')")
{
	my $err;
	$node->psql('postgres', "\\set VERBOSITY verbose\n$call;", stderr => \$err);
	like($err, qr/ERROR:  55000: .*\nHINT:  .*shared_preload_libraries = 'ai_chat_run'/, "$call needs preloading");
}
is(runs($node, 'postgres', 2), '2 running', 'and has done nothing');

# Nor has it a setting for the size of what is not there.
my $err;
$node->psql('postgres', 'SHOW ai_chat_run.max_active_runs', stderr => \$err);
like($err, qr/unrecognized configuration parameter/, 'max_active_runs');

# A stop is the row's, so it waits for who has it, and goes with the transaction.
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
$node->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT ai_chat_run.request_stop('$run', '$WS');", stderr => \$err);
like($err, qr/ERROR:  55P03$/, 'a stop of a run whose row is locked');
$client->query_safe('COMMIT');
is($node->safe_psql('postgres', <<~SQL), "t\ncontinue\nt\nstop", 'a stop that is rolled back, and one that is not');
	BEGIN; SELECT ai_chat_run.request_stop('$run', '$WS'); ROLLBACK;
	SELECT ai_chat_run.heartbeat('$run', '$WS');
	SELECT ai_chat_run.request_stop('$run', '$WS');
	SELECT ai_chat_run.heartbeat('$run', '$WS');
	SQL

# A heartbeat keeps it from a sweep by hand.
$node->safe_psql('postgres', "UPDATE $RUNS SET updated_at = now() - interval '1 year' WHERE id = '$run'");
is($node->safe_psql('postgres', "SELECT ai_chat_run.heartbeat('$run', '$WS'), ai_chat_run.sweep_runs('1 day')"), 'stop|0',
	'a run that was heard of');

# ---- a crash ----

my $decided = begin_run($node, 'postgres', 3);
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$decided' FOR UPDATE");
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$decided', '$WS', 'error', 'model error')"),
	'deferred', 'a finalization is deferred');
$node->stop('immediate');
abandon($client);
$node->start;
is(runs($node, 'postgres', 2, 3), "2 running\n3 running", 'nobody has swept');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'ai_chat_run%'"), 0,
	'no process of ours is there');
is($node->safe_psql('postgres', 'SELECT ai_chat_run.sweep_runs()'), 2, 'a sweep by hand');
like(runs($node, 'postgres', 2, 3), qr/^2 aborted .*\n3 failed model error$/,
	'applies what was deferred and aborts the others');

# A library that is loaded later, by hand or for a session, is no preloaded one.
is($node->safe_psql('postgres', <<~SQL), 't', 'after LOAD');
	LOAD 'ai_chat_run';
	SELECT ai_chat_run.begin_run('@{[chat(4)]}', '$WS') IS NOT NULL;
	SQL
$node->stop;
done_testing();
