-- Promise: the functions are right in READ COMMITTED, REPEATABLE READ and SERIALIZABLE, in savepoints and PL/pgSQL
-- exception blocks, in prepared statements, and wherever else one session may call them; a rolled-back caller leaves
-- nothing, a caught failure leaves the transaction usable and its settings alone, and a read-only transaction is
-- refused cleanly.
--
-- The same scripts run in a transaction of each level, which is rolled back. What they share is temporary.
SELECT plan(525);
SET client_min_messages = error;
SET log_min_messages = error;
SET ai_chat_run.finalize_retry_base = 0;

CREATE TEMP TABLE levels (level text);
INSERT INTO levels VALUES ('read committed'), ('repeatable read'), ('serializable');
CREATE TEMP TABLE scripts (n serial, script text, command text);
CREATE TEMP SEQUENCE attempts;

-- Each number is a run, chat or workspace of its own.
CREATE FUNCTION pg_temp.run(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
	$$SELECT ('f0000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid$$;
CREATE FUNCTION pg_temp.chat(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
	$$SELECT ('c0000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid$$;
CREATE FUNCTION pg_temp.ws() RETURNS uuid LANGUAGE sql IMMUTABLE AS
	$$SELECT 'a0000000-0000-0000-0000-000000000001'::uuid$$;
CREATE FUNCTION pg_temp.status(n int) RETURNS text LANGUAGE sql AS
	$$SELECT status FROM ai_chat_run.ai_chat_runs WHERE id = pg_temp.run(n)$$;
CREATE FUNCTION pg_temp.begin(run int, chat int) RETURNS text LANGUAGE sql AS
	$$SELECT outcome FROM ai_chat_run.try_begin_run(pg_temp.chat(chat), pg_temp.ws(), run_id => pg_temp.run(run))$$;
CREATE FUNCTION pg_temp.finalize(n int, turn_status text) RETURNS text LANGUAGE sql AS
	$$SELECT ai_chat_run.finalize_run(pg_temp.run(n), pg_temp.ws(), turn_status)$$;
CREATE FUNCTION pg_temp.step(n int, steps int) RETURNS text LANGUAGE sql AS
	$$SELECT ai_chat_run.record_step(pg_temp.run(n), pg_temp.ws(), steps)$$;

-- While test.insert or test.update is an SQLSTATE, such writes to the run table fail with it, after the row is written;
-- sequence attempts counts them, since it is not rolled back.
CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	sqlstate_wanted text := current_setting('test.' || lower(TG_OP));
BEGIN
	IF sqlstate_wanted <> '' THEN
		PERFORM nextval('pg_temp.attempts');
		RAISE EXCEPTION 'a test' USING ERRCODE = sqlstate_wanted;
	END IF;
	RETURN NULL;
END
$$;
SET test.insert = '';
SET test.update = '';

CREATE FUNCTION pg_temp.beat(n int) RETURNS text LANGUAGE sql AS
	$$SELECT ai_chat_run.heartbeat(pg_temp.run(n), pg_temp.ws())$$;

-- Tests that tell where they are, so that each script needs to be written once.
CREATE FUNCTION pg_temp.here(description text) RETURNS text LANGUAGE sql AS
	$$SELECT format('%s, %s: %s', current_setting('test.script'), current_setting('transaction_isolation'), description)$$;
CREATE FUNCTION pg_temp.gives(have anyelement, want anyelement, description text) RETURNS text LANGUAGE sql AS
	$$SELECT is(have, want, pg_temp.here(description))$$;
CREATE FUNCTION pg_temp.gives(have text, want text, description text) RETURNS text LANGUAGE sql AS
	$$SELECT is(have, want, pg_temp.here(description))$$;
CREATE FUNCTION pg_temp.throws(command text, sqlstate text, description text) RETURNS text LANGUAGE sql AS
	$$SELECT throws_ok(command, sqlstate::char(5), NULL, pg_temp.here(description))$$;

-- ---- a run's life in one transaction ----

INSERT INTO scripts (script, command) VALUES
('life', $$SELECT pg_temp.gives(pg_temp.begin(1, 1), 'began', 'a run begins')$$),
('life', $$SELECT pg_temp.gives(pg_temp.begin(1, 1), 'resumed', 'the call can be repeated')$$),
('life', $$SELECT pg_temp.gives(ai_chat_run.begin_run(pg_temp.chat(1), pg_temp.ws(), run_id => pg_temp.run(1)), pg_temp.run(1), 'with begin_run, too')$$),
('life', $$SELECT pg_temp.gives(pg_temp.begin(2, 1), 'busy', 'the chat is busy')$$),
('life', $$SELECT pg_temp.throws('SELECT ai_chat_run.begin_run(pg_temp.chat(1), pg_temp.ws())', 'RN409', 'begin_run says so')$$),
('life', $$SELECT pg_temp.throws('SELECT ai_chat_run.begin_run(pg_temp.chat(1), pg_temp.chat(1))', 'RN409', 'in another workspace, too')$$),
('life', $$SELECT pg_temp.throws('SELECT ai_chat_run.begin_run(pg_temp.chat(2), pg_temp.ws(), run_id => pg_temp.run(1))', '23505', 'a run_id of another chat is taken')$$),
('life', $$SELECT pg_temp.gives(pg_temp.step(1, 2), 'continue', 'a step is recorded')$$),
('life', $$SELECT pg_temp.gives(pg_temp.step(1, 1), 'continue', 'a late one, too')$$),
('life', $$SELECT pg_temp.gives(step_count, 2, 'which does not count') FROM ai_chat_run.get_run(pg_temp.run(1), pg_temp.ws())$$),
('life', $$SELECT pg_temp.gives(ai_chat_run.request_stop(pg_temp.run(1), pg_temp.ws()), true, 'a stop is requested')$$),
('life', $$SELECT pg_temp.gives(ai_chat_run.heartbeat(pg_temp.run(1), pg_temp.ws()), 'stop', 'and seen')$$),
('life', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'completed'), 'finalized', 'the run is finalized')$$),
('life', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'error'), 'already_finalized', 'once')$$),
('life', $$SELECT pg_temp.gives(pg_temp.status(1), 'succeeded', 'as was said first')$$),
('life', $$SELECT pg_temp.gives(pg_temp.step(1, 3), 'finalized', 'its runner is told')$$),
('life', $$SELECT pg_temp.gives(ai_chat_run.finalize_run(pg_temp.run(1), pg_temp.chat(1), 'aborted'), 'not_found', 'it is not found in another workspace')$$),
('life', $$SELECT pg_temp.gives(ai_chat_run.link_assistant_message(pg_temp.run(1), pg_temp.ws(), pg_temp.chat(9)), true, 'its message can be linked')$$),
('life', $$SELECT pg_temp.gives(pg_temp.begin(2, 1), 'began', 'the next run begins')$$),
('life', $$SELECT pg_temp.gives(id, pg_temp.run(2), 'and is the active one') FROM ai_chat_run.get_active_for_chat(pg_temp.chat(1), pg_temp.ws())$$),
('life', $$SELECT pg_temp.gives(ai_chat_run.sweep_runs(), 1::bigint, 'a sweep finds it')$$),
('life', $$SELECT pg_temp.gives(ai_chat_run.purge_runs('0 s'), 2::bigint, 'a purge finds both')$$);

