# A session may live for weeks: whatever it calls, and however often, its memory stays as it is. Each way of living is gone
# through for a while, which fills the caches, and then for many times as long; in between nothing may have come to stay, but
# for what a transaction keeps for its commit, of which there is a bound. With CHAOS=full it is 100 000 runs and more.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Memory;
use PostgreSQL::Test::Utils;
use RunCluster;
use Test::More;

my $RUNS = 'ai_chat_run.ai_chat_runs';
my $node = new_server('memory', <<~CONF);
	log_statement = none
	log_min_messages = log
	full_page_writes = off
	max_connections = 20
	ai_chat_run.lock_timeout = 1ms
	ai_chat_run.max_active_runs = 20
	ai_chat_run.stale_after = 0
	CONF
make_memory($node);

# A new chat for each run, since what is left in the indexes of earlier ones of one chat would have to be waded through; but for
# one with a run that stays, one with a run that somebody will lock, and one with a run that has ended.
my $CHAT = 'gen_random_uuid()';
my $BUSY = chat(1);
my ($busy_run, $locked_run, $settled_run) = map { begin_run($node, 'postgres', $_) } 1 .. 3;
$node->safe_psql('postgres', "SELECT ai_chat_run.finalize_run('$settled_run', '$WS', 'completed')");
my $holder = $node->background_psql('postgres');
$holder->set_query_timer_restart;    # it lives as long as the test
$holder->query_safe("SELECT ai_chat_run.attach_runner('taken')");

my $PREPARE = <<~SQL;
	PREPARE begin AS SELECT ai_chat_run.begin_run($CHAT, '$WS') AS run;
	PREPARE begin_busy AS SELECT ai_chat_run.begin_run('$BUSY', '$WS');
	PREPARE finalize AS SELECT ai_chat_run.finalize_run(\$1, '$WS', 'completed');
	SQL
my $LIFE = "EXECUTE begin \\gset\nEXECUTE finalize(:'run');\n";

# live(TEXT): what that says, and the answers.
sub live
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	$node->psql('postgres', $sql, stdout => \$out, stderr => \$err, on_error_stop => 0);
	return "$out\n$err\n";
}

