-- purge_runs deletes terminal runs that ended longer ago than that, at most so many, and never an active run.
\set SHOW_CONTEXT never
\set w 'e0000000-0000-4000-8000-000000000001'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set r3 'a0000000-0000-4000-8000-000000000003'
\set r4 'a0000000-0000-4000-8000-000000000004'
\set r5 'a0000000-0000-4000-8000-000000000005'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
BEGIN;
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, created_at, updated_at, finished_at) VALUES
	(:'r1', gen_random_uuid(), :'w', 'running', now() - interval '9 days', now() - interval '9 days', NULL),
	(:'r2', gen_random_uuid(), :'w', 'succeeded', now() - interval '9 days', now(), now() - interval '8 days'),
	(:'r3', gen_random_uuid(), :'w', 'failed', now() - interval '9 days', now(), now() - interval '1 hour'),
	(:'r4', gen_random_uuid(), gen_random_uuid(), 'aborted', now() - interval '9 days', now(), now() - interval '7 days'),
	(:'r5', gen_random_uuid(), :'w', 'pending', now() - interval '9 days', now() - interval '9 days', NULL);
SAVEPOINT s;

SELECT ai_chat_run.purge_runs('6 days');
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT ai_chat_run.purge_runs('6 days');
SELECT ai_chat_run.purge_runs(older_than => '0');
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK TO s;

-- not more than that, in the order of the ids
SELECT ai_chat_run.purge_runs('0', 0);
SELECT ai_chat_run.purge_runs('0', max_runs => 2);
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT ai_chat_run.purge_runs('0', 2);
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK TO s;

-- more than one step and one batch, with and without much to skip
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status, finished_at)
SELECT gen_random_uuid(), :'w', 'succeeded', now() - make_interval(days => n % 2) FROM generate_series(1, 25000) n;
SELECT ai_chat_run.purge_runs('12 hours', 2300);
SELECT ai_chat_run.purge_runs('12 hours');
SELECT count(*) FROM ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.purge_runs('0');
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK TO s;

-- ids at both ends of the order
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, finished_at) VALUES
	('00000000-0000-0000-0000-000000000000', gen_random_uuid(), :'w', 'succeeded', now() - interval '8 days'),
	('ffffffff-ffff-ffff-ffff-ffffffffffff', gen_random_uuid(), :'w', 'succeeded', now() - interval '8 days');
SELECT ai_chat_run.purge_runs('6 days');
ROLLBACK TO s;

-- somebody's trigger that raises
CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no purges on a holiday' USING ERRCODE = 'XX999';
END
$$;
CREATE TRIGGER meddle BEFORE DELETE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise();
SELECT ai_chat_run.purge_runs('0');
\echo :SQLSTATE
ROLLBACK;
SELECT count(*) FROM ai_chat_run.ai_chat_runs;

-- in every isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status, finished_at) VALUES (:'w', :'w', 'failed', now());
SELECT ai_chat_run.purge_runs('0');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status, finished_at) VALUES (:'w', :'w', 'failed', now());
SELECT ai_chat_run.purge_runs('0');
ROLLBACK;

-- what it refuses
SELECT ai_chat_run.purge_runs(NULL);
\echo :SQLSTATE
SELECT ai_chat_run.purge_runs('-1 second');
\echo :SQLSTATE
SELECT ai_chat_run.purge_runs('0', -1);
\echo :SQLSTATE
SELECT ai_chat_run.purge_runs('200000 years');
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT ai_chat_run.purge_runs('0');
\echo :SQLSTATE
ROLLBACK;
