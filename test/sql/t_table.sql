-- The table holds its own rules, for direct writers too: defaults, checks, one active run a chat, terminal is final, a
-- deleted chat takes its runs along; it has three indexes and no more, and a step stays a HOT update.
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
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;

-- columns and defaults, as an application that already writes such a table relies on them
SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid) AS "default"
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = 'ai_chat_run.ai_chat_runs'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum;
BEGIN;
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id) VALUES (:'c1', :'w');
\x on
SELECT chat_id, workspace_id, created_by, assistant_message_id, trigger, status, error, step_count, runner,
	stop_requested_at, started_at, finished_at, created_at = now() AS created_now, updated_at = now() AS updated_now
FROM ai_chat_run.ai_chat_runs;
\x off
ROLLBACK;

-- the indexes, and no others
SELECT indexdef FROM pg_indexes WHERE schemaname = 'ai_chat_run' AND tablename = 'ai_chat_runs' ORDER BY indexname;
SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'ai_chat_run.ai_chat_runs'::regclass AND contype <> 'n' ORDER BY conname;
SELECT s AS status, ai_chat_run.is_run_status(s), ai_chat_run.is_terminal_status(s)
FROM unnest(ARRAY['pending', 'running', 'succeeded', 'failed', 'aborted', 'Failed', 'fail', 'faileds', '', NULL]) s;
-- no foreign key that would need a lock on the run's row
SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'ai_chat_run.deferred_finalizations'::regclass AND contype <> 'n' ORDER BY conname;

-- ids: version 7, of the RFC's variant, of this time, and strictly ascending within a session
CREATE TEMP TABLE made AS
SELECT n, ai_chat_run.new_run_id() AS id, clock_timestamp() AS at FROM generate_series(1, 10000) n;
SELECT count(*), count(DISTINCT id) AS distinct, bool_and(id > before) AS ascending,
	bool_and(substr(id::text, 15, 1) = '7') AS version_7, bool_and(substr(id::text, 20, 1) IN ('8', '9', 'a', 'b')) AS variant,
	bool_and(abs(extract(epoch FROM at) * 1000 - ('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint) < 60000)
		AS of_this_time
FROM (SELECT *, lag(id, 1, '00000000-0000-0000-0000-000000000000') OVER (ORDER BY n) AS before FROM made) m;
DROP TABLE made;

-- checks
\set VERBOSITY terse
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status) VALUES (:'c1', :'w', 'sleeping');
\echo :SQLSTATE
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status) VALUES (:'c1', :'w', 'failed');
\echo :SQLSTATE
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, finished_at) VALUES (:'c1', :'w', now());
\echo :SQLSTATE
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, step_count) VALUES (:'c1', :'w', -1);
\echo :SQLSTATE
INSERT INTO ai_chat_run.ai_chat_runs (workspace_id) VALUES (:'w');
\echo :SQLSTATE
INSERT INTO ai_chat_run.ai_chat_runs (chat_id) VALUES (:'c1');
\echo :SQLSTATE
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
VALUES (:'w', :'r1', 'running', 'a test');
\echo :SQLSTATE
\set VERBOSITY default
-- each state that there is
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, finished_at) VALUES
	(:'r1', :'c1', :'w', 'pending', NULL), (:'r2', :'c2', :'w', 'running', NULL), (:'r3', :'c1', :'w', 'succeeded', now()),
	(gen_random_uuid(), :'c1', :'w', 'failed', now()), (gen_random_uuid(), :'c1', :'w', 'aborted', now());
SELECT status, count(*) FROM ai_chat_run.ai_chat_runs GROUP BY status ORDER BY status;

-- one active run a chat, whatever the workspace; any number of terminal ones
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status) VALUES (:'c1', :'other_w', 'running');
\echo :SQLSTATE
UPDATE ai_chat_run.ai_chat_runs SET chat_id = :'c1' WHERE id = :'r2';
\echo :SQLSTATE

-- an active run may become anything
UPDATE ai_chat_run.ai_chat_runs SET status = 'running', started_at = now(), runner = 'runner one', error = 'so far'
WHERE id = :'r1';
UPDATE ai_chat_run.ai_chat_runs SET chat_id = :'c3', workspace_id = :'other_w' WHERE id = :'r1';
UPDATE ai_chat_run.ai_chat_runs SET status = 'failed', finished_at = '2026-01-02 03:04:05+00' WHERE id = :'r1';

-- terminal is final
UPDATE ai_chat_run.ai_chat_runs SET status = 'running', finished_at = NULL WHERE id = :'r1';
\echo :SQLSTATE
UPDATE ai_chat_run.ai_chat_runs SET status = 'succeeded' WHERE id = :'r1';
UPDATE ai_chat_run.ai_chat_runs SET finished_at = '2026-01-02 03:04:06+00' WHERE id = :'r1';
UPDATE ai_chat_run.ai_chat_runs SET error = 'another' WHERE id = :'r1';
UPDATE ai_chat_run.ai_chat_runs SET error = NULL WHERE id = :'r1';
UPDATE ai_chat_run.ai_chat_runs SET error = 'a first one' WHERE id = :'r3';
UPDATE ai_chat_run.ai_chat_runs SET chat_id = :'c2' WHERE id = :'r1';
UPDATE ai_chat_run.ai_chat_runs SET workspace_id = :'w' WHERE id = :'r1';
\echo :SQLSTATE
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (:'r1', :'c3', :'w')
ON CONFLICT (id) DO UPDATE SET status = 'pending', finished_at = NULL;
\echo :SQLSTATE
DO $$
DECLARE
	s text; t text; c text;
