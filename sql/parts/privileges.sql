-- PUBLIC gets nothing: who may call what is granted by grant_app_access(), or
-- by hand. A new schema and new tables have no rights for PUBLIC anyway; new
-- functions do.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ai_chat_run FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ai_chat_run FROM PUBLIC;
REVOKE ALL ON SCHEMA ai_chat_run FROM PUBLIC;
