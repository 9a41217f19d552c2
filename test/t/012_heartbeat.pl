# heartbeat on a preloaded server: it writes nothing, and yet it keeps the run from being swept. What shared memory
# knows of runs may be too little for all of them, and is lost with the server; the row makes up for it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $silent = 'aborted Run aborted: its runner has been silent for too long.';
my $node = new_server('heartbeat', <<~CONF);
	ai_chat_run.boot_sweep = off
	ai_chat_run.stale_after = 0
	ai_chat_run.reconcile_interval = 1h
	CONF

sub heartbeat
{
	my ($run) = @_;
	return $node->safe_psql('postgres', "SELECT ai_chat_run.heartbeat('$run', '$WS')");
}

sub is_locally_active
{
	my ($run) = @_;
	return $node->safe_psql('postgres', "SELECT ai_chat_run.is_locally_active('$run')");
}

# version(RUN): which version of its row there is.
sub version
{
	my ($run) = @_;
	return $node->safe_psql('postgres', "SELECT ctid, xmin, xmax, updated_at FROM $RUNS WHERE id = '$run'");
}

# As the owner of the table can, and nobody else would: the row tells of a year of silence.
sub set_back
{
	my (@runs) = @_;
	my $list = join ', ', map { "'$_'" } @runs;
	$node->safe_psql('postgres', "UPDATE $RUNS SET updated_at = now() - interval '1 year' WHERE id IN ($list)");
	return;
}

# ---- nothing is written ----

my $run = begin_run($node, 'postgres', 1);
my $version = version($run);
is($node->safe_psql('postgres', <<~SQL), "continue\nt\n0|0|0", 'no transaction id, no tuple');
	BEGIN;
	SELECT ai_chat_run.heartbeat('$run', '$WS');
	SELECT pg_current_xact_id_if_assigned() IS NULL;
	SELECT pg_stat_get_xact_tuples_inserted(oid), pg_stat_get_xact_tuples_updated(oid), pg_stat_get_xact_tuples_deleted(oid)
	FROM pg_class WHERE oid = '$RUNS'::regclass;
	COMMIT;
	SQL
is(version($run), $version, 'the row is as it was');

# Others may write, too; but not each time. If heartbeats did, it would be each time.
$node->safe_psql('postgres', <<~SQL);
	CREATE PROCEDURE public.call_quietly(run uuid, OUT quiet boolean) LANGUAGE plpgsql AS \$\$
	DECLARE
		lsn pg_lsn;
		next_xid xid8;
	BEGIN
		FOR try IN 1 .. 100 LOOP
			lsn := pg_current_wal_insert_lsn();
			next_xid := pg_snapshot_xmax(pg_current_snapshot());
			COMMIT;
			FOR i IN 1 .. 100 LOOP
				PERFORM ai_chat_run.heartbeat(run, '$WS');
				COMMIT;
			END LOOP;
			quiet := lsn = pg_current_wal_insert_lsn() AND next_xid = pg_snapshot_xmax(pg_current_snapshot());
			EXIT WHEN quiet;
			PERFORM pg_sleep(0.01);
		END LOOP;
	END \$\$;
	SQL
is($node->safe_psql('postgres', "CALL public.call_quietly('$run', NULL)"), 't',
	'100 heartbeats, each in a transaction, leave no WAL and take no transaction id');

# A row that somebody has locked, or a transaction that has written, is no obstacle.
my $client = $node->background_psql('postgres');
$client->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$run' FOR UPDATE");
is(heartbeat($run), 'continue', 'the row of another one');
$client->query_safe('COMMIT');


# ---- what others do to the run ----

# Nobody believes in a run whose begin is not committed, or in one that is settled.
my $begin = "SELECT ai_chat_run.begin_run('@{[chat(2)]}', '$WS', run_id => ai_chat_run.new_run_id())";
my $ghost = $client->query_safe("BEGIN; $begin");
is($client->query_safe("SELECT ai_chat_run.heartbeat('$ghost', '$WS')"), 'continue', 'the session that begins it hears it');
is(heartbeat($ghost) . ' ' . is_locally_active($ghost), 'not_found f', 'others do not');
$client->query_safe('ROLLBACK');
is(heartbeat($ghost) . ' ' . is_locally_active($ghost), 'not_found f', 'a begin that is rolled back');
my $prepared = $client->query_safe("BEGIN; $begin");
$client->query_safe("PREPARE TRANSACTION 'begin'");
is(heartbeat($prepared) . ' ' . is_locally_active($prepared), 'not_found f', 'one that is prepared');
$node->safe_psql('postgres', "COMMIT PREPARED 'begin'");
is(heartbeat($prepared) . ' ' . is_locally_active($prepared), 'continue t', 'and then committed');
$client->query_safe("BEGIN; SELECT ai_chat_run.finalize_run('$prepared', '$WS', 'completed'); PREPARE TRANSACTION 'end'");
is(heartbeat($prepared) . ' ' . is_locally_active($prepared), 'continue t', 'an end that is prepared');

