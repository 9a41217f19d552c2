-- heartbeat says "alive" and answers as record_step does. On a preloaded server it does so in shared memory alone and
-- writes nothing, so nothing can fail; on another it updates updated_at and nothing else, best effort: a write that fails
-- is a WARNING and a null. Each has its expected output.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set r1 'a0000000-0000-4000-8000-000000000001'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT current_setting('shared_preload_libraries') ~ 'ai_chat_run' AS preloaded;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');

SELECT ai_chat_run.heartbeat(:'r1', :'w');
SELECT ai_chat_run.heartbeat(:'r1', :'other_w');
SELECT ai_chat_run.heartbeat('a0000000-0000-4000-8000-00000000000f', :'w');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ai_chat_run.heartbeat(:'r1', :'w');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT ai_chat_run.heartbeat(:'r1', :'w');
COMMIT;

SELECT ai_chat_run.record_step(:'r1', :'w', 2);
SELECT to_jsonb(r) - 'updated_at' AS row_before, updated_at AS updated_before, xmin AS xmin_before
FROM ai_chat_run.ai_chat_runs r \gset
SELECT ai_chat_run.heartbeat(:'r1', :'w');
SELECT to_jsonb(r) - 'updated_at' = :'row_before' AS else_unchanged, updated_at > :'updated_before' AS updated,
	xmin <> :'xmin_before' AS written
FROM ai_chat_run.ai_chat_runs r;
BEGIN;
SELECT ai_chat_run.heartbeat(:'r1', :'w');
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_transaction_id;
COMMIT;

BEGIN READ ONLY;
SELECT ai_chat_run.heartbeat(:'r1', :'w');
\echo :SQLSTATE
ROLLBACK;

CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no calls on a holiday' USING ERRCODE = TG_ARGV[0];
END
$$;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise('XX999');
SELECT ai_chat_run.heartbeat(:'r1', :'w');
\set VERBOSITY sqlstate
SELECT ai_chat_run.heartbeat(:'r1', :'w');
\set VERBOSITY default
ROLLBACK;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise('57P01');
SELECT ai_chat_run.heartbeat(:'r1', :'w');
\echo :SQLSTATE
ROLLBACK;

SELECT ai_chat_run.request_stop(:'r1', :'w');
SELECT ai_chat_run.heartbeat(:'r1', :'w');
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'aborted');
SELECT ai_chat_run.heartbeat(:'r1', :'w');
SELECT updated_at = finished_at AS untouched FROM ai_chat_run.ai_chat_runs;

TRUNCATE ai_chat_run.ai_chat_runs;
