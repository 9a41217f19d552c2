-- What a runner is told, and what this server knows to be alive: at each moment what the row says, for whoever wrote it and
-- whatever was rolled back. Shared memory, where there is some, makes no difference but one: a stop that it was told of is told
-- at once, and stays though the caller rolls back. A server that is not preloaded has its own expected output.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set c3 'c0000000-0000-4000-8000-000000000003'
\set c4 'c0000000-0000-4000-8000-000000000004'
\set r1 'a7000000-0000-4000-8000-000000000001'
\set r2 'a7000000-0000-4000-8000-000000000002'
\set r3 'a7000000-0000-4000-8000-000000000003'
\set r4 'a7000000-0000-4000-8000-000000000004'
\set r5 'a7000000-0000-4000-8000-000000000005'
\set r6 'a7000000-0000-4000-8000-000000000006'
\set r7 'a7000000-0000-4000-8000-000000000007'
\set r8 'a7000000-0000-4000-8000-000000000008'
\set r9 'a7000000-0000-4000-8000-000000000009'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT current_setting('shared_preload_libraries') ~ 'ai_chat_run' AS preloaded \gset
SELECT :'preloaded' AS preloaded;
SELECT ai_chat_run.is_locally_active(:'r1');
\echo :SQLSTATE
-- Whether the run is locally active: as wanted, or not to be known here.
CREATE FUNCTION pg_temp.is_live(run_id uuid, wanted boolean) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE ai_chat_run.is_locally_active(run_id) WHEN wanted THEN 'as it should be' ELSE 'not as it should be' END;
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	IF current_setting('shared_preload_libraries') ~ 'ai_chat_run' THEN
		RAISE;
	END IF;
	RETURN 'as it should be';
END
$$;
\if :preloaded
SELECT ai_chat_run.is_locally_active(NULL);
\echo :SQLSTATE
\endif

-- a run's life: begun, called for, to be stopped, settled
SELECT ai_chat_run.heartbeat(:'r1', :'w'), pg_temp.is_live(:'r1', false);
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT pg_temp.is_live(:'r1', true), pg_temp.is_live(:'r2', false);
SELECT ai_chat_run.heartbeat(:'r1', :'w'), ai_chat_run.heartbeat(:'r1', :'other_w'), ai_chat_run.heartbeat(:'r2', :'w');
SELECT ai_chat_run.request_stop(:'r1', :'w');
SELECT ai_chat_run.heartbeat(:'r1', :'w'), ai_chat_run.heartbeat(:'r1', :'other_w'), pg_temp.is_live(:'r1', true);
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'aborted');
SELECT ai_chat_run.heartbeat(:'r1', :'w'), ai_chat_run.heartbeat(:'r1', :'other_w'), pg_temp.is_live(:'r1', false);

-- the transaction that begins a run, or settles it, is told what it did; the next one, what became of it
BEGIN;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r2');
SELECT ai_chat_run.heartbeat(:'r2', :'w'), ai_chat_run.record_step(:'r2', :'w', 1), pg_temp.is_live(:'r2', true);
ROLLBACK;
SELECT ai_chat_run.heartbeat(:'r2', :'w'), pg_temp.is_live(:'r2', false);
BEGIN;
SAVEPOINT s;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r2');
SELECT ai_chat_run.heartbeat(:'r2', :'w'), ai_chat_run.request_stop(:'r2', :'w');
SELECT ai_chat_run.heartbeat(:'r2', :'w');
ROLLBACK TO s;
SELECT ai_chat_run.heartbeat(:'r2', :'w'), pg_temp.is_live(:'r2', false);
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r2');
SELECT ai_chat_run.heartbeat(:'r2', :'w');
COMMIT;
SELECT ai_chat_run.heartbeat(:'r2', :'w'), pg_temp.is_live(:'r2', true);
BEGIN;
SELECT ai_chat_run.heartbeat(:'r2', :'w');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
SELECT ai_chat_run.heartbeat(:'r2', :'w'), ai_chat_run.record_step(:'r2', :'w', 2), pg_temp.is_live(:'r2', false);
ROLLBACK;
SELECT ai_chat_run.heartbeat(:'r2', :'w'), pg_temp.is_live(:'r2', true);
BEGIN;
SAVEPOINT s;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
SELECT ai_chat_run.heartbeat(:'r2', :'w'), pg_temp.is_live(:'r2', false);
ROLLBACK TO s;
SELECT ai_chat_run.heartbeat(:'r2', :'w'), pg_temp.is_live(:'r2', true);
SAVEPOINT t;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
RELEASE t;
SELECT ai_chat_run.heartbeat(:'r2', :'w'), pg_temp.is_live(:'r2', false);
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r3');
SELECT ai_chat_run.heartbeat(:'r3', :'w');
COMMIT;
SELECT ai_chat_run.heartbeat(:'r2', :'w'), pg_temp.is_live(:'r2', false);
SELECT ai_chat_run.heartbeat(:'r3', :'w'), pg_temp.is_live(:'r3', true);
-- a direct INSERT likewise: the transaction that makes it is told of it, and nobody else learns of it before the commit
BEGIN;
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (:'r4', :'c2', :'w');
SELECT ai_chat_run.heartbeat(:'r4', :'w'), pg_temp.is_live(:'r4', true);
ROLLBACK;
SELECT ai_chat_run.heartbeat(:'r4', :'w'), pg_temp.is_live(:'r4', false);
DO $$
BEGIN
	PERFORM ai_chat_run.finalize_run('a7000000-0000-4000-8000-000000000003', 'e0000000-0000-4000-8000-000000000001', 'error');
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	RAISE NOTICE 'undone: %',
		ai_chat_run.heartbeat('a7000000-0000-4000-8000-000000000003', 'e0000000-0000-4000-8000-000000000001');
