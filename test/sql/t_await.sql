-- await_run, await_stop and await_stops return at once with what is so already, and with nulls when the time is over; they say
-- which argument makes no sense, and refuse to run where they could not commit. What wakes them is for the races between
-- sessions. Without preloading there is nothing to wait with.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set c3 'c0000000-0000-4000-8000-000000000003'
\set r1 'a4000000-0000-4000-8000-000000000001'
\set r2 'a4000000-0000-4000-8000-000000000002'
\set r3 'a4000000-0000-4000-8000-000000000003'
\set r4 'a4000000-0000-4000-8000-000000000004'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT current_setting('shared_preload_libraries') ~ 'ai_chat_run' AS preloaded \gset
SELECT :'preloaded' AS preloaded;

-- a run that is not there; without preloading, what to do about that comes first
CALL ai_chat_run.await_run(:'r1', :'w');
\echo :SQLSTATE
CALL ai_chat_run.await_stop(:'r1', :'w');
\echo :SQLSTATE
CALL ai_chat_run.await_stops('runner of t_await', timeout => '0');
\echo :SQLSTATE
\if :preloaded
\else
\quit
\endif

-- a null in each place, and what makes no sense
CALL ai_chat_run.await_run(NULL, :'w');
\echo :SQLSTATE
CALL ai_chat_run.await_run(:'r1', NULL);
\echo :SQLSTATE
CALL ai_chat_run.await_run(:'r1', :'w', NULL);
\echo :SQLSTATE
CALL ai_chat_run.await_run(:'r1', :'w', '-1 ms');
\echo :SQLSTATE
CALL ai_chat_run.await_run(:'r1', :'w', '1 day -25 hours');
\echo :SQLSTATE
CALL ai_chat_run.await_stop(NULL, :'w');
\echo :SQLSTATE
CALL ai_chat_run.await_stop(:'r1', NULL);
\echo :SQLSTATE
CALL ai_chat_run.await_stop(:'r1', :'w', NULL);
\echo :SQLSTATE
CALL ai_chat_run.await_stop(:'r1', :'w', '-1 ms');
\echo :SQLSTATE
CALL ai_chat_run.await_stops(NULL, timeout => '0');
\echo :SQLSTATE
CALL ai_chat_run.await_stops('runner of t_await', timeout => NULL);
\echo :SQLSTATE
CALL ai_chat_run.await_stops('runner of t_await', timeout => '-1 ms');
\echo :SQLSTATE
CALL ai_chat_run.await_stops(repeat('x', 128), timeout => '0');
\echo :SQLSTATE

-- await_run: nulls while the run is active, and its end when it has one, however long the timeout
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
CALL ai_chat_run.await_run(:'r1', :'w', '0');
CALL ai_chat_run.await_run(:'r1', :'w', '20 ms');
CALL ai_chat_run.await_run(timeout => '1 microsecond', workspace_id => :'w', run_id => :'r1');
CALL ai_chat_run.await_run(:'r1', :'w', '0', 'whatever', 'is given');
CALL ai_chat_run.await_run(:'r1', :'other_w', '1 year');
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'error', 'out of tokens');
CALL ai_chat_run.await_run(:'r1', :'w');
CALL ai_chat_run.await_run(:'r1', :'w', '0');
CALL ai_chat_run.await_run(:'r1', :'w', '1000 years');
CALL ai_chat_run.await_run(:'r1', :'other_w');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r2');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
CALL ai_chat_run.await_run(:'r2', :'w');
-- also a run of the application's own, pending, and settled or deleted directly
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (:'r3', :'c1', :'w');
CALL ai_chat_run.await_run(:'r3', :'w', '0');
UPDATE ai_chat_run.ai_chat_runs SET status = 'aborted', finished_at = now(), error = 'by hand' WHERE id = :'r3';
CALL ai_chat_run.await_run(:'r3', :'w');
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'r3';
CALL ai_chat_run.await_run(:'r3', :'w');

