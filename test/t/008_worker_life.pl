# Launcher and workers come back after whatever ends them; a boot sweep that fails is one warning and is tried again
# with growing pauses, without holding up other databases; what a database sets for its sessions changes nothing; a
# shutdown and DROP EXTENSION do not wait for a long sweep; without a free place for a worker the server says so.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $node = new_server('life', "ai_chat_run.sweep_batch_size = 1\nmax_logical_replication_workers = 0");

# In database "slow" each write of a run takes as long as the row of public.naps says, if there is one.
# In database "bad" it fails.
$node->safe_psql('postgres', "CREATE DATABASE $_") for 'good', 'bad', 'slow', 'hostile';
$node->safe_psql($_, 'CREATE EXTENSION ai_chat_run') for 'good', 'bad', 'slow', 'hostile';
$node->safe_psql('slow', <<~SQL);
	CREATE TABLE public.naps (seconds float8);
	CREATE FUNCTION public.nap() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_catalog.pg_sleep(seconds) FROM public.naps; RETURN NEW; END';
	CREATE TRIGGER nap BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.nap();
	SQL
$node->safe_psql('bad', <<~SQL);
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN RAISE 'not in this database'; END\$\$;
	CREATE TRIGGER refuse BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.refuse();
	SQL

sub launcher
{
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'ai_chat_run launcher'");
}

# napping(NOT_THESE...): waits for a worker asleep in database "slow" whose process is none of these; its id.
sub napping
{
	my $known = join ', ', 0, @_;
	my $where = "FROM pg_stat_activity
		WHERE datname = 'slow' AND backend_type LIKE 'ai_chat_run%' AND pid NOT IN ($known)";
	wait_until($node, 'postgres', "SELECT count(*) $where AND wait_event = 'PgSleep'", 1);
	return $node->safe_psql('postgres', "SELECT pid $where");
}

# settle_one(DATABASE, N): a finalization that is deferred and that a worker applies.
sub settle_one
{
	my ($db, $n) = @_;
	my $run = begin_run($node, $db, $n);
	defer($db, $run);
	wait_until($node, $db, "SELECT status = 'succeeded' FROM $RUNS WHERE id = '$run'");
	return;
}

sub defer
{
	my ($db, $run) = @_;
	my $client = $node->background_psql($db);
	$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
	$node->safe_psql($db, "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')");
	$client->query_safe('COMMIT');
	$client->quit;
	return;
}

# ---- a database that fails, one that is slow, one with hostile settings, and a good one ----

begin_run($node, $_, 1) for 'good', 'bad', 'slow';
my @run = map { begin_run($node, 'hostile', $_) } 1, 2;
my $client = $node->background_psql('hostile');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run[1]' FOR UPDATE");
is($node->safe_psql('hostile', "SELECT ai_chat_run.finalize_run('$run[1]', '$WS', 'completed')"), 'deferred',
	'a finalization is deferred');
$node->safe_psql('slow', 'INSERT INTO public.naps VALUES (3600)');

# Not at a loss for a wrong table, wrong operators, no time, and no right to write.
$node->safe_psql('hostile', <<~SQL);
	CREATE TABLE public.ai_chat_runs (id int);
	CREATE FUNCTION public.never(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT false';
	CREATE OPERATOR public.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = public.never);
	CREATE ROLE nobody;
	SQL
my %hostile = (
	search_path => 'public, ai_chat_run, pg_catalog',
	role => 'nobody',
	default_transaction_read_only => 'on',
	default_transaction_isolation => 'serializable',
	default_transaction_deferrable => 'on',
	session_replication_role => 'replica',
	statement_timeout => '1ms',
	lock_timeout => '1ms',
	idle_in_transaction_session_timeout => '1ms',
	idle_session_timeout => '1ms',
	plan_cache_mode => 'force_custom_plan',
	enable_indexscan => 'off',
	temp_file_limit => '0',
	'ai_chat_run.lock_timeout' => '1ms');
$hostile{transaction_timeout} = '1ms' if $node->safe_psql('postgres', 'SHOW server_version_num') >= 170000;
while (my ($name, $value) = each %hostile)
{
	my $list = join ', ', map { "'$_'" } split /, /, $value;
	$node->safe_psql('postgres', "ALTER DATABASE hostile SET $name = $list");
}

my $life = log_end($node);
$node->stop('immediate');
abandon($client);
$node->start;
wait_swept($node, $life, $_) for 'good', 'hostile';
pass('databases that fail or take long hold up no others');
$node->safe_psql('postgres', 'ALTER DATABASE hostile RESET ALL');
is(runs($node, 'hostile'), "1 $swept\n2 succeeded", 'settings of the database do not matter');

