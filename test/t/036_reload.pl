# Each setting of the background worker is taken at a reload, without a restart and by the same launcher; none is forgotten
# here. What shows it is done, or not done any more, for the new value alone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $swept = 'aborted Run interrupted by a server restart.';
my $silent = 'aborted Run aborted: its runner has been silent for too long.';
my $departed = 'aborted Run aborted: its runner has departed.';
my $node = new_server('reload', <<~CONF);
	ai_chat_run.boot_sweep = grace
	ai_chat_run.boot_grace = 1h
	ai_chat_run.stale_after = 0
	ai_chat_run.reconcile_interval = 1h
	ai_chat_run.runner_grace = 1h
	ai_chat_run.retention = 0
	ai_chat_run.sweep_batch_size = 1
	CONF

# idle(): until no worker is there, nor due.
sub idle
{
	wait_until($node, 'postgres', <<~SQL);
		SELECT NOT working AND (next_due IS NULL OR next_due > now() + interval '10 min')
		FROM ai_chat_run.workers WHERE datname = 'postgres'
		SQL
	return;
}

# visited(): has a worker come, for the end of a run that a client holds up, and do all that is due by the settings that
# sessions see by now.
sub visited
{
	my $run = begin_run($node, 'postgres', 99);
	my $client = $node->background_psql('postgres');

	$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
	$node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')") eq 'deferred'
	  or die 'the end of a run was not held up';
	$client->query_safe('COMMIT');
	$client->quit;
	wait_until($node, 'postgres', 'SELECT count(*) FROM ai_chat_run.deferred_finalizations', 0);
	idle();
	return;
}

# look_at_all(): the same, and has it look at everything, as new settings of any kind do.
my $any = 300;
sub look_at_all
{
	change_conf($node, 'vacuum_cost_limit' => ++$any);
	visited();
	return;
}

sub launcher
{
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'ai_chat_run launcher'");
}

sub wait_ended
{
	my ($n) = @_;
	wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE chat_id = '@{[chat($n)]}' AND finished_at IS NULL", 0);
	return;
}

# For each setting, what shows it.
my %shows;

$shows{'ai_chat_run.stale_after'} = sub {
	begin_run($node, 'postgres', 1);
	look_at_all();
	is(runs($node, 'postgres', 1), '1 running', 'stale_after = 0: no silence is too long');
	change_conf($node, 'ai_chat_run.stale_after' => '1ms');
	wait_ended(1);
	is(runs($node, 'postgres', 1), "1 $silent", 'stale_after = 1ms: it is');
	idle();
	begin_run($node, 'postgres', 2);
	change_conf($node, 'ai_chat_run.stale_after' => '0');
	look_at_all();
	is(runs($node, 'postgres', 2), '2 running', 'stale_after = 0: it is not any more');
};

# At a reload all is looked at. So the runs that show it begin after one.
$shows{'ai_chat_run.reconcile_interval'} = sub {
	begin_run($node, 'postgres', 3);
	change_conf($node, 'ai_chat_run.stale_after' => '1ms');
	wait_ended(3);
	idle();
	begin_run($node, 'postgres', 4);
	visited();
	is(runs($node, 'postgres', 4), '4 running', 'reconcile_interval = 1h: nobody looks for a silent run');
	change_conf($node, 'ai_chat_run.reconcile_interval' => '100ms');
	wait_ended(4);
	begin_run($node, 'postgres', 5);
	wait_ended(5);
	is(runs($node, 'postgres', 5), "5 $silent", 'reconcile_interval = 100ms: somebody does');
	change_conf($node, 'ai_chat_run.reconcile_interval' => '1h', 'ai_chat_run.stale_after' => '0');
};

$shows{'ai_chat_run.runner_grace'} = sub {
	$node->safe_psql('postgres', <<~SQL);
		SELECT ai_chat_run.attach_runner('web-1');
		SELECT ai_chat_run.begin_run('@{[chat(6)]}', '$WS', runner => 'web-1');
		SQL
	look_at_all();
	is(runs($node, 'postgres', 6), '6 running', 'runner_grace = 1h: a departed runner may come back');
	change_conf($node, 'ai_chat_run.runner_grace' => '1ms');
	wait_ended(6);
	is(runs($node, 'postgres', 6), "6 $departed", 'runner_grace = 1ms: it may not');
};

