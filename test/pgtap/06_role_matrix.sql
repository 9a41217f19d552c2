-- Promise: who may do what. Every function, procedure, table, view and sequence that the catalog has belongs to one class
-- of objects; each kind of role has its rights on each class, and no others, as the catalog tells and as a try of each
-- command tells. Permission denied is SQLSTATE 42501 everywhere.
BEGIN;
SELECT plan(19);
SET LOCAL client_min_messages = error;
SET LOCAL log_min_messages = error;

-- ---- objects ----

CREATE TEMP TABLE classes (class text, kind "char", name name PRIMARY KEY);
INSERT INTO classes
	SELECT 'for applications', 'f', unnest(ARRAY['begin_run', 'try_begin_run', 'record_step', 'heartbeat',
		'link_assistant_message', 'finalize_run', 'map_turn_status', 'request_stop', 'request_stop_for_chat',
		'settle_deferred', 'get_run', 'get_latest_for_chat', 'get_active_for_chat', 'delete_runs_of_chat',
		'is_locally_active', 'attach_runner'])
	UNION ALL SELECT 'for applications', 'p', unnest(ARRAY['await_run', 'await_stop', 'await_stops', 'supersede_run'])
	UNION ALL SELECT 'for operators', 'f', unnest(ARRAY['sweep_runs', 'purge_runs'])
	UNION ALL SELECT 'for the owner', 'f', unnest(ARRAY['grant_app_access', 'stats_reset'])
	UNION ALL SELECT 'behind health()', 'f', 'server_state'
	UNION ALL SELECT 'called by a write', 'f', unnest(ARRAY['new_run_id', 'is_run_status', 'is_terminal_status'])
	UNION ALL SELECT 'triggers', 'f', unnest(ARRAY['terminal_is_final', 'run_inserted', 'run_deleted', 'runs_truncated'])
	UNION ALL SELECT 'behind views', 'f', unnest(ARRAY['live_state', 'database_counters', 'database_visits'])
	UNION ALL SELECT 'health()', 'f', 'health'
	UNION ALL SELECT 'views', 'v', unnest(ARRAY['active_runs', 'stats', 'workers'])
	UNION ALL SELECT 'the table', 'r', 'ai_chat_runs'
	UNION ALL SELECT 'its companions', 'r', unnest(ARRAY['deferred_finalizations', 'runners']);

CREATE TEMP VIEW objects AS
	SELECT prokind AS kind, proname AS name, oid, proowner AS owner
	FROM pg_proc WHERE pronamespace = 'ai_chat_run'::regnamespace
	UNION ALL
	SELECT relkind, relname, oid, relowner
	FROM pg_class WHERE relnamespace = 'ai_chat_run'::regnamespace AND relkind NOT IN ('i', 'I', 'c');

SELECT bag_eq('SELECT kind, name FROM objects', 'SELECT kind, name FROM classes', 'every object is in one class');

-- ---- roles ----

CREATE ROLE acr_nobody;
CREATE ROLE acr_usage;
CREATE ROLE acr_app;
CREATE ROLE acr_heir INHERIT IN ROLE acr_app;
CREATE ROLE acr_guest NOINHERIT IN ROLE acr_app;
CREATE ROLE acr_monitor IN ROLE pg_monitor;
CREATE ROLE acr_operator;
CREATE ROLE acr_reader;
CREATE ROLE acr_writer;
CREATE ROLE acr_read_all IN ROLE pg_read_all_data;
CREATE ROLE acr_write_all IN ROLE pg_write_all_data;
CREATE ROLE acr_keeper;
CREATE ROLE acr_super SUPERUSER;
CREATE ROLE acr_owner;
SELECT lives_ok(format('GRANT %I TO acr_owner', pg_get_userbyid(extowner)), 'there is a member of the owner''s role')
FROM pg_extension WHERE extname = 'ai_chat_run';
SELECT ai_chat_run.grant_app_access('acr_app');
GRANT USAGE ON SCHEMA ai_chat_run TO acr_usage, acr_operator, acr_reader, acr_writer, acr_keeper;
GRANT EXECUTE ON FUNCTION ai_chat_run.sweep_runs, ai_chat_run.purge_runs TO acr_operator;
GRANT SELECT ON ALL TABLES IN SCHEMA ai_chat_run TO acr_reader;

