-- finalize_run makes a run terminal once and never loses the decision: failed writes are tried again, each with a WARNING,
-- and then deferred as part of the caller's transaction, with one more WARNING, RN500; nothing of it fails the caller.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set c3 'c0000000-0000-4000-8000-000000000003'
\set c4 'c0000000-0000-4000-8000-000000000004'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set r3 'a0000000-0000-4000-8000-000000000003'
\set r4 'a0000000-0000-4000-8000-000000000004'
\set nobody 'a0000000-0000-4000-8000-00000000000f'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r2');
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r3');
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (:'r4', :'c4', :'w');

-- how a turn can end; a pending run can end, too
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'error', 'out of tokens');
SELECT ai_chat_run.finalize_run(run_id => :'r3', workspace_id => :'w', turn_status => 'aborted',
	error => 'stopped by the user');
SELECT ai_chat_run.finalize_run(:'r4', :'w', 'completed', 'with a remark');
SELECT id, status, error, finished_at >= started_at AS after_start, finished_at = updated_at AS updated
FROM ai_chat_run.ai_chat_runs ORDER BY id;

-- the once gate: the first end stays, whatever comes later
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'error', 'too late');
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
SELECT id, status, error FROM ai_chat_run.ai_chat_runs ORDER BY id;

-- of another workspace, or of nobody
SELECT ai_chat_run.finalize_run(:'r1', :'other_w', 'completed');
SELECT ai_chat_run.finalize_run(:'nobody', :'w', 'completed');

-- no other words for the end of a turn
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'succeeded');
\echo :SQLSTATE
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'Completed');
\echo :SQLSTATE

BEGIN READ ONLY;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
\echo :SQLSTATE
ROLLBACK;

-- inside a longer transaction: by the clock; undone with it; begun, ended and begun again
TRUNCATE ai_chat_run.ai_chat_runs;
BEGIN;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SAVEPOINT s;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
ROLLBACK TO s;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'aborted');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r2');
SELECT id, status, finished_at > now() AS by_the_clock FROM ai_chat_run.ai_chat_runs ORDER BY id;
COMMIT;
BEGIN;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
ROLLBACK;
SELECT id, status, finished_at IS NULL AS open FROM ai_chat_run.ai_chat_runs ORDER BY id;

-- in every isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ai_chat_run.finalize_run(:'nobody', :'w', 'completed'), ai_chat_run.finalize_run(:'r1', :'w', 'completed'),
	ai_chat_run.finalize_run(:'r2', :'w', 'error');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT ai_chat_run.finalize_run(:'nobody', :'w', 'completed'), ai_chat_run.finalize_run(:'r1', :'w', 'completed'),
	ai_chat_run.finalize_run(:'r2', :'w', 'error');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
ROLLBACK;

-- From here on the write meets somebody's trigger. It raises the first TG_ARGV[0] times, with SQLSTATE TG_ARGV[1]. All
-- is done inside transactions that are rolled back: nobody else, such as the background worker, has a part in it.
CREATE TEMP SEQUENCE tries;
CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	n bigint := nextval('pg_temp.tries');
BEGIN
	IF n <= TG_ARGV[0]::int THEN
		RAISE EXCEPTION 'no ends on a holiday (%)', n USING ERRCODE = TG_ARGV[1], DETAIL = 'Not told.';
	END IF;
	RETURN NULL;
END
$$;

-- the second retry is the one that succeeds
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(2, 'XX999');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
SELECT status FROM ai_chat_run.ai_chat_runs WHERE id = :'r2';
SELECT count(*) FROM ai_chat_run.deferred_finalizations;
ROLLBACK;

-- none succeeds: what was decided is deferred, the run stays as it was, and the transaction goes on
ALTER SEQUENCE tries RESTART;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(100, 'XX999');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'error', 'out of tokens');
SELECT status, error, finished_at FROM ai_chat_run.ai_chat_runs WHERE id = :'r2';
SELECT workspace_id, run_id, status, error, cause, deferred_at > now() AS by_the_clock
FROM ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r3');
-- rolled back, it leaves neither
ROLLBACK;
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT count(*) FROM ai_chat_run.deferred_finalizations;