BEGIN
	UPDATE ai_chat_run.ai_chat_runs SET status = 'succeeded' WHERE id = 'a0000000-0000-4000-8000-000000000001';
EXCEPTION WHEN SQLSTATE 'RN410' THEN
	GET STACKED DIAGNOSTICS s = SCHEMA_NAME, t = TABLE_NAME, c = COLUMN_NAME;
	RAISE NOTICE 'schema: %, table: %, column: %', s, t, c;
END
$$;
-- behind no other trigger's back
CREATE FUNCTION pg_temp.reopen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.status := 'running';
	NEW.finished_at := NULL;
	RETURN NEW;
END
$$;
BEGIN;
CREATE TRIGGER zz_reopen BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.reopen();
UPDATE ai_chat_run.ai_chat_runs SET step_count = 1 WHERE id = :'r1';
\echo :SQLSTATE
ROLLBACK;
-- the rest of the row stays writable, the same values may be written again, and the row may be deleted
UPDATE ai_chat_run.ai_chat_runs SET assistant_message_id = gen_random_uuid(), step_count = 5, runner = NULL,
	trigger = 'other', created_by = gen_random_uuid(), updated_at = now(), status = status, error = error || '',
	finished_at = finished_at
WHERE id = :'r1';
SELECT status, error, step_count, assistant_message_id IS NOT NULL AS linked FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';
DELETE FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';
-- also where the value is stored out of line
BEGIN;
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, finished_at, error)
SELECT :'r1', :'c3', :'w', 'failed', now(), string_agg(md5(n::text), '') FROM generate_series(1, 1000) n;
UPDATE ai_chat_run.ai_chat_runs SET error = error || '', step_count = 1 WHERE id = :'r1';
UPDATE ai_chat_run.ai_chat_runs SET error = error || 'x' WHERE id = :'r1';
\echo :SQLSTATE
ROLLBACK;
-- as somebody's own trigger, the function refuses what it is not made for
BEGIN;
CREATE TRIGGER meddle BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW
	EXECUTE FUNCTION ai_chat_run.terminal_is_final();
UPDATE ai_chat_run.ai_chat_runs SET step_count = 1 WHERE id = :'r2';
\echo :SQLSTATE
ROLLBACK;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs EXECUTE FUNCTION ai_chat_run.terminal_is_final();
UPDATE ai_chat_run.ai_chat_runs SET step_count = 1 WHERE id = :'r2';
ROLLBACK;
SELECT ai_chat_run.terminal_is_final();
\echo :SQLSTATE
SELECT ai_chat_run.run_inserted();
\echo :SQLSTATE
SELECT ai_chat_run.run_deleted();
\echo :SQLSTATE
SELECT ai_chat_run.runs_truncated();
\echo :SQLSTATE
CREATE TEMP TABLE other (id uuid, chat_id uuid, workspace_id uuid, state text, status int);
INSERT INTO other (id, state) VALUES (:'r1', 'failed');
CREATE TRIGGER meddle AFTER UPDATE ON other FOR EACH ROW
	EXECUTE FUNCTION ai_chat_run.terminal_is_final();
UPDATE other SET state = 'running';
\echo :SQLSTATE
ALTER TABLE other DROP COLUMN status;
UPDATE other SET state = 'running';
\echo :SQLSTATE
DROP TABLE other;

-- a step, a link and a stop are HOT updates: no index entry is made; so is a heartbeat, unless the server is preloaded and it
-- is no update at all
TRUNCATE ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
BEGIN;
SELECT pg_stat_get_xact_tuples_updated(t) AS updated, pg_stat_get_xact_tuples_hot_updated(t) AS hot
FROM (SELECT 'ai_chat_run.ai_chat_runs'::regclass::oid AS t) o \gset
SELECT ai_chat_run.record_step(:'r1', :'w', 1), ai_chat_run.record_step(:'r1', :'w', 2), ai_chat_run.heartbeat(:'r1', :'w'),
	ai_chat_run.link_assistant_message(:'r1', :'w', :'r2'), ai_chat_run.request_stop(:'r1', :'w');
SELECT pg_stat_get_xact_tuples_updated(t) - :updated
		- CASE WHEN current_setting('shared_preload_libraries') ~ 'ai_chat_run' THEN 0 ELSE 1 END AS updated_without_heartbeat,
	pg_stat_get_xact_tuples_updated(t) - :updated = pg_stat_get_xact_tuples_hot_updated(t) - :hot AS all_hot
FROM (SELECT 'ai_chat_run.ai_chat_runs'::regclass::oid AS t) o;
COMMIT;
-- also on pages that are full as far as inserts go: some rows of each
SELECT count(ai_chat_run.begin_run(gen_random_uuid(), :'w')) FROM generate_series(1, 500);
BEGIN;
SELECT pg_stat_get_xact_tuples_updated(t) AS updated, pg_stat_get_xact_tuples_hot_updated(t) AS hot
FROM (SELECT 'ai_chat_run.ai_chat_runs'::regclass::oid AS t) o \gset
SELECT count(*) > 10 AS several, bool_and(ai_chat_run.record_step(id, workspace_id, 1) = 'continue') AS continue
FROM ai_chat_run.ai_chat_runs WHERE (ctid::text::point)[1]::int IN (1, 11, 21);
SELECT pg_stat_get_xact_tuples_updated(t) - :updated > 10 AS several,
	pg_stat_get_xact_tuples_updated(t) - :updated = pg_stat_get_xact_tuples_hot_updated(t) - :hot AS all_hot
FROM (SELECT 'ai_chat_run.ai_chat_runs'::regclass::oid AS t) o;
COMMIT;

TRUNCATE ai_chat_run.ai_chat_runs;
