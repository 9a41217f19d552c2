-- A rejected begin leaves nothing: no row, no dead tuple, no transaction id, no WAL; a begin that resumes does not either.
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

-- what this session wrote to the table in this transaction, dead or alive
CREATE FUNCTION pg_temp.written() RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT pg_stat_get_xact_tuples_inserted(t) + pg_stat_get_xact_tuples_updated(t) + pg_stat_get_xact_tuples_deleted(t)
	FROM (SELECT 'ai_chat_run.ai_chat_runs'::regclass::oid AS t) o
$$;
CREATE FUNCTION pg_temp.rejected(chat_id uuid, workspace_id uuid, run_id uuid DEFAULT NULL)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM ai_chat_run.begin_run(chat_id, workspace_id, run_id => run_id);
	RETURN 'not rejected';
EXCEPTION WHEN SQLSTATE 'RN409' THEN
	RETURN 'rejected';
END
$$;

-- in every isolation level and every way to be rejected
BEGIN;
SELECT pg_temp.written() AS before \gset
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r2');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r1');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'other_w');
SELECT pg_temp.rejected(:'c1', :'w'), pg_temp.rejected(:'c1', :'w', :'r2'), pg_temp.rejected(:'c1', :'other_w');
SELECT pg_temp.written() - :before AS written, pg_current_xact_id_if_assigned() AS xid;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.written() AS before \gset
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r2');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r1');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'other_w');
SELECT pg_temp.rejected(:'c1', :'w'), pg_temp.rejected(:'c1', :'w', :'r2'), pg_temp.rejected(:'c1', :'other_w');
SELECT pg_temp.written() - :before AS written, pg_current_xact_id_if_assigned() AS xid;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT pg_temp.written() AS before \gset
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r2');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r1');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'other_w');
SELECT pg_temp.rejected(:'c1', :'w'), pg_temp.rejected(:'c1', :'w', :'r2'), pg_temp.rejected(:'c1', :'other_w');
SELECT pg_temp.written() - :before AS written, pg_current_xact_id_if_assigned() AS xid;
COMMIT;

-- the next run lies right behind the first one: there is nothing between
SELECT ctid, xmax FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r2');
SELECT ctid FROM ai_chat_run.ai_chat_runs WHERE id = :'r2';

-- No WAL: what EXPLAIN counts is this session's own. The least of several calls counts, since the server may at any time
-- have reasons of its own to write some, such as hint bits where pages bear checksums; an insert writes some each time.
CREATE FUNCTION pg_temp.least_wal(call text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	plan json;
	wal bigint;
BEGIN
	FOR i IN 1..10 LOOP
		EXECUTE 'EXPLAIN (ANALYZE, WAL, FORMAT json) SELECT ' || call INTO plan;
		wal := least(wal, (plan -> 0 -> 'Plan' ->> 'WAL Records')::bigint);
	END LOOP;
	RETURN wal;
END
$$;
SELECT call, pg_temp.least_wal(call) AS wal_records FROM (VALUES
	(format('ai_chat_run.try_begin_run(%L, %L)', :'c1', :'w')),
	(format('ai_chat_run.try_begin_run(%L, %L, run_id => gen_random_uuid())', :'c1', :'w')),
	(format('ai_chat_run.try_begin_run(%L, %L, run_id => %L)', :'c1', :'w', :'r1')),
	(format('ai_chat_run.try_begin_run(%L, %L)', :'c1', :'other_w')),
	(format('pg_temp.rejected(%L, %L)', :'c1', :'w'))
) AS v(call);
-- it does count
SELECT pg_temp.least_wal(format('ai_chat_run.begin_run(gen_random_uuid(), %L)', :'w')) > 0 AS counted;

TRUNCATE ai_chat_run.ai_chat_runs;
