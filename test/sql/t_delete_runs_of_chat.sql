-- delete_runs_of_chat, on an application's own table of chats, removes a deleted chat's runs, active ones too, and what is
-- deferred for them; no other chat's and, where the table knows workspaces, no other workspace's.
\set SHOW_CONTEXT never
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set r3 'a0000000-0000-4000-8000-000000000003'
\set r4 'a0000000-0000-4000-8000-000000000004'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
BEGIN;

-- chat 1 has a terminal, an active and another workspace's run, the active one with a deferral; chat 2 an active run
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, finished_at) VALUES
	(:'r1', :'c1', :'w', 'failed', now()), (:'r2', :'c1', :'w', 'running', NULL),
	(:'r3', :'c1', :'other_w', 'succeeded', now()), (:'r4', :'c2', :'w', 'running', NULL);
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause) VALUES
	(:'w', :'r2', 'succeeded', 'a test'), (:'other_w', :'r3', 'succeeded', 'a test'), (:'w', :'r4', 'succeeded', 'a test');
SAVEPOINT s;

-- the usual names: id and workspace_id
CREATE TABLE chats (title text, id uuid PRIMARY KEY, workspace_id uuid);
INSERT INTO chats VALUES ('one', :'c1', :'w'), ('two', :'c2', :'w');
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
DELETE FROM chats WHERE title = 'one';
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT run_id FROM ai_chat_run.deferred_finalizations ORDER BY run_id;
ROLLBACK TO s;

-- a table without workspaces: those of all
CREATE TABLE chats (id uuid PRIMARY KEY);
INSERT INTO chats VALUES (:'c1'), (:'c2');
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
DELETE FROM chats WHERE id = :'c1';
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT run_id FROM ai_chat_run.deferred_finalizations ORDER BY run_id;
ROLLBACK TO s;

-- other names, in the trigger's arguments; more chats in one statement
CREATE TABLE chats (key uuid PRIMARY KEY, tenant uuid, id int, workspace_id int);
INSERT INTO chats VALUES (:'c1', :'other_w'), (:'c2', :'w'), (gen_random_uuid(), :'w');
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat(key, tenant);
DELETE FROM chats;
SELECT id, status FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT run_id FROM ai_chat_run.deferred_finalizations ORDER BY run_id;
ROLLBACK TO s;

-- a dropped column of the usual name does not count
CREATE TABLE chats (id uuid PRIMARY KEY, workspace_id uuid);
INSERT INTO chats VALUES (:'c1', :'w');
ALTER TABLE chats DROP COLUMN workspace_id;
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
DELETE FROM chats;
SELECT id FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK TO s;

-- what it refuses
CREATE TABLE chats (id uuid, workspace_id uuid, name text, number int);
INSERT INTO chats VALUES (:'c1', :'w', 'one', 1);
SAVEPOINT t;
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat(chat_id);
DELETE FROM chats;
\echo :SQLSTATE
ROLLBACK TO t;
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat(id, tenant);
DELETE FROM chats;
\echo :SQLSTATE
ROLLBACK TO t;
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat(name);
DELETE FROM chats;
\echo :SQLSTATE
ROLLBACK TO t;
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat(id, number);
DELETE FROM chats;
ROLLBACK TO t;
ALTER TABLE chats DROP COLUMN id;
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
DELETE FROM chats;
\echo :SQLSTATE
ROLLBACK TO t;
UPDATE chats SET id = NULL;
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
DELETE FROM chats;
\echo :SQLSTATE
ROLLBACK TO t;
-- a workspace that is there but null: it does not stand for all of them
UPDATE chats SET workspace_id = NULL;
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
DELETE FROM chats;
\echo :SQLSTATE
ROLLBACK TO t;
CREATE TRIGGER delete_runs BEFORE DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
DELETE FROM chats;
\echo :SQLSTATE
ROLLBACK TO t;
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH STATEMENT EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
DELETE FROM chats;
ROLLBACK TO t;
CREATE TRIGGER delete_runs AFTER UPDATE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
UPDATE chats SET number = 2;
ROLLBACK TO t;
SELECT ai_chat_run.delete_runs_of_chat();
ROLLBACK TO t;
SELECT count(*) FROM ai_chat_run.ai_chat_runs;
ROLLBACK;
