# pg_dump and pg_restore, plain and in the custom format, take runs and deferred finalizations along into another
# server. There they are what they were: the slot of a chat is taken, what was deferred is applied at the next server
# start, and the other active runs are swept.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $DEFERRED = 'ai_chat_run.deferred_finalizations';
my $old = new_server('old', 'ai_chat_run.boot_sweep = off');
my $new = new_server('new', "shared_preload_libraries = ''");

# Runs of every kind; two whose end is deferred since a client has the rows while we dump.
my %run = map { $_ => begin_run($old, 'postgres', $_) } 1 .. 6;
$old->safe_psql('postgres', <<~SQL);
	SELECT ai_chat_run.record_step('$run{1}', '$WS', 7);
	SELECT ai_chat_run.request_stop('$run{1}', '$WS');
	SELECT ai_chat_run.link_assistant_message('$run{1}', '$WS', gen_random_uuid());
	SELECT ai_chat_run.finalize_run('$run{2}', '$WS', 'completed');
	SELECT ai_chat_run.finalize_run('$run{3}', '$WS', 'error', E'no model:\\n\\t"quoted", \\\\N');
	SELECT ai_chat_run.finalize_run('$run{4}', '$WS', 'aborted');
	INSERT INTO $RUNS (chat_id, workspace_id, created_by, trigger, runner)
		VALUES ('@{[chat(7)]}', '$WS', gen_random_uuid(), 'schedule', 'runner 1');
	SQL
my $client = $old->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id IN ('$run{5}', '$run{6}') FOR UPDATE");
is($old->safe_psql('postgres', <<~SQL), "deferred\ndeferred", 'two finalizations are deferred');
	SELECT ai_chat_run.finalize_run('$run{5}', '$WS', 'completed');
	SELECT ai_chat_run.finalize_run('$run{6}', '$WS', 'error', 'model error');
	SQL

sub contents
{
	my ($node, $db) = @_;
	return $node->safe_psql($db, "SELECT r FROM $RUNS r ORDER BY id; SELECT d FROM $DEFERRED d ORDER BY run_id");
}

my $contents = contents($old, 'postgres');
my $dir = PostgreSQL::Test::Utils::tempdir();
$old->command_ok([ 'pg_dump', '-f', "$dir/plain.sql", $old->connstr('postgres') ], 'pg_dump, plain');
$old->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/custom.dump", $old->connstr('postgres') ], 'pg_dump, custom format');
is(contents($old, 'postgres'), $contents, 'the old server has not gone on meanwhile');

$new->safe_psql('postgres', "CREATE DATABASE $_") for 'plain', 'custom';
$new->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/plain.sql", $new->connstr('plain') ], 'psql');
$new->command_ok([ 'pg_restore', '--exit-on-error', '-d', $new->connstr('custom'), "$dir/custom.dump" ], 'pg_restore');
for my $db ('plain', 'custom')
{
	is(contents($new, $db), $contents, "$db: all rows are there");
	is($new->safe_psql($db, "SELECT outcome FROM ai_chat_run.try_begin_run('@{[chat(1)]}', '$WS')"), 'busy',
		"$db: a chat that was busy is busy");
	my $err;
	$new->psql($db, <<~SQL, stderr => \$err);
		\\set VERBOSITY sqlstate
		UPDATE $RUNS SET status = 'running', finished_at = NULL WHERE id = '$run{2}'
		SQL
	like($err, qr/ERROR:  RN410/, "$db: an ended run stays ended");
}

# The other server looks after them from its next start on.
my $life = log_end($new);
set_conf($new, shared_preload_libraries => 'ai_chat_run');
$new->restart;
wait_swept($new, $life, $_) for 'plain', 'custom';
is(swept_lines($new, $life), "custom: 2\nplain: 2", 'active runs are swept when the new server starts');
my $swept = 'aborted Run interrupted by a server restart.';
is(runs($new, $_, 1, 2, 4 .. 7), "1 $swept\n2 succeeded\n4 aborted\n5 succeeded\n6 failed model error\n7 $swept",
	"$_: what was deferred is applied") for 'plain', 'custom';
$client->quit;
$old->stop;
$new->stop;
done_testing();
