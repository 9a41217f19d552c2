-- Promise: the schema is the one that applications, tools and dumps were told of. The run table with its columns in
-- their order, its checks, exactly three indexes and the guard of terminal runs; every function and procedure with its
-- argument names, order, defaults and result; the views with their columns; and a comment on everything.
--
-- A later change of this file is a change of the interface.
BEGIN;
SELECT plan(86);

-- ---- the extension ----

SELECT results_eq(
	$$SELECT n.nspname::text COLLATE "default", e.extrelocatable
		FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
		WHERE e.extname = 'ai_chat_run'$$,
	$$VALUES ('ai_chat_run', false)$$,
	'the schema is fixed');

SELECT set_eq(
	$$SELECT t.relid::regclass::text, t.condition
		FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS t(relid, condition)
		WHERE e.extname = 'ai_chat_run'$$,
	$$VALUES ('ai_chat_run.ai_chat_runs', ''), ('ai_chat_run.deferred_finalizations', ''), ('ai_chat_run.runners', '')$$,
	'a dump takes all rows of all tables');

-- ---- the run table ----

SELECT results_eq(
	$$SELECT relkind::text, relpersistence::text, relrowsecurity, relhassubclass
		FROM pg_class WHERE oid = 'ai_chat_run.ai_chat_runs'::regclass$$,
	$$VALUES ('r', 'p', false, false)$$,
	'ai_chat_runs is an ordinary, durable table');

SELECT results_eq(
	$$SELECT a.attname::text COLLATE "default", format_type(a.atttypid, a.atttypmod), a.attnotnull,
			CASE WHEN d.adbin IS NOT NULL
				THEN regexp_replace(pg_get_expr(d.adbin, d.adrelid), '^ai_chat_run\.\w+\(\)$', 'made by the extension')
					COLLATE "default" END
		FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attrelid = 'ai_chat_run.ai_chat_runs'::regclass AND a.attnum > 0
		ORDER BY a.attnum$$,
	$$VALUES
		('id', 'uuid', true, 'made by the extension'),
		('chat_id', 'uuid', true, NULL),
		('workspace_id', 'uuid', true, NULL),
		('created_by', 'uuid', false, NULL),
		('assistant_message_id', 'uuid', false, NULL),
		('trigger', 'text', true, '''user''::text'),
		('status', 'text', true, '''pending''::text'),
		('error', 'text', false, NULL),
		('step_count', 'integer', true, '0'),
		('runner', 'text', false, NULL),
		('stop_requested_at', 'timestamp with time zone', false, NULL),
		('started_at', 'timestamp with time zone', false, NULL),
		('finished_at', 'timestamp with time zone', false, NULL),
		('created_at', 'timestamp with time zone', true, 'now()'),
		('updated_at', 'timestamp with time zone', true, 'now()')$$,
	'columns of ai_chat_runs: name, type, NOT NULL, default, in this order');

SELECT is_empty(
	$$SELECT attname FROM pg_attribute
		WHERE attrelid IN ('ai_chat_run.ai_chat_runs'::regclass, 'ai_chat_run.deferred_finalizations'::regclass,
				'ai_chat_run.runners'::regclass)
			AND attnum > 0 AND (attidentity <> '' OR attgenerated <> '' OR attisdropped)$$,
	'no column is generated, an identity or dropped');

-- An owner's INSERT gets along with the least.
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id)
	VALUES ('c0000000-0000-0000-0000-000000000000', 'a0000000-0000-0000-0000-000000000000');
SELECT results_eq(
	$$SELECT "trigger", status, step_count, created_at = now(), updated_at = now(),
			num_nulls(created_by, assistant_message_id, error, runner, stop_requested_at, started_at, finished_at)
		FROM ai_chat_run.ai_chat_runs WHERE chat_id = 'c0000000-0000-0000-0000-000000000000'$$,
	$$VALUES ('user', 'pending', 0, true, true, 7)$$,
	'defaults of a direct INSERT');

-- ---- ids ----