# check_answers(NAME, ANSWERS, N, WAY): a call that fails, or does nothing, keeps nothing either.
sub check_answers
{
	my ($name, $answers, $n, $way) = @_;
	my $count = () = $answers =~ /$way->{answer}/mg;
	is($count, sprintf('%.0f', $n * ($way->{answers} // 1)), "$name: answers of $n times");
	return;
}

# by_client(WAY, FEW, MANY): a client that lives that way.
sub by_client
{
	my ($way, $few, $many) = @_;
	my $answers = live($PREPARE . ($way->{once} // '') . $way->{round} x 3 . $LOOK . $way->{round} x $few . $LOOK
		  . $way->{round} x $many . $LOOK);
	my ($first, $before, $after) = looks($answers);
	return ($answers, $before, $after, $few + $many + 3);
}

# by_block(WAY, FEW, MANY): the same in one statement, a loop in PL/pgSQL. What that keeps is looked at before it ends.
sub by_block
{
	my ($way, $few, $many) = @_;
	my $all = $few + $many;
	my $answers = live(<<~SQL);
		DO \$\$
		DECLARE
			run uuid;
			answer text;
		BEGIN
			@{[ $way->{first} // '' ]}
			FOR i IN 1 .. $all LOOP
				$way->{loop}
				IF i IN (3, $few, $all) THEN
					RAISE NOTICE '%', memory();
				END IF;
			END LOOP;
		END \$\$;
		SQL
	my ($first, $before, $after) = looks($answers);
	return ($answers, $before, $after, $all);
}

# ---- nothing is kept ----

my @flat = (
	{
		name => 'a run in transactions of its own, prepared',
		n => how_often(2000, 100_000),
		round => $LIFE,
		answer => qr/^finalized$/m,
	},
	{
		name => 'the same, not prepared',
		n => how_often(500, 50_000),
		round => "SELECT ai_chat_run.begin_run($CHAT, '$WS') AS run \\gset\n"
		  . "SELECT ai_chat_run.finalize_run(:'run', '$WS', 'error', 'no luck');\n",
		answer => qr/^finalized$/m,
	},
	{
		name => 'a run in a transaction, and one that is rolled back',
		n => how_often(500, 50_000),
		round => "BEGIN;\n${LIFE}COMMIT;\nBEGIN;\n${LIFE}ROLLBACK;\n",
		answer => qr/^finalized$/m,
		answers => 2,
	},
	{
		name => 'a run in a prepared transaction',
		n => how_often(300, 20_000),
		round => "BEGIN;\n${LIFE}PREPARE TRANSACTION 'one';\nCOMMIT PREPARED 'one';\n"
		  . "BEGIN;\n${LIFE}PREPARE TRANSACTION 'two';\nROLLBACK PREPARED 'two';\n",
		answer => qr/^finalized$/m,
		answers => 2,
	},
	{
		name => 'a begin that is rejected',
		n => how_often(1000, 100_000),
		round => "EXECUTE begin_busy;\n",
		answer => qr/ERROR:  an agent run is already in progress/m,
	},
	{
		name => 'a begin that is told of the other run',
		n => how_often(500, 50_000),
		round => "SELECT outcome FROM ai_chat_run.try_begin_run('$BUSY', '$WS');\n",
		answer => qr/^busy$/m,
	},
	{
		name => 'errors',
		n => how_often(200, 20_000),
		round => <<~SQL,
			SELECT ai_chat_run.begin_run(NULL, '$WS');
			SELECT ai_chat_run.begin_run($CHAT, '$WS', run_id => '$busy_run');
			SELECT ai_chat_run.finalize_run('$busy_run', '$WS', 'nonsense');
			SELECT ai_chat_run.record_step('$busy_run', '$WS', -1);
			SELECT ai_chat_run.purge_runs('-1 s');
			SELECT ai_chat_run.attach_runner('');
			CALL ai_chat_run.await_run('$busy_run', '$WS', NULL);
			CALL ai_chat_run.supersede_run($CHAT, '$busy_run', '$WS');
			UPDATE $RUNS SET status = 'running' WHERE id = '$settled_run';
			SET ai_chat_run.runner = '@{[ 'x' x 200 ]}';
			BEGIN;
			CALL ai_chat_run.await_stop('$busy_run', '$WS');
			ROLLBACK;
			SQL
		answer => qr/ERROR:  /m,
		answers => 11,
	},
	{
		name => 'errors that are caught',
		n => how_often(500, 50_000),
		loop => <<~SQL,
			BEGIN
				run := ai_chat_run.begin_run($CHAT, '$WS');
				PERFORM ai_chat_run.begin_run('$BUSY', '$WS');
			EXCEPTION WHEN SQLSTATE 'RN409' THEN
				NULL;
			END;
			IF ai_chat_run.heartbeat(run, '$WS') = 'not_found' THEN
				RAISE NOTICE 'caught';
			END IF;
			COMMIT;
			SQL
		answer => qr/NOTICE:  caught/m,
	},
	{
		name => 'calls of a runner',
		n => how_often(500, 100_000),

		# is_locally_active() looks at the row once a minute, and keeps the plan for that.
		once => "SELECT ai_chat_run.is_locally_active('$settled_run');\n",
		round => <<~SQL,
			SELECT ai_chat_run.heartbeat('$busy_run', '$WS');
			SELECT ai_chat_run.record_step('$busy_run', '$WS', 3);
			SELECT ai_chat_run.link_assistant_message('$busy_run', '$WS', '$BUSY'), ai_chat_run.is_locally_active('$busy_run');
			SELECT ai_chat_run.heartbeat('$settled_run', '$WS');
			SQL
		answer => qr/^(?:continue|t\|t|finalized)$/m,
		answers => 4,
	},
	{
		name => 'a run that comes to its end and is deferred, and settled',
		n => how_often(300, 20_000),
		once => <<~'SQL',
			CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				IF current_setting('memory.refuse', true) = 'on' THEN
					RAISE 'refused';
				END IF;
				RETURN NEW;
			END $$;
			CREATE TRIGGER refuse BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION refuse();
			SQL

		# The worker may be first to settle it.
		round => <<~SQL,
			SELECT ai_chat_run.begin_run($CHAT, '$WS') AS run \\gset
			SET memory.refuse = on;
			EXECUTE finalize(:'run');
			SET memory.refuse = off;
			SELECT 'settled ' || ai_chat_run.settle_deferred(:'run');
			SQL
		answer => qr/^(?:deferred|settled [01])$/m,
		answers => 2,
	},
	{
		name => 'calls that find the run locked',
		holder => "SELECT 1 FROM $RUNS WHERE id = '$locked_run' FOR UPDATE",
		n => how_often(100, 10_000),
		round => <<~SQL,
			SELECT ai_chat_run.finalize_run('$locked_run', '$WS', 'completed');
			SELECT ai_chat_run.record_step('$locked_run', '$WS', 1) IS NULL;
			SELECT ai_chat_run.sweep_runs(NULL, 'nobody') + ai_chat_run.settle_deferred('$locked_run');
			SQL
		answer => qr/^(?:deferred|t|0)$/m,
		answers => 3,
	},
	{
		name => 'waiting',
		n => how_often(200, 10_000),
		round => <<~SQL,
			CALL ai_chat_run.await_run('$busy_run', '$WS', '1 ms');
			CALL ai_chat_run.await_stop('$busy_run', '$WS', '1 ms');
			CALL ai_chat_run.await_stops('nobody', ARRAY['$busy_run']::uuid[], '1 ms');
			CALL ai_chat_run.await_run('$settled_run', '$WS');
			CALL ai_chat_run.await_stop('$settled_run', '$WS');
			SELECT 'waited';
			SQL
		answer => qr/^(?:\||succeeded\||finalized|waited)$/m,
		answers => 4,
	},
	{
		name => 'superseding',
		n => how_often(200, 20_000),
		once => "SELECT ai_chat_run.begin_run('@{[chat(5)]}', '$WS') AS run_id \\gset\n",
		round => <<~SQL,
			CALL ai_chat_run.supersede_run('@{[chat(5)]}', :'run_id', '$WS', timeout => '0', force => true) \\gset
			SELECT :'outcome';
			CALL ai_chat_run.supersede_run('@{[chat(5)]}', :'run_id', '$WS', timeout => '1 ms');
			CALL ai_chat_run.supersede_run('@{[chat(5)]}', '$settled_run', '$WS');
			SQL
		answer => qr/^superseded$|^timeout\||ERROR:  run .* is not a run of chat/m,
		answers => 3,
	},
	{
		name => 'superseding in a loop',
		n => how_often(200, 20_000),
		first => "run := ai_chat_run.begin_run('@{[chat(6)]}', '$WS');",
		loop => <<~SQL,
			CALL ai_chat_run.supersede_run('@{[chat(6)]}', run, '$WS', timeout => '0', force => true, outcome => answer, run_id => run);
			COMMIT;
			RAISE NOTICE '%', answer;
			SQL
		answer => qr/NOTICE:  superseded$/m,
	},
	{
		name => 'attaching, and all ways to end that',
		n => how_often(200, 20_000),
		round => <<~SQL,
			SELECT ai_chat_run.attach_runner('worker');
			DISCARD ALL;
			BEGIN;
			SELECT ai_chat_run.attach_runner('other');
			ROLLBACK;
			SELECT ai_chat_run.attach_runner('taken');
			SQL
		answer => qr/^0$|ERROR:  runner "taken" is attached by another session/m,
		answers => 3,
	},
	{
		name => 'requests to stop',
		n => how_often(300, 50_000),
		once => "LISTEN ai_chat_run_stop;\nSELECT ai_chat_run.begin_run('@{[chat(7)]}', '$WS') AS run \\gset\n",
		round => "SELECT ai_chat_run.request_stop(:'run', '$WS'), ai_chat_run.heartbeat(:'run', '$WS');\n"
		  . "SELECT ai_chat_run.request_stop_for_chat('@{[chat(7)]}', '$WS') = :'run';\n",
		answer => qr/^(?:t\|stop|t)$/m,
		answers => 2,
	},
	{
		name => 'looking',

		# A purge looks at each run that the test has made by now.
		n => how_often(20, 500),
		round => <<~SQL,
			SELECT count(*) FROM ai_chat_run.health();
			SELECT EXISTS (SELECT FROM ai_chat_run.stats) AND EXISTS (SELECT FROM ai_chat_run.workers)
				AND EXISTS (SELECT FROM ai_chat_run.active_runs);
			SELECT (ai_chat_run.get_run('$busy_run', '$WS')).status, (ai_chat_run.get_latest_for_chat('$BUSY', '$WS')).status,
				(ai_chat_run.get_active_for_chat('$BUSY', '$WS')).status;
			SELECT ai_chat_run.purge_runs('1 day');
			SQL
		answer => qr/^(?:6|t|running\|running\|running|0)$/m,
		answers => 4,
	},

	# The last one, since it leaves no room for others.
	{
		name => 'calls for a run that shared memory has no place for',
		n => how_often(300, 100_000),
		once => "SELECT ai_chat_run.begin_run($CHAT, '$WS') AS run FROM generate_series(1, 21) OFFSET 20 \\gset\n",
		round => "SELECT ai_chat_run.heartbeat(:'run', '$WS'), ai_chat_run.record_step(:'run', '$WS', 1),\n"
		  . "\t(ai_chat_run.live_state(:'run', NULL)).heard_at IS NULL;\n",
		answer => qr/^continue\|continue\|t$/m,
	},
);

# ---- what a transaction keeps for its commit ----

# In bytes for each round: what is to be told of each run, up to 10 000 changes; what the server notes down itself, which is
# so much for a subtransaction.
my @kept = (
	{
		name => 'steps of one transaction',
		n => how_often(500, 5000),
		keeps => 200,
		once => "BEGIN;\n",
		round => "SELECT ai_chat_run.record_step('$busy_run', '$WS', 4), ai_chat_run.heartbeat('$busy_run', '$WS');\n",
		answer => qr/^continue\|continue$/m,
	},
	{
		name => 'steps of a run that the same transaction has begun',
		n => how_often(500, 5000),
		keeps => 800,
		once => "BEGIN;\nEXECUTE begin \\gset\n",
		round => "SELECT ai_chat_run.record_step(:'run', '$WS', 4), ai_chat_run.heartbeat(:'run', '$WS');\n",
		answer => qr/^continue\|continue$/m,
	},
	{
		name => 'runs in one transaction',
		n => how_often(2000, 4000),
		keeps => 1000,
		once => "BEGIN;\n",
		round => $LIFE,
		answer => qr/^finalized$/m,
	},
	{
		name => 'runs in savepoints of one transaction',
		n => how_often(1000, 4000),
		keeps => 1000,
		once => "BEGIN;\n",
		round => "SAVEPOINT s;\n${LIFE}RELEASE s;\n",
		answer => qr/^finalized$/m,
	},
	{
		name => 'runs of one transaction after many',
		few => 5100,
		n => how_often(1000, 100_000),
		keeps => 120,
		loop => <<~SQL,
			PERFORM ai_chat_run.finalize_run(ai_chat_run.begin_run($CHAT, '$WS'), '$WS', 'completed');
			IF i % 100 = 0 THEN
				RAISE NOTICE 'finalized';
			END IF;
			SQL
		answer => qr/NOTICE:  finalized$/m,
		answers => 1 / 100,
	},
	{
		name => 'runs that are rolled back to a savepoint',
		n => how_often(500, 100_000),
		keeps => 160,
		once => "BEGIN;\n",
		round => "SAVEPOINT s;\n${LIFE}ROLLBACK TO s;\nRELEASE s;\n",
		answer => qr/^finalized$/m,
	},
	{
		name => 'begins that are rejected, in one transaction',
		n => how_often(500, 100_000),
		keeps => 16,
		once => "BEGIN;\n",
		round => "SAVEPOINT s;\nEXECUTE begin_busy;\nROLLBACK TO s;\nRELEASE s;\n",
		answer => qr/ERROR:  an agent run is already in progress/m,
	},
	{
		name => 'runners that are attached and rolled back to a savepoint',
		n => how_often(300, 50_000),
		keeps => 16,
		once => "BEGIN;\n",
		round => "SAVEPOINT s;\nSELECT ai_chat_run.attach_runner('other');\nROLLBACK TO s;\nRELEASE s;\n",
		answer => qr/^0$/m,
	},
);

sub live_that_way
{
	my ($way) = @_;
	my $n = $way->{n};
	my ($answers, $before, $after, $all) = ($way->{loop} ? \&by_block : \&by_client)->($way, $way->{few} // 30, $n);

	check_answers($way->{name}, $answers, $all, $way);
	return ($before, $after);
}

for my $way (@kept)
{
	my ($before, $after) = live_that_way($way);
	my $each = ($after->[0] - $before->[0]) / $way->{n};
	cmp_ok($each, '<', $way->{keeps}, "$way->{name}: $each bytes are kept for each");
}

# ---- prepared statements of the protocol ----

my $script = PostgreSQL::Test::Utils::tempdir() . '/life.sql';
my ($few, $many) = (50, how_often(2000, 100_000));
append_to_file($script, <<~SQL);
	\\set i :i + 1
	SELECT ai_chat_run.begin_run('@{[chat(8)]}', '$WS') AS run \\gset
	SELECT ai_chat_run.heartbeat(:run, '$WS');
	SELECT ai_chat_run.finalize_run(:run, '$WS', 'completed');
	\\if :i = 3 or :i = $few or :i = $many
	SELECT pg_stat_force_next_flush();
	INSERT INTO looks (look) SELECT memory();
	\\endif
	SQL
$node->safe_psql('postgres', 'CREATE TABLE looks (n int GENERATED ALWAYS AS IDENTITY, look text)');
$node->command_ok([ 'pgbench', '-n', '-M', 'prepared', '-c', 1, '-t', $many, '-D', 'i=0', '-f', $script, 'postgres' ],
	'a driver lives');
my @looks = looks($node->safe_psql('postgres', 'SELECT look FROM looks ORDER BY n'));
stays_flat('a driver that prepares', @looks[ 1, 2 ]);
is($node->safe_psql('postgres', "SELECT count(*) FROM $RUNS WHERE chat_id = '@{[chat(8)]}' AND status = 'succeeded'"),
	$many, 'and all its runs have succeeded');

# ---- waiting for long ----

# Each time the waiter looks it is in a new transaction.
$node->safe_psql('postgres', <<~SQL);
	CREATE PROCEDURE wake(waiter int, run uuid, times int) LANGUAGE plpgsql AS \$\$
	DECLARE
		since timestamptz;
		next timestamptz;
	BEGIN
		FOR i IN 1 .. times LOOP
			SELECT xact_start INTO STRICT since FROM pg_stat_get_activity(waiter);
			PERFORM ai_chat_run.request_stop(run, '$WS');
			COMMIT;
			LOOP
				SELECT xact_start INTO STRICT next FROM pg_stat_get_activity(waiter);
				EXIT WHEN next <> since;
				COMMIT;
			END LOOP;
		END LOOP;
	END \$\$
	SQL

my $run = $node->safe_psql('postgres', "SELECT ai_chat_run.begin_run('@{[chat(9)]}', '$WS', runner => 'awaited')");
for my $call ("await_run('$run', '$WS', '1 h')", "await_stops('awaited', ARRAY['$run']::uuid[], '1 h')",
	"supersede_run('@{[chat(9)]}', '$run', '$WS', timeout => '1 h')")
{
	my ($what) = $call =~ /^(\w+)/;
	my $n = how_often(300, 20_000);
	my ($waiter, $pid) = start_waiting($node, 'postgres', "CALL ai_chat_run.$call");
	$node->safe_psql('postgres', "CALL wake($pid, '$run', 50)");
	wait_asleep($node, $pid);
	my $before = logged_memory($node, $pid);
	$node->safe_psql('postgres', "CALL wake($pid, '$run', $n)");
	wait_asleep($node, $pid);
	my $growth = logged_memory($node, $pid) - $before;
	cmp_ok($growth, '<', $n * 4, "$what: $growth bytes more when it was woken $n times");
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	like(answer($waiter), qr/ERROR: canceling statement due to user request/, "$what was waiting all the time");
	$waiter->quit;
}

for my $way (@flat)
{
	$holder->query_safe("BEGIN; $way->{holder}") if $way->{holder};
	my ($before, $after) = live_that_way($way);
	stays_flat($way->{name}, $before, $after);
	$holder->query_safe('ROLLBACK') if $way->{holder};
}
$holder->query_safe('SELECT 1');
$holder->quit;
$node->stop;
done_testing();
