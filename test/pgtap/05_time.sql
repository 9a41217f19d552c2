-- Promise: all times come from the database clock, are in the order in which things happened
-- (created_at <= started_at <= finished_at), and are the same instants whatever TimeZone, DateStyle and IntervalStyle
-- the session has.
BEGIN;
SELECT plan(37);
SET LOCAL client_min_messages = error;
SET LOCAL log_min_messages = error;
SET LOCAL ai_chat_run.finalize_retry_base = 0;

CREATE FUNCTION pg_temp.run(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
	$$SELECT ('f0000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid$$;
CREATE FUNCTION pg_temp.ws() RETURNS uuid LANGUAGE sql IMMUTABLE AS
	$$SELECT 'a0000000-0000-0000-0000-000000000001'::uuid$$;
CREATE FUNCTION pg_temp.begin(n int) RETURNS uuid LANGUAGE sql AS
	$$SELECT ai_chat_run.begin_run(pg_temp.run(n), pg_temp.ws(), run_id => pg_temp.run(n))$$;
CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'a test' USING ERRCODE = 'disk_full';
END
$$;

-- Does what the command says, and keeps the clock from before and after and the run's row as it is then.
CREATE TEMP TABLE history (
	n serial, run int, did text, before timestamptz, after timestamptz, row ai_chat_run.ai_chat_runs);
CREATE FUNCTION pg_temp.timed(run int, did text, command text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	before timestamptz := clock_timestamp();
BEGIN
	EXECUTE command;
	INSERT INTO history (run, did, before, after, row)
		SELECT timed.run, timed.did, before, clock_timestamp(), r FROM ai_chat_run.ai_chat_runs r WHERE id = pg_temp.run(run);
END
$$;

-- A run's life as its runner leads it, and ends that others bring about.
CREATE FUNCTION pg_temp.live(first int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	how text;
	n int := first;
	run text;
BEGIN
	FOREACH how IN ARRAY ARRAY['finalized', 'swept', 'deferred'] LOOP
		run := format('%L, %L', pg_temp.run(n), pg_temp.ws());
		PERFORM pg_temp.timed(n, 'begin', format('SELECT pg_temp.begin(%s)', n));
		PERFORM pg_temp.timed(n, 'step', format('SELECT ai_chat_run.record_step(%s, 1)', run));
		PERFORM pg_temp.timed(n, 'heartbeat', format('SELECT ai_chat_run.heartbeat(%s)', run));
		PERFORM pg_temp.timed(n, 'stop', format('SELECT ai_chat_run.request_stop(%s)', run));
		PERFORM pg_temp.timed(n, 'stop again', format('SELECT ai_chat_run.request_stop(%s)', run));
		IF how = 'finalized' THEN
			PERFORM pg_temp.timed(n, 'finalize', format('SELECT ai_chat_run.finalize_run(%s, ''completed'')', run));
			PERFORM pg_temp.timed(n, 'finalize again', format('SELECT ai_chat_run.finalize_run(%s, ''error'')', run));
		ELSIF how = 'swept' THEN
			PERFORM pg_temp.timed(n, 'sweep', 'SELECT ai_chat_run.sweep_runs(''0 s'')');
		ELSE
			CREATE TRIGGER fail BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.fail();
			PERFORM pg_temp.timed(n, 'defer', format('SELECT ai_chat_run.finalize_run(%s, ''completed'')', run));
			DROP TRIGGER fail ON ai_chat_run.ai_chat_runs;
			PERFORM pg_temp.timed(n, 'settle', 'SELECT ai_chat_run.settle_deferred()');
		END IF;
		PERFORM pg_temp.timed(n, 'link', format('SELECT ai_chat_run.link_assistant_message(%s, gen_random_uuid())', run));
		n := n + 1;
	END LOOP;
END
$$;

-- ---- the clock ----

-- Long after the transaction's start, as far as the clock can tell.
SELECT cmp_ok(clock_timestamp(), '>', now(), 'the clock goes on within the transaction');
SELECT pg_temp.live(1);

-- What came to pass with which call. A null says that it had not, before.
CREATE TEMP VIEW changes AS
	SELECT n, run, did, before, after, (row).*,
		(row).started_at IS DISTINCT FROM lag((row).started_at) OVER w AS started,
		(row).stop_requested_at IS DISTINCT FROM lag((row).stop_requested_at) OVER w AS stopped,
		(row).finished_at IS DISTINCT FROM lag((row).finished_at) OVER w AS finished,
		(row).created_at IS DISTINCT FROM lag((row).created_at) OVER w AS created,
		lag((row).updated_at) OVER w AS updated_before
	FROM history WINDOW w AS (PARTITION BY run ORDER BY n);
SELECT results_eq(
	$$SELECT run, did, created, started, stopped, finished FROM changes WHERE created OR started OR stopped OR finished
		ORDER BY n$$,
	$$VALUES
		(1, 'begin', true, true, false, false), (1, 'stop', false, false, true, false),
		(1, 'finalize', false, false, false, true),
		(2, 'begin', true, true, false, false), (2, 'stop', false, false, true, false),
		(2, 'sweep', false, false, false, true),
		(3, 'begin', true, true, false, false), (3, 'stop', false, false, true, false),
		(3, 'settle', false, false, false, true)$$,
	'each time is set once, by the call that it is of');
SELECT is_empty(
	$$SELECT run, did, created_at FROM changes WHERE created_at <> now()$$,
	'created_at is the start of the transaction');
SELECT is_empty(
	$$SELECT run, did FROM changes WHERE started AND started_at NOT BETWEEN before AND after$$,
	'started_at is the clock at the begin');
SELECT is_empty(
	$$SELECT run, did FROM changes WHERE stopped AND stop_requested_at NOT BETWEEN before AND after$$,
	'stop_requested_at is the clock at the first request');
SELECT is_empty(
	$$SELECT run, did FROM changes WHERE finished AND did <> 'settle' AND finished_at NOT BETWEEN before AND after$$,
	'finished_at is the clock at the end');
SELECT is_empty(
	$$SELECT s.run FROM changes s JOIN changes d USING (run)
		WHERE s.did = 'settle' AND d.did = 'defer' AND s.finished_at NOT BETWEEN d.before AND s.after$$,
	'that of a deferred end lies between its decision and its writing');
SELECT is_empty(
	$$SELECT run, did FROM changes WHERE did IN ('begin', 'step', 'heartbeat') AND updated_at NOT BETWEEN before AND after$$,
	'updated_at is the clock at the last call of the runner');
SELECT is_empty(
	$$SELECT run, did FROM changes WHERE updated_at < updated_before OR updated_at > after$$,
	'updated_at never goes back');
SELECT is_empty(
	$$SELECT run, did FROM changes
		WHERE NOT (created_at <= started_at AND started_at <= coalesce(stop_requested_at, started_at)
			AND coalesce(stop_requested_at, started_at) <= coalesce(finished_at, 'infinity') AND created_at <= updated_at
			AND coalesce(finished_at, started_at) <= updated_at)$$,
	'created_at <= started_at <= stop_requested_at <= finished_at <= updated_at');
SELECT is_empty(
	$$SELECT id FROM ai_chat_run.ai_chat_runs
		WHERE NOT isfinite(created_at) OR NOT isfinite(started_at) OR NOT isfinite(finished_at)$$,
	'no time is infinite');

-- An owner's row begins with the transaction's clock and ends with that of the call.
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (pg_temp.run(9), pg_temp.run(9), pg_temp.ws());
SELECT is(ai_chat_run.finalize_run(pg_temp.run(9), pg_temp.ws(), 'completed'), 'finalized', 'a pending run is finalized');
SELECT results_eq(
	$$SELECT created_at = now(), started_at, finished_at > created_at FROM ai_chat_run.get_run(pg_temp.run(9), pg_temp.ws())$$,
	$$VALUES (true, NULL::timestamptz, true)$$,
	'it has a beginning and an end, though it never started');

-- ---- zones and styles ----

CREATE TEMP TABLE places (zone text, datestyle text, intervalstyle text);
INSERT INTO places VALUES
	('UTC', 'ISO, MDY', 'postgres'),
	('Asia/Kolkata', 'SQL, DMY', 'sql_standard'),
	('America/New_York', 'Postgres, MDY', 'iso_8601'),
	('Pacific/Kiritimati', 'German, DMY', 'postgres_verbose'),
	('Etc/GMT+12', 'ISO, YMD', 'postgres'),
	('Europe/Berlin', 'Postgres, DMY', 'postgres'),
	('<+1345>-13:45', 'SQL, MDY', 'postgres');
CREATE FUNCTION pg_temp.move_to(place places) RETURNS void LANGUAGE sql AS $$
	SELECT set_config('TimeZone', place.zone, true), set_config('DateStyle', place.datestyle, true),
		set_config('IntervalStyle', place.intervalstyle, true);
$$;

-- A life in each place.
TRUNCATE history;
SELECT lives_ok(
	format('SELECT pg_temp.move_to(p), pg_temp.live(%s) FROM places p WHERE zone = %L', 100 * row_number() OVER (), zone),
	'a run''s life in ' || zone)
FROM places;
RESET TimeZone;
RESET DateStyle;
RESET IntervalStyle;
SELECT is((SELECT count(DISTINCT run) FROM changes WHERE finished_at IS NOT NULL), 3 * (SELECT count(*) FROM places),
	'every run of these came to its end');
SELECT is_empty(
	$$SELECT run, did FROM changes WHERE started AND started_at NOT BETWEEN before AND after
		OR stopped AND stop_requested_at NOT BETWEEN before AND after
		OR finished AND finished_at NOT BETWEEN started_at AND after
		OR did IN ('begin', 'step', 'heartbeat') AND updated_at NOT BETWEEN before AND after
		OR created_at <> now()$$,
	'their times are those of the clock');
SELECT is_empty(
	$$SELECT run, did FROM changes
		WHERE NOT (created_at <= started_at AND started_at <= coalesce(stop_requested_at, started_at)
			AND coalesce(stop_requested_at, started_at) <= coalesce(finished_at, 'infinity')
			AND coalesce(finished_at, started_at) <= updated_at)$$,
	'and in order');
SELECT is_empty(
	$$SELECT run, did FROM (SELECT run, did, n, started_at, max(started_at) OVER (ORDER BY n) AS latest FROM changes) c
		WHERE started_at < latest AND did = 'begin'$$,
	'from place to place, too');

-- Begun in one place, finalized in the next.
SELECT pg_temp.begin(50);
CREATE TEMP TABLE begun AS SELECT * FROM ai_chat_run.get_run(pg_temp.run(50), pg_temp.ws());
CREATE FUNCTION pg_temp.busy_since() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM ai_chat_run.begin_run(pg_temp.run(50), pg_temp.ws());
	RETURN NULL;
EXCEPTION
	WHEN SQLSTATE 'RN409' THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
		RETURN substring(detail FROM 'since (\d.*)\.$');
END
$$;
-- What can have been silent for an interval, and what is old enough: measured in the place, too.
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, created_at, finished_at)
	SELECT pg_temp.run(1000 + age), pg_temp.run(1000 + age), pg_temp.run(age), 'aborted', now() - interval '1 year',
		clock_timestamp() - make_interval(hours => age)
	FROM generate_series(1, 9) age;
CREATE FUNCTION pg_temp.purge_at(place places) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	purged bigint;
BEGIN
	PERFORM pg_temp.move_to(place);
	purged := ai_chat_run.purge_runs('04:30:00');
	RAISE EXCEPTION USING ERRCODE = 'UNDOO';
EXCEPTION
	WHEN SQLSTATE 'UNDOO' THEN
		RETURN purged;
END
$$;

SELECT is(pg_temp.busy_since()::timestamptz, started_at, 'the error of a busy chat tells since when') FROM begun;
SELECT pg_temp.move_to(p) FROM places p WHERE zone = 'Asia/Kolkata';
SELECT is(pg_temp.busy_since()::timestamptz, started_at, 'wherever one asks') FROM begun;
SELECT pg_temp.move_to(p) FROM places p WHERE zone = 'Pacific/Kiritimati';
SELECT is(pg_temp.busy_since()::timestamptz, started_at, 'and asks again') FROM begun;
SELECT pg_temp.move_to(p) FROM places p WHERE zone = '<+1345>-13:45';
SELECT is(pg_temp.busy_since()::timestamptz, started_at, 'even far away') FROM begun;
SELECT pg_temp.move_to(p) FROM places p WHERE zone = 'Etc/GMT+12';
SELECT is(ai_chat_run.finalize_run(pg_temp.run(50), pg_temp.ws(), 'completed'), 'finalized', 'it is finalized in another place');
SELECT results_eq(
	$$SELECT r.created_at = b.created_at, r.started_at = b.started_at, r.finished_at > b.started_at
		FROM ai_chat_run.get_run(pg_temp.run(50), pg_temp.ws()) r, begun b$$,
	$$VALUES (true, true, true)$$,
	'later than it began');

SELECT is(pg_temp.purge_at(places), 5::bigint, 'a purge of what is older than 4 h 30 min, in ' || zone) FROM places;

SELECT * FROM finish();
ROLLBACK;
