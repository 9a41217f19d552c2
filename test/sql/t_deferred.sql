-- A deferred finalization is a decision that waits: the first one recorded wins, whoever meets it applies it as it was
-- decided, nothing else ends the run meanwhile, and one that turns out moot is forgotten.
--
-- Where a deferral is committed, a trigger keeps it from being applied until the transaction that drops the trigger, so
-- that a background worker comes too early or too late.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set c3 'c0000000-0000-4000-8000-000000000003'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set r3 'a0000000-0000-4000-8000-000000000003'
\set nobody 'a0000000-0000-4000-8000-00000000000f'
-- A worker that waits for a table which we have locked gives up after a while; it is not for us to find a deadlock before.
SET deadlock_timeout = '1min';
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SET ai_chat_run.finalize_max_attempts = 1;

CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no ends on a holiday' USING ERRCODE = 'XX999';
END
$$;

-- committed; seen as active all the while
CREATE TRIGGER meddle AFTER UPDATE OF status ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION raise();
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1', runner => 'runner one');
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'error', 'out of tokens');
SELECT id, status FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
SELECT run_id, status, error, cause FROM ai_chat_run.deferred_finalizations;

-- nobody can apply it yet: the chat is busy, a second finalizer learns what the first has decided, a sweep leaves it
BEGIN;
LOCK TABLE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations IN EXCLUSIVE MODE;
SELECT outcome, run_id FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed', 'a second opinion');
SELECT run_id, status, error, cause FROM ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.sweep_runs();
SELECT ai_chat_run.settle_deferred();
\set VERBOSITY sqlstate
SELECT ai_chat_run.settle_deferred(:'r1');
\set VERBOSITY default
SELECT status FROM ai_chat_run.ai_chat_runs;
COMMIT;

-- several that fail are one warning, for the first in the order of workspace and run
BEGIN;
LOCK TABLE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations IN EXCLUSIVE MODE;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r2');
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
VALUES (:'w', :'r2', 'aborted', 'a test');
SELECT ai_chat_run.settle_deferred();
ROLLBACK;

-- applied: as it was decided and when it was decided, and then forgotten
SELECT deferred_at FROM ai_chat_run.deferred_finalizations \gset
BEGIN;
LOCK TABLE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
DROP TRIGGER meddle ON ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.settle_deferred();
SELECT id, status, error, finished_at = :'deferred_at' AS when_decided, updated_at > finished_at AS written_later
FROM ai_chat_run.ai_chat_runs;
SELECT count(*) FROM ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.settle_deferred();
COMMIT;

-- The rest is done inside transactions that are rolled back: nobody else has a part in it.
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r3');
BEGIN;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r2');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
SELECT ai_chat_run.begin_run(:'c2', :'other_w', run_id => :'nobody');
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, error, cause) VALUES
	(:'w', :'r3', 'failed', 'out of tokens', 'a test'),
	(:'other_w', :'nobody', 'succeeded', NULL, 'a test');
SAVEPOINT s;

-- one of them
SELECT ai_chat_run.settle_deferred(:'r3');
SELECT id, status, error FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT run_id FROM ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.settle_deferred(:'r3');
SELECT ai_chat_run.settle_deferred(:'r2');
SELECT ai_chat_run.settle_deferred(run_id => NULL);
ROLLBACK TO s;

-- the next begin of the chat applies it, and begins
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => 'a0000000-0000-4000-8000-000000000004');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT id, status, error FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT run_id FROM ai_chat_run.deferred_finalizations;
ROLLBACK TO s;
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => 'a0000000-0000-4000-8000-000000000004');
SELECT id, status, error FROM ai_chat_run.ai_chat_runs WHERE chat_id = :'c1' ORDER BY id;
ROLLBACK TO s;
-- not one of another workspace, which stays as it is
SELECT * FROM ai_chat_run.try_begin_run(:'c2', :'w', run_id => 'a0000000-0000-4000-8000-000000000004');
SELECT run_id FROM ai_chat_run.deferred_finalizations ORDER BY run_id;
ROLLBACK TO s;

-- the next finalizer applies it, whatever it brings
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed', 'a second opinion');
SELECT id, status, error FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT run_id FROM ai_chat_run.deferred_finalizations;
ROLLBACK TO s;

-- a sweep applies what is deferred and aborts the others
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => 'a0000000-0000-4000-8000-000000000004');
SELECT ai_chat_run.sweep_runs();
SELECT id, status, error FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT count(*) FROM ai_chat_run.deferred_finalizations;
ROLLBACK TO s;

-- not more than that: each one applied is one settled
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => 'a0000000-0000-4000-8000-000000000004');
SELECT ai_chat_run.sweep_runs(max_runs => 1);
SELECT count(*) FROM ai_chat_run.deferred_finalizations;
SELECT count(*) FROM ai_chat_run.ai_chat_runs WHERE finished_at IS NULL;
SELECT ai_chat_run.sweep_runs(max_runs => 2);
SELECT count(*) FROM ai_chat_run.ai_chat_runs WHERE finished_at IS NULL;
ROLLBACK TO s;

-- the worker's pause after a failure is not that of others
UPDATE ai_chat_run.deferred_finalizations SET attempts = 3, next_attempt_at = now() + interval '1 day';
SELECT ai_chat_run.settle_deferred();
ROLLBACK TO s;

-- somebody's trigger that suppresses the write: nothing is forgotten
CREATE FUNCTION pg_temp.suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER meddle BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT ai_chat_run.settle_deferred();
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
SELECT run_id, status FROM ai_chat_run.deferred_finalizations ORDER BY run_id;
ROLLBACK TO s;

-- moot: the run has ended otherwise, or is not there any more
UPDATE ai_chat_run.ai_chat_runs SET status = 'aborted', finished_at = now() WHERE id = :'r3';
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'nobody';
SELECT ai_chat_run.settle_deferred();
SELECT id, status, error FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT count(*) FROM ai_chat_run.deferred_finalizations;
ROLLBACK TO s;

-- a terminal run is not purged as long as a deferral names it
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => 'a0000000-0000-4000-8000-000000000004');
UPDATE ai_chat_run.ai_chat_runs SET status = 'aborted', finished_at = now() - interval '1 day' WHERE finished_at IS NULL;
SELECT ai_chat_run.purge_runs('1 hour');
SELECT id FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT ai_chat_run.settle_deferred();
SELECT ai_chat_run.purge_runs('1 hour');
ROLLBACK;

-- in every isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
VALUES (:'w', :'r3', 'failed', 'a test');
SELECT ai_chat_run.settle_deferred();
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
VALUES (:'w', :'r3', 'failed', 'a test');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r2');
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK;
BEGIN READ ONLY;
SELECT ai_chat_run.settle_deferred();
\echo :SQLSTATE
ROLLBACK;

-- many
BEGIN;
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id)
SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 345);
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
SELECT workspace_id, id, 'succeeded', 'a test' FROM ai_chat_run.ai_chat_runs WHERE status = 'pending';
SELECT ai_chat_run.settle_deferred();
SELECT status, count(*) FROM ai_chat_run.ai_chat_runs GROUP BY status ORDER BY status;
SELECT count(*) FROM ai_chat_run.deferred_finalizations;
ROLLBACK;

DROP FUNCTION raise;
TRUNCATE ai_chat_run.ai_chat_runs;
