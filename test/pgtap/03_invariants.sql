-- Promise: whatever calls and direct writes come, in whatever order, rolled back or not, the invariants of the run
-- table hold and each call answers as a simple model says. A seeded generator drives a few thousand operations over
-- a few chats; after each one the table is compared with the model and with what was seen before.
BEGIN;
SELECT plan(17);
-- Calls that fail on purpose warn.
SET LOCAL client_min_messages = error;
SET LOCAL log_min_messages = error;
SET LOCAL ai_chat_run.finalize_retry_base = 0;
SET LOCAL ai_chat_run.finalize_max_attempts = 2;

-- ---- the model ----

-- What the extension should know. "deferred" is the status decided for a run that stays active until it is settled.
CREATE TEMP TABLE model (
	n serial,
	id uuid PRIMARY KEY,
	chat_id uuid NOT NULL,
	workspace_id uuid NOT NULL,
	status text NOT NULL,
	error text,
	step_count int NOT NULL DEFAULT 0,
	runner text,
	stop_requested boolean NOT NULL DEFAULT false,
	assistant_message_id uuid,
	deferred text,
	deferred_error text
);
CREATE FUNCTION pg_temp.is_active(model) RETURNS boolean LANGUAGE sql AS $$SELECT $1.status IN ('pending', 'running')$$;

-- What was seen of each run after the last operation, and the last id that the extension made.
CREATE TEMP TABLE seen (LIKE ai_chat_run.ai_chat_runs, PRIMARY KEY (id));
CREATE TEMP TABLE last_id (id uuid);
INSERT INTO last_id VALUES ('00000000-0000-0000-0000-000000000000');

-- Which operation ended how, and each breach of a promise.
CREATE TEMP TABLE log (seed float8, operation text, outcome text);
CREATE TEMP TABLE breaches (seed float8, step int, promise text, detail text);

CREATE TEMP TABLE chats (id uuid PRIMARY KEY, workspace_id uuid NOT NULL);
INSERT INTO chats VALUES
	('c0000000-0000-0000-0000-000000000001', 'a0000000-0000-0000-0000-000000000001'),
	('c0000000-0000-0000-0000-000000000002', 'a0000000-0000-0000-0000-000000000001'),
	('c0000000-0000-0000-0000-000000000003', 'a0000000-0000-0000-0000-000000000002'),
	('c0000000-0000-0000-0000-000000000004', 'a0000000-0000-0000-0000-000000000002');
CREATE TRIGGER runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();

-- While test.fail is on, no run can be made terminal: the row is written, and then there is an error.
CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('test.fail') = 'on' AND NEW.finished_at IS NOT NULL THEN
		RAISE EXCEPTION 'the disk is full' USING ERRCODE = 'disk_full';
	END IF;
	RETURN NULL;
END
$$;
SET LOCAL test.fail = off;
CREATE TRIGGER fail AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.fail();

-- ---- chance, the same with the same seed ----

CREATE FUNCTION pg_temp.chance(percent int) RETURNS boolean LANGUAGE sql AS $$SELECT random() * 100 < percent$$;
CREATE FUNCTION pg_temp.pick(anycompatiblearray) RETURNS anycompatible LANGUAGE sql AS
	$$SELECT $1[1 + floor(random() * cardinality($1))::int]$$;
CREATE FUNCTION pg_temp.some_uuid() RETURNS uuid LANGUAGE sql AS $$SELECT md5(random()::text)::uuid$$;

-- Mostly one of a chat's last runs, sometimes any run, sometimes one that there is not.
CREATE FUNCTION pg_temp.some_run(chat uuid) RETURNS model LANGUAGE plpgsql AS $$
DECLARE
	r model;
BEGIN
	IF pg_temp.chance(75) THEN
		SELECT * INTO r FROM model WHERE chat_id = chat ORDER BY n DESC OFFSET floor(random() * 3) LIMIT 1;
	ELSIF pg_temp.chance(80) THEN
		SELECT * INTO r FROM model ORDER BY n OFFSET floor(random() * (SELECT count(*) FROM model)) LIMIT 1;
	END IF;
	IF r.id IS NULL THEN
		r.id := pg_temp.some_uuid();
		r.chat_id := chat;
		r.workspace_id := 'a0000000-0000-0000-0000-000000000001';
	END IF;
	RETURN r;
