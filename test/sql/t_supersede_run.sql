-- supersede_run stops the target, waits for its end and begins the new run: what one session can see of that. That nobody else
-- can take the slot meanwhile is for the races between sessions. Without preloading it cannot wait.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set c3 'c0000000-0000-4000-8000-000000000003'
\set r1 'a5000000-0000-4000-8000-000000000001'
\set r2 'a5000000-0000-4000-8000-000000000002'
\set r3 'a5000000-0000-4000-8000-000000000003'
\set r4 'a5000000-0000-4000-8000-000000000004'
\set person 'b0000000-0000-4000-8000-000000000001'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT current_setting('shared_preload_libraries') ~ 'ai_chat_run' AS preloaded \gset
SELECT :'preloaded' AS preloaded;
CREATE TEMP VIEW runs AS
SELECT chat_id, CASE WHEN id::text LIKE 'a5000000%' THEN id END AS given_id, created_by, trigger, status, runner,
	stop_requested_at IS NOT NULL AS to_stop
FROM ai_chat_run.ai_chat_runs ORDER BY chat_id, created_at, id;

-- nobody is active, least of all the target: the new run begins at once
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w') \gset
\echo :SQLSTATE
\if :preloaded
\else
\quit
\endif
SELECT :'outcome' AS outcome, id = :'run_id' AS new_run, workspace_id = :'w' AS in_workspace, started_at IS NOT NULL AS started
FROM ai_chat_run.ai_chat_runs;
SELECT * FROM runs;
-- nor one that is over
SELECT ai_chat_run.finalize_run(:'run_id', :'w', 'completed');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SET ai_chat_run.runner = 'runner of the session';
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', :'person', 'regenerate') \gset
RESET ai_chat_run.runner;
SELECT :'outcome' AS outcome, id = :'run_id' AS new_run FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
CALL ai_chat_run.supersede_run(force => false, timeout => '1 s', trigger => 'regenerate', created_by => :'person',
	workspace_id => :'w', target_run_id => :'r1', chat_id => :'c2') \gset
\echo :SQLSTATE
CALL ai_chat_run.supersede_run(force => false, timeout => '1 s', trigger => 'regenerate', created_by => :'person',
	workspace_id => :'w', target_run_id => :'r2', chat_id => :'c2') \gset
SELECT :'outcome' AS outcome;
SELECT * FROM runs;
TRUNCATE ai_chat_run.ai_chat_runs;

-- another run is active: which one, and nothing is changed
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r2');
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w');
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', force => true);
CALL ai_chat_run.supersede_run(:'c1', gen_random_uuid(), :'w', timeout => '0', force => true);
-- one of another workspace, of which nothing is told; and from there the target is not found
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'other_w', force => true);
CALL ai_chat_run.supersede_run(:'c1', :'r2', :'other_w', timeout => '0', force => true);
SELECT * FROM runs;
SELECT ai_chat_run.heartbeat(:'r2', :'w');

-- the target does not end in time: it is told to stop, and nothing is begun
CALL ai_chat_run.supersede_run(:'c1', :'r2', :'w', timeout => '0');
CALL ai_chat_run.supersede_run(:'c1', :'r2', :'w', timeout => '20 ms');
SELECT * FROM runs;
SELECT ai_chat_run.heartbeat(:'r2', :'w');
-- nothing is left of the attempt: the slot is the target's, and free after its end
SELECT outcome, run_id FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'aborted');
SELECT outcome, run_id FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r3');

-- by force the target is aborted, and the new run begun
SELECT ai_chat_run.link_assistant_message(:'r3', :'w', :'person');
CALL ai_chat_run.supersede_run(:'c1', :'r3', :'w', :'person', 'regenerate', '0', true) \gset
SELECT :'outcome' AS outcome, id = :'run_id' AS new_run FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
SELECT o.status, o.stop_requested_at IS NOT NULL AS to_stop, o.assistant_message_id = :'person' AS linked,
	o.finished_at = o.updated_at AS finished, n.started_at >= o.finished_at AS one_after_the_other, n.created_by, n.trigger