-- await_stop: null until there is something to tell
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r3', runner => 'runner of t_await');
CALL ai_chat_run.await_stop(:'r3', :'w', '0');
CALL ai_chat_run.await_stop(:'r3', :'w', '20 ms', 'whatever is given');
SELECT ai_chat_run.request_stop(:'r3', :'w');
CALL ai_chat_run.await_stop(:'r3', :'w');
CALL ai_chat_run.await_stop(:'r3', :'w', '0');
CALL ai_chat_run.await_stop(:'r3', :'other_w');
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'aborted');
CALL ai_chat_run.await_stop(:'r3', :'w');
-- a stop that somebody has written directly
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r4', runner => 'runner of t_await');
UPDATE ai_chat_run.ai_chat_runs SET stop_requested_at = now() WHERE id = :'r4';
CALL ai_chat_run.await_stop(:'r4', :'w');

-- await_stops: those of the runner alone, active, and not seen already
CALL ai_chat_run.await_stops('runner of t_await');
CALL ai_chat_run.await_stops('runner of t_await', ARRAY[:'r1', :'r2']::uuid[]);
CALL ai_chat_run.await_stops('runner of t_await', ARRAY[:'r4']::uuid[], '0');
CALL ai_chat_run.await_stops('another runner of t_await', timeout => '20 ms');
SELECT ai_chat_run.begin_run(:'c2', :'other_w', run_id => 'a4000000-0000-4000-8000-000000000005',
	runner => 'runner of t_await') AS r5 \gset
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => 'a4000000-0000-4000-8000-000000000006',
	runner => 'another runner of t_await') AS r6 \gset
CALL ai_chat_run.await_stops('runner of t_await', ARRAY[:'r4']::uuid[], '0');
SELECT ai_chat_run.request_stop(:'r5', :'other_w'), ai_chat_run.request_stop(:'r6', :'w');
CALL ai_chat_run.await_stops('runner of t_await') \gset
SELECT id FROM unnest(:'run_ids'::uuid[]) id ORDER BY id;
CALL ai_chat_run.await_stops('runner of t_await', ARRAY[:'r4']::uuid[]);
CALL ai_chat_run.await_stops('runner of t_await', ARRAY[:'r4', :'r5']::uuid[], '0');
CALL ai_chat_run.await_stops('another runner of t_await');
-- also one that only its row tells of, as it was written with the stop, beside those that shared memory knows
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, runner, stop_requested_at)
VALUES ('a4000000-0000-4000-8000-000000000007', gen_random_uuid(), :'w', 'runner of t_await', now());
CALL ai_chat_run.await_stops('runner of t_await') \gset
SELECT id FROM unnest(:'run_ids'::uuid[]) id ORDER BY id;
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = 'a4000000-0000-4000-8000-000000000007';
SELECT ai_chat_run.finalize_run(:'r5', :'other_w', 'aborted');
CALL ai_chat_run.await_stops('runner of t_await', ARRAY[:'r4']::uuid[], '0');