$node->wait_for_log(qr/It is tried again in 4 s/, $life);
my $text = log_since($node, $life);
is(join(' ', $text =~ /WARNING:  boot sweep of database "bad" failed: (.*)/g), join(' ', ('not in this database') x 3),
	'a boot sweep that fails is one warning each time');
is(join(' ', $text =~ /HINT:  It is tried again in (\d+) s/g), '1 2 4', 'the pauses grow');
is(runs($node, 'bad'), '1 running', 'nothing is half done');
$node->safe_psql('bad', "DROP TRIGGER refuse ON $RUNS");
$node->reload;
wait_swept($node, $life, 'bad');
is(runs($node, 'bad'), "1 $swept", 'until it succeeds');

# ---- a worker that is ended in the middle of its work ----

my $worker = napping();
is($node->safe_psql('postgres', <<~SQL), 't|t', 'what a worker does can be seen');
	SELECT application_name LIKE 'ai_chat_run%', query LIKE '%boot sweep%' FROM pg_stat_activity WHERE pid = $worker
	SQL
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)"), 't', 'a worker is terminated');
my $next = napping($worker);
isnt($next, $worker, 'another one comes');
begin_run($node, 'good', 2);
$life = log_end($node);
crash_backend($node, $next);
napping($worker, $next);
pass('and again after kill -9');
wait_swept($node, $life, 'good');
is(runs($node, 'good'), "1 $swept\n2 $swept", 'which is a crash of the server, so there is a boot sweep everywhere');

# ---- a launcher that is ended ----

my $launcher = launcher();
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)"), 't', 'the launcher is terminated');
wait_until($node, 'postgres',
	"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ai_chat_run launcher' AND pid <> $launcher", 1);
settle_one('good', 3);
pass('the next one goes on with the work');
begin_run($node, 'good', 4);
$life = log_end($node);
crash_backend($node, launcher());
wait_swept($node, $life, 'good');
is(runs($node, 'good', 3, 4), "3 succeeded\n4 $swept", 'kill -9 of the launcher is a crash like any other');

# ---- no place for a worker ----

napping();
set_conf($node, max_worker_processes => 2);
ok($node->stop('fast', fail_ok => 1), 'a fast shutdown does not wait for a worker');
$node->start;
napping();
$life = log_end($node);

# The launcher has one place, the sleeping worker the other.
my $run = begin_run($node, 'postgres', 6);
defer('postgres', $run);
$node->wait_for_log(qr/WARNING:  ai_chat_run could not start a background worker/, $life);
like(log_since($node, $life), qr/HINT:.*max_worker_processes/, 'the log says what is missing');
is(runs($node, 'postgres', 6), '6 running', 'what is to be done has to wait');
$node->safe_psql('slow', 'UPDATE public.naps SET seconds = 0.02');
$node->safe_psql('postgres', sprintf 'SELECT pg_terminate_backend(%d)', napping());
wait_until($node, 'postgres', "SELECT status = 'succeeded' FROM $RUNS WHERE id = '$run'");
pass('it is done when there is a place');

# ---- a reload, and DROP EXTENSION, while a worker is at work ----

$node->safe_psql('slow', <<~SQL);
	INSERT INTO $RUNS (chat_id, workspace_id) SELECT ai_chat_run.new_run_id(), '$WS' FROM generate_series(1, 1000)
	SQL
set_conf($node, max_worker_processes => 8, 'ai_chat_run.retention' => '1d');
$life = log_end($node);
$node->restart;
$worker = napping();
$node->reload;
my $aborted = "FROM $RUNS WHERE status = 'aborted'";
my $before = $node->safe_psql('slow', "SELECT count(*) $aborted");
wait_until($node, 'slow', "SELECT count(*) > $before + 5 $aborted");
is(napping(), $worker, 'new settings do not disturb a worker');
is($node->psql('slow', 'DROP EXTENSION ai_chat_run'), 0, 'DROP EXTENSION while the boot sweep is at work');
wait_until($node, 'postgres', workers('slow'), 0);

# Workers come twice: for the end of a run, and for new settings, when retention deletes an old run.
$node->safe_psql('slow', <<~SQL);
	CREATE EXTENSION ai_chat_run;
	INSERT INTO $RUNS (chat_id, workspace_id) VALUES ('@{[chat(1)]}', '$WS');
	SELECT ai_chat_run.begin_run('@{[chat(2)]}', '$WS');
	SQL
add_ended_run($node, 'slow', 3, '2 days');
settle_one('slow', 4);
$node->reload;
wait_until($node, 'slow', "SELECT count(*) FROM $RUNS WHERE chat_id = '@{[chat(3)]}'", 0);
is(runs($node, 'slow'), "1 pending\n2 running\n4 succeeded",
	'an extension created after server start has nothing to sweep');
$text = log_since($node, $life);
unlike($text, qr/TRAP|PANIC|terminated by signal/, 'nobody has crashed');
$node->stop;
done_testing();