FROM ai_chat_run.ai_chat_runs o, ai_chat_run.ai_chat_runs n WHERE o.id = :'r3' AND n.id = :'run_id';
SELECT * FROM runs;
SELECT ai_chat_run.heartbeat(:'r3', :'w'), ai_chat_run.heartbeat(:'run_id', :'w');
SELECT ai_chat_run.is_locally_active(:'r3'), ai_chat_run.is_locally_active(:'run_id');
-- also one that is pending
TRUNCATE ai_chat_run.ai_chat_runs;
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (:'r4', :'c1', :'w');
CALL ai_chat_run.supersede_run(:'c1', :'r4', :'w', timeout => '0');
CALL ai_chat_run.supersede_run(:'c1', :'r4', :'w', timeout => '0', force => true) \gset
SELECT :'outcome' AS outcome;
SELECT * FROM runs;

-- what was deferred is applied first: the target is over then
TRUNCATE ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, error, cause)
VALUES (:'w', :'r1', 'failed', 'out of tokens', 'a test');
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '1 min') \gset
SELECT :'outcome' IN ('began', 'superseded') AS begun, id = :'run_id' AS new_run
FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
SELECT status, error FROM ai_chat_run.get_run(:'r1', :'w');
SELECT count(*) FROM ai_chat_run.deferred_finalizations;
-- so with another run that is in the way
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause) VALUES (:'w', :'run_id', 'succeeded', 'a test');
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0') \gset
SELECT :'outcome' AS outcome, id = :'run_id' AS new_run FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
SELECT status, count(*) FROM ai_chat_run.ai_chat_runs GROUP BY status ORDER BY status;
SELECT count(*) FROM ai_chat_run.deferred_finalizations;

-- what is not the fault of others that are there at the same time is an error, also when there is no time to try again; a row
-- that a client has locked is for the races between sessions
TRUNCATE ai_chat_run.ai_chat_runs;
CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no % on a holiday', TG_OP;
END
$$;
CREATE TRIGGER refuse BEFORE INSERT ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse();
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0');
\echo :SQLSTATE
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0', force => true);
\echo :SQLSTATE
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '1 min');
\echo :SQLSTATE
ALTER TABLE ai_chat_run.ai_chat_runs DISABLE TRIGGER refuse;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
ALTER TABLE ai_chat_run.ai_chat_runs ENABLE TRIGGER refuse;
-- by force it is both or neither: the new run cannot be begun, so the target goes on
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0', force => true);
\echo :SQLSTATE
SELECT * FROM runs;
-- the target cannot be aborted, though it can be told
DROP TRIGGER refuse ON ai_chat_run.ai_chat_runs;
CREATE TRIGGER refuse BEFORE UPDATE OF status ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse();
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0', force => true);
\echo :SQLSTATE
SELECT * FROM runs;
-- without force nobody has tried to
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0');
-- nor can its row be stamped; it is told all the same
DROP TRIGGER refuse ON ai_chat_run.ai_chat_runs;
UPDATE ai_chat_run.ai_chat_runs SET stop_requested_at = NULL;
CREATE TRIGGER refuse BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse();
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0');
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0', force => true);
\echo :SQLSTATE
SELECT * FROM runs;
DROP TRIGGER refuse ON ai_chat_run.ai_chat_runs;
-- the slot is free after each of them
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'aborted');
SELECT outcome, run_id FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r2');

-- arguments
TRUNCATE ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r2');
CALL ai_chat_run.supersede_run(:'c1', :'r2', :'w', timeout => '0', force => true);
\echo :SQLSTATE
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
CALL ai_chat_run.supersede_run(:'c1', :'r2', :'w');
\echo :SQLSTATE
CALL ai_chat_run.supersede_run(NULL, :'r1', :'w');
\echo :SQLSTATE
CALL ai_chat_run.supersede_run(:'c1', NULL, :'w');
\echo :SQLSTATE
CALL ai_chat_run.supersede_run(:'c1', :'r1', NULL);
\echo :SQLSTATE
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => NULL);
\echo :SQLSTATE
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '-1 ms');
\echo :SQLSTATE
SELECT * FROM runs;

-- not where it could not commit, or write
BEGIN;
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0');
\echo :SQLSTATE
ROLLBACK;
CREATE FUNCTION pg_temp.supersede() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	outcome text;
	run_id uuid;
