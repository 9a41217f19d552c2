-- begin_run takes the chat's slot or says who holds it: one active run per chat, an error with everything a client
-- branches on, repeatable with a given run id; any other error passes unchanged, and a rolled-back begin leaves nothing.
\set SHOW_CONTEXT never
\pset null '(null)'
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set c3 'c0000000-0000-4000-8000-000000000003'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set r3 'a0000000-0000-4000-8000-000000000003'
\set person 'b0000000-0000-4000-8000-000000000001'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;

-- everything given, by position
BEGIN;
SELECT ai_chat_run.begin_run(:'c1', :'w', :'person', 'schedule', :'r1', 'runner one');
\x on
SELECT id, chat_id, workspace_id, created_by, assistant_message_id, trigger, status, error, step_count, runner,
	stop_requested_at, finished_at, created_at = now() AS created_now, started_at = updated_at AS started_and_updated,
	started_at >= created_at AS started_since_created
FROM ai_chat_run.ai_chat_runs;
\x off
ROLLBACK;

-- the rolled-back begin left the slot free
SELECT count(*) FROM ai_chat_run.ai_chat_runs;

-- only what is needed: the id is made, a version 7 UUID
SELECT ai_chat_run.begin_run(:'c1', :'w') AS made \gset
SELECT substr(:'made', 15, 1) AS version, created_by, trigger, status, runner
FROM ai_chat_run.ai_chat_runs WHERE id = :'made';

-- by name, in any order; a null means the default
SELECT ai_chat_run.begin_run(run_id => :'r2', trigger => NULL, workspace_id => :'w', chat_id => :'c2');
SELECT trigger FROM ai_chat_run.ai_chat_runs WHERE id = :'r2';

-- the chat is busy: who and since when
UPDATE ai_chat_run.ai_chat_runs SET started_at = '2026-01-02 03:04:05.678+00' WHERE id = :'r2';
SELECT ai_chat_run.begin_run(:'c2', :'w');
\echo :SQLSTATE
DO $$
DECLARE
	state text; message text; detail text; hint text; s text; t text; c text;
BEGIN
	PERFORM ai_chat_run.begin_run('c0000000-0000-4000-8000-000000000002', 'e0000000-0000-4000-8000-000000000001');
EXCEPTION WHEN SQLSTATE 'RN409' THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT, s = SCHEMA_NAME, t = TABLE_NAME, c = CONSTRAINT_NAME;
	RAISE NOTICE E'state: %\nmessage: %\ndetail: %\nhint: %\nschema: %\ntable: %\nconstraint: %',
		state, message, detail, hint, s, t, c;
END
$$;

-- a pending run of the application's own holds the slot too, since it was made
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, created_at)
VALUES (:'r3', :'c3', :'w', '2026-01-02 03:04:05+00');
SELECT ai_chat_run.begin_run(:'c3', :'w');
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'r3';

-- busy with a run of another workspace, of which nothing is told
SELECT ai_chat_run.begin_run(:'c2', :'other_w');
\echo :SQLSTATE

-- a terminal run holds nothing
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r3');
SELECT id, status FROM ai_chat_run.ai_chat_runs WHERE chat_id = :'c2' ORDER BY id;

-- repeatable with a given id: the same chat and workspace get it back and nothing is written
SELECT xmin AS xmin_before FROM ai_chat_run.ai_chat_runs WHERE id = :'r3' \gset
SELECT ai_chat_run.begin_run(:'c2', :'w', created_by => :'person', trigger => 'again', run_id => :'r3');
SELECT count(*), bool_and(xmin = :'xmin_before'), min(trigger) AS trigger
FROM ai_chat_run.ai_chat_runs WHERE id = :'r3';

-- also a terminal one, while another run of the chat is active
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r2');
SELECT id, status FROM ai_chat_run.ai_chat_runs WHERE chat_id = :'c2' ORDER BY id;

-- an id that is new does not help against a busy chat
\set VERBOSITY terse
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r1');
\echo :SQLSTATE
\set VERBOSITY default

-- an id that another chat has, or this chat in another workspace: another unique violation, passed unchanged
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r3');
\echo :SQLSTATE
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
SELECT ai_chat_run.begin_run(:'c2', :'other_w', run_id => :'r3');
\echo :SQLSTATE

