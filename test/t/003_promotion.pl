# On a standby functions that write refuse cleanly, those that read work, and no background process of ours is there.
# Promotion is a server start: the boot sweep happens then and not before, and touches nothing that was begun since,
# however early, by whoever was connected already.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $primary = new_server('primary', 'log_statement = none', allows_streaming => 1, extra => ['--wal-segsize=1']);
my $run = begin_run($primary, 'postgres', 1);
$primary->backup('base');
my ($standby, $later) = map { PostgreSQL::Test::Cluster->new($_) } 'standby', 'later';
for my $node ($standby, $later)
{
	$node->init_from_backup($primary, 'base', has_streaming => 1);
	$node->start;
}

# More runs, begun while the standbys are up already.
begin_run($primary, 'postgres', 2);
my $decided = begin_run($primary, 'postgres', 3);
my $done = begin_run($primary, 'postgres', 4);
$primary->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$done', '$WS', 'completed')");
my $client = $primary->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$decided' FOR UPDATE");
is($primary->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$decided', '$WS', 'completed')"),
	'deferred', 'a finalization is deferred on the primary');
$primary->wait_for_catchup($standby);

# ---- a standby ----

my $chat = chat(1);
my @writing = (
	"SELECT ai_chat_run.begin_run('@{[chat(9)]}', '$WS')",
	"SELECT ai_chat_run.try_begin_run('@{[chat(9)]}', '$WS')",
	"SELECT ai_chat_run.record_step('$run', '$WS', 1)",
	"SELECT ai_chat_run.heartbeat('$run', '$WS')",
	"SELECT ai_chat_run.link_assistant_message('$run', '$WS', '$run')",
	"SELECT ai_chat_run.finalize_run('$run', '$WS', 'completed')",
	"SELECT ai_chat_run.request_stop('$run', '$WS')",
	"SELECT ai_chat_run.request_stop_for_chat('$chat', '$WS')",
	"SELECT ai_chat_run.attach_runner('web-1')",
	'SELECT ai_chat_run.settle_deferred()',
	'SELECT ai_chat_run.sweep_runs()',
	"SELECT ai_chat_run.purge_runs('1 day')",
	'SELECT ai_chat_run.grant_app_access(current_user::regrole)',
	"CALL ai_chat_run.await_run('$run', '$WS')",
	"CALL ai_chat_run.await_stop('$run', '$WS')",
	"CALL ai_chat_run.await_stops('web-1')",
	"CALL ai_chat_run.supersede_run('$chat', '$run', '$WS')");
for my $call (@writing)
{
	my ($out, $err);
	$standby->psql('postgres', "\\set VERBOSITY sqlstate\n$call;", stdout => \$out, stderr => \$err);
	like($err, qr/ERROR:  25006$/, "$call refuses");
}
is($standby->safe_psql('postgres', <<~SQL), "running\nrunning\nsucceeded", 'the get functions work');
	SELECT status FROM ai_chat_run.get_run('$run', '$WS');
	SELECT status FROM ai_chat_run.get_active_for_chat('$chat', '$WS');
	SELECT status FROM ai_chat_run.get_latest_for_chat('@{[chat(4)]}', '$WS');
	SQL
is($standby->safe_psql('postgres', "SELECT ai_chat_run.is_locally_active('$run')"), 'f', 'a standby hears from no runner');
is($standby->safe_psql('postgres', <<~SQL), "\nboot_sweep worker\n3", 'so do health() and the views');
	SELECT string_agg(check_name, ' ') FROM ai_chat_run.health() WHERE NOT ok;
	SELECT string_agg(check_name, ' ' ORDER BY check_name COLLATE "C") FROM ai_chat_run.health() WHERE detail ~ 'promotion of this standby';
	SELECT count(*) FROM ai_chat_run.active_runs;
	SQL