-- ---- the once gate ----

-- It holds also where no trigger guards terminal runs.
INSERT INTO scripts (script, command) VALUES
('gate', 'ALTER TABLE ai_chat_run.ai_chat_runs DISABLE TRIGGER USER'),
('gate', $$SELECT pg_temp.gives(pg_temp.begin(1, 1), 'began', 'a run begins')$$),
('gate', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'completed'), 'finalized', 'and is finalized')$$),
('gate', 'CREATE TEMP TABLE ended ON COMMIT DROP AS SELECT * FROM ai_chat_run.get_run(pg_temp.run(1), pg_temp.ws())'),
('gate', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'error'), 'already_finalized', 'once')$$),
('gate', $$SELECT pg_temp.gives(pg_temp.step(1, 7), 'finalized', 'it makes no more steps')$$),
('gate', $$SELECT pg_temp.gives(ai_chat_run.heartbeat(pg_temp.run(1), pg_temp.ws()), 'finalized', 'it lives no more')$$),
('gate', $$SELECT pg_temp.gives(ai_chat_run.request_stop(pg_temp.run(1), pg_temp.ws()), false, 'it cannot be stopped')$$),
('gate', $$INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
	VALUES (pg_temp.ws(), pg_temp.run(1), 'aborted', 'a test')$$),
('gate', $$SELECT pg_temp.gives(ai_chat_run.settle_deferred(), 0::bigint, 'a deferred finalization comes too late')$$),
('gate', $$SELECT pg_temp.gives((SELECT count(*) FROM ai_chat_run.deferred_finalizations), 0::bigint, 'and is forgotten')$$),
('gate', $$SELECT pg_temp.gives(ai_chat_run.sweep_runs(), 0::bigint, 'a sweep leaves it alone')$$),
('gate', $$SELECT pg_temp.gives(r.*::text, ended.*::text, 'it is as it was') FROM ended, ai_chat_run.get_run(pg_temp.run(1), pg_temp.ws()) r$$);

-- ---- savepoints ----