-- So many that several fall into one millisecond; the chats number them.
INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id)
	SELECT ('1d000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid, 'a0000000-0000-0000-0000-000000000000'
	FROM generate_series(1, 5000) i;
CREATE TEMP VIEW new_ids AS
	SELECT chat_id, id, replace(id::text, '-', '') AS hex
	FROM ai_chat_run.ai_chat_runs WHERE chat_id::text LIKE '1d000000%';

SELECT is_empty(
	$$SELECT id FROM new_ids WHERE hex !~ '^.{12}7.{3}[89ab].{15}$'$$,
	'new ids are version 7 UUIDs');
SELECT is_empty(
	$$SELECT id FROM (SELECT id, lag(id) OVER (ORDER BY chat_id) AS before FROM new_ids) s WHERE id <= before$$,
	'new ids ascend');
SELECT cmp_ok(
	(SELECT count(DISTINCT left(hex, 12)) FROM new_ids), '<', (SELECT count(*) FROM new_ids),
	'also within a millisecond');
SELECT is_empty(
	$$SELECT id FROM new_ids
		WHERE ('x' || left(hex, 12))::bit(48)::bigint
			NOT BETWEEN floor(extract(epoch FROM now()) * 1000) AND extract(epoch FROM clock_timestamp()) * 1000$$,
	'new ids bear the time of the database clock');
SELECT is(
	(SELECT count(DISTINCT substr(hex, 17)) FROM new_ids), (SELECT count(*) FROM new_ids),
	'new ids differ in their random part');

-- ---- indexes ----

-- Only the gate's name is interface.
SELECT set_eq(
	$$SELECT CASE WHEN c.relname ~ '_one_active_' THEN c.relname::text COLLATE "default" END, am.amname::text COLLATE "default",
			i.indisprimary, i.indisunique, i.indnullsnotdistinct, i.indimmediate, i.indisvalid AND i.indisready,
			(SELECT string_agg(pg_get_indexdef(i.indexrelid, k, true), ', ' ORDER BY k)
				FROM generate_series(1, i.indnatts) k),
			pg_get_expr(i.indpred, i.indrelid) COLLATE "default"
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
		WHERE i.indrelid = 'ai_chat_run.ai_chat_runs'::regclass$$,
	$$VALUES
		(NULL, 'btree', true, true, false, true, true, 'id', NULL),
		('ai_chat_runs_one_active_per_chat', 'btree', false, true, false, true, true, 'chat_id',
			'(status = ANY (ARRAY[''pending''::text, ''running''::text]))'),
		(NULL, 'btree', false, false, false, true, true, 'chat_id, id', NULL)$$,
	'ai_chat_runs has its three indexes and no others');

-- One INSERT each, beside a run of the status first named.
CREATE FUNCTION pg_temp.insert_beside(first text, second text) RETURNS text
LANGUAGE sql AS $$
	SELECT format(
		'INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status, finished_at)
			SELECT c, gen_random_uuid(), s, CASE WHEN s IN (''succeeded'', ''failed'', ''aborted'') THEN now() END
			FROM gen_random_uuid() c, (VALUES (%L), (%L)) v(s)', first, second)
$$;
SELECT throws_ok(
	pg_temp.insert_beside(first, second), '23505', NULL,
	format('one chat, two runs: not %s and %s', first, second))
FROM unnest(ARRAY['pending', 'running']) first, unnest(ARRAY['pending', 'running']) second;
SELECT lives_ok(
	pg_temp.insert_beside(first, second),
	format('one chat, two runs: %s and %s', first, second))
FROM unnest(ARRAY['succeeded', 'failed', 'aborted']) first, unnest(ARRAY['pending', 'failed']) second;

-- One step of one run on each page that the many INSERTs above have filled: neither an index nor want of room may keep
-- the update from being HOT.
CREATE TEMP TABLE stepping AS
	SELECT DISTINCT ON ((ctid::text::point)[0]) id, workspace_id FROM ai_chat_run.ai_chat_runs
	WHERE chat_id::text LIKE '1d000000%' ORDER BY (ctid::text::point)[0], id;
CREATE TEMP TABLE updates AS
	SELECT pg_stat_get_xact_tuples_updated('ai_chat_run.ai_chat_runs'::regclass) AS before,
		pg_stat_get_xact_tuples_hot_updated('ai_chat_run.ai_chat_runs'::regclass) AS hot_before;
SELECT set_eq(
	'SELECT ai_chat_run.record_step(id, workspace_id, 1) FROM stepping', ARRAY['continue'], 'steps are recorded');
SELECT results_eq(
	$$SELECT pg_stat_get_xact_tuples_updated('ai_chat_run.ai_chat_runs'::regclass) - before,
		pg_stat_get_xact_tuples_hot_updated('ai_chat_run.ai_chat_runs'::regclass) - hot_before FROM updates$$,
	'SELECT count(*), count(*) FROM stepping',
	'by one HOT update each');
SELECT cmp_ok((SELECT count(*) FROM stepping), '>', 10::bigint, 'on many pages');

-- ---- checks ----

CREATE FUNCTION pg_temp.insert_run(status text, finished_at text, step_count int DEFAULT 0) RETURNS text
LANGUAGE sql AS $$
	SELECT format(
		'INSERT INTO ai_chat_run.ai_chat_runs (chat_id, workspace_id, status, finished_at, step_count)
			VALUES (gen_random_uuid(), gen_random_uuid(), %L, %s, %s)', status, finished_at, step_count)
$$;
SELECT lives_ok(pg_temp.insert_run(status, 'NULL'), 'without an end: ' || status)
FROM unnest(ARRAY['pending', 'running']) status;
SELECT lives_ok(pg_temp.insert_run(status, 'now()'), 'with an end: ' || status)
FROM unnest(ARRAY['succeeded', 'failed', 'aborted']) status;
SELECT throws_ok(pg_temp.insert_run(status, 'now()'), '23514', NULL, 'not with an end: ' || status)
FROM unnest(ARRAY['pending', 'running']) status;
SELECT throws_ok(pg_temp.insert_run(status, 'NULL'), '23514', NULL, 'not without an end: ' || status)
FROM unnest(ARRAY['succeeded', 'failed', 'aborted']) status;
SELECT throws_ok(pg_temp.insert_run(status, finished_at), '23514', NULL,
	format('there is no status "%s" with finished_at %s', status, finished_at))
FROM unnest(ARRAY['', 'completed', 'error', 'Running']) status, unnest(ARRAY['NULL', 'now()']) finished_at;
SELECT throws_ok(pg_temp.insert_run('running', 'NULL', -1), '23514', NULL, 'no run has fewer than 0 steps');
SELECT lives_ok(pg_temp.insert_run('running', 'NULL', 2147483647), 'a run can have very many steps');

SELECT is_empty(
	$$SELECT conrelid::regclass, conname FROM pg_constraint
		WHERE connamespace = 'ai_chat_run'::regnamespace AND NOT convalidated$$,
	'all constraints are valid');
SELECT is_empty(
	$$SELECT conrelid::regclass, conname FROM pg_constraint
		WHERE connamespace = 'ai_chat_run'::regnamespace AND contype IN ('f', 'u', 'x')$$,
	'no table refers to another, and nothing but the primary keys and the gate is unique');

-- ---- the guard of terminal runs ----

SELECT results_eq(
	$$SELECT tgname::text COLLATE "default", tgrelid::regclass::text, tgenabled::text, tgtype::int & 1 = 1, tgtype::int & 126,
			substring(pg_get_triggerdef(oid) FROM 'WHEN (.*) EXECUTE') COLLATE "default"
		FROM pg_trigger
		WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'ai_chat_run'::regnamespace)
		ORDER BY tgname$$,
	$$VALUES
		('run_deleted', 'ai_chat_run.ai_chat_runs', 'O', true, 8,
			'((old.status = ANY (ARRAY[''pending''::text, ''running''::text])))'),
		('run_inserted', 'ai_chat_run.ai_chat_runs', 'O', true, 6, NULL),
		('runs_truncated', 'ai_chat_run.ai_chat_runs', 'O', false, 32, NULL),
		('terminal_is_final', 'ai_chat_run.ai_chat_runs', 'O', true, 16, NULL)$$,
	'four triggers, enabled: before INSERT for each row; after DELETE for each active row, after TRUNCATE for each statement, '
		'after UPDATE for each row');

INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, error, finished_at)
	SELECT id, gen_random_uuid(), gen_random_uuid(), status, 'why', now()
	FROM (VALUES
		('f0000000-0000-0000-0000-000000000001'::uuid, 'succeeded'),
		('f0000000-0000-0000-0000-000000000002', 'failed'),
		('f0000000-0000-0000-0000-000000000003', 'aborted')) v(id, status);
SELECT throws_ok(
	format('UPDATE ai_chat_run.ai_chat_runs SET %s WHERE id = %L', change, id), 'RN410', NULL,
	format('of a terminal run (%s) there is no changing %s', status, change))
FROM ai_chat_run.ai_chat_runs,
	unnest(ARRAY[
		$$status = 'running', finished_at = NULL$$,
		$$status = CASE status WHEN 'failed' THEN 'aborted' ELSE 'failed' END$$,
		$$finished_at = finished_at + interval '1 microsecond'$$,
		$$error = NULL$$,
		$$chat_id = gen_random_uuid()$$,
		$$workspace_id = gen_random_uuid()$$]) change
WHERE id::text LIKE 'f0000000%';
SELECT lives_ok(
	$$UPDATE ai_chat_run.ai_chat_runs SET assistant_message_id = gen_random_uuid(), status = status, error = error
		WHERE id = 'f0000000-0000-0000-0000-000000000001'$$,
	'the message of a terminal run can be linked');

-- ---- deferred finalizations ----

SELECT set_has(
	$$SELECT attname::text COLLATE "default", format_type(atttypid, atttypmod), attnotnull
		FROM pg_attribute WHERE attrelid = 'ai_chat_run.deferred_finalizations'::regclass AND attnum > 0$$,
	$$VALUES ('workspace_id', 'uuid', true), ('run_id', 'uuid', true), ('status', 'text', true), ('error', 'text', false)$$,
	'a deferred finalization tells run, workspace, status and error');
SELECT throws_ok(
	format('INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
		VALUES (gen_random_uuid(), gen_random_uuid(), %L, %L)', status, 'a test'),
	'23514', NULL, 'not deferrable: ' || status)
FROM unnest(ARRAY['pending', 'running', 'completed']) status;

-- ---- runners ----

SELECT results_eq(
	$$SELECT attname::text COLLATE "default", format_type(atttypid, atttypmod), attnotnull
		FROM pg_attribute WHERE attrelid = 'ai_chat_run.runners'::regclass AND attnum > 0 ORDER BY attnum$$,
	$$VALUES ('runner', 'text', true), ('incarnation', 'uuid', true),
		('since', 'timestamp with time zone', true), ('attached_in', 'timestamp with time zone', true),
		('seen_at', 'timestamp with time zone', true)$$,
	'a runner has a name and an incarnation');
SELECT throws_ok(
	$$INSERT INTO ai_chat_run.runners (runner, incarnation) VALUES ('r', gen_random_uuid()), ('r', gen_random_uuid())$$,
	'23505', NULL, 'one of each name');

-- ---- views ----

SELECT set_eq(
	$$SELECT relname::text COLLATE "default", relkind::text FROM pg_class
		WHERE relnamespace = 'ai_chat_run'::regnamespace AND relkind NOT IN ('i', 't')$$,
	$$VALUES ('ai_chat_runs', 'r'), ('deferred_finalizations', 'r'), ('runners', 'r'), ('active_runs', 'v'), ('stats', 'v'),
		('workers', 'v')$$,
	'tables and views');
-- A view may show more than it promises.
SELECT set_has(
	$$SELECT attrelid::regclass::text, attname::text COLLATE "default", format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid IN ('ai_chat_run.active_runs'::regclass, 'ai_chat_run.stats'::regclass, 'ai_chat_run.workers'::regclass)$$,
	$$VALUES
		('ai_chat_run.active_runs', 'run_id', 'uuid'),
		('ai_chat_run.active_runs', 'chat_id', 'uuid'),
		('ai_chat_run.active_runs', 'workspace_id', 'uuid'),
		('ai_chat_run.active_runs', 'runner', 'text'),
		('ai_chat_run.active_runs', 'age', 'interval'),
		('ai_chat_run.active_runs', 'last_seen', 'timestamp with time zone'),
		('ai_chat_run.active_runs', 'step_count', 'integer'),
		('ai_chat_run.active_runs', 'stop_requested', 'boolean'),
		('ai_chat_run.active_runs', 'deferred', 'boolean'),
		('ai_chat_run.stats', 'datname', 'name'),
		('ai_chat_run.stats', 'begun', 'bigint'),
		('ai_chat_run.stats', 'rejected', 'bigint'),
		('ai_chat_run.stats', 'finalized_succeeded', 'bigint'),
		('ai_chat_run.stats', 'finalized_failed', 'bigint'),
		('ai_chat_run.stats', 'finalized_aborted', 'bigint'),
		('ai_chat_run.stats', 'retries', 'bigint'),
		('ai_chat_run.stats', 'deferred', 'bigint'),
		('ai_chat_run.stats', 'settled_later', 'bigint'),
		('ai_chat_run.stats', 'swept_at_boot', 'bigint'),
		('ai_chat_run.stats', 'swept_stale', 'bigint'),
		('ai_chat_run.stats', 'stops', 'bigint'),
		('ai_chat_run.stats', 'heartbeats', 'bigint'),
		('ai_chat_run.stats', 'waits', 'bigint'),
		('ai_chat_run.stats', 'stats_reset', 'timestamp with time zone'),
		('ai_chat_run.workers', 'datname', 'name'),
		('ai_chat_run.workers', 'boot_sweep_done_at', 'timestamp with time zone'),
		('ai_chat_run.workers', 'runs_swept', 'bigint'),
		('ai_chat_run.workers', 'last_error', 'text'),
		('ai_chat_run.workers', 'next_due', 'timestamp with time zone')$$,
	'what the views show');

-- ---- functions ----

CREATE TEMP TABLE expected_functions (name text, arguments text, result text, volatility "char", kind "char" DEFAULT 'f');
INSERT INTO expected_functions VALUES
	('attach_runner', 'runner text, incarnation uuid DEFAULT NULL::uuid', 'bigint', 'v'),
	('begin_run', 'chat_id uuid, workspace_id uuid, created_by uuid DEFAULT NULL::uuid, trigger text DEFAULT ''user''::text, run_id uuid DEFAULT NULL::uuid, runner text DEFAULT NULL::text', 'uuid', 'v'),
	('delete_runs_of_chat', '', 'trigger', 'v'),
	('finalize_run', 'run_id uuid, workspace_id uuid, turn_status text, error text DEFAULT NULL::text', 'text', 'v'),
	('get_active_for_chat', 'chat_id uuid, workspace_id uuid', 'SETOF ai_chat_run.ai_chat_runs', 's'),
	('get_latest_for_chat', 'chat_id uuid, workspace_id uuid', 'SETOF ai_chat_run.ai_chat_runs', 's'),
	('get_run', 'run_id uuid, workspace_id uuid', 'SETOF ai_chat_run.ai_chat_runs', 's'),
	('grant_app_access', 'role regrole', 'void', 'v'),
	('health', 'OUT check_name text, OUT ok boolean, OUT detail text, OUT what_to_do text', 'SETOF record', 's'),
	('heartbeat', 'run_id uuid, workspace_id uuid', 'text', 'v'),
	('is_locally_active', 'run_id uuid', 'boolean', 'v'),
	('is_run_status', 'status text', 'boolean', 'i'),
	('is_terminal_status', 'status text', 'boolean', 'i'),
	('link_assistant_message', 'run_id uuid, workspace_id uuid, assistant_message_id uuid', 'boolean', 'v'),
	('map_turn_status', 'turn_status text', 'text', 'i'),
	('purge_runs', 'older_than interval, max_runs bigint DEFAULT NULL::bigint', 'bigint', 'v'),
	('record_step', 'run_id uuid, workspace_id uuid, step_count integer', 'text', 'v'),
	('request_stop', 'run_id uuid, workspace_id uuid', 'boolean', 'v'),
	('request_stop_for_chat', 'chat_id uuid, workspace_id uuid', 'uuid', 'v'),
	('settle_deferred', 'run_id uuid DEFAULT NULL::uuid', 'bigint', 'v'),
	('stats_reset', '', 'void', 'v'),
	('sweep_runs', 'stale_after interval DEFAULT NULL::interval, runner text DEFAULT NULL::text, max_runs bigint DEFAULT NULL::bigint', 'bigint', 'v'),
	('try_begin_run', 'chat_id uuid, workspace_id uuid, created_by uuid DEFAULT NULL::uuid, trigger text DEFAULT ''user''::text, run_id uuid DEFAULT NULL::uuid, runner text DEFAULT NULL::text, OUT outcome text, OUT run_id uuid', 'record', 'v');
INSERT INTO expected_functions VALUES
	('await_run', 'IN run_id uuid, IN workspace_id uuid, IN timeout interval DEFAULT ''00:00:30''::interval, INOUT status text DEFAULT NULL::text, INOUT error text DEFAULT NULL::text', NULL, 'v', 'p'),
	('await_stop', 'IN run_id uuid, IN workspace_id uuid, IN timeout interval DEFAULT ''00:00:30''::interval, INOUT signal text DEFAULT NULL::text', NULL, 'v', 'p'),
	('await_stops', 'IN runner text, IN already_seen uuid[] DEFAULT ''{}''::uuid[], IN timeout interval DEFAULT ''00:00:30''::interval, INOUT run_ids uuid[] DEFAULT NULL::uuid[]', NULL, 'v', 'p'),
	('supersede_run', 'IN chat_id uuid, IN target_run_id uuid, IN workspace_id uuid, IN created_by uuid DEFAULT NULL::uuid, IN trigger text DEFAULT ''user''::text, IN timeout interval DEFAULT ''00:00:10''::interval, IN force boolean DEFAULT false, INOUT outcome text DEFAULT NULL::text, INOUT run_id uuid DEFAULT NULL::uuid', NULL, 'v', 'p');

-- What is there beside them serves the table, as a trigger's function or a column's default, or a view or health().
CREATE TEMP VIEW functions AS
	SELECT p.proname::text COLLATE "default" AS name, pg_get_function_arguments(p.oid) AS arguments,
		pg_get_function_result(p.oid) AS result, p.provolatile AS volatility, p.prokind AS kind, p.proisstrict,
		p.prosecdef, p.proparallel
	FROM pg_proc p
	WHERE p.pronamespace = 'ai_chat_run'::regnamespace
		AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid
			AND t.tgrelid = 'ai_chat_run.ai_chat_runs'::regclass)
		AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_attrdef'::regclass
			AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid)
		AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_rewrite'::regclass
			AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid)
		AND p.proname <> 'server_state';

