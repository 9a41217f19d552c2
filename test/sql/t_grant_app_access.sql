-- grant_app_access gives an application's role the functions and procedures for applications and no more: no table, no view,
-- no function for operators. A role without it has nothing. Who may not grant, cannot.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000009'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT current_setting('shared_preload_libraries') ~ 'ai_chat_run' AS preloaded;
CREATE ROLE regress_acr_app;
CREATE ROLE "regress_acr ""odd"" name";

-- nothing at first
SET ROLE regress_acr_app;
SELECT ai_chat_run.begin_run(:'c1', :'w');
\echo :SQLSTATE
SELECT * FROM ai_chat_run.ai_chat_runs;
\echo :SQLSTATE
-- and it cannot help itself
SELECT ai_chat_run.grant_app_access('regress_acr_app');
\echo :SQLSTATE
RESET ROLE;
-- not even where it may see the schema
GRANT USAGE ON SCHEMA ai_chat_run TO regress_acr_app;
SET ROLE regress_acr_app;
SELECT p.proname FROM pg_proc p
WHERE p.pronamespace = 'ai_chat_run'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE');
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'ai_chat_run'::regnamespace AND c.relkind IN ('r', 'v')
	AND has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER');
SELECT ai_chat_run.begin_run(:'c1', :'w');
SELECT ai_chat_run.grant_app_access('regress_acr_app');
RESET ROLE;
REVOKE USAGE ON SCHEMA ai_chat_run FROM regress_acr_app;
-- nor who may call grant_app_access, but owns nothing: its rights are the caller's
GRANT USAGE ON SCHEMA ai_chat_run TO regress_acr_app;
GRANT EXECUTE ON FUNCTION ai_chat_run.grant_app_access TO regress_acr_app;
SET ROLE regress_acr_app;
SELECT ai_chat_run.grant_app_access('regress_acr_app');
\echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON SCHEMA ai_chat_run TO regress_acr_app WITH GRANT OPTION;
SET ROLE regress_acr_app;
SELECT ai_chat_run.grant_app_access('regress_acr_app');
\echo :SQLSTATE
RESET ROLE;
REVOKE EXECUTE ON FUNCTION ai_chat_run.grant_app_access FROM regress_acr_app;
REVOKE USAGE ON SCHEMA ai_chat_run FROM regress_acr_app;

-- granted, also twice, and to any name
SELECT ai_chat_run.grant_app_access('regress_acr_app');
SELECT ai_chat_run.grant_app_access('regress_acr_app');
SELECT ai_chat_run.grant_app_access(role => '"regress_acr ""odd"" name"');
SELECT r.rolname, p.proname, has_function_privilege(r.oid, p.oid, 'EXECUTE WITH GRANT OPTION') AS may_grant
FROM pg_proc p, pg_roles r
WHERE p.pronamespace = 'ai_chat_run'::regnamespace AND r.rolname LIKE 'regress\_acr%'
	AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
ORDER BY r.rolname COLLATE "C", p.proname COLLATE "C";
SELECT r.rolname, c.relname FROM pg_class c, pg_roles r
WHERE c.relnamespace = 'ai_chat_run'::regnamespace AND c.relkind IN ('r', 'v') AND r.rolname LIKE 'regress\_acr%'
	AND has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER');

BEGIN READ ONLY;
SELECT ai_chat_run.grant_app_access('regress_acr_app');
\echo :SQLSTATE
ROLLBACK;