INSERT INTO scripts (script, command) VALUES
('savepoints', 'SAVEPOINT a'),
('savepoints', $$SELECT pg_temp.gives(pg_temp.begin(1, 1), 'began', 'a run begins in a savepoint')$$),
('savepoints', 'ROLLBACK TO a'),
('savepoints', $$SELECT pg_temp.gives((SELECT count(*) FROM ai_chat_run.get_run(pg_temp.run(1), pg_temp.ws())), 0::bigint, 'rolled back, it is not there')$$),
('savepoints', $$SELECT pg_temp.gives(pg_temp.step(1, 1), 'not_found', 'and not found')$$),
('savepoints', $$SELECT pg_temp.gives(pg_temp.begin(2, 1), 'began', 'and the chat is free')$$),
('savepoints', $$SELECT pg_temp.gives(pg_temp.begin(1, 2), 'began', 'as is the id')$$),
('savepoints', 'SAVEPOINT b'),
('savepoints', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'completed'), 'finalized', 'a run is finalized in a savepoint')$$),
('savepoints', $$SELECT pg_temp.gives(pg_temp.begin(3, 2), 'began', 'and the next one begins')$$),
('savepoints', 'ROLLBACK TO b'),
('savepoints', $$SELECT pg_temp.gives(pg_temp.status(1), 'running', 'rolled back, the first is active')$$),
('savepoints', $$SELECT pg_temp.gives(pg_temp.begin(3, 2), 'busy', 'and the chat busy')$$),
('savepoints', 'SAVEPOINT c'),
('savepoints', $$SELECT pg_temp.gives(ai_chat_run.request_stop_for_chat(pg_temp.chat(2), pg_temp.ws()), pg_temp.run(1), 'a stop is requested in a savepoint')$$),
('savepoints', $$SELECT pg_temp.gives(pg_temp.step(1, 5), 'stop', 'and seen')$$),
('savepoints', 'ROLLBACK TO c'),
('savepoints', $$SELECT pg_temp.gives(pg_temp.step(1, 2), 'continue', 'rolled back, it was not')$$),
('savepoints', $$SELECT pg_temp.gives(step_count, 2, 'nor were the steps made') FROM ai_chat_run.get_run(pg_temp.run(1), pg_temp.ws())$$),
('savepoints', 'SAVEPOINT d'),
('savepoints', 'SAVEPOINT e'),
('savepoints', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'error'), 'finalized', 'a run is finalized in a savepoint in a savepoint')$$),
('savepoints', 'RELEASE e'),
('savepoints', 'ROLLBACK TO d'),
('savepoints', $$SELECT pg_temp.gives(pg_temp.status(1), 'running', 'the outer one rolled back, it is active')$$),
('savepoints', 'SAVEPOINT f'),
('savepoints', $$SELECT pg_temp.gives(ai_chat_run.sweep_runs(), 2::bigint, 'a sweep in a savepoint')$$),
('savepoints', 'ROLLBACK TO f'),
('savepoints', $$SELECT pg_temp.gives((SELECT count(*) FROM ai_chat_run.ai_chat_runs WHERE status = 'running'), 2::bigint, 'rolled back, aborts nothing')$$),
('savepoints', 'SAVEPOINT g'),
('savepoints', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'aborted'), 'finalized', 'a run is finalized in one that is released')$$),
('savepoints', 'RELEASE g'),
('savepoints', $$SELECT pg_temp.gives(pg_temp.status(1), 'aborted', 'and is terminal')$$),
('savepoints', $$SELECT pg_temp.throws('UPDATE ai_chat_run.ai_chat_runs SET status = ''failed'' WHERE id = pg_temp.run(1)', 'RN410', 'for good')$$);

-- ---- exception blocks ----