SELECT results_eq(
	$$SELECT name, arguments, result, volatility, kind FROM functions ORDER BY name COLLATE "C", arguments$$,
	$$SELECT * FROM expected_functions ORDER BY name COLLATE "C"$$,
	'functions and procedures: name, arguments in their order with names and defaults, result, volatility');
SELECT is_empty(
	$$SELECT name FROM functions WHERE proisstrict AND arguments <> ''$$,
	'none is STRICT: a null where a value is needed is an error, not a silent null');
SELECT is_empty(
	$$SELECT name, prosecdef FROM functions
		WHERE prosecdef = (name IN ('map_turn_status', 'is_run_status', 'is_terminal_status', 'grant_app_access') OR kind = 'p')
			AND name NOT IN ('sweep_runs', 'purge_runs', 'stats_reset', 'health')$$,
	'those for applications are SECURITY DEFINER where they touch the table, but for procedures, which could not commit; '
		'grant_app_access grants as its caller');
SELECT is_empty(
	$$SELECT name, proparallel FROM functions
		WHERE proparallel <> 'u'
				AND name NOT IN ('map_turn_status', 'is_run_status', 'is_terminal_status', 'get_run', 'get_latest_for_chat', 'get_active_for_chat', 'health')
			OR name IN ('map_turn_status', 'is_run_status', 'is_terminal_status') AND proparallel <> 's'$$,
	'those that write are PARALLEL UNSAFE, those of states are PARALLEL SAFE');