-- not where it could not commit: in a transaction block, a function, or a DO within one
BEGIN;
CALL ai_chat_run.await_run(:'r1', :'w');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
CALL ai_chat_run.await_stop(:'r1', :'w');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
CALL ai_chat_run.await_stops('runner of t_await');
\echo :SQLSTATE
ROLLBACK;
CREATE FUNCTION pg_temp.wait_for(run_id uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	status text;
	error text;
BEGIN
	CALL ai_chat_run.await_run(run_id, 'e0000000-0000-4000-8000-000000000001', '0', status, error);
	RETURN status;
END
$$;
SELECT pg_temp.wait_for(:'r1');
\echo :SQLSTATE
DO $$
BEGIN
	PERFORM pg_temp.wait_for('a4000000-0000-4000-8000-000000000001');
END
$$;
\echo :SQLSTATE
BEGIN;
DO $$
DECLARE
	signal text;
BEGIN
	CALL ai_chat_run.await_stop('a4000000-0000-4000-8000-000000000001', 'e0000000-0000-4000-8000-000000000001', '0', signal);
END
$$;
\echo :SQLSTATE
ROLLBACK;
-- the refusal can be caught, and leaves the transaction as it was
BEGIN;
SAVEPOINT s;
CALL ai_chat_run.await_run(:'r1', :'w');
ROLLBACK TO s;
SELECT ai_chat_run.finalize_run(:'r4', :'w', 'completed');
ROLLBACK;

-- but in a procedure or a DO outside a block, with what the caller has at hand before and after; what he did is committed
CREATE TEMP TABLE heard (n int, status text, error text);
CREATE PROCEDURE pg_temp.turn(n int, turn_status text, error text) LANGUAGE plpgsql AS $$
DECLARE
	w uuid := 'e0000000-0000-4000-8000-000000000001';
	run uuid := ai_chat_run.begin_run(gen_random_uuid(), w);
	status text := 'not set';
	signal text := 'not set';
BEGIN
	CALL ai_chat_run.await_run(run, w, '0', status, signal);
	INSERT INTO heard VALUES (n, status, signal);
	PERFORM ai_chat_run.request_stop(run, w);
	CALL ai_chat_run.await_stop(run, w, '1 min', signal);
	INSERT INTO heard VALUES (n, NULL, signal);
	PERFORM ai_chat_run.finalize_run(run, w, turn_status, error);
	CALL ai_chat_run.await_run(run, w, '1 min', status, error);
	INSERT INTO heard VALUES (n, status, error);
	COMMIT;
	INSERT INTO heard VALUES (n, 'rolled back', NULL);
	ROLLBACK;
END
$$;
CALL pg_temp.turn(1, 'completed', NULL);
SELECT * FROM heard;
TRUNCATE heard;
-- in loops over queries, which the commits in between outlive
DO $$
DECLARE
	r record;
	status text;
	error text;
	ids uuid[];
BEGIN
	FOR r IN SELECT id, workspace_id FROM ai_chat_run.ai_chat_runs
		WHERE chat_id IN ('c0000000-0000-4000-8000-000000000001', 'c0000000-0000-4000-8000-000000000002') ORDER BY id
	LOOP
		CALL ai_chat_run.await_run(r.id, r.workspace_id, '0', status, error);
		RAISE NOTICE '%: % (%)', r.id, status, error;
	END LOOP;
	FOR r IN EXECUTE 'SELECT * FROM (VALUES (1, ''completed'', NULL), (2, ''error'', ''lost''), (3, ''aborted'', '''')) v(n, turn, e)'
	LOOP
		CALL pg_temp.turn(r.n, r.turn, r.e);
	END LOOP;
	CALL ai_chat_run.await_stops('another runner of t_await', '{}', '0', ids);
	RAISE NOTICE '%', ids;
END
$$;
SELECT status, error FROM heard WHERE status IS NOT NULL ORDER BY n;
-- in a subtransaction, which a block with an exception handler is, there is no commit either
DO $$
DECLARE
	status text;
	error text;
BEGIN
	CALL ai_chat_run.await_run('a4000000-0000-4000-8000-000000000001', 'e0000000-0000-4000-8000-000000000001', '0', status, error);
	RAISE NOTICE 'waited: %', status;
EXCEPTION WHEN active_sql_transaction OR invalid_transaction_termination THEN
	RAISE NOTICE 'refused: %', SQLERRM;
END
$$;

-- whatever the isolation level
SET default_transaction_isolation = 'repeatable read';
CALL ai_chat_run.await_run(:'r1', :'w');
CALL ai_chat_run.await_run(:'r4', :'w', '20 ms');
CALL ai_chat_run.await_stop(:'r4', :'w');
SET default_transaction_isolation = 'serializable';
CALL ai_chat_run.await_run(:'r1', :'w');
CALL ai_chat_run.await_run(:'r4', :'w', '20 ms');
CALL ai_chat_run.await_stops('runner of t_await');
RESET default_transaction_isolation;

-- a cancel ends the wait, and the session goes on
SET statement_timeout = '50 ms';
CALL ai_chat_run.await_run(:'r4', :'w', '1 day');
\echo :SQLSTATE
CALL ai_chat_run.await_stop(:'r6', :'other_w', '1 day');
CALL ai_chat_run.await_stops('runner of t_await', ARRAY[:'r4']::uuid[], '1 day');
\echo :SQLSTATE
RESET statement_timeout;
SELECT ai_chat_run.finalize_run(:'r4', :'w', 'aborted');
CALL ai_chat_run.await_run(:'r4', :'w', '1 day');

TRUNCATE ai_chat_run.ai_chat_runs;
