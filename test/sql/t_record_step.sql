-- record_step stores the count, which never goes down, tells the runner how to go on, and is best effort: a write that
-- fails is a WARNING and a null and leaves the caller's transaction as it was.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');

-- the count goes up, stays, and never goes down; nothing but updated_at changes with it
SELECT ai_chat_run.record_step(:'r1', :'w', 0);
SELECT ai_chat_run.record_step(:'r1', :'w', 3);
SELECT step_count FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';
SELECT updated_at AS updated_before FROM ai_chat_run.ai_chat_runs WHERE id = :'r1' \gset
SELECT ai_chat_run.record_step(:'r1', :'w', 2);
SELECT step_count, updated_at > :'updated_before' AS updated, status, stop_requested_at, finished_at, error
FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';
SELECT ai_chat_run.record_step(:'r1', :'w', 2147483647);
SELECT step_count FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';

-- the time is that of the call, not of the transaction
BEGIN;
SELECT ai_chat_run.record_step(:'r1', :'w', 4);
SELECT updated_at > now() AS by_the_clock FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';
COMMIT;

-- a run that the application made pending itself is as good
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (:'r2', :'c2', :'w');
SELECT ai_chat_run.record_step(:'r2', :'w', 1);
SELECT status, step_count FROM ai_chat_run.ai_chat_runs WHERE id = :'r2';

-- of another workspace, or of nobody
SELECT ai_chat_run.record_step(:'r2', :'other_w', 5);
SELECT ai_chat_run.record_step('a0000000-0000-4000-8000-00000000000f', :'w', 5);
SELECT step_count FROM ai_chat_run.ai_chat_runs WHERE id = :'r2';

-- stop is told as long as the run is active, and the step still counts; a terminal run is left as it is
SELECT ai_chat_run.request_stop(:'r2', :'w');
SELECT ai_chat_run.record_step(:'r2', :'w', 2);
SELECT ai_chat_run.record_step(:'r2', :'w', 3);
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'aborted');
SELECT ai_chat_run.record_step(:'r2', :'w', 4);
SELECT status, step_count, updated_at = finished_at AS untouched FROM ai_chat_run.ai_chat_runs WHERE id = :'r2';

-- in a savepoint that is rolled back, and in every isolation level
BEGIN;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => 'a0000000-0000-4000-8000-000000000003');
SAVEPOINT s;
SELECT ai_chat_run.record_step('a0000000-0000-4000-8000-000000000003', :'w', 7);
ROLLBACK TO s;
SELECT ai_chat_run.record_step('a0000000-0000-4000-8000-000000000003', :'w', 1);
SELECT step_count FROM ai_chat_run.ai_chat_runs WHERE id = 'a0000000-0000-4000-8000-000000000003';
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ai_chat_run.record_step(:'r1', :'w', 1), ai_chat_run.record_step(:'r2', :'w', 1),
	ai_chat_run.record_step(:'c1', :'w', 1);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT ai_chat_run.record_step(:'r1', :'w', 1), ai_chat_run.record_step(:'r2', :'w', 1),
	ai_chat_run.record_step(:'c1', :'w', 1);
COMMIT;

-- not a thing that may be taken as a failed write: what can never work is an error
SELECT ai_chat_run.record_step(:'r1', :'w', -1);
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT ai_chat_run.record_step(:'r1', :'w', 1);
\echo :SQLSTATE
ROLLBACK;

-- best effort: somebody's trigger raises
CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no steps on a holiday' USING ERRCODE = TG_ARGV[0], DETAIL = 'Not told.', HINT = 'Nor this.';
END
$$;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise('XX999');
SELECT ai_chat_run.record_step(:'r1', :'w', 1);
\set VERBOSITY sqlstate
SELECT ai_chat_run.record_step(:'r1', :'w', 1);
\set VERBOSITY default
-- what was done before and is done afterwards in the transaction stays
DROP TRIGGER meddle ON ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => 'a0000000-0000-4000-8000-000000000003');
COMMIT;
SELECT status FROM ai_chat_run.ai_chat_runs WHERE id = 'a0000000-0000-4000-8000-000000000003';

-- one that suppresses the write: no error, but no step either
CREATE FUNCTION pg_temp.suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
BEGIN;
CREATE TRIGGER meddle BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT ai_chat_run.record_step(:'r1', :'w', 1);
ROLLBACK;
-- with a snapshot for the whole transaction that is what a run begun since looks like, so it is told as such
BEGIN ISOLATION LEVEL REPEATABLE READ;
CREATE TRIGGER meddle BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT ai_chat_run.record_step(:'r1', :'w', 1);
ROLLBACK;

-- but "stop now", a cancel or a shutdown, goes up
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise('57014');
SELECT ai_chat_run.record_step(:'r1', :'w', 1);
\echo :SQLSTATE
ROLLBACK;

-- the attempt's bound on lock waiting does not stay behind, whether it succeeds or fails
SET lock_timeout = '7min';
SELECT ai_chat_run.record_step(:'r1', :'w', 1);
SHOW lock_timeout;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise('XX999');
SELECT ai_chat_run.record_step(:'r1', :'w', 1);
SHOW lock_timeout;
ROLLBACK;
RESET lock_timeout;

TRUNCATE ai_chat_run.ai_chat_runs;