-- The argument names of contract and catalog as a caller uses them, in another order than declared.
SELECT lives_ok(
	$$SELECT ai_chat_run.begin_run(runner => 'r', run_id => gen_random_uuid(), trigger => 'retry',
		created_by => gen_random_uuid(), workspace_id => gen_random_uuid(), chat_id => gen_random_uuid())$$,
	'begin_run takes all its arguments by name');
SELECT results_eq(
	$$SELECT outcome, run_id FROM ai_chat_run.try_begin_run(runner => 'r', run_id => 'f1000000-0000-0000-0000-000000000001',
		trigger => 'retry', created_by => gen_random_uuid(), workspace_id => gen_random_uuid(), chat_id => gen_random_uuid())$$,
	$$VALUES ('began', 'f1000000-0000-0000-0000-000000000001'::uuid)$$,
	'try_begin_run too, though run_id comes in and out');

SELECT throws_ok(command, '25001', NULL, split_part(command, '(', 1) || ' takes all its arguments by name')
FROM unnest(ARRAY[
	$$CALL ai_chat_run.await_run(error => NULL, status => NULL, timeout => '0', workspace_id => gen_random_uuid(),
		run_id => gen_random_uuid())$$,
	$$CALL ai_chat_run.await_stops(run_ids => NULL, timeout => '0', already_seen => '{}', runner => 'r')$$,
	$$CALL ai_chat_run.supersede_run(run_id => NULL, outcome => NULL, force => true, timeout => '0', trigger => 'retry',
		created_by => NULL, workspace_id => gen_random_uuid(), target_run_id => gen_random_uuid(),
		chat_id => gen_random_uuid())$$]) command;