BEGIN
	CALL ai_chat_run.supersede_run('c0000000-0000-4000-8000-000000000001', 'a5000000-0000-4000-8000-000000000001',
		'e0000000-0000-4000-8000-000000000001', NULL, 'user', '0', true, outcome, run_id);
	RETURN outcome;
END
$$;
SELECT pg_temp.supersede();
\echo :SQLSTATE
SET default_transaction_read_only = on;
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '0');
\echo :SQLSTATE
RESET default_transaction_read_only;
SELECT * FROM runs;

-- nor in a loop over what it writes; of which the target is not told, not even in shared memory
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r4');
DO $$
DECLARE
	r record;
	outcome text;
	run_id uuid;
BEGIN
	FOR r IN UPDATE ai_chat_run.ai_chat_runs SET step_count = 1 WHERE id = 'a5000000-0000-4000-8000-000000000004' RETURNING *
	LOOP
		CALL ai_chat_run.supersede_run(r.chat_id, r.id, r.workspace_id, NULL, 'user', '0', true, outcome, run_id);
	END LOOP;
END
$$;
\echo :SQLSTATE
SELECT * FROM runs WHERE chat_id = :'c3';
SELECT ai_chat_run.heartbeat(:'r4', :'w');
SELECT stop_requested FROM ai_chat_run.active_runs WHERE run_id = :'r4';
CALL ai_chat_run.await_stop(:'r4', :'w', '0');
-- a loop over what it reads is none of our business
DO $$
DECLARE
	r record;
	outcome text;
	run_id uuid;
BEGIN
	FOR r IN SELECT * FROM ai_chat_run.ai_chat_runs WHERE id = 'a5000000-0000-4000-8000-000000000004' LOOP
		CALL ai_chat_run.supersede_run(r.chat_id, r.id, r.workspace_id, NULL, 'user', '0', true, outcome, run_id);
		RAISE NOTICE '%', outcome;
	END LOOP;
END
$$;
SELECT * FROM runs WHERE chat_id = :'c3';
DELETE FROM ai_chat_run.ai_chat_runs WHERE chat_id = :'c3';

-- a cancel ends the wait, and the slot is not kept; that the target has been told by then, race_supersede sees
SET statement_timeout = '50 ms';
CALL ai_chat_run.supersede_run(:'c1', :'r1', :'w', timeout => '1 day');
\echo :SQLSTATE
RESET statement_timeout;
SELECT given_id, status FROM runs;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'aborted');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r3');

-- in a procedure or a DO, one after the other, in any isolation level
CREATE PROCEDURE pg_temp.supersede_all(n int) LANGUAGE plpgsql AS $$
DECLARE
	chat uuid := 'c0000000-0000-4000-8000-000000000001';
	w uuid := 'e0000000-0000-4000-8000-000000000001';
	outcome text;
	run uuid := 'a5000000-0000-4000-8000-000000000003';
	new_run uuid;
BEGIN
	FOR i IN 1 .. n LOOP
		CALL ai_chat_run.supersede_run(chat, run, w, NULL, 'again ' || i, '0', true, outcome, new_run);
		RAISE NOTICE '%: %, %', current_setting('transaction_isolation'), outcome, new_run <> run;
		run := new_run;
	END LOOP;
	CALL ai_chat_run.supersede_run(chat, 'a5000000-0000-4000-8000-000000000003', w, NULL, 'again', '0', true, outcome, new_run);
	RAISE NOTICE '%: %, %', current_setting('transaction_isolation'), outcome, new_run = run;
	PERFORM ai_chat_run.finalize_run(run, w, 'completed');
	PERFORM ai_chat_run.begin_run(chat, w);
	CALL ai_chat_run.await_run(run, w, '0', outcome, outcome);
	DELETE FROM ai_chat_run.ai_chat_runs;
	PERFORM ai_chat_run.begin_run(chat, w, run_id => 'a5000000-0000-4000-8000-000000000003');
END
$$;
CALL pg_temp.supersede_all(3);
SET default_transaction_isolation = 'repeatable read';
CALL pg_temp.supersede_all(2);
SET default_transaction_isolation = 'serializable';
DO 'BEGIN CALL pg_temp.supersede_all(2); END';
RESET default_transaction_isolation;
SELECT * FROM runs;

TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