is($standby->safe_psql('postgres', <<~SQL), "0\n0\n\nsucceeded|7", 'and what looks into shared memory, or at nothing');
	SELECT count(*) FROM ai_chat_run.stats WHERE begun > 0;
	SELECT count(*) FROM ai_chat_run.workers WHERE boot_sweep_done_at IS NOT NULL;
	SELECT ai_chat_run.stats_reset();
	SELECT ai_chat_run.map_turn_status('completed'), substr(ai_chat_run.new_run_id()::text, 15, 1);
	SQL

# Whatever may be called and is not of one of these kinds has to be thought of here.
my ($refusing, $working) = (join(', ', map { /ai_chat_run\.(\w+)/ ? "'$1'" : () } @writing),
	join(', ', map { "'$_'" } qw(get_run get_active_for_chat get_latest_for_chat is_locally_active health stats_reset
		  map_turn_status new_run_id is_run_status is_terminal_status live_state server_state database_counters
		  database_visits)));
is($standby->safe_psql('postgres', <<~SQL), '', 'no function is left out');
	SELECT proname FROM pg_proc
	WHERE pronamespace = 'ai_chat_run'::regnamespace AND prorettype <> 'trigger'::regtype
		AND proname NOT IN ($refusing, $working)
	SQL
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'ai_chat_run%'"),
	0, 'no process of ours is on a standby');
is(runs($standby, 'postgres'), "1 running\n2 running\n3 running\n4 succeeded", 'runs are as they are on the primary');

# ---- promotion ----

my $swept = 'aborted Run interrupted by a server restart.';

# promote(STANDBY, N): there, with applications that are connected already and try until the server takes a write: by
# the function, and writing the table themselves, with an id of the table's and with one of their own. N runs of before
# are expected to be swept.
sub promote
{
	my ($node, $n) = @_;
	my @applications;

	for my $command (
		"PERFORM ai_chat_run.begin_run('@{[chat(11)]}', '$WS')",
		"INSERT INTO $RUNS (chat_id, workspace_id) VALUES ('@{[chat(12)]}', '$WS')",
		"INSERT INTO $RUNS (id, chat_id, workspace_id, status) VALUES (gen_random_uuid(), '@{[chat(13)]}', '$WS', 'running')")
	{
		my $application = $node->background_psql('postgres');
		$application->query_until(qr/trying/, <<~SQL);
			\\echo trying
			DO \$\$
			BEGIN
				LOOP
					BEGIN
						$command;
						EXIT;
					EXCEPTION WHEN read_only_sql_transaction THEN NULL;
					END;
					COMMIT;
				END LOOP;
			END \$\$;
			SQL
		push @applications, $application;
	}
	is(swept_lines($node, 0), '', 'no boot sweep before promotion');
	my $life = log_end($node);
	$node->promote;
	$_->query_safe('SELECT 1') for @applications;
	$_->quit for @applications;
	wait_swept($node, $life, 'postgres');
	is(swept_lines($node, $life), "postgres: $n", 'the boot sweep happens at promotion');
	is(runs($node, 'postgres', 11 .. 13), "11 running\n12 pending\n13 running", 'runs begun since are untouched');
	return;
}

promote($standby, 2);
is(runs($standby, 'postgres', 1 .. 4), "1 $swept\n2 $swept\n3 succeeded\n4 succeeded", 'runs of before are settled');
$standby->stop('immediate');

# The same with a prepared transaction, older than the last runs, that lives on.
$primary->safe_psql('postgres', <<~SQL);
	CREATE TABLE public.unrelated (n int);
	BEGIN; INSERT INTO public.unrelated VALUES (1); PREPARE TRANSACTION 'older';
	SQL
begin_run($primary, 'postgres', 5);
$primary->wait_for_catchup($later);
$primary->stop('immediate');
abandon($client);
promote($later, 3);
is(runs($later, 'postgres', 1 .. 5), "1 $swept\n2 $swept\n3 succeeded\n4 succeeded\n5 $swept",
	'runs of before are settled');
is($later->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts'), 'older',
	'whatever transaction was prepared before them');
$later->stop('immediate');
done_testing();