-- ---- comments ----

-- Everything that is a member of the extension, and the parts of its tables and views. What the server makes by itself
-- has none: row types, and since 18 the constraints behind NOT NULL. A key's index bears its constraint's comment.
CREATE TEMP VIEW described AS
	WITH members AS (
		SELECT d.classid, d.objid, d.objsubid
		FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
		WHERE e.extname = 'ai_chat_run' AND d.deptype = 'e' AND d.classid <> 'pg_type'::regclass
	), parts AS (
		SELECT * FROM members
		UNION
		SELECT m.classid, a.attrelid, a.attnum FROM pg_attribute a JOIN members m ON m.objid = a.attrelid
				JOIN pg_class c ON c.oid = a.attrelid
			WHERE m.classid = 'pg_class'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v')
		UNION
		SELECT c.tableoid, c.oid, 0 FROM pg_constraint c JOIN members m ON m.objid = c.conrelid
			WHERE m.classid = 'pg_class'::regclass AND c.contype <> 'n'
		UNION
		SELECT 'pg_class'::regclass, i.indexrelid, 0 FROM pg_index i JOIN members m ON m.objid = i.indrelid
			WHERE m.classid = 'pg_class'::regclass
				AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.conrelid = i.indrelid)
		UNION
		SELECT t.tableoid, t.oid, 0 FROM pg_trigger t JOIN members m ON m.objid = t.tgrelid
			WHERE m.classid = 'pg_class'::regclass AND NOT t.tgisinternal
		UNION
		SELECT e.tableoid, e.oid, 0 FROM pg_extension e WHERE e.extname = 'ai_chat_run'
	)
	SELECT o.type, o.identity, s.description
	FROM parts p CROSS JOIN LATERAL pg_identify_object(p.classid, p.objid, p.objsubid) o
		LEFT JOIN pg_description s ON s.classoid = p.classid AND s.objoid = p.objid AND s.objsubid = p.objsubid;

SELECT is_empty(
	$$SELECT type, identity FROM described WHERE coalesce(description, '') = '' ORDER BY 1, 2$$,
	'nothing is without a comment');
SELECT set_eq(
	$$SELECT DISTINCT type FROM described$$,
	$$VALUES ('extension'), ('table'), ('table column'), ('table constraint'), ('index'), ('trigger'), ('function'),
		('procedure'), ('view'), ('view column')$$,
	'as was looked up for everything the extension has');

SELECT * FROM finish();
ROLLBACK;