-- As the README has it for a role that writes directly; and the tables may be another's than the functions.
GRANT SELECT, INSERT, UPDATE, DELETE ON ai_chat_run.ai_chat_runs TO acr_writer;
GRANT EXECUTE ON FUNCTION ai_chat_run.new_run_id(), ai_chat_run.is_run_status(text), ai_chat_run.is_terminal_status(text)
	TO acr_writer, acr_keeper;
ALTER TABLE ai_chat_run.ai_chat_runs OWNER TO acr_keeper;
ALTER TABLE ai_chat_run.deferred_finalizations OWNER TO acr_keeper;
ALTER TABLE ai_chat_run.runners OWNER TO acr_keeper;

-- Whatever there is to be had on a function, and on a relation. Since 17 there is one more.
CREATE TEMP TABLE privileges (of_function boolean, privilege text);
INSERT INTO privileges
	SELECT privilege = 'EXECUTE', privilege
	FROM unnest(ARRAY['EXECUTE', 'SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) privilege
	UNION ALL
	SELECT false, 'MAINTAIN' WHERE current_setting('server_version_num')::int >= 170000;

-- ---- the matrix ----

CREATE TEMP TABLE matrix (role name, class text, rights text[]);
INSERT INTO matrix VALUES
	('acr_app', 'for applications', '{EXECUTE}'),
	('acr_heir', 'for applications', '{EXECUTE}'),
	('acr_monitor', 'behind views', '{EXECUTE}'),
	('acr_monitor', 'health()', '{EXECUTE}'),
	('acr_monitor', 'views', '{SELECT}'),
	('acr_operator', 'for operators', '{EXECUTE}'),
	('acr_reader', 'the table', '{SELECT}'),
	('acr_reader', 'its companions', '{SELECT}'),
	('acr_reader', 'views', '{SELECT}'),
	('acr_read_all', 'the table', '{SELECT}'),
	('acr_read_all', 'its companions', '{SELECT}'),
	('acr_read_all', 'views', '{SELECT}'),
	('acr_writer', 'the table', '{SELECT,INSERT,UPDATE,DELETE}'),
	('acr_writer', 'called by a write', '{EXECUTE}'),
	('acr_write_all', 'the table', '{INSERT,UPDATE,DELETE}'),
	('acr_write_all', 'its companions', '{INSERT,UPDATE,DELETE}'),
	('acr_write_all', 'views', '{INSERT,UPDATE,DELETE}'),
	('acr_keeper', 'called by a write', '{EXECUTE}');
INSERT INTO matrix
	SELECT 'acr_keeper', class, array_agg(privilege)
	FROM privileges, unnest(ARRAY['the table', 'its companions']) class WHERE NOT of_function GROUP BY class
	UNION ALL
	SELECT role, class, (SELECT array_agg(privilege) FROM privileges WHERE of_function = (kind IN ('f', 'p')))
	FROM (SELECT DISTINCT class, kind FROM classes) c, (VALUES ('acr_super'::name), ('acr_owner')) r(role)
	WHERE role = 'acr_super' OR kind <> 'r';

CREATE TEMP VIEW roles AS
	SELECT 'public' AS role UNION ALL SELECT rolname FROM pg_roles WHERE rolname LIKE 'acr\_%';
CREATE TEMP VIEW allowed AS
	SELECT DISTINCT m.role, c.kind, c.name, unnest(m.rights) AS privilege FROM matrix m JOIN classes c USING (class);

-- Every right that somebody could have.
CREATE TEMP VIEW rights AS
	SELECT r.role, o.kind, o.name, o.oid, p.privilege
	FROM roles r, objects o JOIN privileges p ON p.of_function = (o.kind IN ('f', 'p'));
CREATE FUNCTION pg_temp.has_right(role name, kind "char", object oid, privilege text) RETURNS boolean LANGUAGE sql AS $$
	SELECT CASE WHEN kind IN ('f', 'p') THEN has_function_privilege(role, object, privilege)
		WHEN kind = 'S' THEN has_sequence_privilege(role, object, privilege)
		ELSE has_table_privilege(role, object, privilege) END
$$;

SELECT set_eq(
	$$SELECT role, name, privilege FROM rights WHERE pg_temp.has_right(role, kind, oid, privilege)$$,
	'SELECT role, name, privilege FROM allowed',
	'each role has its rights on each object, and no others');
SELECT is_empty(
	$$SELECT role, name, privilege FROM rights WHERE role NOT IN ('acr_super', 'acr_owner', 'acr_keeper')
		AND pg_temp.has_right(role, kind, oid, privilege || ' WITH GRANT OPTION')$$,
	'and nobody but an owner can pass one on');
SELECT is_empty(
	$$SELECT r.role, c.attrelid::regclass, c.attname FROM roles r, objects o, pg_attribute c,
			unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p
		WHERE o.kind NOT IN ('f', 'p') AND c.attrelid = o.oid AND has_column_privilege(r.role, o.oid, c.attnum, p)
			AND NOT has_table_privilege(r.role, o.oid, p)$$,
	'no right is on a column alone');
SELECT set_eq(
	$$SELECT role FROM roles WHERE has_schema_privilege(role, 'ai_chat_run', 'USAGE')$$,
	$$SELECT role FROM roles WHERE role NOT IN ('public', 'acr_nobody', 'acr_guest')$$,
	'the schema can be used by who has something in it');
SELECT set_eq(
	$$SELECT role FROM roles WHERE has_schema_privilege(role, 'ai_chat_run', 'CREATE')$$,
	$$VALUES ('acr_super'::name), ('acr_owner')$$,
	'and only its owner can put something into it');
SELECT results_eq(
	$$SELECT superuser, trusted FROM pg_available_extension_versions WHERE name = 'ai_chat_run'$$, 'VALUES (true, false)',
	'and only a superuser can install the extension');

-- ---- the same by trying ----

-- The SQLSTATE of a command as the role runs it, or "ok"; what it did is undone.
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
CREATE TEMP VIEW real_roles AS SELECT role::name FROM roles WHERE role <> 'public';

-- A null where a value is needed is an error, too, but of another SQLSTATE.
CREATE TEMP VIEW calls AS
	SELECT p.proname AS name,
		format('%s ai_chat_run.%I(%s)', CASE p.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, p.proname,
		(SELECT string_agg('NULL::' || format_type(t, NULL), ', ' ORDER BY n)
			FROM unnest(p.proargtypes) WITH ORDINALITY a(t, n))) AS command
	FROM pg_proc p WHERE p.pronamespace = 'ai_chat_run'::regnamespace;
SELECT set_eq(
	$$SELECT role, name FROM real_roles, calls WHERE pg_temp.as_role(role, command) <> '42501'$$,
	$$SELECT role, name FROM allowed WHERE privilege = 'EXECUTE'$$,
	'who may call what');

-- A view is read with the rights of its owner, but the functions in it are called with those of who reads.
CREATE TEMP TABLE behind (view name, function name);
INSERT INTO behind VALUES ('active_runs', 'live_state'), ('stats', 'database_counters'), ('workers', 'database_visits');
SELECT set_eq(
	$$SELECT role, name FROM real_roles, objects WHERE kind = 'v'
		AND pg_temp.as_role(role, format('SELECT * FROM ai_chat_run.%I', name)) <> '42501'$$,
	$$SELECT role, view FROM behind JOIN allowed a ON a.name = view JOIN allowed f USING (role)
		WHERE a.privilege = 'SELECT' AND f.name = function$$,
	'who may read a view');

-- Of the tables: a command, and what it needs. "owner" is no privilege, but to have the rights of the owner.
CREATE TEMP TABLE commands (command text, needs text[]);
INSERT INTO commands VALUES
	('SELECT FROM %s', '{SELECT}'),
	('SELECT count(*) FROM %s', '{SELECT}'),
	('SELECT FROM %s FOR KEY SHARE', '{SELECT,UPDATE}'),
	('LOCK %s IN ROW EXCLUSIVE MODE', '{UPDATE}'),
	('LOCK %s IN ACCESS EXCLUSIVE MODE', '{UPDATE}'),
	('UPDATE %s SET %2$s = NULL', '{UPDATE}'),
	('UPDATE %s SET %2$s = %2$s', '{SELECT,UPDATE}'),
	('DELETE FROM %s', '{DELETE}'),
	('TRUNCATE %s', '{TRUNCATE}'),
	('CREATE TRIGGER t AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', '{TRIGGER}'),
	('ALTER TABLE %s ADD x int', '{owner}'),
	('ALTER TABLE %s DISABLE TRIGGER USER', '{owner}'),
	('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', '{owner}'),
	('DROP TABLE %s', '{owner}');
CREATE TEMP VIEW tries AS
	SELECT o.name, c.needs, format(c.command, 'ai_chat_run.' || quote_ident(o.name),
		(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = o.oid AND attnum = 1)) AS command
	FROM objects o, commands c WHERE o.kind = 'r';
SELECT set_eq(
	$$SELECT role, command FROM real_roles, tries WHERE pg_temp.as_role(role, command) <> '42501'$$,
	$$SELECT role, command FROM real_roles, tries t WHERE role IN ('acr_keeper', 'acr_super') OR t.needs <@ ARRAY(
			SELECT privilege FROM allowed a WHERE a.role = real_roles.role AND a.name = t.name)
		OR role = 'acr_owner' AND command LIKE 'DROP %' -- who owns the schema can empty it$$,
	'who may do what with a table');

-- The views have stayed with the functions.
SELECT set_eq(
	$$SELECT DISTINCT role FROM real_roles, objects, unnest(ARRAY['DROP VIEW %s', 'ALTER VIEW %s OWNER TO acr_nobody',
			'CREATE OR REPLACE VIEW %s AS SELECT 1']) c
		WHERE kind = 'v' AND pg_temp.as_role(role, format(c, 'ai_chat_run.' || quote_ident(name))) <> '42501'$$,
	$$VALUES ('acr_super'::name), ('acr_owner')$$,
	'nobody but the owner can change a view');

-- Who writes a row also calls what is behind its defaults and checks.
CREATE FUNCTION pg_temp.may_insert(columns text, vals text) RETURNS SETOF name LANGUAGE sql AS $$
	SELECT role FROM real_roles
	WHERE pg_temp.as_role(role, format('INSERT INTO ai_chat_run.ai_chat_runs (%s) VALUES (%s)', columns, vals)) = 'ok'
$$;
SELECT set_eq(
	$$SELECT pg_temp.may_insert('chat_id, workspace_id', 'gen_random_uuid(), gen_random_uuid()')$$,
	$$VALUES ('acr_writer'::name), ('acr_keeper'), ('acr_super')$$,
	'who may insert a run');
SELECT set_eq(
	$$SELECT pg_temp.may_insert('id, chat_id, workspace_id', 'gen_random_uuid(), gen_random_uuid(), gen_random_uuid()')$$,
	$$VALUES ('acr_writer'::name), ('acr_keeper'), ('acr_super')$$,
	'with an id of his own, too');
SELECT set_eq(
	$$SELECT command FROM (VALUES ('new_run_id()'), ('is_run_status(text)'), ('is_terminal_status(text)')) v(f),
		LATERAL (SELECT format('REVOKE EXECUTE ON FUNCTION ai_chat_run.%s FROM acr_writer', f) AS command) c
		WHERE pg_temp.as_role('acr_super', command || '; SET ROLE acr_writer;
			INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id) VALUES (gen_random_uuid(), gen_random_uuid())') = '42501'$$,
	$$VALUES ('REVOKE EXECUTE ON FUNCTION ai_chat_run.new_run_id() FROM acr_writer'),
		('REVOKE EXECUTE ON FUNCTION ai_chat_run.is_run_status(text) FROM acr_writer'),
		('REVOKE EXECUTE ON FUNCTION ai_chat_run.is_terminal_status(text) FROM acr_writer')$$,
	'and needs all three functions that the README names');

-- Who writes directly is bound by the table's guards all the same, and cannot switch them off.
SET LOCAL ROLE acr_writer;
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, finished_at)
	VALUES ('f0000000-0000-0000-0000-000000000009', gen_random_uuid(), gen_random_uuid(), 'failed', now());
SELECT throws_ok(
	$$UPDATE ai_chat_run.ai_chat_runs SET status = 'running', finished_at = NULL
		WHERE id = 'f0000000-0000-0000-0000-000000000009'$$,
	'RN410', NULL, 'a role with rights on the table cannot reopen a run');
SELECT throws_ok('SET LOCAL session_replication_role = replica', '42501', NULL, 'nor switch the guard off');
RESET ROLE;

-- An application does not become what its calls are made with.
SET LOCAL ROLE acr_app;
SELECT lives_ok(
	$$SELECT ai_chat_run.finalize_run(ai_chat_run.begin_run(gen_random_uuid(), 'a0000000-0000-0000-0000-000000000001'),
		'a0000000-0000-0000-0000-000000000001', 'completed')$$,
	'an application''s calls go to tables that are not its functions'' owner''s, too');
SELECT throws_ok('TABLE ai_chat_run.ai_chat_runs', '42501', NULL, 'which stay closed to it');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
