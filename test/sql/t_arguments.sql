-- Every function says which argument is missing or makes no sense, before it touches anything; a null is welcome only where
-- it has a meaning.
\set SHOW_CONTEXT never
\pset null '(null)'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
\set u 'a0000000-0000-4000-8000-000000000001'

CREATE FUNCTION pg_temp.refusal(call text, OUT state text, OUT message text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT ' || call;
	message := 'accepted';
EXCEPTION WHEN others THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
END
$$;

-- a null in each place
SELECT call, r.* FROM (VALUES
	(1, 'begin_run(NULL, @)'),
	(2, 'begin_run(@, NULL)'),
	(3, 'try_begin_run(NULL, @)'),
	(4, 'try_begin_run(@, NULL)'),
	(5, 'record_step(NULL, @, 1)'),
	(6, 'record_step(@, NULL, 1)'),
	(7, 'record_step(@, @, NULL)'),
	(8, 'heartbeat(NULL, @)'),
	(9, 'heartbeat(@, NULL)'),
	(10, 'link_assistant_message(NULL, @, @)'),
	(11, 'link_assistant_message(@, NULL, @)'),
	(12, 'link_assistant_message(@, @, NULL)'),
	(13, 'finalize_run(NULL, @, ''completed'')'),
	(14, 'finalize_run(@, NULL, ''completed'')'),
	(15, 'finalize_run(@, @, NULL)'),
	(16, 'map_turn_status(NULL)'),
	(17, 'request_stop(NULL, @)'),
	(18, 'request_stop(@, NULL)'),
	(19, 'request_stop_for_chat(NULL, @)'),
	(20, 'request_stop_for_chat(@, NULL)'),
	(21, 'get_run(NULL, @)'),
	(22, 'get_run(@, NULL)'),
	(23, 'get_latest_for_chat(NULL, @)'),
	(24, 'get_latest_for_chat(@, NULL)'),
	(25, 'get_active_for_chat(NULL, @)'),
	(26, 'get_active_for_chat(@, NULL)'),
	(27, 'purge_runs(NULL)'),
	(28, 'grant_app_access(NULL)'),
	-- nulls with a meaning
	(31, 'begin_run(@, @, NULL, NULL, NULL, NULL)'),
	(32, 'try_begin_run(@, @, NULL, NULL, NULL, NULL)'),
	(33, 'finalize_run(@, @, ''completed'', NULL)'),
	(34, 'settle_deferred(NULL)'),
	(35, 'sweep_runs(NULL, NULL, NULL)'),
	(36, 'purge_runs(''1 day'', NULL)')
) AS v(n, call), LATERAL pg_temp.refusal('ai_chat_run.' || replace(call, '@', quote_literal(:'u') || '::uuid')) r
ORDER BY n;
TRUNCATE ai_chat_run.ai_chat_runs;

-- what makes no sense
SELECT call, r.* FROM (VALUES
	(1, 'record_step(@, @, -1)'),
	(2, 'finalize_run(@, @, ''running'')'),
	(3, 'finalize_run(@, @, '''')'),
	(4, 'map_turn_status(''done'')'),
	(5, 'begin_run(@, @, runner => repeat(''x'', 128))'),
	(6, 'try_begin_run(@, @, runner => repeat(''x'', 128))'),
	(7, 'sweep_runs(''-1 microsecond'')'),
	(8, 'sweep_runs(max_runs => -1)'),
	(9, 'purge_runs(''-1 microsecond'')'),
	(10, 'purge_runs(''1 day'', -1)'),
	(11, 'grant_app_access(''-'')'),
	(12, 'grant_app_access(''0'')'),
	(13, 'grant_app_access(''regress_acr_nobody'')'),
	(14, 'grant_app_access(4294967295)')
) AS v(n, call), LATERAL pg_temp.refusal('ai_chat_run.' || replace(call, '@', quote_literal(:'u') || '::uuid')) r
ORDER BY n;

-- refused before anything was touched: there is no transaction id either
BEGIN;
SELECT r.state FROM pg_temp.refusal($$ai_chat_run.record_step(gen_random_uuid(), gen_random_uuid(), -1)$$) r;
SELECT r.state FROM pg_temp.refusal($$ai_chat_run.begin_run(gen_random_uuid(), NULL)$$) r;
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_transaction_id;
ROLLBACK;
SELECT count(*) FROM ai_chat_run.ai_chat_runs;

-- how a turn's word for its end becomes the run's
SELECT turn, ai_chat_run.map_turn_status(turn) FROM (VALUES ('completed'), ('error'), ('aborted')) v(turn);
