-- Promise: PUBLIC and a fresh role get nothing; grant_app_access() gives a role, whatever its name, the functions for
-- applications and nothing else, neither the tables and views nor the functions for operators; the views are
-- pg_monitor's; and the definer's rights behind those functions are out of reach of a caller's search_path. Permission
-- denied is SQLSTATE 42501 everywhere. (06_role_matrix.sql has who may do what with each single object.)
BEGIN;
SELECT plan(123);
-- GRANT without a grant option is a WARNING in the server, and so are failed attempts of ours.
SET LOCAL client_min_messages = error;
SET LOCAL log_min_messages = error;

-- ---- what the tests below share ----

-- The SQLSTATE of a command as the role runs it, or "ok"; what it did is undone. No effect and no role stays.
CREATE FUNCTION pg_temp.as_role(role name, command text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE command;
	RAISE EXCEPTION USING ERRCODE = 'OKOKO';
EXCEPTION
	WHEN SQLSTATE 'OKOKO' THEN RETURN 'ok';
	WHEN OTHERS THEN RETURN SQLSTATE;
END
$$;

CREATE TEMP TABLE app_functions (name name);
INSERT INTO app_functions VALUES
	('begin_run'), ('try_begin_run'), ('record_step'), ('heartbeat'), ('link_assistant_message'), ('finalize_run'),
	('map_turn_status'), ('request_stop'), ('request_stop_for_chat'), ('settle_deferred'), ('get_run'),
	('get_latest_for_chat'), ('get_active_for_chat'), ('delete_runs_of_chat'), ('is_locally_active'), ('attach_runner'),
	('await_run'), ('await_stop'), ('await_stops'), ('supersede_run');

CREATE TEMP VIEW functions AS
	SELECT oid, proname AS name, proowner AS owner, proacl AS acl
	FROM pg_proc WHERE pronamespace = to_regnamespace('ai_chat_run');

CREATE TEMP VIEW relations AS
	SELECT oid, relname AS name, relkind, relowner AS owner, relacl AS acl
	FROM pg_class WHERE relnamespace = to_regnamespace('ai_chat_run') AND relkind NOT IN ('i', 'I', 'c');

-- Somebody's rights, by name of the right and the object.
CREATE TEMP VIEW granted AS
	SELECT a.grantee, a.grantor, a.privilege_type, a.is_grantable, 'function ' || f.name AS object
	FROM functions f, aclexplode(coalesce(f.acl, acldefault('f', f.owner))) a
	UNION ALL
	SELECT a.grantee, a.grantor, a.privilege_type, a.is_grantable, 'relation ' || r.name
	FROM relations r, aclexplode(coalesce(r.acl, acldefault(CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.owner))) a
	UNION ALL
	SELECT a.grantee, a.grantor, a.privilege_type, a.is_grantable, 'column ' || r.name || '.' || c.attname
	FROM relations r JOIN pg_attribute c ON c.attrelid = r.oid, aclexplode(c.attacl) a
	UNION ALL
	SELECT a.grantee, a.grantor, a.privilege_type, a.is_grantable, 'schema'
	FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
	WHERE n.nspname = 'ai_chat_run';

CREATE FUNCTION pg_temp.rights_of(role regrole) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT privilege_type || ' on ' || object || CASE WHEN is_grantable THEN ' with grant option' ELSE '' END
	FROM granted WHERE grantee = role
$$;

-- What an application's role has, and all it has.
CREATE TEMP VIEW app_rights AS
	SELECT 'EXECUTE on function ' || name AS rights FROM app_functions
	UNION ALL SELECT 'USAGE on schema';

-- ---- PUBLIC ----

SELECT set_has('SELECT name FROM functions', 'TABLE app_functions', 'the functions for applications are all there');
SELECT is_empty(
	'SELECT privilege_type, object FROM granted WHERE grantee = 0',
	'PUBLIC has nothing on any function, table, column or the schema');
SELECT set_eq(
	$$SELECT grantee::regrole, privilege_type || ' on ' || object, is_grantable FROM granted WHERE grantee <> grantor$$,
	$$SELECT 'pg_monitor'::regrole, rights, false FROM unnest(ARRAY[
		'USAGE on schema', 'SELECT on relation active_runs', 'SELECT on relation stats', 'SELECT on relation workers',
		'EXECUTE on function health', 'EXECUTE on function live_state', 'EXECUTE on function database_counters',
		'EXECUTE on function database_visits']) rights$$,
	'nor has anybody but the owner, and pg_monitor on the views and what is behind them');

-- ---- a role without grants ----

CREATE ROLE acr_fresh;

-- The schema is not all that stands between.
CREATE ROLE acr_usage;
GRANT USAGE ON SCHEMA ai_chat_run TO acr_usage;
SELECT is(pg_temp.as_role('acr_usage', command), '42501', 'nor ' || command)
FROM unnest(ARRAY[
	'CREATE TABLE ai_chat_run.t ()',
	'CREATE VIEW ai_chat_run.v AS SELECT 1',
	$$CREATE FUNCTION ai_chat_run.f() RETURNS int LANGUAGE sql AS 'SELECT 1'$$,
	'CREATE OPERATOR ai_chat_run.= (FUNCTION = uuid_eq, LEFTARG = uuid, RIGHTARG = uuid)',
	'ALTER SCHEMA ai_chat_run RENAME TO x',
	'DROP SCHEMA ai_chat_run CASCADE',
	'DROP EXTENSION ai_chat_run',
	$$ALTER FUNCTION ai_chat_run.get_run(uuid, uuid) SET search_path = 'x'$$]) command;

CREATE TABLE acr_chats (id uuid PRIMARY KEY, workspace_id uuid);
ALTER TABLE acr_chats OWNER TO acr_usage;
SELECT is(
	pg_temp.as_role('acr_usage', 'CREATE TRIGGER t AFTER DELETE ON acr_chats FOR EACH ROW
		EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat()'),
	'42501', 'nor use the trigger function on a table of its own');

-- ---- an application's role ----

CREATE ROLE acr_app;
SELECT lives_ok($$SELECT ai_chat_run.grant_app_access('acr_app')$$, 'grant_app_access grants');
SELECT bag_eq(
	$$SELECT pg_temp.rights_of('acr_app')$$, 'TABLE app_rights',
	'an application''s role has the use of the schema and the functions for applications, no more');
SELECT lives_ok($$SELECT ai_chat_run.grant_app_access('acr_app')$$, 'grant_app_access can be repeated');
SELECT bag_eq($$SELECT pg_temp.rights_of('acr_app')$$, 'TABLE app_rights', 'and gives no more then');
SELECT is_empty('SELECT privilege_type, object FROM granted WHERE grantee = 0', 'nor anything to PUBLIC');

SELECT is(pg_temp.as_role('acr_app', command), '42501', 'not allowed to it: ' || command)
FROM unnest(ARRAY[
	'SELECT ai_chat_run.sweep_runs()',
	$$SELECT ai_chat_run.sweep_runs('0 s', 'runner', 1)$$,
	$$SELECT ai_chat_run.purge_runs('0 s')$$,
	$$SELECT ai_chat_run.grant_app_access('acr_fresh')$$,
	$$SELECT ai_chat_run.grant_app_access('acr_app')$$,
	'INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id) VALUES (gen_random_uuid(), gen_random_uuid())',
	'SELECT id FROM ai_chat_run.ai_chat_runs',
	'SELECT 1 FROM ai_chat_run.deferred_finalizations']) command;

-- The whole of a run's life, in that role. The plans that this session keeps are made by another one first.
SELECT ok(ai_chat_run.begin_run('cafe0000-0000-0000-0000-000000000001', 'a0000000-0000-0000-0000-000000000001') IS NOT NULL,
	'the owner begins a run');
SELECT is(ai_chat_run.record_step('f0000000-0000-0000-0000-000000000000', 'a0000000-0000-0000-0000-000000000001', 1),
	'not_found', 'and makes other calls');
CREATE TEMP TABLE life AS
	SELECT 'f0000000-0000-0000-0000-000000000001'::uuid AS run, 'cafe0000-0000-0000-0000-000000000002'::uuid AS chat,
		'a0000000-0000-0000-0000-000000000001'::uuid AS ws;
GRANT SELECT ON life TO PUBLIC;

SET LOCAL ROLE acr_app;
SELECT is(ai_chat_run.begin_run(chat, ws, run_id => run), run, 'an application''s role begins a run') FROM life;
SELECT is(outcome, 'busy', 'tries to begin another') FROM life, ai_chat_run.try_begin_run(chat, ws);
SELECT throws_ok('SELECT ai_chat_run.begin_run(chat, ws) FROM life', 'RN409', NULL, 'is refused another');
SELECT is(ai_chat_run.record_step(run, ws, 1), 'continue', 'records a step') FROM life;
SELECT is(ai_chat_run.heartbeat(run, ws), 'continue', 'sends a heartbeat') FROM life;
SELECT ok(ai_chat_run.link_assistant_message(run, ws, gen_random_uuid()), 'links the message') FROM life;
SELECT ok(ai_chat_run.request_stop(run, ws), 'requests a stop') FROM life;
SELECT is(ai_chat_run.request_stop_for_chat(chat, ws), run, 'requests it by the chat') FROM life;
SELECT is(ai_chat_run.record_step(run, ws, 2), 'stop', 'is told of it') FROM life;
SELECT is(id, run, 'sees the run as active') FROM life, ai_chat_run.get_active_for_chat(chat, ws);
SELECT is(ai_chat_run.map_turn_status('aborted'), 'aborted', 'maps a turn status');
SELECT is(ai_chat_run.finalize_run(run, ws, 'aborted'), 'finalized', 'finalizes the run') FROM life;
SELECT is(ai_chat_run.settle_deferred(), 0::bigint, 'settles what is deferred');
SELECT is(status, 'aborted', 'sees the run') FROM life, ai_chat_run.get_run(run, ws);
SELECT is(id, run, 'sees it as the latest') FROM life, ai_chat_run.get_latest_for_chat(chat, ws);
SELECT is(current_user::text, 'acr_app', 'and is itself after all that');
SELECT throws_ok('SELECT FROM ai_chat_run.ai_chat_runs', '42501', NULL, 'while the table stays closed to it');
RESET ROLE;

-- A chat of its own takes the runs along, though it may not delete them itself.
ALTER TABLE acr_chats OWNER TO acr_app;
SET LOCAL ROLE acr_app;
CREATE TRIGGER runs AFTER DELETE ON acr_chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();
INSERT INTO acr_chats SELECT chat, ws FROM life;
DELETE FROM acr_chats;
SELECT is_empty('SELECT id FROM life, ai_chat_run.get_run(run, ws)', 'its trigger deletes the runs of a deleted chat');
RESET ROLE;

-- Access that is taken back is gone, also for plans made meanwhile.
REVOKE EXECUTE ON FUNCTION ai_chat_run.heartbeat FROM acr_app;
SELECT is(pg_temp.as_role('acr_app', 'SELECT ai_chat_run.heartbeat(run, ws) FROM life'), '42501', 'a revoked function is closed');
SELECT is(pg_temp.as_role('acr_app', 'SELECT ai_chat_run.record_step(run, ws, 1) FROM life'), 'ok', 'the others are not');
SELECT ai_chat_run.grant_app_access('acr_app');

-- ---- membership, SET ROLE, other sessions ----

CREATE ROLE acr_heir INHERIT IN ROLE acr_app;
CREATE ROLE acr_guest NOINHERIT IN ROLE acr_app;
CREATE TEMP VIEW app_call AS SELECT 'SELECT ai_chat_run.get_run(gen_random_uuid(), gen_random_uuid())' AS command;
SELECT is(pg_temp.as_role('acr_heir', command), 'ok', 'a member that inherits can call') FROM app_call;
SELECT is(pg_temp.as_role('acr_guest', command), '42501', 'one that does not inherit cannot') FROM app_call;
SELECT is(pg_temp.as_role('acr_guest', 'SET ROLE acr_app; ' || command), 'ok', 'until it sets the role') FROM app_call;
SELECT is(pg_temp.as_role('acr_heir', 'SELECT FROM ai_chat_run.ai_chat_runs'), '42501', 'no member can read the table');

PREPARE call AS SELECT ai_chat_run.get_run('f0000000-0000-0000-0000-000000000001', 'a0000000-0000-0000-0000-000000000001');
SET LOCAL SESSION AUTHORIZATION acr_guest;
SELECT throws_ok('EXECUTE call', '42501', NULL, 'a session of a member that does not inherit cannot call');
SET LOCAL ROLE acr_app;
SELECT lives_ok('EXECUTE call', 'after SET ROLE it can, with the same prepared statement');
SELECT lives_ok(
	$$SELECT ai_chat_run.finalize_run(ai_chat_run.begin_run(gen_random_uuid(), 'a0000000-0000-0000-0000-000000000001'),
		'a0000000-0000-0000-0000-000000000001', 'completed')$$,
	'and write');
SELECT throws_ok('SELECT ai_chat_run.sweep_runs()', '42501', NULL, 'but not what the role cannot');
SELECT throws_ok('TABLE ai_chat_run.ai_chat_runs', '42501', NULL, 'nor read the table');
SET LOCAL ROLE NONE;
SELECT throws_ok('EXECUTE call', '42501', NULL, 'after SET ROLE NONE it cannot again');
RESET SESSION AUTHORIZATION;

-- ---- names ----

CREATE TEMP TABLE awkward (name name);
INSERT INTO awkward VALUES
	('Mixed Case'), ('semi;colon'), ('quo"te'), ('apos''trophe'), ('select'), ('user'), ('current_user'), ('dollar$$'),
	('back\slash'), ('123'), ('with.dot'), (' leading'), ('x, acr_fresh'), ('x WITH GRANT OPTION; --'), (repeat('x', 63));
SELECT lives_ok(format('CREATE ROLE %I', name), 'there is a role ' || quote_ident(name)) FROM awkward;
SELECT lives_ok(
	format('SELECT ai_chat_run.grant_app_access(%L)', quote_ident(name)), 'it gets access: ' || quote_ident(name))
FROM awkward;
SELECT bag_eq(
	format('SELECT pg_temp.rights_of(%L)', quote_ident(name)), 'TABLE app_rights', 'and no more: ' || quote_ident(name))
FROM awkward;
SELECT set_eq(
	$$SELECT DISTINCT grantee::regrole FROM granted WHERE grantee <> grantor$$,
	$$SELECT quote_ident(name)::regrole FROM awkward
		UNION ALL VALUES ('acr_app'::regrole), ('acr_usage'::regrole), ('pg_monitor'::regrole)$$,
	'nobody else got anything on the way');
SELECT is_empty('SELECT pg_temp.rights_of(''acr_fresh'')', 'least of all the one whose name was in another''s');

SELECT throws_ok($$SELECT ai_chat_run.grant_app_access('acr_nobody')$$, '42704', NULL, 'there has to be such a role');
SELECT throws_ok($$SELECT ai_chat_run.grant_app_access('-')$$, '42704', NULL, 'no role is none');
SELECT throws_ok($$SELECT ai_chat_run.grant_app_access(4294967295::oid)$$, '42704', NULL, 'nor is a wrong oid');
SELECT throws_ok($$SELECT ai_chat_run.grant_app_access(NULL)$$, '22004', NULL, 'a null is an error');

-- ---- who may give access ----

-- grant_app_access() does what its caller could do by GRANT; it lends nobody the owner's rights.
CREATE ROLE acr_target;
CREATE ROLE acr_deputy;
GRANT USAGE ON SCHEMA ai_chat_run TO acr_deputy;
GRANT EXECUTE ON FUNCTION ai_chat_run.grant_app_access TO acr_deputy;
SET LOCAL ROLE acr_deputy;
SELECT throws_ok($$SELECT ai_chat_run.grant_app_access('acr_target')$$, '42501', NULL,
	'who may call grant_app_access but has nothing to give is refused');
RESET ROLE;
SELECT is_empty($$SELECT pg_temp.rights_of('acr_target')$$, 'and gives nothing');

SELECT ai_chat_run.grant_app_access('acr_deputy');
SET LOCAL ROLE acr_deputy;
-- A GRANT without effect need not be an error.
DO $$
BEGIN
	PERFORM ai_chat_run.grant_app_access('acr_target');
EXCEPTION
	WHEN insufficient_privilege THEN NULL;
END
$$;
RESET ROLE;
SELECT is_empty($$SELECT pg_temp.rights_of('acr_target')$$, 'an application''s role cannot pass its access on');

GRANT USAGE ON SCHEMA ai_chat_run TO acr_deputy WITH GRANT OPTION;
DO $$
BEGIN
	EXECUTE (SELECT string_agg(format('GRANT EXECUTE ON ROUTINE ai_chat_run.%I TO acr_deputy WITH GRANT OPTION', name), ';')
		FROM app_functions);
END
$$;
SET LOCAL ROLE acr_deputy;
SELECT lives_ok($$SELECT ai_chat_run.grant_app_access('acr_target')$$, 'who has it with grant option can');
RESET ROLE;
SELECT bag_eq($$SELECT pg_temp.rights_of('acr_target')$$, 'TABLE app_rights', 'and gives just that');

CREATE ROLE acr_owner;
SELECT lives_ok(format('GRANT %I TO acr_owner', pg_get_userbyid(extowner)), 'a member of the owner''s role')
FROM pg_extension WHERE extname = 'ai_chat_run';
CREATE ROLE acr_target2;
SET LOCAL ROLE acr_owner;
SELECT lives_ok($$SELECT ai_chat_run.grant_app_access('acr_target2')$$, 'can give access');
RESET ROLE;
SELECT bag_eq($$SELECT pg_temp.rights_of('acr_target2')$$, 'TABLE app_rights', 'and gives just that');

-- ---- search_path ----

CREATE ROLE acr_operator;
GRANT USAGE ON SCHEMA ai_chat_run TO acr_operator;
GRANT EXECUTE ON FUNCTION ai_chat_run.sweep_runs, ai_chat_run.purge_runs TO acr_operator;
CREATE ROLE acr_monitor IN ROLE pg_monitor;

-- An application's role puts its own operators, functions, tables and casts first; each notes who runs it.
CREATE SCHEMA acr_evil AUTHORIZATION acr_app;
SET LOCAL ROLE acr_app;
CREATE TABLE acr_evil.caught (who name, what text);
CREATE FUNCTION acr_evil.note(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO acr_evil.caught VALUES (current_user, what);
	RETURN true;
END
$$;
-- Every operator of the types that the tables have, and some functions that a statement might call.
DO $$
DECLARE
	t text;
	op text;
BEGIN
	FOREACH t IN ARRAY ARRAY['uuid', 'text', 'timestamptz', 'integer', 'bigint', 'interval', 'boolean', 'xid']
	LOOP
		FOREACH op IN ARRAY ARRAY['=', '<>', '<', '<=', '>', '>=']
		LOOP
			EXECUTE format('CREATE FUNCTION acr_evil.%I(%s, %2$s) RETURNS boolean LANGUAGE sql VOLATILE
				AS $f$ SELECT acr_evil.note(%L) $f$', 'op' || op, t, op || t);
			EXECUTE format('CREATE OPERATOR acr_evil.%s (FUNCTION = acr_evil.%I, LEFTARG = %s, RIGHTARG = %3$s)',
				op, 'op' || op, t);
		END LOOP;
	END LOOP;
END
$$;
CREATE FUNCTION acr_evil.now() RETURNS timestamptz LANGUAGE sql AS
	$$SELECT CASE WHEN acr_evil.note('now()') THEN pg_catalog.now() END$$;
CREATE FUNCTION acr_evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
	$$SELECT CASE WHEN acr_evil.note('clock_timestamp()') THEN pg_catalog.now() END$$;
CREATE FUNCTION acr_evil.age(xid) RETURNS integer LANGUAGE sql AS
	$$SELECT CASE WHEN acr_evil.note('age()') THEN 1 END$$;
CREATE FUNCTION acr_evil.new_run_id() RETURNS uuid LANGUAGE sql AS
	$$SELECT CASE WHEN acr_evil.note('new_run_id()') THEN gen_random_uuid() END$$;
CREATE TABLE acr_evil.ai_chat_runs (LIKE acr_chats);
CREATE TABLE acr_evil.deferred_finalizations (LIKE acr_chats);
CREATE TEMP TABLE ai_chat_runs (LIKE acr_chats);
CREATE TEMP TABLE deferred_finalizations (LIKE acr_chats);
CREATE DOMAIN acr_evil.uuid AS text CHECK (acr_evil.note('uuid'));
CREATE DOMAIN acr_evil.text AS pg_catalog.text CHECK (acr_evil.note('text'));
CREATE DOMAIN acr_evil.timestamptz AS text CHECK (acr_evil.note('timestamptz'));
GRANT USAGE ON SCHEMA acr_evil TO PUBLIC;
GRANT INSERT ON acr_evil.caught TO PUBLIC;

-- A deferred finalization is there for those that look for one.
RESET ROLE;
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
	SELECT 'a0000000-0000-0000-0000-000000000001', id, 'failed', 'a test'
	FROM ai_chat_run.get_active_for_chat('cafe0000-0000-0000-0000-000000000001', 'a0000000-0000-0000-0000-000000000001');
DISCARD PLANS;
SET LOCAL ROLE acr_app;
DO $$
DECLARE
	chat1 pg_catalog.uuid := 'cafe0000-0000-0000-0000-000000000001';
	chat2 pg_catalog.uuid := 'cafe0000-0000-0000-0000-000000000002';
	chat3 pg_catalog.uuid := 'cafe0000-0000-0000-0000-000000000003';
	ws pg_catalog.uuid := 'a0000000-0000-0000-0000-000000000001';
	run pg_catalog.uuid := 'f0000000-0000-0000-0000-000000000003';
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'acr_evil, pg_temp, pg_catalog', true);
	PERFORM ai_chat_run.begin_run(chat1, ws);
	PERFORM ai_chat_run.begin_run(chat3, ws, run_id => run);
	PERFORM ai_chat_run.begin_run(chat3, ws, run_id => run);
	PERFORM ai_chat_run.try_begin_run(chat3, ws);
	PERFORM ai_chat_run.try_begin_run(chat3, run);
	PERFORM ai_chat_run.record_step(run, ws, 1);
	PERFORM ai_chat_run.heartbeat(run, ws);
	PERFORM ai_chat_run.link_assistant_message(run, ws, chat3);
	PERFORM ai_chat_run.request_stop(run, ws);
	PERFORM ai_chat_run.request_stop_for_chat(chat3, ws);
	PERFORM ai_chat_run.get_run(run, ws);
	PERFORM ai_chat_run.get_latest_for_chat(chat3, ws);
	PERFORM ai_chat_run.get_active_for_chat(chat3, ws);
	PERFORM ai_chat_run.finalize_run(run, ws, 'completed');
	PERFORM ai_chat_run.finalize_run(run, ws, 'completed');
	PERFORM ai_chat_run.map_turn_status('error');
	PERFORM ai_chat_run.settle_deferred();
	PERFORM ai_chat_run.settle_deferred(run);
	PERFORM ai_chat_run.attach_runner('a runner', run);
	PERFORM ai_chat_run.attach_runner('a runner', chat1);
	PERFORM ai_chat_run.is_locally_active(run);
	PERFORM ai_chat_run.begin_run(chat2, ws);
	INSERT INTO public.acr_chats VALUES (chat2, ws);
	DELETE FROM public.acr_chats;
END
$$;
RESET ROLE;
RESET search_path;
SELECT results_eq(
	$$SELECT (ai_chat_run.get_latest_for_chat(chat::uuid, 'a0000000-0000-0000-0000-000000000001')).status
		FROM (VALUES (1, 'cafe0000-0000-0000-0000-000000000001'), (2, 'cafe0000-0000-0000-0000-000000000002'),
			(3, 'cafe0000-0000-0000-0000-000000000003')) v(n, chat) ORDER BY n$$,
	$$VALUES ('running'), ('succeeded')$$,
	'with a hostile search_path an application''s calls do their work');

SET LOCAL ROLE acr_operator;
SET LOCAL search_path = acr_evil, pg_temp, pg_catalog;
DO $$
BEGIN
	PERFORM ai_chat_run.sweep_runs('100 years'::pg_catalog.interval, 'nobody'::pg_catalog.text);
	PERFORM ai_chat_run.sweep_runs(), ai_chat_run.purge_runs('0 s');
END
$$;
RESET ROLE;
SET LOCAL ROLE acr_monitor;
DO $$
BEGIN
	PERFORM FROM ai_chat_run.active_runs;
	PERFORM FROM ai_chat_run.stats, ai_chat_run.workers, ai_chat_run.health();
END
$$;
RESET ROLE;
DO $$
BEGIN
	PERFORM ai_chat_run.grant_app_access('acr_fresh');
END
$$;
RESET search_path;
SELECT is_empty('TABLE ai_chat_run.ai_chat_runs', 'so do an operator''s');
SELECT bag_eq($$SELECT pg_temp.rights_of('acr_fresh')$$, 'TABLE app_rights', 'and the owner''s');
SELECT is_empty('SELECT who, what FROM acr_evil.caught', 'and nothing is run that the search_path offers');

SET LOCAL search_path = acr_evil, pg_temp, pg_catalog;
DO $$
BEGIN
	PERFORM pg_catalog.gen_random_uuid() = pg_catalog.gen_random_uuid(), now(), '0'::uuid;
END
$$;
RESET search_path;
SELECT set_eq(
	'SELECT what FROM acr_evil.caught', $$VALUES ('=uuid'), ('now()'), ('uuid')$$,
	'though it would be, if looked for');

-- ---- default privileges ----

-- Somebody has the server grant to PUBLIC whatever is made.
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
DROP EXTENSION ai_chat_run CASCADE;
DROP SCHEMA ai_chat_run;
CREATE EXTENSION ai_chat_run;
SELECT set_has('SELECT name FROM functions', 'TABLE app_functions', 'there is a new extension');
SELECT is_empty(
	'SELECT privilege_type, object FROM granted WHERE grantee = 0',
	'PUBLIC has nothing of it, default privileges or not');

SELECT * FROM finish();
ROLLBACK;
