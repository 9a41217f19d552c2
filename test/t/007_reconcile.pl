# The stale sweep and retention: a run that is silent for ai_chat_run.stale_after becomes aborted, however it was
# begun, unless its runner calls; old ended runs are deleted after ai_chat_run.retention; all of it goes by the
# settings as they are after the last reload.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $silent = 'aborted Run aborted: its runner has been silent for too long.';
my $node = new_server('reconcile', <<~CONF);
	ai_chat_run.reconcile_interval = 100ms
	ai_chat_run.stale_after = 0
	ai_chat_run.sweep_batch_size = 2
	CONF

sub change
{
	my (%settings) = @_;
	set_conf($node, %settings);
	$node->reload;
	return;
}

# ---- with stale_after 0 no silence is too long; retention is off, too, until it is set ----

my %run = map { $_ => begin_run($node, 'postgres', $_) } 1 .. 5;
$node->safe_psql('postgres', <<~SQL);
	UPDATE $RUNS SET updated_at = now() - interval '1 year', started_at = now() - interval '1 year';
	UPDATE $RUNS SET error = 'slow model' WHERE id = '$run{5}';
	SQL
add_ended_run($node, 'postgres', 20, $_) for '3 days', '2 days', '36 hours', '12 hours', '1 hour';
change('ai_chat_run.retention' => '1d');
wait_until($node, 'postgres', <<~SQL, '12 hours, 1 hour');
	SELECT string_agg(error, ', ' ORDER BY finished_at) FROM $RUNS WHERE chat_id = '@{[chat(20)]}'
	SQL
pass('retention deletes ended runs that are older, and no others');
is(runs($node, 'postgres', 1 .. 5), "1 running\n2 running\n3 running\n4 running\n5 running slow model",
	'active runs are never deleted, and with stale_after 0 never aborted');

# ---- a year of silence counts from server start only ----

# The runner of one calls all the time: with each look that we take at the others.
change('ai_chat_run.stale_after' => '5s', 'ai_chat_run.retention' => '0');
my $called = "SELECT ai_chat_run.record_step('$run{1}', '$WS', 1)";
is($node->safe_psql('postgres', $called), 'continue', 'a runner calls');
wait_until($node, 'postgres', <<~SQL, 'continue|4');
	SELECT ai_chat_run.record_step('$run{1}', '$WS', 2), count(*)
	FROM $RUNS WHERE status = 'aborted' AND chat_id > '@{[chat(1)]}'
	SQL
is(runs($node, 'postgres', 1 .. 5), "1 running\n2 $silent\n3 $silent\n4 $silent\n5 aborted slow model",
	'silent runs are aborted, the one whose runner calls is not');
is($node->safe_psql('postgres', <<~SQL), 't', 'not before stale_after has passed since server start');
	SELECT min(finished_at) > pg_postmaster_start_time() + interval '4 s' FROM $RUNS WHERE status = 'aborted'
	SQL

# ---- a runner that falls silent, and a silent run whose row a client has ----

change('ai_chat_run.stale_after' => '1s');
wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE status IN ('pending', 'running')", 0);
is(runs($node, 'postgres', 1), "1 $silent", 'a runner that calls no more');
my $run = begin_run($node, 'postgres', 8);
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
begin_run($node, 'postgres', 9);
wait_until($node, 'postgres', "SELECT status FROM $RUNS WHERE chat_id = '@{[chat(9)]}'", 'aborted');
is(runs($node, 'postgres', 8), '8 running', 'a row that a client has is left');
$client->query_safe('COMMIT');
$client->quit;
wait_until($node, 'postgres', "SELECT status FROM $RUNS WHERE id = '$run'", 'aborted');
is(runs($node, 'postgres', 8), "8 $silent", 'and settled when the client is gone');

# ---- runs that no function has told of ----

# In each of these databases nothing happens after server start, until there is one run, and nothing else, that nobody
# calls for. Before that a worker has been there, as the old run shows that it deletes.
$node->safe_psql('postgres', 'CREATE DATABASE quiet1');
$node->safe_psql('quiet1', 'CREATE EXTENSION ai_chat_run');
add_ended_run($node, 'quiet1', 20, '2 days');
$node->safe_psql('postgres', "CREATE DATABASE $_ TEMPLATE quiet1") for 'quiet2', 'quiet3';
$node->safe_psql('quiet3', "BEGIN; SELECT ai_chat_run.begin_run('@{[chat(1)]}', '$WS'); PREPARE TRANSACTION 'begin'");
set_conf($node, 'ai_chat_run.retention' => '1d');
$node->restart;
for my $db ('quiet1', 'quiet2', 'quiet3')
{
	wait_until($node, $db, "SELECT count(*) FROM $RUNS", 0);
	wait_until($node, $db, workers($db), 0);
}
my $chat = chat(1);
$node->safe_psql('quiet1', "INSERT INTO $RUNS (chat_id, workspace_id, status) VALUES ('$chat', '$WS', 'running')");
$node->safe_psql('quiet2', "INSERT INTO $RUNS (id, chat_id, workspace_id) VALUES (gen_random_uuid(), '$chat', '$WS')");
$node->safe_psql('quiet3', "COMMIT PREPARED 'begin'");
my %case = (
	quiet1 => 'a row that the application has written',
	quiet2 => 'one with an id of its own',
	quiet3 => 'a run begun before server start and committed after it');
for my $db (sort keys %case)
{
	wait_until($node, $db, "SELECT status FROM $RUNS", 'aborted');
	is(runs($node, $db), "1 $silent", $case{$db});
}
$node->stop;
done_testing();
