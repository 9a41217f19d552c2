-- What the functions read does not depend on what ANALYZE last saw: each statement goes through the one index that it is
-- written for, with plans that the session keeps from an empty table, from one without active runs, from one full of them.
--
-- Left to itself, the planner takes a sequential scan for a table that was empty when it was analysed, and all entries of
-- the partial index for a look-up by id where there was no active run. Both stay right and get slower with each row.
\set SHOW_CONTEXT never
SET track_counts = on;
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
-- only the ANALYZE below counts
ALTER TABLE ai_chat_run.ai_chat_runs SET (autovacuum_enabled = false);
ALTER TABLE ai_chat_run.deferred_finalizations SET (autovacuum_enabled = false);

-- what this session has read so far, for each table and index
CREATE FUNCTION pg_temp.reads() RETURNS TABLE (name text, is_index bool, scans bigint, entries bigint, blocks bigint)
LANGUAGE sql VOLATILE AS $$
	SELECT relname, relkind = 'i', pg_stat_get_xact_numscans(oid), pg_stat_get_xact_tuples_returned(oid),
		pg_stat_get_xact_blocks_fetched(oid)
	FROM pg_class WHERE relnamespace = 'ai_chat_run'::regnamespace AND relkind IN ('r', 'i')
$$;

CREATE TEMP TABLE chats (id uuid, workspace_id uuid);
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
CREATE FUNCTION pg_temp.delete_chat(chat uuid, w uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO pg_temp.chats VALUES (chat, w);
	DELETE FROM pg_temp.chats;
END
$$;

-- Runs the calls that a run's life is made of and tells what each has read: the sequential scans, the indexes scanned, and
-- whether it has got along with few entries and few blocks. "Few" allows for a walk down each index and for rows that are
-- dead but still there, and is far below what a scan of the whole table or index takes.
CREATE FUNCTION pg_temp.life(leave_out text DEFAULT '^$')
RETURNS TABLE (call text, sequential_scans bigint, indexes text, entries text, blocks text)
LANGUAGE plpgsql AS $$
DECLARE
	run constant uuid := ai_chat_run.new_run_id();
	chat constant uuid := gen_random_uuid();
	w constant uuid := 'e0000000-0000-4000-8000-000000000001';
	before jsonb;
BEGIN
	FOREACH call IN ARRAY ARRAY[
		'ai_chat_run.begin_run(gen_random_uuid(), $3)',
		'ai_chat_run.begin_run($2, $3, run_id => $1)',
		'ai_chat_run.begin_run($2, $3, run_id => $1)',
		'ai_chat_run.try_begin_run($2, $3)',
		'ai_chat_run.record_step($1, $3, 1)',
		'ai_chat_run.heartbeat($1, $3)',
		'ai_chat_run.link_assistant_message($1, $3, $2)',
		'ai_chat_run.request_stop($1, $3)',
		'ai_chat_run.request_stop_for_chat($2, $3)',
		'ai_chat_run.get_run($1, $3)',
		'ai_chat_run.get_latest_for_chat($2, $3)',
		'ai_chat_run.get_active_for_chat($2, $3)',
		'ai_chat_run.settle_deferred($1)',
		'ai_chat_run.finalize_run($1, $3, ''completed'')',
		'ai_chat_run.finalize_run($1, $3, ''error'')',
		'pg_temp.delete_chat($2, $3)',
		'ai_chat_run.sweep_runs(max_runs => 1)'] LOOP
		CONTINUE WHEN call ~ leave_out;
		SELECT jsonb_object_agg(r.name, to_jsonb(r)) INTO before FROM pg_temp.reads() r;
		EXECUTE 'SELECT ' || call USING run, chat, w;
		SELECT sum(r.scans - (before -> r.name ->> 'scans')::bigint) FILTER (WHERE NOT r.is_index),
			string_agg(r.name, ', ' ORDER BY r.name COLLATE "C")
				FILTER (WHERE r.is_index AND r.scans > (before -> r.name ->> 'scans')::bigint),
			CASE WHEN sum(r.entries - (before -> r.name ->> 'entries')::bigint) <= 40 THEN 'few' ELSE 'many' END,
			CASE WHEN sum(r.blocks - (before -> r.name ->> 'blocks')::bigint) <= 100 THEN 'few' ELSE 'many' END
		INTO sequential_scans, indexes, entries, blocks
		FROM pg_temp.reads() r;
		call := split_part(call, '.', 2);
		RETURN NEXT;
	END LOOP;
END
$$;

CREATE PROCEDURE pg_temp.add_terminal(n int) LANGUAGE sql AS $$
	INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status, started_at, finished_at)
	SELECT gen_random_uuid(), 'e0000000-0000-4000-8000-000000000001', 'succeeded', now(), now() FROM generate_series(1, n)
$$;
CREATE PROCEDURE pg_temp.add_active(n int) LANGUAGE sql AS $$
	INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status, started_at)
	SELECT gen_random_uuid(), 'e0000000-0000-4000-8000-000000000001', 'running', now() FROM generate_series(1, n)
$$;

-- plans kept from an empty table; then it fills, with terminal runs and with active ones
ANALYZE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT count(*) FROM pg_temp.life();
CALL pg_temp.add_terminal(20000);
CALL pg_temp.add_active(5000);
SELECT * FROM pg_temp.life();

-- plans made, and kept, where ANALYZE saw many terminal runs and no active one; then there are many
DELETE FROM ai_chat_run.ai_chat_runs WHERE finished_at IS NULL;
VACUUM ANALYZE ai_chat_run.ai_chat_runs;
SELECT count(*) FROM pg_temp.life();
CALL pg_temp.add_active(5000);
SELECT * FROM pg_temp.life();

-- where it saw many active runs
ANALYZE ai_chat_run.ai_chat_runs;
SELECT * FROM pg_temp.life();

-- where it saw nothing but active runs
TRUNCATE ai_chat_run.ai_chat_runs;
CALL pg_temp.add_active(5000);
ANALYZE ai_chat_run.ai_chat_runs;
SELECT count(*) FROM pg_temp.life();
CALL pg_temp.add_terminal(20000);
SELECT * FROM pg_temp.life();

-- many deferrals, of which ANALYZE knows nothing; and a caller who has his own wishes. (Sweep and settle go through them.)
BEGIN;
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
SELECT 'e0000000-0000-4000-8000-000000000001', gen_random_uuid(), 'aborted', 'a test' FROM generate_series(1, 5000);
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL random_page_cost = 1000;
SET LOCAL enable_indexscan = off;
SET LOCAL enable_indexonlyscan = off;
SET LOCAL enable_nestloop = off;
SELECT * FROM pg_temp.life(leave_out => 'sweep|settle');
SHOW enable_indexscan;
ROLLBACK;

-- the hands of the planner are free again
SHOW enable_seqscan;
SHOW enable_indexscan;
EXPLAIN (COSTS off) SELECT * FROM ai_chat_run.deferred_finalizations;

ALTER TABLE ai_chat_run.ai_chat_runs RESET (autovacuum_enabled);
ALTER TABLE ai_chat_run.deferred_finalizations RESET (autovacuum_enabled);
TRUNCATE ai_chat_run.ai_chat_runs;