CREATE FUNCTION pg_temp.diagnose(command text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	state text;
	detail text;
	schema_of text;
	table_of text;
	constraint_of text;
BEGIN
	EXECUTE command;
	RETURN NULL;
EXCEPTION
	WHEN OTHERS OR query_canceled THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL,
			schema_of = SCHEMA_NAME, table_of = TABLE_NAME, constraint_of = CONSTRAINT_NAME;
		RETURN ARRAY[state, schema_of, table_of, constraint_of, substring(detail FROM '[0-9a-f-]{36}')];
END
$$;
-- Runs two calls; undoes them if told so.
CREATE FUNCTION pg_temp.two_calls(undo boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	outcomes text;
BEGIN
	outcomes := pg_temp.step(1, 4) || ' ' || pg_temp.finalize(1, 'completed');
	IF undo THEN
		RAISE division_by_zero;
	END IF;
	RETURN outcomes;
EXCEPTION
	WHEN division_by_zero THEN
		RETURN outcomes || ' undone';
END
$$;
-- What an application does that waits for its chat: it tries again and again, each time in a subtransaction.
CREATE FUNCTION pg_temp.tries(n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	rejected int := 0;
BEGIN
	FOR i IN 1 .. n LOOP
		BEGIN
			PERFORM ai_chat_run.begin_run(pg_temp.chat(1), pg_temp.ws());
		EXCEPTION
			WHEN SQLSTATE 'RN409' THEN
				rejected := rejected + 1;
		END;
	END LOOP;
	RETURN rejected;
END
$$;

INSERT INTO scripts (script, command) VALUES
('exceptions', $$SELECT pg_temp.gives(pg_temp.begin(1, 1), 'began', 'a run begins')$$),
('exceptions', $$SELECT pg_temp.gives(pg_temp.diagnose('SELECT ai_chat_run.begin_run(pg_temp.chat(1), pg_temp.ws())'),
	ARRAY['RN409', 'ai_chat_run', 'ai_chat_runs', 'ai_chat_runs_one_active_per_chat', pg_temp.run(1)::text],
	'a rejected begin tells index and run')$$),
('exceptions', $$SELECT pg_temp.gives(pg_temp.tries(50), 50, 'it can be caught')$$),
('exceptions', $$SELECT pg_temp.gives((SELECT count(*) FROM ai_chat_run.ai_chat_runs), 1::bigint, 'and leaves nothing')$$),
('exceptions', $$SELECT pg_temp.gives(pg_temp.two_calls(true), 'continue finalized undone', 'a block is undone')$$),
('exceptions', $$SELECT pg_temp.gives(pg_temp.status(1), 'running', 'and with it what was called in it')$$),
('exceptions', $$SELECT pg_temp.gives(pg_temp.two_calls(false), 'continue finalized', 'a block is not undone')$$),
('exceptions', $$SELECT pg_temp.gives(pg_temp.status(1), 'succeeded', 'nor what was called in it')$$),
('exceptions', $$SELECT pg_temp.gives(pg_temp.two_calls(true), 'finalized already_finalized undone', 'nor later')$$),
('exceptions', $$SELECT pg_temp.gives((pg_temp.diagnose('SELECT pg_temp.finalize(1, ''succeeded'')'))[1], '22023', 'a wrong argument can be caught')$$),
('exceptions', $$SELECT pg_temp.gives(pg_temp.begin(2, 1), 'began', 'and the transaction goes on')$$);

-- ---- failed writes ----

INSERT INTO scripts (script, command) VALUES
('failures', $$CREATE TRIGGER fail AFTER INSERT OR UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.fail()$$),
('failures', $$SELECT pg_temp.gives(pg_temp.begin(1, 1), 'began', 'a run begins')$$),
('failures', $$SET LOCAL lock_timeout = '12345 ms'$$),

('failures', $$DO 'BEGIN PERFORM setval(''attempts'', 10); END'$$),
('failures', $$SET LOCAL test.insert = 'P0001'$$),
('failures', $$SELECT pg_temp.throws('SELECT ai_chat_run.begin_run(pg_temp.chat(2), pg_temp.ws())', 'P0001', 'begin_run passes an error on')$$),
('failures', $$SELECT pg_temp.gives(currval('attempts'), 11::bigint, 'at once')$$),
('failures', $$SET LOCAL test.insert = '40001'$$),
('failures', $$SELECT pg_temp.throws('SELECT ai_chat_run.begin_run(pg_temp.chat(2), pg_temp.ws())', '40001', 'and a serialization failure')$$),
('failures', $$SET LOCAL test.insert = '23505'$$),
('failures', $$SELECT pg_temp.throws('SELECT ai_chat_run.begin_run(pg_temp.chat(2), pg_temp.ws())', '23505', 'and another unique violation')$$),
('failures', $$SET LOCAL test.insert = ''$$),

('failures', $$SET LOCAL test.update = '53100'$$),
('failures', $$SELECT pg_temp.gives(pg_temp.step(1, 1), NULL, 'a step that cannot be recorded is no error')$$),
('failures', $$SELECT pg_temp.gives(ai_chat_run.heartbeat(pg_temp.run(1), pg_temp.ws()), NULL, 'nor a heartbeat')$$),
('failures', $$SELECT pg_temp.gives(ai_chat_run.link_assistant_message(pg_temp.run(1), pg_temp.ws(), pg_temp.chat(9)), NULL, 'nor a link')$$),
('failures', $$SELECT pg_temp.gives((SELECT count(*) FROM ai_chat_run.ai_chat_runs
	WHERE step_count = 0 AND assistant_message_id IS NULL AND updated_at = started_at), 1::bigint, 'and the run is as it was')$$),

('failures', $$DO 'BEGIN PERFORM setval(''attempts'', 100); END'$$),
('failures', 'SAVEPOINT a'),
('failures', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'completed'), 'deferred', 'what cannot be written is deferred')$$),
('failures', $$SELECT pg_temp.gives(currval('attempts'), 103::bigint, 'after three attempts')$$),
('failures', $$SELECT pg_temp.gives((SELECT status FROM ai_chat_run.deferred_finalizations WHERE run_id = pg_temp.run(1)), 'succeeded', 'as it was decided')$$),
('failures', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'error'), 'deferred', 'a second decision')$$),
('failures', $$SELECT pg_temp.gives((SELECT status FROM ai_chat_run.deferred_finalizations WHERE run_id = pg_temp.run(1)), 'succeeded', 'changes nothing')$$),
('failures', $$SELECT pg_temp.gives(ai_chat_run.settle_deferred(), 0::bigint, 'it cannot be applied')$$),
('failures', $$SET LOCAL test.update = ''$$),
('failures', $$SELECT pg_temp.gives(pg_temp.status(1), 'running', 'the run is active')$$),
('failures', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'error'), 'already_finalized', 'later it is applied')$$),
('failures', $$SELECT pg_temp.gives(pg_temp.status(1), 'succeeded', 'as it was decided')$$),
('failures', 'ROLLBACK TO a'),
('failures', $$SELECT pg_temp.gives((SELECT count(*) FROM ai_chat_run.deferred_finalizations), 0::bigint, 'rolled back, nothing is deferred')$$),
('failures', $$SELECT pg_temp.gives(pg_temp.status(1), 'running', 'and the run active')$$),