END
$$;

-- ---- operations ----

-- What a command gives, or the SQLSTATE of its error.
CREATE FUNCTION pg_temp.outcome_of(command text, failing boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	outcome text;
BEGIN
	PERFORM set_config('test.fail', CASE WHEN failing THEN 'on' ELSE 'off' END, true);
	EXECUTE command INTO outcome;
	PERFORM set_config('test.fail', 'off', true);
	RETURN coalesce(outcome, 'null');
EXCEPTION
	WHEN OTHERS THEN
		RETURN SQLSTATE;
END
$$;

CREATE FUNCTION pg_temp.breach(promise text, detail text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO breaches VALUES (current_setting('test.seed')::float8, current_setting('test.step')::int, promise, detail)
$$;

-- Notes an outcome; kind is what the log shows of one that is never the same.
CREATE FUNCTION pg_temp.note(operation text, outcome text, expected text, kind text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log VALUES (current_setting('test.seed')::float8, operation, coalesce(kind, outcome));
	IF outcome IS DISTINCT FROM expected THEN
		PERFORM pg_temp.breach('outcomes', format('%s: %s, expected %s', operation, outcome, expected));
	END IF;
END
$$;

CREATE FUNCTION pg_temp.do_begin(chat chats) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	holder model;
	given model;
	ws uuid := chat.workspace_id;
	runner text := pg_temp.pick(ARRAY[NULL, 'r1', 'r2']);
	try boolean := pg_temp.chance(50);
	expected text;
	outcome text;
	new_id uuid;
BEGIN
	SELECT * INTO holder FROM model m WHERE m.chat_id = chat.id AND pg_temp.is_active(m);
	-- A begin that meets a deferred finalization: plainly.
	IF holder.deferred IS NULL THEN
		IF pg_temp.chance(30) THEN
			given := pg_temp.some_run(pg_temp.pick(ARRAY(SELECT id FROM chats ORDER BY id) || chat.id || chat.id));
		ELSIF pg_temp.chance(15) THEN
			ws := pg_temp.pick(ARRAY(SELECT DISTINCT workspace_id FROM chats ORDER BY 1));
		END IF;
	END IF;

	IF given.status IS NOT NULL AND given.chat_id = chat.id AND given.workspace_id = ws THEN
		expected := 'resumed ' || given.id;
	ELSIF holder.id IS NOT NULL AND holder.deferred IS NULL THEN
		expected := 'busy ' || CASE WHEN holder.workspace_id = ws THEN holder.id::text ELSE '-' END;
	ELSIF given.status IS NOT NULL THEN
		expected := '23505';
	ELSE
		expected := 'began';
	END IF;

	IF try THEN
		outcome := pg_temp.outcome_of(format(
			'SELECT outcome || '' '' || coalesce(run_id::text, ''-'')
				FROM ai_chat_run.try_begin_run(%L, %L, run_id => %L, runner => %L)', chat.id, ws, given.id, runner));
	ELSE
		outcome := pg_temp.outcome_of(format('SELECT ai_chat_run.begin_run(%L, %L, run_id => %L, runner => %L)',
			chat.id, ws, given.id, runner));
		expected := regexp_replace(regexp_replace(expected, '^resumed ', ''), '^busy .*', 'RN409');
	END IF;

	IF expected = 'began' AND outcome ~ (CASE WHEN try THEN '^began ' ELSE '^.{36}$' END) THEN
		new_id := right(outcome, 36)::uuid;
		outcome := 'began';
		UPDATE model SET status = deferred, error = deferred_error, deferred = NULL, deferred_error = NULL
			WHERE id = holder.id;
		INSERT INTO model (id, chat_id, workspace_id, status, runner) VALUES (new_id, chat.id, ws, 'running', runner);
		IF new_id IS DISTINCT FROM coalesce(given.id, new_id) THEN
			PERFORM pg_temp.breach('outcomes', 'a given run_id is not that of the new run');
		END IF;
		IF given.id IS NULL THEN
			IF new_id <= (SELECT id FROM last_id) THEN
				PERFORM pg_temp.breach('ids ascend', new_id::text);
			END IF;
			UPDATE last_id SET id = new_id;
		END IF;
	END IF;
	PERFORM pg_temp.note(CASE WHEN try THEN 'try_begin' ELSE 'begin' END, outcome, expected,
		CASE WHEN outcome ~ '^.{36}$' THEN 'resumed' ELSE split_part(outcome, ' ', 1) END
			|| CASE WHEN holder.deferred IS NOT NULL THEN ', settled' ELSE '' END);
END
$$;

-- record_step and heartbeat
CREATE FUNCTION pg_temp.do_signal(r model, ws uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	is_step boolean := pg_temp.chance(60);
	steps int := CASE WHEN pg_temp.chance(5) THEN -1 WHEN pg_temp.chance(5) THEN NULL ELSE floor(random() * 20) END;
	expected text;
BEGIN
	IF is_step AND steps IS NULL THEN
		expected := '22004';
	ELSIF is_step AND steps < 0 THEN
		expected := '22023';
	ELSIF r.status IS NULL OR ws <> r.workspace_id THEN
		expected := 'not_found';
	ELSIF NOT pg_temp.is_active(r) THEN
		expected := 'finalized';
	ELSE
		expected := CASE WHEN r.stop_requested THEN 'stop' ELSE 'continue' END;
		IF is_step THEN
			UPDATE model SET step_count = greatest(step_count, steps) WHERE id = r.id;
		END IF;
	END IF;
	IF is_step THEN
		PERFORM pg_temp.note('record_step', pg_temp.outcome_of(
			format('SELECT ai_chat_run.record_step(%L, %L, %L)', r.id, ws, steps)), expected);
	ELSE
		PERFORM pg_temp.note('heartbeat', pg_temp.outcome_of(
			format('SELECT ai_chat_run.heartbeat(%L, %L)', r.id, ws)), expected);
	END IF;
END
$$;

CREATE FUNCTION pg_temp.do_link(r model, ws uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	message uuid := pg_temp.some_uuid();
	expected text := CASE WHEN r.status IS NULL OR ws <> r.workspace_id THEN 'false' ELSE 'true' END;
BEGIN
	PERFORM pg_temp.note('link', pg_temp.outcome_of(
		format('SELECT ai_chat_run.link_assistant_message(%L, %L, %L)', r.id, ws, message)), expected);
	UPDATE model SET assistant_message_id = message WHERE id = r.id AND expected = 'true';
END
$$;

CREATE FUNCTION pg_temp.do_finalize(r model, ws uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	failing boolean := pg_temp.chance(40);
	turn text := CASE WHEN pg_temp.chance(4) THEN 'succeeded' WHEN pg_temp.chance(4) THEN NULL
		ELSE pg_temp.pick(ARRAY['completed', 'error', 'aborted']) END;
	why text := pg_temp.pick(ARRAY[NULL, 'e1', 'e2']);
	decided text := CASE turn WHEN 'completed' THEN 'succeeded' WHEN 'error' THEN 'failed' ELSE turn END;
	expected text;
BEGIN
	IF turn IS NULL THEN
		expected := '22004';
	ELSIF turn = 'succeeded' THEN
		expected := '22023';
	ELSIF r.status IS NULL OR ws <> r.workspace_id THEN
		expected := 'not_found';
	ELSIF NOT pg_temp.is_active(r) THEN
		expected := 'already_finalized';
	ELSIF failing THEN
		-- The first one recorded wins.
		expected := 'deferred';
		UPDATE model SET deferred = decided, deferred_error = why WHERE id = r.id AND deferred IS NULL;
	ELSIF r.deferred IS NOT NULL THEN
		expected := 'already_finalized';
		UPDATE model SET status = deferred, error = deferred_error, deferred = NULL, deferred_error = NULL WHERE id = r.id;
	ELSE
		expected := 'finalized';
		UPDATE model SET status = decided, error = why WHERE id = r.id;
	END IF;
	PERFORM pg_temp.note('finalize', pg_temp.outcome_of(
		format('SELECT ai_chat_run.finalize_run(%L, %L, %L, %L)', r.id, ws, turn, why), failing), expected,
		CASE WHEN r.deferred IS NOT NULL AND ws = r.workspace_id THEN expected || ', was deferred' END);
END
$$;

CREATE FUNCTION pg_temp.do_stop(r model, ws uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	active boolean := r.status IS NOT NULL AND ws = r.workspace_id AND pg_temp.is_active(r);
BEGIN
	PERFORM pg_temp.note('stop', pg_temp.outcome_of(
		format('SELECT ai_chat_run.request_stop(%L, %L)', r.id, ws)), active::text);
	UPDATE model SET stop_requested = true WHERE id = r.id AND active;
END
$$;

CREATE FUNCTION pg_temp.do_stop_chat(chat chats, ws uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	active uuid;
	outcome text := pg_temp.outcome_of(format('SELECT ai_chat_run.request_stop_for_chat(%L, %L)', chat.id, ws));
BEGIN
	UPDATE model m SET stop_requested = true
		WHERE m.chat_id = chat.id AND m.workspace_id = ws AND pg_temp.is_active(m) RETURNING id INTO active;
	PERFORM pg_temp.note('stop_chat', outcome, coalesce(active::text, 'null'), CASE WHEN active IS NOT NULL THEN 'a run' END);
END
$$;

CREATE FUNCTION pg_temp.do_settle(r model) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	failing boolean := pg_temp.chance(20);
	one uuid := CASE WHEN pg_temp.chance(30) THEN coalesce((SELECT id FROM model WHERE deferred IS NOT NULL ORDER BY n LIMIT 1), r.id) END;
	settled int := 0;
BEGIN
	IF NOT failing THEN
		UPDATE model SET status = deferred, error = deferred_error, deferred = NULL, deferred_error = NULL
			WHERE deferred IS NOT NULL AND id = coalesce(one, id);
		GET DIAGNOSTICS settled = ROW_COUNT;
	END IF;
	PERFORM pg_temp.note('settle', pg_temp.outcome_of(format('SELECT ai_chat_run.settle_deferred(%L)', one), failing),
		settled::text, CASE WHEN settled > 0 THEN 'some' END);
END
$$;

CREATE FUNCTION pg_temp.do_sweep() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	how text := pg_temp.pick(ARRAY['all', 'silent', 'fresh', 'runner', 'some']);
	few int := floor(random() * 3);
	arguments text := CASE how WHEN 'silent' THEN $a$'0 s'$a$ WHEN 'fresh' THEN $a$'100 years'$a$
		WHEN 'runner' THEN $a$runner => 'r1'$a$ WHEN 'some' THEN 'max_runs => ' || few ELSE '' END;
	due int;
	outcome text;
BEGIN
	-- What is deferred counts as well; that is looked at with the plain call alone.
	IF how <> 'all' THEN
		PERFORM ai_chat_run.settle_deferred();
		UPDATE model SET status = deferred, error = deferred_error, deferred = NULL, deferred_error = NULL
			WHERE deferred IS NOT NULL;
	END IF;
	SELECT count(*) INTO due FROM model m
		WHERE pg_temp.is_active(m) AND how <> 'fresh' AND (how <> 'runner' OR runner = 'r1');
	outcome := pg_temp.outcome_of(format('SELECT ai_chat_run.sweep_runs(%s)', arguments));
	UPDATE model SET status = deferred, error = deferred_error, deferred = NULL, deferred_error = NULL
		WHERE deferred IS NOT NULL;
	IF how = 'some' THEN
		due := least(due, few);
	END IF;
	PERFORM pg_temp.note('sweep', outcome, due::text, how || CASE WHEN due > 0 THEN ', found' ELSE '' END);

	-- Which ones a bounded sweep takes, and what it says about them, is its own affair; that they are due is not.
	UPDATE model m SET status = 'aborted', error = r.error
		FROM ai_chat_run.ai_chat_runs r
		WHERE r.id = m.id AND r.status = 'aborted' AND r.error IS NOT NULL AND pg_temp.is_active(m)
			AND how <> 'fresh' AND (how <> 'runner' OR m.runner = 'r1');
	GET DIAGNOSTICS few = ROW_COUNT;
	IF how <> 'all' AND few <> due THEN
		PERFORM pg_temp.breach('outcomes', format('sweep (%s): counted %s, aborted %s', how, due, few));
	END IF;
END
$$;

CREATE FUNCTION pg_temp.do_purge() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	how text := pg_temp.pick(ARRAY['all', 'old', 'some', 'some']);
	few int := floor(random() * 10);
	arguments text := CASE how WHEN 'old' THEN $a$'1 day'$a$ WHEN 'some' THEN $a$'0 s', $a$ || few ELSE $a$'0 s'$a$ END;
	due int;
BEGIN
	SELECT count(*) INTO due FROM model m WHERE NOT pg_temp.is_active(m) AND how <> 'old';
	IF how = 'some' THEN
		due := least(due, few);
	END IF;
	PERFORM pg_temp.note('purge', pg_temp.outcome_of(format('SELECT ai_chat_run.purge_runs(%s)', arguments)), due::text,
		how || CASE WHEN due > 0 THEN ', found' ELSE '' END);
	-- A run that is gone though it was active stays in the model, and shows.
	DELETE FROM model m WHERE NOT pg_temp.is_active(m) AND NOT EXISTS (SELECT FROM ai_chat_run.ai_chat_runs r WHERE r.id = m.id);
	GET DIAGNOSTICS few = ROW_COUNT;
	IF few <> due THEN
		PERFORM pg_temp.breach('outcomes', format('purge (%s): counted %s, deleted %s', how, due, few));
	END IF;
END
$$;

-- An owner's direct writes.
CREATE FUNCTION pg_temp.do_write(chat chats, r model) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	busy boolean := EXISTS (SELECT FROM model m WHERE m.chat_id = chat.id AND pg_temp.is_active(m));
	new_id uuid := pg_temp.some_uuid();
	change text := pg_temp.pick(ARRAY['status = ''running'', finished_at = NULL', 'status = ''pending'', finished_at = NULL',
		'finished_at = ''infinity''', 'error = error || ''!''', 'workspace_id = chat_id',
		'status = CASE status WHEN ''failed'' THEN ''aborted'' ELSE ''failed'' END']);
	outcome text;
BEGIN
	IF pg_temp.chance(50) THEN
		PERFORM pg_temp.note('insert', pg_temp.outcome_of(format(
			'INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (%L, %L, %L) RETURNING status',
			new_id, chat.id, chat.workspace_id)), CASE WHEN busy THEN '23505' ELSE 'pending' END);
		INSERT INTO model (id, chat_id, workspace_id, status)
			SELECT new_id, chat.id, chat.workspace_id, 'pending' WHERE NOT busy;
	ELSIF r.status IS NULL THEN
		RETURN;
	ELSIF pg_temp.is_active(r) THEN
		PERFORM pg_temp.note('update active', pg_temp.outcome_of(format(
			'UPDATE ai_chat_run.ai_chat_runs SET status = ''running'' WHERE id = %L RETURNING status', r.id)), 'running');
		UPDATE model SET status = 'running' WHERE id = r.id;
	ELSE
		outcome := pg_temp.outcome_of(format('UPDATE ai_chat_run.ai_chat_runs SET %s WHERE id = %L RETURNING status',
			change, r.id));
		-- Whether the gate or the guard speaks first is not promised. A null error stays null.
		PERFORM pg_temp.note('update terminal', outcome, CASE
			WHEN change LIKE 'error%' AND r.error IS NULL THEN r.status
			WHEN change LIKE '%NULL' AND outcome = '23505'
				AND EXISTS (SELECT FROM model m WHERE m.chat_id = r.chat_id AND pg_temp.is_active(m)) THEN outcome
			ELSE 'RN410' END);
	END IF;
END
$$;

CREATE FUNCTION pg_temp.do_delete_chat(chat chats) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM chats WHERE id = chat.id;
	INSERT INTO chats SELECT chat.*;
	DELETE FROM model WHERE chat_id = chat.id AND workspace_id = chat.workspace_id;
	PERFORM pg_temp.note('delete chat', NULL, NULL, CASE WHEN FOUND THEN 'had runs' ELSE 'had none' END);
END
$$;

-- One operation; tells of which chat.
CREATE FUNCTION pg_temp.operate() RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
	operation text := pg_temp.pick(
		array_fill('begin'::text, ARRAY[28]) || array_fill('signal'::text, ARRAY[24]) || array_fill('link'::text, ARRAY[6])
		|| array_fill('finalize'::text, ARRAY[22]) || array_fill('stop'::text, ARRAY[5])
		|| array_fill('stop_chat'::text, ARRAY[4]) || array_fill('settle'::text, ARRAY[5])
		|| array_fill('sweep'::text, ARRAY[3]) || array_fill('purge'::text, ARRAY[2])
		|| array_fill('write'::text, ARRAY[10]) || ARRAY['delete_chat']);
	chat chats;
	r model;
	ws uuid;
BEGIN
	SELECT * INTO chat FROM chats ORDER BY id OFFSET floor(random() * 4) LIMIT 1;
	r := pg_temp.some_run(chat.id);
	ws := CASE WHEN pg_temp.chance(92) THEN r.workspace_id ELSE pg_temp.some_uuid() END;

	-- What a runner or a stop is told of a run whose end is decided but not written is left open.
	IF operation IN ('signal', 'stop') AND r.deferred IS NOT NULL
		OR operation = 'stop_chat' AND EXISTS (SELECT FROM model WHERE chat_id = chat.id AND deferred IS NOT NULL)
	THEN
		operation := 'finalize';
	END IF;
	CASE operation
		WHEN 'begin' THEN PERFORM pg_temp.do_begin(chat);
		WHEN 'signal' THEN PERFORM pg_temp.do_signal(r, ws);
		WHEN 'link' THEN PERFORM pg_temp.do_link(r, ws);
		WHEN 'finalize' THEN PERFORM pg_temp.do_finalize(r, ws);
		WHEN 'stop' THEN PERFORM pg_temp.do_stop(r, ws);
		WHEN 'stop_chat' THEN PERFORM pg_temp.do_stop_chat(chat,
			CASE WHEN pg_temp.chance(90) THEN chat.workspace_id ELSE pg_temp.some_uuid() END);
		WHEN 'settle' THEN PERFORM pg_temp.do_settle(r);
		WHEN 'sweep' THEN PERFORM pg_temp.do_sweep();
		WHEN 'purge' THEN PERFORM pg_temp.do_purge();
		WHEN 'write' THEN PERFORM pg_temp.do_write(chat, r);
		WHEN 'delete_chat' THEN PERFORM pg_temp.do_delete_chat(chat);
	END CASE;
	RETURN chat.id;
END
$$;

-- ---- invariants ----

-- Looks at the rows and not into an index, which is what is to be checked.
CREATE FUNCTION pg_temp.check_table() RETURNS void LANGUAGE plpgsql
SET enable_indexscan = off SET enable_indexonlyscan = off SET enable_bitmapscan = off
AS $$
DECLARE
	x record;
	r ai_chat_run.ai_chat_runs;
	s ai_chat_run.ai_chat_runs;
BEGIN
	PERFORM pg_temp.breach('one active run a chat', chat_id::text)
		FROM ai_chat_run.ai_chat_runs WHERE status IN ('pending', 'running') GROUP BY chat_id HAVING count(*) > 1;

	-- What is neither new nor changed nor gone was checked before.
	FOR x IN
		SELECT * FROM (
			SELECT id, ai_chat_runs AS r, model AS m, seen AS s,
				(ai_chat_runs.id, ai_chat_runs.chat_id, ai_chat_runs.workspace_id, ai_chat_runs.status,
					ai_chat_runs.error, ai_chat_runs.step_count, ai_chat_runs.runner,
					ai_chat_runs.assistant_message_id, ai_chat_runs.stop_requested_at IS NOT NULL)
				IS NOT DISTINCT FROM
				(model.id, model.chat_id, model.workspace_id, model.status,
					model.error, model.step_count, model.runner,
					model.assistant_message_id, model.stop_requested IS TRUE) AS agrees
			FROM ai_chat_run.ai_chat_runs FULL JOIN model USING (id) FULL JOIN seen USING (id)) q
		WHERE NOT q.agrees OR q.r IS DISTINCT FROM q.s
	LOOP
		r := x.r;
		s := x.s;
		IF NOT x.agrees THEN
			PERFORM pg_temp.breach('rows are the model''s', format('%s, the model''s is %s', r, x.m));
		END IF;
		IF (r.finished_at IS NULL) <> (r.status IN ('pending', 'running')) THEN
			PERFORM pg_temp.breach('finished_at exactly when terminal', r::text);
		END IF;
		IF s.finished_at IS NOT NULL AND r.id IS NOT NULL AND (s.status, s.finished_at, s.error, s.chat_id, s.workspace_id)
			IS DISTINCT FROM (r.status, r.finished_at, r.error, r.chat_id, r.workspace_id)
		THEN
			PERFORM pg_temp.breach('terminal is final', format('%s, then %s', s, r));
		END IF;
		IF r.step_count < s.step_count THEN
			PERFORM pg_temp.breach('step_count never goes down', format('%s, then %s', s, r));
		END IF;
		IF s.stop_requested_at IS NOT NULL AND r.id IS NOT NULL AND s.stop_requested_at IS DISTINCT FROM r.stop_requested_at
		THEN
			PERFORM pg_temp.breach('a stop request stays as it was made', format('%s, then %s', s, r));
		END IF;

		DELETE FROM seen WHERE seen.id = x.id;
		INSERT INTO seen SELECT r.* WHERE r.id IS NOT NULL;
	END LOOP;

	PERFORM pg_temp.breach('deferred finalizations are the model''s', format('%s, the model''s is %s', d, w))
		FROM ai_chat_run.deferred_finalizations d
			FULL JOIN (SELECT * FROM model WHERE deferred IS NOT NULL) w ON w.id = d.run_id
		WHERE (d.workspace_id, d.run_id, d.status, d.error)
			IS DISTINCT FROM (w.workspace_id, w.id, w.deferred, w.deferred_error);
END
$$;

-- What the get functions show of a chat.
CREATE FUNCTION pg_temp.check_chat(chat uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.breach('the get functions find what is there', format('%s %s: %s %s %s, %s %s', chat, ws,
		active, latest, latest_by_id, active_expected, latest_expected))
	FROM (SELECT DISTINCT workspace_id AS ws FROM chats) w
		CROSS JOIN LATERAL (SELECT
			(SELECT max(id::text) FROM ai_chat_run.get_active_for_chat(chat, ws)) AS active,
			(SELECT max(id::text) FROM ai_chat_run.get_latest_for_chat(chat, ws)) AS latest,
			(SELECT max(id::text) FROM model m WHERE m.chat_id = chat AND workspace_id = ws AND pg_temp.is_active(m))
				AS active_expected,
			(SELECT max(id::text) FROM model m WHERE m.chat_id = chat AND workspace_id = ws) AS latest_expected) l
		CROSS JOIN LATERAL (SELECT
			(SELECT max(id::text) FROM ai_chat_run.get_run(latest::uuid, ws) WHERE latest IS NOT NULL) AS latest_by_id) g
	WHERE (active, latest, latest_by_id) IS DISTINCT FROM (active_expected, latest_expected, latest_expected);
END
$$;

-- What shared memory adds must not contradict the rows.
CREATE FUNCTION pg_temp.check_live(chat uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.breach('active_runs shows the active runs', format('%s, the model''s is %s', a, m))
		FROM ai_chat_run.active_runs a FULL JOIN (SELECT * FROM model m WHERE pg_temp.is_active(m)) m ON m.id = a.run_id
		WHERE (a.run_id, a.chat_id, a.workspace_id, a.runner, a.step_count, a.stop_requested, a.deferred)
			IS DISTINCT FROM (m.id, m.chat_id, m.workspace_id, m.runner, m.step_count, m.stop_requested, m.deferred IS NOT NULL);
	PERFORM pg_temp.breach('only active runs are locally active', format('%s', m))
		FROM (SELECT * FROM model WHERE chat_id = chat ORDER BY n DESC LIMIT 3) m
		WHERE ai_chat_run.is_locally_active(m.id) AND m.status NOT IN ('pending', 'running');
END
$$;

CREATE FUNCTION pg_temp.drive(seed float8, steps int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	chat uuid;
BEGIN
	PERFORM setseed(seed), set_config('test.seed', seed::text, true);
	FOR step IN 1 .. steps LOOP
		PERFORM set_config('test.step', step::text, true);
		IF pg_temp.chance(10) THEN
			-- The model is rolled back with the table.
			BEGIN
				FOR i IN 1 .. 1 + floor(random() * 3) LOOP
					chat := pg_temp.operate();
				END LOOP;
				RAISE EXCEPTION USING ERRCODE = 'UNDOO';
			EXCEPTION
				WHEN SQLSTATE 'UNDOO' THEN
					INSERT INTO log VALUES (seed, 'rolled back', 'ok');
			END;
		ELSE
			chat := pg_temp.operate();
		END IF;
		PERFORM pg_temp.check_table();
		PERFORM pg_temp.check_chat(chat);
		PERFORM pg_temp.check_live(chat);
	END LOOP;
END
$$;

SELECT is_empty('TABLE ai_chat_run.ai_chat_runs', 'nobody else is at work here');
SELECT lives_ok(format('SELECT pg_temp.drive(%s, 1000)', seed), 'operations with seed ' || seed)
FROM unnest(ARRAY[0.1, 0.2, 0.3]) seed;

SELECT is_empty(format('SELECT seed, step, detail FROM breaches WHERE promise = %L LIMIT 5', promise), promise)
FROM unnest(ARRAY[
	'one active run a chat',
	'finished_at exactly when terminal',
	'terminal is final',
	'step_count never goes down',
	'a stop request stays as it was made',
	'ids ascend',
	'outcomes',
	'rows are the model''s',
	'deferred finalizations are the model''s',
	'the get functions find what is there',
	'active_runs shows the active runs',
	'only active runs are locally active']) promise;

-- What never came up was not tested.
SELECT set_has(
	'SELECT operation, outcome FROM log',
	$$VALUES
		('begin', 'began'), ('begin', 'resumed'), ('begin', 'RN409'), ('begin', '23505'), ('begin', 'began, settled'),
		('try_begin', 'began'), ('try_begin', 'resumed'), ('try_begin', 'busy'), ('try_begin', '23505'),
		('try_begin', 'began, settled'),
		('record_step', 'continue'), ('record_step', 'stop'), ('record_step', 'finalized'), ('record_step', 'not_found'),
		('record_step', '22004'), ('record_step', '22023'),
		('heartbeat', 'continue'), ('heartbeat', 'stop'), ('heartbeat', 'finalized'), ('heartbeat', 'not_found'),
		('link', 'true'), ('link', 'false'),
		('finalize', 'finalized'), ('finalize', 'already_finalized'), ('finalize', 'deferred'), ('finalize', 'not_found'),
		('finalize', 'already_finalized, was deferred'), ('finalize', 'deferred, was deferred'),
		('finalize', '22004'), ('finalize', '22023'),
		('stop', 'true'), ('stop', 'false'), ('stop_chat', 'a run'), ('stop_chat', 'null'),
		('settle', 'some'), ('settle', '0'),
		('sweep', 'all, found'), ('sweep', 'silent, found'), ('sweep', 'runner, found'), ('sweep', 'some, found'),
		('sweep', 'fresh'),
		('purge', 'all, found'), ('purge', 'some, found'), ('purge', 'old'),
		('insert', 'pending'), ('insert', '23505'), ('update active', 'running'),
		('update terminal', 'RN410'),
		('delete chat', 'had runs'), ('rolled back', 'ok')$$,
	'every outcome came up');

SELECT * FROM finish();
ROLLBACK;
