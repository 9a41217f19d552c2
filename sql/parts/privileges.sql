-- PUBLIC gets nothing: who may call what is granted by grant_app_access(), or
-- by hand. A new schema and new tables have no rights for PUBLIC anyway; new
-- functions do.
REVOKE ALL ON ALL ROUTINES IN SCHEMA ai_chat_run FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ai_chat_run FROM PUBLIC;
REVOKE ALL ON SCHEMA ai_chat_run FROM PUBLIC;

-- Who watches the server may see the views. Their functions run with his rights.
GRANT USAGE ON SCHEMA ai_chat_run TO pg_monitor;
GRANT SELECT ON ai_chat_run.active_runs, ai_chat_run.stats, ai_chat_run.workers TO pg_monitor;
GRANT EXECUTE ON FUNCTION ai_chat_run.live_state(uuid, text), ai_chat_run.database_counters(),
	ai_chat_run.database_visits(), ai_chat_run.health() TO pg_monitor;