('failures', $$SET LOCAL test.update = '40001'$$),
('failures', $$DO 'BEGIN PERFORM setval(''attempts'', 200); END'$$),
('failures', 'SAVEPOINT b'),
('failures', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'completed'), 'deferred', 'a serialization failure')$$),
('failures', $$SELECT pg_temp.gives(currval('attempts'),
	CASE current_setting('transaction_isolation') WHEN 'read committed' THEN 203 ELSE 201 END::bigint,
	'is retried where that can help')$$),
('failures', 'ROLLBACK TO b'),

('failures', $$SET LOCAL test.update = '40P01'$$),
('failures', $$SET LOCAL ai_chat_run.finalize_max_attempts = 5$$),
('failures', $$DO 'BEGIN PERFORM setval(''attempts'', 300); END'$$),
('failures', $$SELECT pg_temp.gives(pg_temp.finalize(1, 'completed'), 'deferred', 'a deadlock')$$),
('failures', $$SELECT pg_temp.gives(currval('attempts'), 305::bigint, 'is retried as often as is set')$$),
('failures', $$SELECT pg_temp.gives((SELECT outcome FROM ai_chat_run.try_begin_run(pg_temp.chat(1), pg_temp.ws(), run_id => pg_temp.run(2))), 'busy', 'a begin cannot apply it')$$),
('failures', $$SET LOCAL test.update = ''$$),
('failures', $$SELECT pg_temp.gives(pg_temp.begin(2, 1), 'began', 'until it can')$$),
('failures', $$SELECT pg_temp.gives(pg_temp.status(1), 'succeeded', 'and then does')$$),

('failures', $$SET LOCAL test.update = '57014'$$),
('failures', $$DO 'BEGIN PERFORM setval(''attempts'', 400); END'$$),
('failures', $$SELECT pg_temp.gives((pg_temp.diagnose('SELECT pg_temp.finalize(2, ''completed'')'))[1], '57014', 'a cancel goes up')$$),
('failures', $$SELECT pg_temp.gives(currval('attempts'), 401::bigint, 'at once')$$),
('failures', $$SELECT pg_temp.gives((pg_temp.diagnose('SELECT pg_temp.step(2, 1)'))[1], '57014', 'also from what is best effort')$$),
('failures', $$SET LOCAL test.update = ''$$),
('failures', $$SELECT pg_temp.gives((SELECT count(*) FROM ai_chat_run.deferred_finalizations), 0::bigint, 'and defers nothing')$$),
('failures', $$SELECT pg_temp.gives(pg_temp.finalize(2, 'completed'), 'finalized', 'after all that the transaction is usable')$$),
('failures', $$SELECT pg_temp.gives(current_setting('lock_timeout'), '12345ms', 'and its lock_timeout is its own')$$);

-- ---- read-only transactions ----

INSERT INTO scripts (script, command) VALUES
('read only', $$SELECT pg_temp.gives(pg_temp.begin(1, 1), 'began', 'a run begins')$$),
('read only', 'SET TRANSACTION READ ONLY'),
('read only', $$SELECT pg_temp.throws(format('SELECT ai_chat_run.%s', call), '25006', 'refused when read-only: ' || call)
	FROM unnest(ARRAY[
		'begin_run(pg_temp.chat(2), pg_temp.ws())',
		'begin_run(pg_temp.chat(1), pg_temp.ws(), run_id => pg_temp.run(1))',
		'try_begin_run(pg_temp.chat(2), pg_temp.ws())',
		'record_step(pg_temp.run(1), pg_temp.ws(), 1)',
		'heartbeat(pg_temp.run(1), pg_temp.ws())',
		'link_assistant_message(pg_temp.run(1), pg_temp.ws(), pg_temp.chat(9))',
		'finalize_run(pg_temp.run(1), pg_temp.ws(), ''completed'')',
		'request_stop(pg_temp.run(1), pg_temp.ws())',
		'request_stop_for_chat(pg_temp.chat(1), pg_temp.ws())',
		'settle_deferred()',
		'sweep_runs()',
		'purge_runs(''1 day'')',
		'attach_runner(''a runner'')',
		'grant_app_access(''pg_monitor'')']) call$$),
('read only', $$SELECT pg_temp.gives(ai_chat_run.is_locally_active(pg_temp.run(1)), true, 'what is alive can be asked')$$),
('read only', $$SELECT pg_temp.gives(status, 'running', 'a run can be read') FROM ai_chat_run.get_run(pg_temp.run(1), pg_temp.ws())$$),
('read only', $$SELECT pg_temp.gives(id, pg_temp.run(1), 'and found by its chat') FROM ai_chat_run.get_active_for_chat(pg_temp.chat(1), pg_temp.ws())$$),
('read only', $$SELECT pg_temp.gives(id, pg_temp.run(1), 'as the latest, too') FROM ai_chat_run.get_latest_for_chat(pg_temp.chat(1), pg_temp.ws())$$),
('read only', $$SELECT pg_temp.gives(ai_chat_run.map_turn_status('error'), 'failed', 'and a turn status be mapped')$$);