-- the SQLSTATEs: that of the cause for each attempt, then RN500
ALTER SEQUENCE tries RESTART;
SET ai_chat_run.finalize_retry_base = 0;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(100, 'XX999');
SAVEPOINT s;
\set VERBOSITY sqlstate
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
-- a savepoint takes the deferral back as well
SELECT count(*) FROM ai_chat_run.deferred_finalizations;
ROLLBACK TO s;
SELECT count(*) FROM ai_chat_run.deferred_finalizations;
-- the number of attempts is a setting
SET ai_chat_run.finalize_max_attempts = 5;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
\set VERBOSITY default
ROLLBACK TO s;
SET ai_chat_run.finalize_max_attempts = 1;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
RESET ai_chat_run.finalize_max_attempts;
ROLLBACK;

-- a pending run is reported as such
ALTER SEQUENCE tries RESTART;
BEGIN;
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (:'r4', :'c4', :'w');
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(100, 'XX999');
SELECT ai_chat_run.finalize_run(:'r4', :'w', 'aborted');
ROLLBACK;

-- "stop now", a cancel or a shutdown, is not retried and not deferred
ALTER SEQUENCE tries RESTART;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(100, '57014');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(100, '57P01');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
\echo :SQLSTATE
ROLLBACK;
SELECT last_value AS tries FROM pg_temp.tries;

-- a serialization failure is retried where that can help, and where it cannot goes straight to the deferral
ALTER SEQUENCE tries RESTART;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(1, '40001');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
ROLLBACK;
ALTER SEQUENCE tries RESTART;
BEGIN ISOLATION LEVEL REPEATABLE READ;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(1, '40001');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
ROLLBACK;
ALTER SEQUENCE tries RESTART;
BEGIN ISOLATION LEVEL SERIALIZABLE;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(1, '40001');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
ROLLBACK;
-- another failure is retried there, too
ALTER SEQUENCE tries RESTART;
BEGIN ISOLATION LEVEL SERIALIZABLE;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(2, '40P01');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
ROLLBACK;

-- writes that fail before the row is reached: what there is nothing to do for is not deferred
ALTER SEQUENCE tries RESTART;
BEGIN;
CREATE TRIGGER meddle BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH STATEMENT
	EXECUTE FUNCTION pg_temp.raise(100, 'XX999');
SET LOCAL client_min_messages = error;
SELECT ai_chat_run.finalize_run(:'nobody', :'w', 'completed'), ai_chat_run.finalize_run(:'r2', :'other_w', 'completed'),
	ai_chat_run.finalize_run(:'r1', :'w', 'completed'), ai_chat_run.finalize_run(:'r2', :'w', 'completed');
SELECT run_id, workspace_id, status FROM ai_chat_run.deferred_finalizations;
ROLLBACK;
SELECT last_value AS tries FROM pg_temp.tries;

-- a trigger that suppresses the write
CREATE FUNCTION pg_temp.suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
BEGIN;
CREATE TRIGGER meddle BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
ROLLBACK;

-- a table that cannot even be read: then the chat is not known
BEGIN;
ALTER TABLE ai_chat_run.ai_chat_runs RENAME TO away;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
SELECT run_id, status, cause FROM ai_chat_run.deferred_finalizations;
ROLLBACK;

-- the deferral cannot be recorded either: its error, with that text
ALTER SEQUENCE tries RESTART;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(100, 'XX999');
CREATE TRIGGER meddle AFTER INSERT ON ai_chat_run.deferred_finalizations FOR EACH ROW
	EXECUTE FUNCTION pg_temp.raise(100, 'XX998');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'error', 'out of tokens');
\echo :SQLSTATE
ROLLBACK;
-- suppressed, it has no error of its own: then that of the last attempt
ALTER SEQUENCE tries RESTART;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(100, 'XX999');
CREATE TRIGGER meddle BEFORE INSERT ON ai_chat_run.deferred_finalizations FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
\echo :SQLSTATE
ROLLBACK;
-- and caught, it leaves the caller's transaction usable
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(100, 'XX999');
CREATE TRIGGER meddle AFTER INSERT ON ai_chat_run.deferred_finalizations FOR EACH ROW
	EXECUTE FUNCTION pg_temp.raise(100, 'XX998');