-- so with a unique index of somebody's own, with and without an id
BEGIN;
CREATE UNIQUE INDEX one_per_person ON ai_chat_run.ai_chat_runs (created_by);
SELECT ai_chat_run.begin_run(:'c2', :'w', :'person', run_id => :'r1');
SAVEPOINT s;
SELECT ai_chat_run.begin_run(:'c3', :'w', :'person');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT ai_chat_run.begin_run(:'c3', :'w', :'person', run_id => 'a0000000-0000-4000-8000-00000000000f');
\echo :SQLSTATE
ROLLBACK;

-- the runner: given, or the session's; empty means none
SET ai_chat_run.runner = 'runner of the session';
BEGIN;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r1');
SELECT ai_chat_run.begin_run(:'c3', :'w', runner => 'runner of the call') IS NOT NULL AS begun;
SELECT ai_chat_run.begin_run('c0000000-0000-4000-8000-000000000004', :'w', runner => '') IS NOT NULL AS begun;
SELECT chat_id, runner FROM ai_chat_run.ai_chat_runs WHERE status = 'running' AND chat_id <> :'c1' ORDER BY chat_id;
ROLLBACK;
RESET ai_chat_run.runner;
SELECT ai_chat_run.begin_run(:'c2', :'w', runner => repeat('x', 128));
\echo :SQLSTATE
BEGIN;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r1', runner => repeat('x', 127));
SELECT length(runner) FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';
ROLLBACK;

-- a begin in a savepoint that is rolled back leaves the slot free for the rest of the transaction
BEGIN;
SAVEPOINT s;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r1');
ROLLBACK TO s;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => 'a0000000-0000-4000-8000-000000000004');
COMMIT;
SELECT id, status FROM ai_chat_run.ai_chat_runs WHERE chat_id = :'c2' ORDER BY id;

-- a rejection caught in a PL/pgSQL exception block leaves the caller's transaction usable
BEGIN;
DO $$
BEGIN
	PERFORM ai_chat_run.begin_run('c0000000-0000-4000-8000-000000000002', 'e0000000-0000-4000-8000-000000000001');
EXCEPTION WHEN SQLSTATE 'RN409' THEN
	RAISE NOTICE 'caught: %', SQLERRM;
END
$$;
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r1');
COMMIT;
SELECT status FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';

-- in every isolation level, rejected or not
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => 'a0000000-0000-4000-8000-000000000005');
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => 'a0000000-0000-4000-8000-000000000005');
\set VERBOSITY sqlstate
SELECT ai_chat_run.begin_run(:'c3', :'w');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => 'a0000000-0000-4000-8000-000000000005');
SELECT ai_chat_run.begin_run(:'c2', :'w');
ROLLBACK;
\set VERBOSITY default

-- not where nothing can be written
BEGIN READ ONLY;
SELECT ai_chat_run.begin_run(gen_random_uuid(), :'w');
\echo :SQLSTATE
ROLLBACK;

-- prepared, and called often enough for a generic plan
PREPARE take(uuid) AS SELECT ai_chat_run.begin_run($1, 'e0000000-0000-4000-8000-000000000001') IS NOT NULL AS begun;
DO $$
BEGIN
	FOR i IN 1..8 LOOP
		EXECUTE format('EXECUTE take(%L)', gen_random_uuid());
	END LOOP;
END
$$;
\set VERBOSITY terse
EXECUTE take(:'c3');
\set VERBOSITY default
EXECUTE take(gen_random_uuid());
DEALLOCATE take;

-- somebody's trigger that raises: its error passes unchanged
CREATE FUNCTION pg_temp.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.trigger = 'raise' THEN
		RAISE EXCEPTION 'no runs on a holiday' USING ERRCODE = 'XX999', HINT = 'Come tomorrow.';
	END IF;
	RETURN NULL;
END
$$;
BEGIN;
CREATE TRIGGER meddle BEFORE INSERT ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.meddle();
SAVEPOINT s;
SELECT ai_chat_run.begin_run(gen_random_uuid(), :'w', trigger => 'raise');
\echo :SQLSTATE
ROLLBACK TO s;
-- one that suppresses the row: there is nobody to wait for, and no end to trying
SELECT ai_chat_run.begin_run('c0000000-0000-4000-8000-000000000009', :'w');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT ai_chat_run.begin_run('c0000000-0000-4000-8000-000000000009', :'w', run_id => gen_random_uuid());
\echo :SQLSTATE
ROLLBACK;

TRUNCATE ai_chat_run.ai_chat_runs;