END
$$;
SELECT ai_chat_run.heartbeat(:'r3', :'w'), pg_temp.is_live(:'r3', true);

-- whoever writes the row: a sweep, the owner
SELECT ai_chat_run.sweep_runs();
SELECT ai_chat_run.heartbeat(:'r3', :'w'), pg_temp.is_live(:'r3', false);
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r4');
BEGIN;
UPDATE ai_chat_run.ai_chat_runs SET status = 'failed', finished_at = now() WHERE id = :'r4';
SELECT ai_chat_run.heartbeat(:'r4', :'w'), pg_temp.is_live(:'r4', false);
ROLLBACK;
SELECT ai_chat_run.heartbeat(:'r4', :'w'), pg_temp.is_live(:'r4', true);
UPDATE ai_chat_run.ai_chat_runs SET status = 'failed', finished_at = now() WHERE id = :'r4';
SELECT ai_chat_run.heartbeat(:'r4', :'w'), pg_temp.is_live(:'r4', false);
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (:'r5', :'c1', :'w');
SELECT ai_chat_run.heartbeat(:'r5', :'w'), pg_temp.is_live(:'r5', true);
SELECT ai_chat_run.heartbeat(:'r5', :'w');
UPDATE ai_chat_run.ai_chat_runs SET status = 'running', stop_requested_at = now() WHERE id = :'r5';
SELECT ai_chat_run.heartbeat(:'r5', :'w'), ai_chat_run.record_step(:'r5', :'w', 1);
BEGIN;
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'r5';
SELECT ai_chat_run.heartbeat(:'r5', :'w'), pg_temp.is_live(:'r5', false);
ROLLBACK;
SELECT ai_chat_run.heartbeat(:'r5', :'w'), pg_temp.is_live(:'r5', true);
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'r5';
SELECT ai_chat_run.heartbeat(:'r5', :'w'), pg_temp.is_live(:'r5', false);
-- the same id once more is another run: nobody has stopped it
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r5');
SELECT ai_chat_run.heartbeat(:'r5', :'w'), ai_chat_run.record_step(:'r5', :'w', 1), pg_temp.is_live(:'r5', true);
SELECT ai_chat_run.request_stop(:'r5', :'w');
BEGIN;
TRUNCATE ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.heartbeat(:'r5', :'w'), pg_temp.is_live(:'r5', false);
ROLLBACK;
SELECT ai_chat_run.heartbeat(:'r5', :'w'), pg_temp.is_live(:'r5', true);
TRUNCATE ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.heartbeat(:'r5', :'w'), pg_temp.is_live(:'r5', false);
-- also after a TRUNCATE, which tells of no run that it took
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r5');
SELECT ai_chat_run.heartbeat(:'r5', :'w'), ai_chat_run.record_step(:'r5', :'w', 1), pg_temp.is_live(:'r5', true);
SELECT stop_requested_at IS NOT NULL AS stamped FROM ai_chat_run.ai_chat_runs;