# The worker's first visit finds that there is none which is older than the server; from then on what is not known is not ours.
wait_until($node, 'postgres',
	'SELECT boot_sweep_done_at IS NOT NULL AND NOT working FROM ai_chat_run.workers WHERE datname = current_database()');
my (undef, undef, $err) = $node->psql('postgres', "CREATE ROLE stranger; SET ROLE stranger; COMMIT PREPARED 'end'");
like($err, qr/permission denied to finish prepared transaction/, 'that somebody may not commit');
is(heartbeat($prepared) . ' ' . is_locally_active($prepared), 'continue t', 'and so did not');
$node->safe_psql('postgres', "COMMIT PREPARED 'end'");
is(heartbeat($prepared) . ' ' . is_locally_active($prepared), 'finalized f', 'and then committed');
$node->safe_psql('postgres', "UPDATE $RUNS SET status = 'failed', finished_at = now() WHERE id = '$run'");
is(heartbeat($run) . ' ' . is_locally_active($run), 'finalized f', 'an UPDATE of an application');
$client->quit;

# ---- sweeps hear it ----

my ($alive, $dead, $other) = map { begin_run($node, 'postgres', $_) } 3, 4, 5;
$node->safe_psql('postgres', "UPDATE $RUNS SET runner = 'web-1' WHERE id IN ('$alive', '$dead')");
set_back($alive, $dead, $other);
$version = version($alive);

# By hand: a call and a sweep at once, until the server is old enough for the sweep to find what has been silent.
my $call = "ai_chat_run.heartbeat('$alive', '$WS')";
wait_until($node, 'postgres', "SELECT $call, ai_chat_run.sweep_runs('1 s', 'web-1')", 'continue|1');
is(runs($node, 'postgres', 3 .. 5), "3 running\n4 $silent\n5 running", 'a sweep of the runs of a runner');
wait_until($node, 'postgres', "SELECT $call, ai_chat_run.sweep_runs('1 s')", 'continue|1');
is(runs($node, 'postgres', 3 .. 5), "3 running\n4 $silent\n5 $silent", 'a sweep of all');

# By the worker: somebody calls all the time for one run, until the other one is aborted.
$node->safe_psql('postgres', <<~SQL);
	CREATE PROCEDURE public.outlive(alive uuid, dead uuid, INOUT status text DEFAULT NULL) LANGUAGE plpgsql AS \$\$
	BEGIN
		LOOP
			PERFORM ai_chat_run.heartbeat(alive, '$WS');
			SELECT string_agg(r.status, ' ' ORDER BY r.id = dead) INTO status FROM $RUNS r WHERE r.id IN (alive, dead);
			EXIT WHEN status NOT LIKE '% running';
			COMMIT;
			PERFORM pg_sleep(0.01);
		END LOOP;
	END \$\$;
	SQL
$dead = begin_run($node, 'postgres', 6);
set_back($dead);
change_conf($node, 'ai_chat_run.stale_after' => '2s', 'ai_chat_run.reconcile_interval' => '100ms');
is($node->safe_psql('postgres', "CALL public.outlive('$alive', '$dead')"), 'running aborted', 'the worker');
change_conf($node, 'ai_chat_run.stale_after' => '0', 'ai_chat_run.reconcile_interval' => '1h');
is(runs($node, 'postgres', 6), "6 $silent", 'the other one was silent');
is(version($alive), $version, 'all the time the row of the run that lives on was as it is');

# ---- a server start ----

# Nobody has called since; a stop that somebody requests is no call of the runner.
my @run = ($alive, map { begin_run($node, 'postgres', $_) } 7 .. 9);
my $locked = begin_run($node, 'postgres', 99);
is(join('', map { is_locally_active($_) } @run), 'tttt', 'before a restart');
$node->restart;
is(join('', map { is_locally_active($_) } @run), 'ffff', 'after a restart nobody has called');