-- ---- what shared memory knows ----

INSERT INTO scripts (script, command) VALUES
('live', $$SELECT pg_temp.gives(ai_chat_run.is_locally_active(pg_temp.run(1)), false, 'a run that is not there is not alive')$$),
('live', 'SAVEPOINT a'),
('live', $$SELECT pg_temp.gives(pg_temp.begin(1, 1), 'began', 'a run begins in a savepoint')$$),
('live', $$SELECT pg_temp.gives(ai_chat_run.is_locally_active(pg_temp.run(1)), true, 'and is alive')$$),
('live', $$SELECT pg_temp.gives(pg_temp.beat(1), 'continue', 'as its heart beats')$$),
('live', $$SELECT pg_temp.gives(ai_chat_run.request_stop(pg_temp.run(1), pg_temp.ws()), true, 'it is stopped')$$),
('live', $$SELECT pg_temp.gives(pg_temp.beat(1), 'stop', 'and told')$$),
('live', 'ROLLBACK TO a'),
('live', $$SELECT pg_temp.gives(ai_chat_run.is_locally_active(pg_temp.run(1)), false, 'rolled back, it is not alive')$$),
('live', $$SELECT pg_temp.gives(pg_temp.beat(1), 'not_found', 'nor there')$$),
('live', $$SELECT pg_temp.gives(pg_temp.begin(1, 1), 'began', 'another run of that id')$$),
('live', $$SELECT pg_temp.gives(pg_temp.beat(1), 'continue', 'was never stopped')$$),
('live', $$SELECT pg_temp.gives(pg_temp.step(1, 1), 'continue', 'as its next step hears, too')$$),
('live', $$SELECT pg_temp.gives(ai_chat_run.attach_runner('a runner', pg_temp.run(1)), 0::bigint, 'a runner attaches')$$),
('live', $$SELECT pg_temp.gives(ai_chat_run.begin_run(pg_temp.chat(2), pg_temp.ws(), run_id => pg_temp.run(2), runner => 'a runner'), pg_temp.run(2), 'and begins a run')$$),
('live', $$SELECT pg_temp.gives((SELECT array_agg(run_id) FROM ai_chat_run.active_runs WHERE attached), ARRAY[pg_temp.run(2)], 'which is seen')$$),
('live', 'SAVEPOINT b'),
('live', $$SELECT pg_temp.gives(ai_chat_run.attach_runner('a runner', pg_temp.run(2)), 1::bigint, 'its next incarnation finds it')$$),
('live', $$SELECT pg_temp.gives(pg_temp.beat(2), 'finalized', 'and ends it')$$),
('live', 'ROLLBACK TO b'),
('live', $$SELECT pg_temp.gives(pg_temp.beat(2), 'continue', 'unless rolled back')$$),
('live', $$SELECT pg_temp.gives(ai_chat_run.attach_runner('a runner', pg_temp.run(1)), 0::bigint, 'then the old incarnation is there still')$$),
('live', $$SELECT pg_temp.throws(format('CALL ai_chat_run.%s', call), '25001', 'refused where it cannot commit: ' || call)
	FROM unnest(ARRAY[
		'await_run(pg_temp.run(1), pg_temp.ws(), ''0'')',
		'await_stop(pg_temp.run(1), pg_temp.ws(), ''0'')',
		'await_stops(''a runner'', ''{}'', ''0'')',
		'supersede_run(pg_temp.chat(1), pg_temp.run(1), pg_temp.ws(), timeout => ''0'', force => true)']) call$$),
('live', $$SELECT pg_temp.gives(pg_temp.beat(1), 'continue', 'with the run as it was')$$);

-- ---- prepared statements ----