-- a stop that is rolled back: a preloaded server has told it by then, as pg_cancel_backend would, and the runner's next step
-- leaves it on the row
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r6', runner => 'runner of t_live');
BEGIN;
SELECT ai_chat_run.request_stop(:'r6', :'w');
SELECT ai_chat_run.heartbeat(:'r6', :'w');
ROLLBACK;
SELECT stop_requested_at IS NOT NULL AS stamped FROM ai_chat_run.ai_chat_runs WHERE id = :'r6';
SELECT ai_chat_run.heartbeat(:'r6', :'w');
SELECT ai_chat_run.heartbeat(:'r6', :'other_w'), ai_chat_run.heartbeat(:'r5', :'w');
SELECT stop_requested_at IS NOT NULL AS stamped FROM ai_chat_run.ai_chat_runs WHERE id = :'r6';
\if :preloaded
CALL ai_chat_run.await_stop(:'r6', :'w', '1 min');
CALL ai_chat_run.await_stops('runner of t_live', timeout => '1 min');
\endif
SELECT ai_chat_run.record_step(:'r6', :'w', 1);
SELECT stop_requested_at IS NOT NULL AS stamped, step_count FROM ai_chat_run.ai_chat_runs WHERE id = :'r6';
-- once: further steps leave the stamp
SELECT coalesce(stop_requested_at::text, '') AS stamp FROM ai_chat_run.ai_chat_runs WHERE id = :'r6' \gset
SELECT ai_chat_run.record_step(:'r6', :'w', 2);
SELECT stop_requested_at IS NOT DISTINCT FROM nullif(:'stamp', '')::timestamptz AS same_stamp, step_count
FROM ai_chat_run.ai_chat_runs WHERE id = :'r6';
SELECT ai_chat_run.finalize_run(:'r6', :'w', 'aborted');
SELECT ai_chat_run.heartbeat(:'r6', :'w'), ai_chat_run.record_step(:'r6', :'w', 2), ai_chat_run.request_stop(:'r6', :'w');
-- by the chat; and the flag is gone with its run, though no row was ever stamped
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r7', runner => 'runner of t_live');
BEGIN;
SAVEPOINT s;
SELECT ai_chat_run.request_stop_for_chat(:'c2', :'w');
ROLLBACK TO s;
COMMIT;
SELECT ai_chat_run.heartbeat(:'r7', :'w');
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'r7';
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r7', runner => 'runner of t_live');
SELECT ai_chat_run.heartbeat(:'r7', :'w'), ai_chat_run.record_step(:'r7', :'w', 1);
-- also where nobody is told that its run is gone, since triggers are off
BEGIN;
SELECT ai_chat_run.request_stop(:'r7', :'w');
ROLLBACK;
SET session_replication_role = replica;
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'r7';
RESET session_replication_role;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r7', runner => 'runner of t_live');
SELECT ai_chat_run.heartbeat(:'r7', :'w'), ai_chat_run.record_step(:'r7', :'w', 1);

