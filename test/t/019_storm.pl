# Many sessions do everything at once to a few chats, and each checks what it is told: a run that is settled is never
# active again, one that was rolled back is not there, whoever waits is woken. Which of them meet is luck, but every
# answer has to be right.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use RunCluster;
use Test::More;

my $node = new_server('storm', <<~CONF);
	ai_chat_run.lock_timeout = 10s
	CONF

$node->safe_psql('postgres', <<~SQL);
	CREATE TABLE wrong (what text);

	CREATE PROCEDURE expect(what text, answer text, VARIADIC right_ones text[]) LANGUAGE plpgsql AS \$\$
	BEGIN
		IF answer IS NULL OR answer <> ALL (right_ones) THEN
			INSERT INTO wrong VALUES (format('%s: %s', what, coalesce(answer, 'null')));
		END IF;
	END \$\$;

	-- our own run, from its begin to its end
	CREATE PROCEDURE execute_turn(run uuid, dice float) LANGUAGE plpgsql AS \$\$
	DECLARE
		outcome text;
	BEGIN
		IF dice < 0.1 THEN
			ROLLBACK;
			CALL expect('rolled back', ai_chat_run.heartbeat(run, '$WS'), 'not_found');
			COMMIT;
			RETURN;
		END IF;
		COMMIT;
		CALL expect('begun', ai_chat_run.heartbeat(run, '$WS'), 'continue', 'stop', 'finalized');
		COMMIT;
		CALL expect('step', ai_chat_run.record_step(run, '$WS', 1), 'continue', 'stop', 'finalized');
		COMMIT;
		outcome := ai_chat_run.finalize_run(run, '$WS', 'completed');
		IF dice > 0.9 THEN
			ROLLBACK;
			outcome := ai_chat_run.finalize_run(run, '$WS', 'completed');
		END IF;
		COMMIT;
		CALL expect('outcome', outcome, 'finalized', 'already_finalized');
		CALL expect('settled', ai_chat_run.heartbeat(run, '$WS'), 'finalized');
		CALL expect('settled, active', ai_chat_run.is_locally_active(run)::text, 'false');
		COMMIT;
	END \$\$;

	-- somebody else's
	CREATE PROCEDURE meddle(chat uuid, run uuid, dice float) LANGUAGE plpgsql AS \$\$
	DECLARE
		outcome text;
		error text;
	BEGIN
		IF dice < 0.2 THEN
			PERFORM ai_chat_run.request_stop(run, '$WS');
			COMMIT;
			CALL expect('stopped', ai_chat_run.heartbeat(run, '$WS'), 'stop', 'finalized', 'not_found');
		ELSIF dice < 0.5 THEN
			CALL ai_chat_run.await_run(run, '$WS', '3 min', outcome, error);
			CALL expect('awaited', outcome, 'succeeded', 'failed', 'not_found');
			CALL expect('awaited, signal', ai_chat_run.heartbeat(run, '$WS'), 'finalized', 'not_found');
		ELSIF dice < 0.7 THEN
			CALL ai_chat_run.supersede_run(chat, run, '$WS', NULL, 'user', '3 min', false, outcome, run);
			CALL expect('supersede', outcome, 'superseded', 'began', 'mismatch');
			IF outcome <> 'mismatch' THEN
				CALL expect('superseding', ai_chat_run.heartbeat(run, '$WS'), 'continue', 'stop', 'finalized');
				COMMIT;
				PERFORM ai_chat_run.finalize_run(run, '$WS', 'completed');
			END IF;
		ELSIF dice < 0.8 THEN
			PERFORM ai_chat_run.finalize_run(run, '$WS', 'error');
		END IF;
		COMMIT;
	END \$\$;

	CREATE PROCEDURE storm(n int, dice float) LANGUAGE plpgsql AS \$\$
	DECLARE
		chat uuid := ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid;
		outcome text;
		run uuid;
	BEGIN
		SELECT t.outcome, t.run_id INTO outcome, run FROM ai_chat_run.try_begin_run(chat, '$WS') t;
		IF outcome = 'began' THEN
			CALL execute_turn(run, dice);
		ELSIF run IS NOT NULL THEN
			CALL meddle(chat, run, dice);
		END IF;
	END \$\$;
	SQL

my $script = PostgreSQL::Test::Utils::tempdir() . '/storm.sql';
PostgreSQL::Test::Utils::append_to_file($script, <<~'SQL');
	\set n random(1, 4)
	\set dice random(0, 999) / 1000.0
	CALL storm(:n, :dice);
	SQL

$node->command_ok([ 'pgbench', '-n', '-c', 12, '-j', 2, '-t', 600, '-f', $script, 'postgres' ], 'all go through');
is($node->safe_psql('postgres', 'SELECT what, count(*) FROM wrong GROUP BY what ORDER BY what'), '', 'every answer was right');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ai_chat_run.active_runs'), '0', 'every run has ended');

$node->stop;
done_testing();