$shows{'ai_chat_run.retention'} = sub {
	add_ended_run($node, 'postgres', 7, '2 days');
	look_at_all();
	is(runs($node, 'postgres', 7), '7 failed 2 days', 'retention = 0: an old run is kept');
	change_conf($node, 'ai_chat_run.retention' => '1d');
	wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE chat_id = '@{[chat(7)]}'", 0);
	change_conf($node, 'ai_chat_run.retention' => '3d');
	add_ended_run($node, 'postgres', 7, '2 days');
	look_at_all();
	is(runs($node, 'postgres', 7), '7 failed 2 days', 'retention = 1d: it was deleted; retention = 3d: the next one is kept');
};

$shows{'ai_chat_run.boot_grace'} = sub {
	begin_run($node, 'postgres', 8);
	$node->restart;
	look_at_all();
	is(runs($node, 'postgres', 8), '8 running', 'boot_grace = 1h: runners may call yet');
	my $launcher = launcher();
	change_conf($node, 'ai_chat_run.boot_grace' => '1ms');
	wait_ended(8);
	is(runs($node, 'postgres', 8), "8 $swept", 'boot_grace = 1ms: they may not');
	is(launcher(), $launcher, 'boot_grace: by the same launcher');
};

$shows{'ai_chat_run.boot_sweep'} = sub {
	set_conf($node, 'ai_chat_run.boot_grace' => '1h');
	begin_run($node, 'postgres', 9);
	$node->restart;
	look_at_all();
	is(runs($node, 'postgres', 9), '9 running', 'boot_sweep = grace: runners may call yet');
	my $launcher = launcher();
	change_conf($node, 'ai_chat_run.boot_sweep' => 'on');
	wait_ended(9);
	is(runs($node, 'postgres', 9), "9 $swept", 'boot_sweep = on: they may not');
	is(launcher(), $launcher, 'boot_sweep: by the same launcher');
};

# A worker in the middle of a boot sweep, which takes a little while for each run, takes the new size with its next batch. It
# says once, at its end, how many it has swept.
$shows{'ai_chat_run.sweep_batch_size'} = sub {
	$node->safe_psql('postgres', <<~SQL);
		CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END';
		CREATE TRIGGER take_time BEFORE UPDATE ON $RUNS FOR EACH ROW EXECUTE FUNCTION public.take_time();
		INSERT INTO $RUNS (chat_id, workspace_id, trigger)
			SELECT ai_chat_run.new_run_id(), '$WS', 'many' FROM generate_series(1, 150);
		SQL
	my $batches = <<~SQL;
		SELECT count(*) AS n FROM $RUNS WHERE trigger = 'many' AND status = 'aborted' GROUP BY xmin::text
		SQL
	my $life = log_end($node);
	set_conf($node, 'ai_chat_run.boot_sweep' => 'on');
	$node->restart;
	my $launcher = launcher();
	wait_until($node, 'postgres', "SELECT count(*) >= 10 FROM ($batches) AS batch");
	is($node->safe_psql('postgres', "SELECT max(n) FROM ($batches) AS batch"), 1, 'sweep_batch_size = 1');
	change_conf($node, 'ai_chat_run.sweep_batch_size' => '40');
	wait_swept($node, $life, 'postgres');
	is($node->safe_psql('postgres', "SELECT max(n) FROM ($batches) AS batch"), 40, 'sweep_batch_size = 40');
	like(swept_lines($node, $life), qr/^postgres: 1\d\d$/, 'sweep_batch_size: by the same worker');
	is(launcher(), $launcher, 'sweep_batch_size: and the same launcher');
};

is(join("\n", sort keys %shows), $node->safe_psql('postgres', <<~SQL), 'all settings that can be reloaded are here');
	LOAD 'ai_chat_run';
	SELECT name FROM pg_settings WHERE name LIKE 'ai\\_chat\\_run.%' AND context = 'sighup' ORDER BY name COLLATE "C"
	SQL

# ---- those that need no server start ----

my $launcher = launcher();
$shows{"ai_chat_run.$_"}->() for 'reconcile_interval', 'retention', 'runner_grace', 'stale_after';
is(launcher(), $launcher, 'these by the same launcher');

# ---- those that do ----

$shows{"ai_chat_run.$_"}->() for 'boot_grace', 'boot_sweep', 'sweep_batch_size';
$node->stop;
done_testing();