-- a whole life by functions, none of it by hand
SET ROLE regress_acr_app;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT ai_chat_run.record_step(:'r1', :'w', 1), ai_chat_run.heartbeat(:'r1', :'w'),
	ai_chat_run.link_assistant_message(:'r1', :'w', :'r1'), ai_chat_run.request_stop(:'r1', :'w'),
	ai_chat_run.request_stop_for_chat(:'c1', :'w') = :'r1' AS for_chat, ai_chat_run.settle_deferred();
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SELECT status, step_count FROM ai_chat_run.get_run(:'r1', :'w');
SELECT status FROM ai_chat_run.get_latest_for_chat(:'c1', :'w');
SELECT count(*) FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
SELECT ai_chat_run.map_turn_status('error');
\set VERBOSITY terse
SELECT * FROM ai_chat_run.ai_chat_runs;
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id) VALUES (:'c1', :'w');
UPDATE ai_chat_run.ai_chat_runs SET status = 'aborted';
DELETE FROM ai_chat_run.ai_chat_runs;
TRUNCATE ai_chat_run.ai_chat_runs;
SELECT * FROM ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.sweep_runs();
SELECT ai_chat_run.purge_runs('0');
SELECT ai_chat_run.new_run_id();
SELECT ai_chat_run.grant_app_access('regress_acr_app');
SELECT * FROM ai_chat_run.runners;
SELECT * FROM ai_chat_run.active_runs;
SELECT * FROM ai_chat_run.stats;
SELECT * FROM ai_chat_run.workers;
SELECT * FROM ai_chat_run.health();
SELECT ai_chat_run.stats_reset();
CREATE TABLE ai_chat_run.mine ();
\set VERBOSITY default
-- on a preloaded server it can also attach its runners and wait, by procedures that cannot be SECURITY DEFINER
\set VERBOSITY sqlstate
SELECT ai_chat_run.attach_runner('regress_acr_granted', :'r1');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r2', runner => 'regress_acr_granted');
SELECT ai_chat_run.is_locally_active(:'r2');
CALL ai_chat_run.await_run(:'r2', :'w', '0');
CALL ai_chat_run.await_stop(:'r2', :'w', '0');
CALL ai_chat_run.await_stops('regress_acr_granted', timeout => '0');
CALL ai_chat_run.supersede_run(:'c1', :'r2', :'w', timeout => '0');
CALL ai_chat_run.await_stop(:'r2', :'w', '0');
CALL ai_chat_run.await_stops('regress_acr_granted', timeout => '0');
CALL ai_chat_run.supersede_run(:'c1', :'r2', :'w', timeout => '0', force => true) \gset
\set VERBOSITY terse
SELECT current_user;
SELECT status FROM ai_chat_run.get_run(:'r2', :'w');
SELECT * FROM ai_chat_run.ai_chat_runs;
SELECT count(ai_chat_run.finalize_run(id, workspace_id, 'aborted')) FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
\set VERBOSITY default
-- its deferrals are written and read by the functions alone, too; its own session setting is at hand
RESET ROLE;
CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no ends for %', current_user;
END
$$;
BEGIN;
SELECT current_user AS owner \gset
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise();
SET LOCAL ROLE regress_acr_app;
SET LOCAL ai_chat_run.runner = 'runner one';
SET LOCAL ai_chat_run.finalize_max_attempts = 1;
SET LOCAL client_min_messages = error;
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => 'a0000000-0000-4000-8000-000000000002');
SELECT runner FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
SELECT ai_chat_run.finalize_run('a0000000-0000-4000-8000-000000000002', :'w', 'completed');
SELECT ai_chat_run.settle_deferred();
SELECT current_user;
RESET ROLE;
SELECT status, cause = 'no ends for ' || :'owner' AS with_the_owners_rights FROM ai_chat_run.deferred_finalizations;
ROLLBACK;

-- its own chats, with the trigger
CREATE SCHEMA regress_acr_app AUTHORIZATION regress_acr_app;
SET ROLE regress_acr_app;
CREATE TABLE regress_acr_app.chats (id uuid, workspace_id uuid);
CREATE TRIGGER delete_runs AFTER DELETE ON regress_acr_app.chats
	FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
INSERT INTO regress_acr_app.chats VALUES (:'c1', gen_random_uuid()), (:'c1', :'w');
DELETE FROM regress_acr_app.chats WHERE workspace_id <> :'w';
SELECT status FROM ai_chat_run.get_run(:'r1', :'w');
DELETE FROM regress_acr_app.chats;
SELECT count(*) FROM ai_chat_run.get_run(:'r1', :'w');
-- but not without a workspace: that is for a table of the extension's owner
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
ALTER TABLE regress_acr_app.chats DROP COLUMN workspace_id;
INSERT INTO regress_acr_app.chats VALUES (:'c1');
DELETE FROM regress_acr_app.chats;
\echo :SQLSTATE
SELECT status FROM ai_chat_run.get_run(:'r1', :'w');
RESET ROLE;
TRUNCATE ai_chat_run.ai_chat_runs;

DROP OWNED BY regress_acr_app, "regress_acr ""odd"" name";
DROP ROLE regress_acr_app, "regress_acr ""odd"" name";