# A stop is told though the row is locked, also of a run that nobody has called for, by a transaction that has written.
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM $RUNS WHERE id = '$locked' FOR UPDATE");
is($node->safe_psql('postgres', <<~SQL), 't', 'a stop of a run that is not tracked');
	BEGIN;
	CREATE TEMP TABLE written ();
	SELECT ai_chat_run.request_stop('$locked', '$WS');
	COMMIT;
	SQL
is(heartbeat($locked), 'stop', 'is told while its row is locked');
$holder->query_safe('COMMIT');
$holder->quit;
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$locked', '$WS', 'aborted')"), 'finalized', 'and it ends');
is($node->safe_psql('postgres', <<~SQL), "continue\ncontinue\nt", 'two runners call, a client requests a stop');
	SELECT $call;
	SELECT ai_chat_run.record_step('$run[1]', '$WS', 1);
	SELECT ai_chat_run.request_stop('$run[2]', '$WS');
	SQL
is(join('', map { is_locally_active($_) } @run), 'ttff', 'then they are known');
is(version($alive), $version, 'the first heartbeat writes nothing either');
is($node->safe_psql('postgres', "CALL public.call_quietly('$alive', NULL)"), 't', 'nor do the next ones');

# The crash of a backend is one, too.
set_back($run[3]);
my $crashed_at = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
crash_backend($node);
is(join('', map { is_locally_active($_) } @run), 'ffff', 'after a crash nobody has called');
is(join(' ', map { heartbeat($_) } @run[ 0 .. 2 ]), 'continue continue stop', 'all is in the rows');
change_conf($node, 'ai_chat_run.stale_after' => '1s', 'ai_chat_run.reconcile_interval' => '100ms');
wait_until($node, 'postgres', "SELECT status FROM $RUNS WHERE id = '$run[3]'", 'aborted');
is($node->safe_psql('postgres', <<~SQL), 't', 'silence is counted from there');
	SELECT finished_at > '$crashed_at'::timestamptz + interval '1 s' FROM $RUNS WHERE id = '$run[3]'
	SQL

# ---- more runs than shared memory holds ----

set_conf($node, 'ai_chat_run.max_active_runs' => 2, 'ai_chat_run.stale_after' => 0, 'ai_chat_run.reconcile_interval' => '1h');
$node->restart;
$node->safe_psql('postgres', 'SELECT ai_chat_run.sweep_runs()');
@run = map {
	$node->safe_psql('postgres', sprintf q(SELECT ai_chat_run.begin_run('%s', '%s', runner => 'many')), chat($_), $WS)
} 11 .. 15;
cmp_ok($node->safe_psql('postgres', q(SELECT untracked FROM ai_chat_run.stats WHERE datname = 'postgres')), '>=', 3,
	'some do not fit');
is(join(' ', map { heartbeat($_) } @run), join(' ', ('continue') x 5), 'all can call');
is(join('', map { is_locally_active($_) } @run), 'ttttt', 'all are active');
$dead = begin_run($node, 'postgres', 16);
set_back(@run, $dead);
my $calls = join ' || ', map { "ai_chat_run.heartbeat('$_', '$WS')" } @run;
wait_until($node, 'postgres', "SELECT length($calls), ai_chat_run.sweep_runs('1 s')", '40|1');
is(runs($node, 'postgres', 11 .. 16), join("\n", (map { "$_ running" } 11 .. 15), "16 $silent"),
	'all of them are kept by calling');
my ($waiter) = start_waiting($node, 'postgres', "CALL ai_chat_run.await_stops('many', '{@{[join ',', @run[ 0 .. 3 ]]}}', '1 h')");
is($node->safe_psql('postgres', "SELECT ai_chat_run.request_stop('$_', '$WS')"), 't', "a stop of $_") for @run;
is(answer($waiter), "{$run[4]}", 'the last one is told to who waits');
is(join(' ', map { heartbeat($_) } @run), join(' ', ('stop') x 5), 'all are told');
start_call($waiter, "CALL ai_chat_run.await_run('$run[4]', '$WS', '1 h')");
is($node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$_', '$WS', 'aborted')"), 'finalized', "the end of $_")
  for @run;
is(answer($waiter), 'aborted|', 'the last one is told to who waits');
is(join(' ', map { heartbeat($_) } @run), join(' ', ('finalized') x 5), 'all are told');

# Where there is room again, it is used.
$run = begin_run($node, 'postgres', 17);
is(heartbeat($run), 'continue', 'a run after them');
is($node->safe_psql('postgres', "CALL public.call_quietly('$run', NULL)"), 't', 'is tracked again');
$waiter->quit;
$node->stop;
done_testing();