-- a run that its owner gives to another workspace, chat or runner, or that gets another id, is known as that one from the commit
-- on, and by nobody else's
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r8', runner => 'runner of t_live');
BEGIN;
UPDATE ai_chat_run.ai_chat_runs SET workspace_id = :'other_w' WHERE id = :'r8';
SELECT ai_chat_run.heartbeat(:'r8', :'w'), ai_chat_run.heartbeat(:'r8', :'other_w'), pg_temp.is_live(:'r8', true);
ROLLBACK;
SELECT ai_chat_run.heartbeat(:'r8', :'w'), ai_chat_run.heartbeat(:'r8', :'other_w'), pg_temp.is_live(:'r8', true);
UPDATE ai_chat_run.ai_chat_runs SET workspace_id = :'other_w' WHERE id = :'r8';
SELECT ai_chat_run.heartbeat(:'r8', :'w'), ai_chat_run.heartbeat(:'r8', :'other_w'), pg_temp.is_live(:'r8', true);
SELECT ai_chat_run.request_stop(:'r8', :'w'), ai_chat_run.heartbeat(:'r8', :'other_w');
BEGIN;
SAVEPOINT s;
UPDATE ai_chat_run.ai_chat_runs SET workspace_id = :'w' WHERE id = :'r8';
ROLLBACK TO s;
COMMIT;
SELECT ai_chat_run.heartbeat(:'r8', :'w'), ai_chat_run.heartbeat(:'r8', :'other_w');
UPDATE ai_chat_run.ai_chat_runs SET id = :'r9', chat_id = :'c4', workspace_id = :'w' WHERE id = :'r8';
SELECT ai_chat_run.heartbeat(:'r8', :'w'), ai_chat_run.heartbeat(:'r8', :'other_w'), pg_temp.is_live(:'r8', false);
SELECT pg_temp.is_live(:'r9', true), ai_chat_run.heartbeat(:'r9', :'w'), ai_chat_run.heartbeat(:'r9', :'other_w');
-- one that is settled by the same statement is settled under both
UPDATE ai_chat_run.ai_chat_runs SET id = :'r8', status = 'aborted', finished_at = now() WHERE id = :'r9';
SELECT ai_chat_run.heartbeat(:'r8', :'w'), ai_chat_run.heartbeat(:'r9', :'w'), pg_temp.is_live(:'r9', false);
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'r8';
-- a stop that only shared memory knows goes with it, and is not there any more for the one who had the run before
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r8', runner => 'runner of t_live');
BEGIN;
SELECT ai_chat_run.request_stop(:'r8', :'w');
ROLLBACK;
BEGIN;
UPDATE ai_chat_run.ai_chat_runs SET runner = 'runner 2 of t_live', workspace_id = :'other_w', chat_id = :'c4' WHERE id = :'r8';
ROLLBACK;
SELECT ai_chat_run.heartbeat(:'r8', :'w'), ai_chat_run.heartbeat(:'r8', :'other_w');
\if :preloaded
CALL ai_chat_run.await_stops('runner of t_live', timeout => '0');
CALL ai_chat_run.await_stops('runner 2 of t_live', timeout => '0');
\endif
UPDATE ai_chat_run.ai_chat_runs SET runner = 'runner 2 of t_live', workspace_id = :'other_w', chat_id = :'c4' WHERE id = :'r8';
\if :preloaded
CALL ai_chat_run.await_stops('runner of t_live', timeout => '0');
CALL ai_chat_run.await_stops('runner 2 of t_live', timeout => '0');
\endif
SELECT ai_chat_run.heartbeat(:'r8', :'w'), ai_chat_run.heartbeat(:'r8', :'other_w');
SELECT stop_requested_at IS NOT NULL AS stamped FROM ai_chat_run.ai_chat_runs WHERE id = :'r8';
SELECT ai_chat_run.record_step(:'r8', :'other_w', 1);
SELECT stop_requested_at IS NOT NULL AS stamped FROM ai_chat_run.ai_chat_runs WHERE id = :'r8';
-- also if it becomes nobody's
UPDATE ai_chat_run.ai_chat_runs SET runner = NULL WHERE id = :'r8';
SELECT ai_chat_run.heartbeat(:'r8', :'w'), ai_chat_run.heartbeat(:'r8', :'other_w');
\if :preloaded
CALL ai_chat_run.await_stops('runner 2 of t_live', timeout => '0');
\endif
-- one that the row bears goes with it in any case, also to another id
UPDATE ai_chat_run.ai_chat_runs SET id = :'r9', runner = 'runner of t_live' WHERE id = :'r8';
SELECT ai_chat_run.heartbeat(:'r8', :'other_w'), ai_chat_run.heartbeat(:'r9', :'other_w');
\if :preloaded
CALL ai_chat_run.await_stops('runner of t_live', timeout => '0');
\endif
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'r9';

-- a new extension has no runs, whatever the old one had
SELECT ai_chat_run.request_stop(:'r7', :'w');
SET client_min_messages = warning;
BEGIN;
DROP EXTENSION ai_chat_run;
CREATE EXTENSION ai_chat_run;
SELECT ai_chat_run.heartbeat(:'r5', :'w'), ai_chat_run.heartbeat(:'r7', :'w'), pg_temp.is_live(:'r7', false);
ROLLBACK;
SELECT ai_chat_run.heartbeat(:'r5', :'w'), ai_chat_run.heartbeat(:'r7', :'w'), pg_temp.is_live(:'r7', true);
DROP EXTENSION ai_chat_run;
CREATE EXTENSION ai_chat_run;
RESET client_min_messages;
SELECT ai_chat_run.heartbeat(:'r5', :'w'), ai_chat_run.heartbeat(:'r7', :'w'), pg_temp.is_live(:'r7', false);
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r7');
SELECT ai_chat_run.heartbeat(:'r7', :'w'), ai_chat_run.record_step(:'r7', :'w', 1), pg_temp.is_live(:'r7', true);

TRUNCATE ai_chat_run.ai_chat_runs;
