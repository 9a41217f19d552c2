-- What the chat server needs in its database, as a superuser. Can be repeated.
CREATE EXTENSION IF NOT EXISTS ai_chat_run;
DO $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_app') THEN
		CREATE ROLE chat_app LOGIN;
	END IF;
END
$$;
SELECT ai_chat_run.grant_app_access('chat_app');

CREATE SCHEMA IF NOT EXISTS chat;
CREATE TABLE IF NOT EXISTS chat.messages (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	chat_id uuid NOT NULL,
	workspace_id uuid NOT NULL,
	role text NOT NULL CHECK (role IN ('user', 'assistant')),
	content text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS messages_of_chat ON chat.messages (workspace_id, chat_id, created_at);
GRANT USAGE ON SCHEMA chat TO chat_app;
GRANT SELECT, INSERT, UPDATE ON chat.messages TO chat_app;
