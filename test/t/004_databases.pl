# Every database that has the extension and can be connected to is looked after, whatever its connection limit and
# wherever it was copied from; the others cost one look each. Nothing of ours stays connected to a database, and
# DROP DATABASE and CREATE DATABASE ... TEMPLATE succeed while a worker is at work there.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('databases', <<~CONF);
	log_min_messages = debug1
	ai_chat_run.boot_sweep = off
	ai_chat_run.sweep_batch_size = 1
	CONF
my $swept = 'aborted Run interrupted by a server restart.';

# A database whose sweep takes long, a little while for each run, so that workers are met at work there.
$node->safe_psql('postgres', 'CREATE DATABASE slow');
$node->safe_psql('slow', <<~SQL);
	CREATE EXTENSION ai_chat_run;
	CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END';
	CREATE TRIGGER take_time BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.take_time();
	INSERT INTO $RUNS (chat_id, workspace_id) SELECT ai_chat_run.new_run_id(), '$WS' FROM generate_series(1, 1000);
	SQL

# Those with a dangling run each, and one without the extension.
$node->safe_psql('postgres', 'CREATE DATABASE one');
$node->safe_psql('one', 'CREATE EXTENSION ai_chat_run');
begin_run($node, 'one', 1);
$node->safe_psql('postgres', $_) for
  'CREATE DATABASE "two ""too"""  TEMPLATE one',
  'CREATE DATABASE limited TEMPLATE one CONNECTION LIMIT 0',
  'CREATE DATABASE template TEMPLATE one IS_TEMPLATE true',
  'CREATE DATABASE closed TEMPLATE one ALLOW_CONNECTIONS false',
  'CREATE DATABASE bare';

set_conf($node, 'ai_chat_run.boot_sweep' => 'on');
my $life = log_end($node);
$node->restart;

# ---- the databases of before ----

wait_swept($node, $life, $_) for 'one', 'two "too"', 'limited', 'template';
is(swept_lines($node, $life), qq(limited: 1\none: 1\ntemplate: 1\ntwo "too": 1),
	'each database that allows connections is swept');
is(runs($node, $_), "1 $swept", "a run in $_") for 'one', 'two "too"', 'limited', 'template';

# ---- databases that somebody wants ----

wait_until($node, 'postgres', workers('slow'), 1);
is($node->psql('postgres', 'CREATE DATABASE from_slow TEMPLATE slow'), 0,
	'CREATE DATABASE from one that is being swept');
wait_until($node, 'postgres', workers('slow'), 1);
is($node->psql('postgres', 'DROP DATABASE slow'), 0, 'DROP DATABASE of one that is being swept');
unlike(log_since($node, $life), qr/database "slow" failed/, 'the worker that gave way did not fail');

# ---- databases that appear later ----

begin_run($node, 'one', 2);
$node->safe_psql('postgres', 'CREATE DATABASE "from closed" TEMPLATE closed');
$node->safe_psql('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS true');
wait_swept($node, $life, $_) for 'from closed', 'closed';
is(runs($node, 'from closed'), "1 $swept", 'one made from a template with an active run is swept');
is(runs($node, 'closed'), "1 $swept", 'one that was closed to connections is swept when it is opened');
is(runs($node, 'one'), "1 $swept\n2 running", 'one that was swept is not swept again');

# The copy of the slow database has what its original had left.
wait_until($node, 'postgres', workers('from_slow'), 1);
is($node->psql('postgres', 'DROP DATABASE from_slow'), 0, 'DROP DATABASE of the copy');

# ---- an idle server ----

wait_until($node, 'postgres', workers(), 0);
my $idle = log_end($node);

# Gives a worker something to do in database "one", and waits until it is done. The launcher has then seen all that
# happened before.
my $run = begin_run($node, 'one', 3);
sub keep_busy
{
	my $client = $node->background_psql('one');
	$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
	$node->safe_psql('one', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
	$client->query_safe('COMMIT');
	$client->quit;
	wait_until($node, 'one', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations', 0);
	$run = begin_run($node, 'one', 3);
	return;
}

for (1 .. 3)
{
	$node->safe_psql('bare', 'CREATE TABLE t (); DROP TABLE t');
	keep_busy();
}
cmp_ok(workers_started($node, 'one', $idle), '>=', 3, 'workers are started where there is work');
is(workers_started($node, $_, $idle), 0, "none for database $_") for 'bare', 'limited', 'closed';
for (1 .. 3)
{
	$node->reload;
	keep_busy();
}
is(workers_started($node, 'bare', $life), 1, 'one look is taken at a database without the extension');
wait_until($node, 'postgres', workers(), 0);
is($node->safe_psql('postgres', <<~SQL), 1, 'the launcher alone is there, and in no database');
	SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'ai_chat_run%' AND datid IS NULL
	SQL
$node->stop;
done_testing();
