-- sweep_runs aborts active runs, all or the silent ones, of one runner or of any, counts what it settled, and leaves
-- terminal runs and errors that were there as they are.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set r3 'a0000000-0000-4000-8000-000000000003'
\set r4 'a0000000-0000-4000-8000-000000000004'
\set r5 'a0000000-0000-4000-8000-000000000005'
\set r6 'a0000000-0000-4000-8000-000000000006'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;

-- All is done inside transactions that are rolled back: a background worker sweeps as well. Runs 1 to 5 are active, run 1
-- only just, run 2 from the future, run 3 for an hour, run 4 for half a century and so for longer than any server.
BEGIN;
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, runner, error, updated_at, finished_at) VALUES
	(:'r1', gen_random_uuid(), :'w', 'running', 'runner one', NULL, now(), NULL),
	(:'r2', gen_random_uuid(), :'w', 'pending', NULL, 'so far', now() + interval '1 day', NULL),
	(:'r3', gen_random_uuid(), :'other_w', 'running', 'runner two', NULL, now() - interval '1 hour', NULL),
	(:'r4', gen_random_uuid(), :'w', 'running', 'runner one', 'so far', now() - interval '50 years', NULL),
	(:'r5', gen_random_uuid(), :'w', 'running', '', NULL, now() - interval '1 hour', NULL),
	(:'r6', gen_random_uuid(), :'w', 'failed', 'runner one', NULL, now() - interval '50 years', now() - interval '50 years');
SAVEPOINT s;

SELECT ai_chat_run.sweep_runs();
SELECT id, status, error, finished_at = updated_at AS updated, finished_at > now() AS by_the_clock
FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT ai_chat_run.sweep_runs();
ROLLBACK TO s;

-- the silent ones, by the last that was heard of them
SELECT ai_chat_run.sweep_runs('1 microsecond');
SELECT id, status, error FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK TO s;
SELECT ai_chat_run.sweep_runs(stale_after => '0');
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK TO s;
-- silence is counted from server start at the earliest: nobody could call before
SELECT ai_chat_run.sweep_runs('49 years');
SELECT ai_chat_run.sweep_runs('51 years');
-- a step or a link is a call; a stop request is the user's
SELECT ai_chat_run.record_step(:'r4', :'w', 1), ai_chat_run.link_assistant_message(:'r5', :'w', :'r5'),
	ai_chat_run.request_stop(:'r3', :'other_w');
SELECT id FROM ai_chat_run.ai_chat_runs WHERE status = 'running' AND updated_at < now() ORDER BY id;
ROLLBACK TO s;

-- of one runner
SELECT ai_chat_run.sweep_runs(runner => 'runner one');
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK TO s;
SELECT ai_chat_run.sweep_runs(runner => '');
SELECT ai_chat_run.sweep_runs(runner => 'nobody');
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK TO s;
SELECT ai_chat_run.sweep_runs('1 microsecond', 'runner two');
SELECT id, status, error FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK TO s;

-- not more than that
SELECT ai_chat_run.sweep_runs(max_runs => 0);
SELECT ai_chat_run.sweep_runs(max_runs => 3);
SELECT count(*) FROM ai_chat_run.ai_chat_runs WHERE finished_at IS NULL;
SELECT ai_chat_run.sweep_runs(NULL, NULL, 3);
ROLLBACK TO s;

-- more than one batch
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id) SELECT gen_random_uuid(), :'w' FROM generate_series(1, 2500);
SELECT ai_chat_run.sweep_runs(max_runs => 1800);
SELECT ai_chat_run.sweep_runs();
SELECT status, error, count(*) FROM ai_chat_run.ai_chat_runs GROUP BY status, error ORDER BY status, error;
ROLLBACK TO s;

-- chats at both ends of the order
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id) VALUES
	('00000000-0000-0000-0000-000000000000', :'w'), ('ffffffff-ffff-ffff-ffff-ffffffffffff', :'w');
SELECT ai_chat_run.sweep_runs();
SELECT ai_chat_run.sweep_runs(max_runs => 1);
ROLLBACK TO s;

-- somebody's trigger that raises
CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no sweeps on a holiday' USING ERRCODE = 'XX999';
END
$$;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise();
SELECT ai_chat_run.sweep_runs();
\echo :SQLSTATE
ROLLBACK;
SELECT count(*) FROM ai_chat_run.ai_chat_runs;

-- in every isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id) SELECT gen_random_uuid(), :'w' FROM generate_series(1, 3);
SELECT ai_chat_run.sweep_runs();
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id) SELECT gen_random_uuid(), :'w' FROM generate_series(1, 3);
SELECT ai_chat_run.sweep_runs('0');
ROLLBACK;

-- what it refuses
SELECT ai_chat_run.sweep_runs('-1 second');
\echo :SQLSTATE
SELECT ai_chat_run.sweep_runs(max_runs => -1);
\echo :SQLSTATE
SELECT ai_chat_run.sweep_runs('200000 years');
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT ai_chat_run.sweep_runs();
\echo :SQLSTATE
ROLLBACK;
