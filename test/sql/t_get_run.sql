-- get_run, get_latest_for_chat and get_active_for_chat give zero or one row of the table, within the workspace and as the
-- calling query sees it, whatever columns the table's owner adds or drops.
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set r3 'a0000000-0000-4000-8000-000000000003'
\set nobody 'a0000000-0000-4000-8000-00000000000f'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r2', runner => 'runner one');
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'error', 'out of tokens');

-- the whole row
SELECT g = r AS same_row FROM ai_chat_run.get_run(:'r2', :'w') g, ai_chat_run.ai_chat_runs r;
SELECT id, status, error, runner FROM ai_chat_run.get_run(:'r2', :'w');
SELECT (ai_chat_run.get_run(:'r2', :'w')).status;
SELECT count(*) FROM ai_chat_run.get_run(:'nobody', :'w');
SELECT count(*) FROM ai_chat_run.get_run(:'r2', :'other_w');

-- the latest is the one with the greatest id, active or not
SELECT id, status FROM ai_chat_run.get_latest_for_chat(:'c1', :'w');
SELECT count(*) FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r3');
SELECT id, status FROM ai_chat_run.get_latest_for_chat(:'c1', :'w');
SELECT id, status FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, finished_at)
VALUES (:'r1', :'c1', :'w', 'aborted', now()), (:'nobody', :'c1', :'other_w', 'aborted', now());
SELECT id, status FROM ai_chat_run.get_latest_for_chat(:'c1', :'w');
SELECT id, status FROM ai_chat_run.get_latest_for_chat(:'c1', :'other_w');
SELECT count(*) FROM ai_chat_run.get_latest_for_chat(:'c2', :'w');
SELECT count(*) FROM ai_chat_run.get_active_for_chat(:'c1', :'other_w');
SELECT count(*) FROM ai_chat_run.get_active_for_chat(:'c2', :'w');
-- a pending run is active
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id) VALUES (:'c2', :'w');
SELECT status FROM ai_chat_run.get_active_for_chat(:'c2', :'w');

-- with what a transaction of this session did itself, in any isolation level, also read-only
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT status FROM ai_chat_run.get_run(:'r3', :'w');
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
SELECT status FROM ai_chat_run.get_run(:'r3', :'w');
SELECT status FROM ai_chat_run.get_latest_for_chat(:'c1', :'w');
SELECT count(*) FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
ROLLBACK;
BEGIN READ ONLY;
SELECT status FROM ai_chat_run.get_run(:'r3', :'w');
ROLLBACK;
-- being stable, not with what the very query that calls it does
WITH done AS MATERIALIZED (SELECT ai_chat_run.record_step(:'r3', :'w', 5) AS signal)
SELECT signal, step_count FROM done, LATERAL ai_chat_run.get_run((:'r3' || left(signal, 0))::uuid, :'w');
SELECT step_count FROM ai_chat_run.get_run(:'r3', :'w');

-- the owner adds and drops columns, before and after the call was prepared
PREPARE whole AS SELECT to_jsonb(g) - '{chat_id,workspace_id,assistant_message_id,error,step_count,runner,
	stop_requested_at,started_at,finished_at,created_at,updated_at}'::text[] AS g
FROM ai_chat_run.get_run('a0000000-0000-4000-8000-000000000003', 'e0000000-0000-4000-8000-000000000001') g;
EXECUTE whole;
BEGIN;
ALTER TABLE ai_chat_run.ai_chat_runs ADD COLUMN extra text DEFAULT 'an old row', ADD COLUMN gone int DEFAULT 7,
	ADD COLUMN model text;
EXECUTE whole;
SELECT id, extra, gone, model FROM ai_chat_run.get_latest_for_chat(:'c1', :'w');
ALTER TABLE ai_chat_run.ai_chat_runs DROP COLUMN gone, DROP COLUMN created_by;
EXECUTE whole;
SELECT id, extra, model FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
SELECT (ai_chat_run.get_run(:'r3', :'w')).extra;
SELECT g = r AS same_row FROM ai_chat_run.get_run(:'r3', :'w') g, ai_chat_run.ai_chat_runs r WHERE r.id = :'r3';
-- a statement that needs no dropped column goes on, too
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');
ALTER TABLE ai_chat_run.ai_chat_runs ALTER COLUMN trigger TYPE varchar(40);
EXECUTE whole;
ROLLBACK;
EXECUTE whole;

TRUNCATE ai_chat_run.ai_chat_runs;