-- Often enough for the server to go over to a plan for all values.
CREATE FUNCTION pg_temp.lives(first int, n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	done int := 0;
	outcome text;
BEGIN
	FOR i IN first .. first + n - 1 LOOP
		EXECUTE format('EXECUTE b(%L, %L)', pg_temp.chat(1), pg_temp.run(i));
		EXECUTE format('EXECUTE s(%L, %L)', pg_temp.run(i), i) INTO outcome;
		CONTINUE WHEN outcome <> 'continue';
		EXECUTE format('EXECUTE f(%L, %L)', pg_temp.run(i), 'completed') INTO outcome;
		CONTINUE WHEN outcome <> 'finalized';
		EXECUTE format('EXECUTE g(%L)', pg_temp.run(i)) INTO outcome;
		done := done + (outcome = 'succeeded')::int;
	END LOOP;
	RETURN done;
END
$$;
CREATE FUNCTION pg_temp.lives_elsewhere(first int, n int) RETURNS int LANGUAGE sql SET search_path = pg_catalog AS
	$$SELECT pg_temp.lives(first, n)$$;

INSERT INTO scripts (script, command) VALUES
('prepared', 'DEALLOCATE ALL'),
('prepared', 'PREPARE b(uuid, uuid) AS SELECT ai_chat_run.begin_run($1, pg_temp.ws(), run_id => $2)'),
('prepared', 'PREPARE s(uuid, int) AS SELECT ai_chat_run.record_step($1, pg_temp.ws(), $2)'),
('prepared', 'PREPARE f(uuid, text) AS SELECT ai_chat_run.finalize_run($1, pg_temp.ws(), $2)'),
('prepared', 'PREPARE g(uuid) AS SELECT status FROM ai_chat_run.get_run($1, pg_temp.ws())'),
('prepared', $$SELECT pg_temp.gives(pg_temp.lives(1, 12), 12, 'prepared statements')$$),
('prepared', 'ANALYZE ai_chat_run.ai_chat_runs'),
('prepared', $$SELECT pg_temp.gives(pg_temp.lives(101, 12), 12, 'after ANALYZE')$$),
('prepared', 'SET LOCAL plan_cache_mode = force_generic_plan'),
('prepared', $$SELECT pg_temp.gives(pg_temp.lives(201, 12), 12, 'with generic plans')$$),
('prepared', 'SET LOCAL plan_cache_mode = force_custom_plan'),
('prepared', $$SELECT pg_temp.gives(pg_temp.lives(301, 12), 12, 'with custom plans')$$),
('prepared', 'DISCARD PLANS'),
('prepared', $$SELECT pg_temp.gives(pg_temp.lives(401, 12), 12, 'after DISCARD PLANS')$$),
('prepared', $$SELECT pg_temp.gives(pg_temp.lives_elsewhere(501, 12), 12, 'with another search_path')$$),
('prepared', 'ALTER TABLE ai_chat_run.ai_chat_runs ADD tag text DEFAULT ''a tag'''),
('prepared', $$SELECT pg_temp.gives(pg_temp.lives(601, 12), 12, 'with one more column')$$),
('prepared', $$SELECT pg_temp.gives(tag, 'a tag', 'which is there') FROM ai_chat_run.get_run(pg_temp.run(601), pg_temp.ws())$$),
('prepared', 'ALTER TABLE ai_chat_run.ai_chat_runs DROP tag'),
('prepared', $$SELECT pg_temp.gives(pg_temp.lives(701, 12), 12, 'and without it')$$),
('prepared', 'DROP EXTENSION ai_chat_run'),
('prepared', 'CREATE EXTENSION ai_chat_run'),
('prepared', $$SELECT pg_temp.gives(pg_temp.lives(1, 12), 12, 'and with a new extension')$$),
('prepared', 'DEALLOCATE ALL');

-- ---- the places of a call ----

CREATE FUNCTION pg_temp.begin_for_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.run := ai_chat_run.begin_run(NEW.chat, pg_temp.ws());
	RETURN NEW;
END
$$;
CREATE FUNCTION pg_temp.finalize_for_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM ai_chat_run.finalize_run(NEW.run, pg_temp.ws(), 'completed');
	RETURN NULL;
END
$$;
CREATE TEMP TABLE messages (chat uuid, run uuid);
CREATE TRIGGER begin BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION pg_temp.begin_for_message();
CREATE CONSTRAINT TRIGGER finalize AFTER INSERT ON messages DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION pg_temp.finalize_for_message();

INSERT INTO scripts (script, command) VALUES
('places', $$SELECT pg_temp.gives((SELECT count(pg_temp.begin(i, i)) FROM generate_series(1, 20) i), 20::bigint, 'many calls in a statement')$$),
('places', $$SELECT pg_temp.gives((SELECT array_agg(pg_temp.step(1, i)) FROM generate_series(1, 3) i), '{continue,continue,continue}', 'for one run')$$),
('places', $$SELECT pg_temp.gives(ARRAY[pg_temp.finalize(1, 'completed'), pg_temp.finalize(1, 'error')], '{finalized,already_finalized}', 'one after the other')$$),
('places', $$SELECT pg_temp.gives(pg_temp.status(1), 'succeeded', 'as was said first')$$),
('places', $$SELECT pg_temp.gives((WITH b AS MATERIALIZED (SELECT ai_chat_run.begin_run(pg_temp.chat(1), pg_temp.ws()) AS id)
	SELECT ai_chat_run.finalize_run(id, pg_temp.ws(), 'error') FROM b), 'finalized', 'in a WITH and beside it')$$),
('places', $$INSERT INTO messages VALUES (pg_temp.chat(101)), (pg_temp.chat(102))$$),
('places', $$SELECT pg_temp.gives((SELECT count(*) FROM messages m JOIN ai_chat_run.ai_chat_runs r ON r.id = m.run AND r.status = 'running'), 2::bigint, 'in a trigger of an application''s table')$$),
('places', $$SET CONSTRAINTS ALL IMMEDIATE$$),
('places', $$SELECT pg_temp.gives((SELECT count(*) FROM messages m JOIN ai_chat_run.ai_chat_runs r ON r.id = m.run AND r.status = 'succeeded'), 2::bigint, 'in a deferred one')$$),
('places', $$DECLARE c CURSOR FOR SELECT i, pg_temp.step(2, i) FROM generate_series(1, 10) i$$),
('places', $$MOVE 4 FROM c$$),
('places', $$CLOSE c$$),
('places', $$SELECT pg_temp.gives(step_count, 4, 'in a cursor, as far as it is read') FROM ai_chat_run.get_run(pg_temp.run(2), pg_temp.ws())$$),
('places', $$SELECT pg_temp.gives((SELECT array_agg(r.id) FROM unnest(ARRAY[3, 4, 99]) n, ai_chat_run.get_run(pg_temp.run(n), pg_temp.ws()) r),
	ARRAY[pg_temp.run(3), pg_temp.run(4)], 'beside FROM items of the caller''s')$$),
('places', $$SELECT FROM pg_settings, set_config(name, 'on', true) WHERE name IN ('force_parallel_mode', 'debug_parallel_query')$$),
('places', $$SELECT pg_temp.gives((SELECT array_agg(DISTINCT ai_chat_run.map_turn_status(t)) FROM unnest(ARRAY['error', 'completed']) t), '{failed,succeeded}', 'in a parallel query')$$),
('places', $$SELECT pg_temp.gives((SELECT status FROM ai_chat_run.get_run(pg_temp.run(2), pg_temp.ws())), 'running', 'reading a run, too')$$);

-- ---- all these, in each level ----

SELECT command FROM (
	SELECT script, level, n, command FROM scripts, levels
	UNION ALL
	SELECT DISTINCT script, level, 0, format('BEGIN ISOLATION LEVEL %s; SET LOCAL test.script = %L', level, script)
		FROM scripts, levels
	UNION ALL
	SELECT DISTINCT script, level, 1000000, 'ROLLBACK' FROM scripts, levels) s
ORDER BY script, level, n \gexec

SELECT is_empty('TABLE ai_chat_run.ai_chat_runs', 'after the last ROLLBACK nothing is left');
SELECT is_empty('TABLE ai_chat_run.runners', 'nor a runner');

-- ---- runs that are committed, one for each level, whose heartbeats are not written ----

TRUNCATE scripts;
CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS
	$$SELECT length(current_setting('transaction_isolation'))$$;
SELECT is(pg_temp.begin(length(level), length(level)), 'began', 'a run for ' || level) FROM levels;
-- These come first in their transactions: the tests write, too.
INSERT INTO scripts (script, command) VALUES
('known', $$SELECT pg_temp.gives(
	ARRAY[pg_temp.beat(pg_temp.mine()), pg_current_xact_id_if_assigned()::text], ARRAY['continue', NULL], 'a heartbeat without a write')$$),
('known', 'SAVEPOINT a'),
('known', $$SELECT pg_temp.gives(pg_temp.finalize(pg_temp.mine(), 'completed'), 'finalized', 'the run is finalized')$$),
('known', $$SELECT pg_temp.gives(pg_temp.beat(pg_temp.mine()), 'finalized', 'and quits')$$),
('known', $$SELECT pg_temp.gives(ai_chat_run.is_locally_active(pg_temp.run(pg_temp.mine())), false, 'being no longer alive')$$),
('known', 'ROLLBACK TO a'),
('known', $$SELECT pg_temp.gives(pg_temp.beat(pg_temp.mine()), 'continue', 'rolled back, it goes on')$$),
('known', $$SELECT pg_temp.gives(pg_temp.step(pg_temp.mine(), 1), 'continue', 'with its steps')$$),
('known', $$SELECT pg_temp.gives(ai_chat_run.is_locally_active(pg_temp.run(pg_temp.mine())), true, 'being alive')$$),
('known', $$SELECT pg_temp.gives(ai_chat_run.request_stop(pg_temp.run(pg_temp.mine()), pg_temp.ws()), true, 'a stop is requested')$$),
('known', $$SELECT pg_temp.gives(pg_temp.beat(pg_temp.mine()), 'stop', 'and told')$$);
SELECT command FROM (
	SELECT level, n, command FROM scripts, levels
	UNION ALL
	SELECT level, 0, format('BEGIN ISOLATION LEVEL %s; SET LOCAL test.script = known', level) FROM levels
	UNION ALL
	SELECT level, 1000000, 'ROLLBACK' FROM levels) s
ORDER BY level, n \gexec
SELECT is(num_nulls(stop_requested_at, finished_at), 2, 'the rollback took all from the row of ' || level)
FROM levels, ai_chat_run.get_run(pg_temp.run(length(level)), pg_temp.ws());
SELECT is(pg_temp.beat(length(level)), 'stop', 'but who was told to stop stays so: ' || level) FROM levels;
SELECT is(pg_temp.finalize(length(level), 'aborted'), 'finalized', 'and ends: ' || level) FROM levels;
SELECT is(pg_temp.beat(length(level)), 'finalized', 'for good: ' || level) FROM levels;
SELECT is(ai_chat_run.purge_runs('0 s'), 3::bigint, 'and is gone');
SELECT * FROM finish();
