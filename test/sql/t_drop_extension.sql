-- DROP EXTENSION and CREATE EXTENSION again work in a session that has used it and kept its plans, also undone; what
-- depends on the extension or belongs to it is protected.
\set SHOW_CONTEXT never
\set w 'e0000000-0000-4000-8000-000000000001'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;

-- one of each statement, in a function that a session keeps as well
CREATE FUNCTION pg_temp.a_life(run uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	w constant uuid := 'e0000000-0000-4000-8000-000000000001';
	c constant uuid := 'c0000000-0000-4000-8000-000000000001';
BEGIN
	PERFORM ai_chat_run.begin_run(c, w, run_id => run);
	RETURN concat_ws(' ', ai_chat_run.begin_run(c, w, run_id => run) = run,
		(SELECT outcome FROM ai_chat_run.try_begin_run(c, w)),
		ai_chat_run.record_step(run, w, 1), ai_chat_run.heartbeat(run, w), ai_chat_run.link_assistant_message(run, w, run),
		ai_chat_run.request_stop(run, w), ai_chat_run.request_stop_for_chat(c, w) = run,
		(SELECT status FROM ai_chat_run.get_active_for_chat(c, w)), ai_chat_run.finalize_run(run, w, 'completed'),
		(SELECT status FROM ai_chat_run.get_run(run, w)), (SELECT status FROM ai_chat_run.get_latest_for_chat(c, w)),
		ai_chat_run.settle_deferred(), ai_chat_run.sweep_runs(), ai_chat_run.purge_runs('1 day'));
END
$$;
SELECT pg_temp.a_life(:'r1');
SELECT pg_temp.a_life(:'r2');
PREPARE status(uuid) AS SELECT status FROM ai_chat_run.get_run($1, 'e0000000-0000-4000-8000-000000000001');
EXECUTE status(:'r1');

-- dropped and made anew
DROP EXTENSION ai_chat_run;
SELECT pg_temp.a_life(:'r1');
\echo :SQLSTATE
SELECT count(*) FROM pg_class WHERE relnamespace = 'ai_chat_run'::regnamespace;
SELECT count(*) FROM pg_proc WHERE pronamespace = 'ai_chat_run'::regnamespace;
CREATE EXTENSION ai_chat_run;
SELECT pg_temp.a_life(:'r1');
SELECT id, status FROM ai_chat_run.ai_chat_runs;
EXECUTE status(:'r1');

-- dropped, and the drop undone
BEGIN;
DROP EXTENSION ai_chat_run;
ROLLBACK;
SELECT pg_temp.a_life(:'r2');
-- dropped and made anew, and that undone
BEGIN;
DROP EXTENSION ai_chat_run;
CREATE EXTENSION ai_chat_run;
SELECT pg_temp.a_life(:'r1');
SELECT count(*) FROM ai_chat_run.ai_chat_runs;
ROLLBACK;
SELECT pg_temp.a_life('a0000000-0000-4000-8000-000000000003');
SELECT count(*) FROM ai_chat_run.ai_chat_runs;

-- plans thrown away, indexes and table rewritten
DISCARD PLANS;
SELECT pg_temp.a_life('a0000000-0000-4000-8000-000000000004');
REINDEX TABLE ai_chat_run.ai_chat_runs;
SELECT pg_temp.a_life('a0000000-0000-4000-8000-000000000005');
CLUSTER ai_chat_run.ai_chat_runs USING ai_chat_runs_pkey;
SELECT pg_temp.a_life('a0000000-0000-4000-8000-000000000006');

-- what depends on it
CREATE TABLE chats (id uuid);
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
DROP EXTENSION ai_chat_run;
\echo :SQLSTATE
DROP TABLE chats;
-- what belongs to it
DROP TABLE ai_chat_run.deferred_finalizations;
\echo :SQLSTATE
DROP FUNCTION ai_chat_run.map_turn_status;
-- where it belongs
ALTER EXTENSION ai_chat_run SET SCHEMA public;
\echo :SQLSTATE
BEGIN;
DROP EXTENSION ai_chat_run;
CREATE EXTENSION ai_chat_run SCHEMA public;
\echo :SQLSTATE
ROLLBACK;
-- into a schema that is there, unless it is somebody's who could put his own functions beside ours
CREATE ROLE regress_acr_squatter;
BEGIN;
DROP EXTENSION ai_chat_run;
DROP SCHEMA ai_chat_run;
CREATE SCHEMA ai_chat_run;
CREATE EXTENSION ai_chat_run;
SELECT pg_temp.a_life(:'r1');
DROP EXTENSION ai_chat_run;
ALTER SCHEMA ai_chat_run OWNER TO regress_acr_squatter;
CREATE EXTENSION ai_chat_run;
\echo :SQLSTATE
ROLLBACK;
DROP ROLE regress_acr_squatter;

-- a fresh one for whoever comes next
DROP EXTENSION ai_chat_run;
CREATE EXTENSION ai_chat_run;
