# Beside pg_cron, whichever is loaded first, and whether it runs its jobs in background workers or through connections:
# an operator's jobs sweep, purge and settle, with no more rights than these need; a job may wait as a client does; and
# jobs that sweep at the same time as the boot sweep share its work, each run being aborted once. Jobs are of the kind
# that runs when pg_cron starts, so that nobody has to wait for the next minute.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $WAITING = <<~SQL;
	FROM pg_stat_activity WHERE query LIKE 'CALL ai_chat_run.await_run%' AND wait_event_type = 'Extension'
	SQL

# All servers of a test have their sockets in one directory.
my $any = PostgreSQL::Test::Cluster->new('any');
plan(skip_all => 'pg_cron is not installed') unless -e $any->config_data('--pkglibdir') . '/pg_cron.so';

# jobs_done(NODE, N): "job|status" of the jobs of this life of the server, when N of them have come to an end.
sub jobs_done
{
	my ($node, $n) = @_;
	my $last = <<~SQL;
		FROM cron.job j JOIN LATERAL (
			SELECT d.* FROM cron.job_run_details d
			WHERE d.jobid = j.jobid AND d.start_time > pg_postmaster_start_time() ORDER BY d.runid DESC LIMIT 1) d ON true
		SQL

	wait_until($node, 'postgres', "SELECT count(*) $last WHERE d.status IN ('succeeded', 'failed')", $n);
	return $node->safe_psql('postgres', "SELECT j.jobname, d.status $last ORDER BY j.jobname");
}

for my $case ([ 'ai_chat_run,pg_cron', 'on' ], [ 'pg_cron,ai_chat_run', 'off' ])
{
	my ($libraries, $in_workers) = @$case;
	my $name = "$libraries, use_background_workers = $in_workers";
	my $node = new_server("cron_$in_workers", <<~CONF);
		shared_preload_libraries = '$libraries'
		cron.database_name = 'postgres'
		cron.use_background_workers = $in_workers
		cron.host = '@{[$any->host]}'
		ai_chat_run.boot_sweep = off
		ai_chat_run.stale_after = 0
		ai_chat_run.sweep_batch_size = 1
		max_worker_processes = 20
		CONF
	$node->safe_psql('postgres', <<~SQL);
		CREATE EXTENSION pg_cron;
		CREATE ROLE operator LOGIN;
		GRANT USAGE ON SCHEMA ai_chat_run, cron TO operator;
		GRANT EXECUTE ON FUNCTION ai_chat_run.sweep_runs, ai_chat_run.purge_runs, ai_chat_run.settle_deferred TO operator;
		GRANT EXECUTE ON PROCEDURE ai_chat_run.await_run TO operator;
		SQL

	# schedule(JOB NAME => COMMAND...): to be run at the next start, and no others.
	my $schedule = sub {
		my (%jobs) = @_;
		$node->safe_psql('postgres', join ";\n", 'DELETE FROM cron.job', 'SET SESSION AUTHORIZATION operator',
			map { "SELECT cron.schedule('$_', '\@reboot', \$job\$$jobs{$_}\$job\$)" } sort keys %jobs);
		return;
	};

	# ---- the operator's jobs ----

	add_ended_run($node, 'postgres', 1, '2 days');
	add_ended_run($node, 'postgres', 2, '1 minute');
	begin_run($node, 'postgres', $_) for 3, 4;
	my $run = begin_run($node, 'postgres', 5);
	$schedule->(
		purge => q(SELECT ai_chat_run.purge_runs('1 day')),
		steal => "UPDATE $RUNS SET step_count = 1",
		sweep => "SELECT ai_chat_run.sweep_runs('1 year'), ai_chat_run.sweep_runs(max_runs => 2)",
		wait => "CALL ai_chat_run.await_run('$run', '$WS', '1 h')");
	$node->restart;
	wait_until($node, 'postgres', "SELECT count(*) $WAITING", 1);
	wait_until($node, 'postgres', "SELECT count(*) FROM $RUNS WHERE status = 'running'", 1);
	is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')"), 'finalized',
		"$name: a run that a job waits for ends");
	is(jobs_done($node, 4), "purge|succeeded\nsteal|failed\nsweep|succeeded\nwait|succeeded",
		"$name: jobs do what their role may do");
	is(runs($node, 'postgres'), "2 failed 1 minute\n3 aborted Run aborted by an operator.\n"
		. "4 aborted Run aborted by an operator.\n5 succeeded", "$name: and no more");

	# ---- together with the boot sweep ----

	$node->safe_psql('postgres', <<~SQL);
		INSERT INTO $RUNS (chat_id, workspace_id) SELECT ai_chat_run.new_run_id(), '$WS' FROM generate_series(1, 500)
		SQL
	my %sweeps = map { $_ => 'SELECT ai_chat_run.sweep_runs()' } 'a', 'b', 'c';
	$schedule->(%sweeps);
	set_conf($node, 'ai_chat_run.boot_sweep' => 'on');
	$node->restart;
	is(jobs_done($node, 3), "a|succeeded\nb|succeeded\nc|succeeded", "$name: jobs sweep while the boot sweep does");
	wait_until($node, 'postgres', "SELECT boot_sweep_done_at IS NOT NULL FROM ai_chat_run.workers WHERE datname = 'postgres'");
	is($node->safe_psql('postgres', <<~SQL), '500|500', "$name: each run is aborted, and counted once");
		SELECT (SELECT count(*) FROM $RUNS WHERE status = 'aborted') - 2, swept_at_boot + swept_stale
		FROM ai_chat_run.stats WHERE datname = 'postgres'
		SQL

	# ---- a job that is killed ----

	$run = begin_run($node, 'postgres', 6);
	$schedule->(wait => "CALL ai_chat_run.await_run('$run', '$WS', '1 h')");
	set_conf($node, 'ai_chat_run.boot_sweep' => 'off');
	$node->restart;
	wait_until($node, 'postgres', "SELECT count(*) $WAITING", 1);
	is($node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) $WAITING"), 't', "$name: a job is terminated");
	wait_until($node, 'postgres', "SELECT count(*) $WAITING", 0);
	pass("$name: its wait is over");
	unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/, "$name: nobody has crashed");
	$node->stop;
}
done_testing();