SET LOCAL client_min_messages = notice;
DO $$
BEGIN
	SET LOCAL client_min_messages = error;
	PERFORM ai_chat_run.finalize_run('a0000000-0000-4000-8000-000000000002', 'e0000000-0000-4000-8000-000000000001',
		'completed');
EXCEPTION WHEN SQLSTATE 'XX998' THEN
	RAISE NOTICE 'caught: %', SQLERRM;
END
$$;
DROP TRIGGER meddle ON ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
COMMIT;
DROP TRIGGER meddle ON ai_chat_run.deferred_finalizations;
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;

-- the attempts' bound on lock waiting does not stay behind
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r3');
ALTER SEQUENCE tries RESTART;
SET lock_timeout = '7min';
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(1, 'XX999');
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
SHOW lock_timeout;
ROLLBACK;
RESET lock_timeout;

-- while one is made it stands in for a longer one of the session, or for none; a shorter one stays
CREATE FUNCTION pg_temp.tell_bound() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'lock_timeout is %', current_setting('lock_timeout');
	RETURN NULL;
END
$$;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.tell_bound();
SET LOCAL ai_chat_run.lock_timeout = '2min';
SAVEPOINT s;
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
ROLLBACK TO s;
SET LOCAL lock_timeout = '7min';
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
ROLLBACK TO s;
SET LOCAL lock_timeout = '1min';
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
SHOW lock_timeout;
ROLLBACK;

-- the pause after the second attempt is twice that after the first; what tells when each was made is not rolled back with it
CREATE TEMP SEQUENCE time_1;
CREATE TEMP SEQUENCE time_2;
CREATE TEMP SEQUENCE time_3;
CREATE FUNCTION pg_temp.note_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM setval('pg_temp.time_' || nextval('pg_temp.tries'), (extract(epoch FROM clock_timestamp()) * 1000)::bigint);
	RAISE EXCEPTION 'no ends on a holiday';
END
$$;
ALTER SEQUENCE tries RESTART;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.note_time();
SET LOCAL ai_chat_run.finalize_retry_base = '100ms';
SET LOCAL client_min_messages = error;
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
ROLLBACK;
-- no less than that, but for what rounding takes
SELECT b.last_value - a.last_value >= 99 AS first_pause, c.last_value - b.last_value >= 199 AS second_pause
FROM pg_temp.time_1 a, pg_temp.time_2 b, pg_temp.time_3 c;

-- a timeout ends the pause and the call, long before the pause would have
ALTER SEQUENCE tries RESTART;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise(100, 'XX999');
SET LOCAL ai_chat_run.finalize_retry_base = '1min';
SET LOCAL client_min_messages = error;
SET LOCAL statement_timeout = '500ms';
SELECT now() AS called_at \gset
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
\echo :SQLSTATE
ROLLBACK;
SELECT clock_timestamp() < :'called_at'::timestamptz + '1 min' AS before_the_pause_was_over;
SELECT status FROM ai_chat_run.ai_chat_runs WHERE id = :'r3';
SELECT count(*) FROM ai_chat_run.deferred_finalizations;

-- prepared, and often enough for a generic plan
PREPARE finish(uuid, text) AS SELECT ai_chat_run.finalize_run($1, 'e0000000-0000-4000-8000-000000000001', $2);
DO $$
DECLARE
	run uuid;
BEGIN
	FOR i IN 1..8 LOOP
		run := ai_chat_run.begin_run(gen_random_uuid(), 'e0000000-0000-4000-8000-000000000001');
		EXECUTE format('EXECUTE finish(%L, %L)', run, 'completed');
	END LOOP;
END
$$;
EXECUTE finish(:'r3', 'error');
EXECUTE finish(:'r3', 'completed');
DEALLOCATE finish;
SELECT status, count(*) FROM ai_chat_run.ai_chat_runs GROUP BY status ORDER BY status;

TRUNCATE ai_chat_run.ai_chat_runs;
