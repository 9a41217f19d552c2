# The boot sweep: at server start, after an immediate and after a fast shutdown, every run of before becomes
# aborted, deferred finalizations are applied first, and no run begun since is touched, however early it was.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('boot', 'ai_chat_run.sweep_batch_size = 10');
my $swept = 'Run interrupted by a server restart.';

# ---- an immediate shutdown, with more runs than fit a batch, and than are looked at at once ----

$node->safe_psql('postgres', <<~SQL);
	SELECT count(ai_chat_run.begin_run(gen_random_uuid(), '$WS', trigger => 'many')) FROM generate_series(1, 2335);
	INSERT INTO $RUNS (chat_id, workspace_id) VALUES ('@{[chat(1)]}', '$WS');
	INSERT INTO $RUNS (id, chat_id, workspace_id, status, error)
		VALUES (gen_random_uuid(), '@{[chat(2)]}', '$WS', 'running', 'slow model');
	INSERT INTO $RUNS (chat_id, workspace_id, status, error, finished_at)
		VALUES ('@{[chat(3)]}', '$WS', 'failed', 'no model', now()), ('@{[chat(4)]}', '$WS', 'aborted', NULL, now());
	SQL
my $done = begin_run($node, 'postgres', 5);
$node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$done', '$WS', 'completed')");

# Two ends are decided while a client has the rows, and has them still when the server goes down.
my @decided = map { begin_run($node, 'postgres', $_) } 6, 7;
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id IN ('$decided[0]', '$decided[1]') FOR UPDATE");
is($node->safe_psql('postgres', <<~SQL), "deferred\ndeferred", 'two finalizations are deferred');
	SELECT ai_chat_run.finalize_run('$decided[0]', '$WS', 'completed');
	SELECT ai_chat_run.finalize_run('$decided[1]', '$WS', 'error', 'model error');
	SQL

my $life = log_end($node);
$node->stop('immediate');
abandon($client);
$node->start;
wait_swept($node, $life, 'postgres');
is(swept_lines($node, $life), 'postgres: 2337', 'one log line, with the number of runs');
is(runs($node, 'postgres', 1 .. 7), <<~RUNS =~ s/\n\z//r, 'how the runs ended');
	1 aborted $swept
	2 aborted slow model
	3 failed no model
	4 aborted
	5 succeeded
	6 succeeded
	7 failed model error
	RUNS
is($node->safe_psql('postgres', <<~SQL), "aborted|$swept|2335", 'all batches were swept');
	SELECT status, error, count(*) FROM $RUNS WHERE trigger = 'many' GROUP BY 1, 2
	SQL
is($node->safe_psql('postgres', <<~SQL), '234|10', 'each batch in a transaction of its own');
	SELECT count(*), max(n)
	FROM (SELECT count(*) AS n FROM $RUNS WHERE error IN ('$swept', 'slow model') GROUP BY xmin::text) AS batch
	SQL
is($node->safe_psql('postgres', "SELECT count(*) FROM $RUNS WHERE finished_at IS NULL OR finished_at < created_at"),
	0, 'each has its end');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations'), 0, 'nothing is deferred');

# ---- a fast shutdown with nothing to sweep ----

# Retention has work to do, so that we see when the worker has been there.
add_ended_run($node, 'postgres', 8, '2 days');
set_conf($node, 'ai_chat_run.retention' => '1d');
my $before = runs($node, 'postgres', 1 .. 7);
$life = log_end($node);
$node->stop('fast');
$node->start;
wait_until($node, 'postgres', "SELECT count(*) = 0 FROM $RUNS WHERE chat_id = '@{[chat(8)]}'");
is(runs($node, 'postgres', 1 .. 7), $before, 'ended runs stay as they ended');

# ---- a fast shutdown with runs, and applications that come as soon as they can ----

# While there is a row in the table "hold", no sweep gets anywhere: each abort is refused.
$node->safe_psql('postgres', <<~SQL);
	CREATE TABLE public.hold ();
	INSERT INTO public.hold DEFAULT VALUES;
	CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		IF NEW.status = 'aborted' AND EXISTS (SELECT FROM public.hold) THEN
			RAISE EXCEPTION 'chat % is held', NEW.chat_id;
		END IF;
		RETURN NEW;
	END \$\$;
	CREATE TRIGGER hold BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.hold();
	SQL
my %run = map { $_ => begin_run($node, 'postgres', $_) } 10 .. 40;
$node->stop('fast');
is(swept_lines($node, $life), '', 'no log line when there is nothing to sweep');

# Each asks for a connection until it gets one, and begins runs at once: by the function, and as an application does
# that writes the table itself, with an id of the table's and with one of its own.
my @first_commands = (
	(map { "SELECT ai_chat_run.begin_run('" . chat($_) . "', '$WS')" } 51, 52),
	"INSERT INTO $RUNS (chat_id, workspace_id, status) VALUES ('@{[chat(53)]}', '$WS', 'running')",
	"INSERT INTO $RUNS (id, chat_id, workspace_id) VALUES (gen_random_uuid(), '@{[chat(54)]}', '$WS')");
my @applications = map {
	my $command = $_;
	IPC::Run::start(
		[ 'sh', '-c', 'until psql -XAtq -d "$0" -c "$1"; do :; done', $node->connstr('postgres'), $command ],
		'>', '/dev/null', '2>', '/dev/null')
} @first_commands;
$life = log_end($node);
$node->start;
$_->finish for @applications;
is($node->safe_psql('postgres', <<~SQL), 'continue', 'a runner of before calls');
	SELECT ai_chat_run.record_step('$run{30}', '$WS', 1)
	SQL
$node->safe_psql('postgres', "VACUUM (FREEZE) $RUNS");
$client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run{20}' FOR UPDATE");
$node->safe_psql('postgres', 'DELETE FROM public.hold');
$node->reload;
wait_swept($node, $life, 'postgres');
is(swept_lines($node, $life), 'postgres: 30', 'a row that a client has locked is left out');
is(runs($node, 'postgres', 20), '20 running', 'the run whose row is locked is untouched');
$client->query_safe('COMMIT');
wait_until($node, 'postgres', "SELECT status = 'aborted' FROM $RUNS WHERE id = '$run{20}'");
$node->wait_for_log(qr/boot sweep of database "postgres": 1 dangling/, $life);
is(swept_lines($node, $life), "postgres: 1\npostgres: 30", 'and is settled when the client is gone');
is(runs($node, 'postgres', 10 .. 40), join("\n", map { "$_ aborted $swept" } 10 .. 40), 'no run of before is left');
is(runs($node, 'postgres', 51 .. 54), "51 running\n52 running\n53 running\n54 pending",
	'runs begun since are untouched');
$client->quit;

# ---- killed while a transaction was open ----

# What was begun and not committed does not dangle.
$client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT ai_chat_run.begin_run('@{[chat(60)]}', '$WS')");
$life = log_end($node);
$node->kill9;
abandon($client);
start_again($node);
wait_swept($node, $life, 'postgres');
is(swept_lines($node, $life), 'postgres: 4', 'after kill -9 of the server');
is(runs($node, 'postgres', 60), '', 'a begin that was never committed has left nothing');
$node->stop;
done_testing();
