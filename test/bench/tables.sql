-- What the extension is measured against, in a database that has it: an equal table that plain SQL works on, one as
-- one writes it by hand, and one with functions in PL/pgSQL that promise the same, as far as such functions can.

CREATE SCHEMA bench;

-- Same columns, defaults, checks and indexes, ids made the same way; no triggers.
CREATE TABLE bench.plain (LIKE ai_chat_run.ai_chat_runs INCLUDING ALL) WITH (fillfactor = 80);

-- The same, but for the checks, which are lists of words.
CREATE TABLE bench.words (
	LIKE ai_chat_run.ai_chat_runs INCLUDING DEFAULTS INCLUDING INDEXES,
	CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'aborted')),
	CHECK ((finished_at IS NOT NULL) = (status IN ('succeeded', 'failed', 'aborted'))),
	CHECK (step_count >= 0)
) WITH (fillfactor = 80);

CREATE TABLE bench.runs (LIKE bench.words INCLUDING ALL) WITH (fillfactor = 80);
CREATE TABLE bench.deferred (LIKE ai_chat_run.deferred_finalizations INCLUDING ALL);

-- Terminal is final, for direct writers too. The condition spares all others the call.
CREATE FUNCTION bench.refuse_change() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'RN410', MESSAGE = format('run %s is %s', OLD.id, OLD.status);
END
$$;

CREATE TRIGGER terminal_is_final
	BEFORE UPDATE ON bench.runs
	FOR EACH ROW WHEN (
		OLD.status IN ('succeeded', 'failed', 'aborted')
		AND (NEW.status, NEW.finished_at, NEW.error, NEW.chat_id, NEW.workspace_id)
			IS DISTINCT FROM (OLD.status, OLD.finished_at, OLD.error, OLD.chat_id, OLD.workspace_id)
	)
	EXECUTE FUNCTION bench.refuse_change();

-- The gate is ON CONFLICT, without an exception block: a rejected begin leaves nothing.
CREATE FUNCTION bench.begin_run(
	p_chat_id uuid,
	p_workspace_id uuid,
	p_created_by uuid DEFAULT NULL,
	p_trigger text DEFAULT 'user',
	p_runner text DEFAULT NULL
)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	v_id uuid;
	v_active uuid;
BEGIN
	FOR round IN 1..100 LOOP
		INSERT INTO bench.runs (chat_id, workspace_id, created_by, trigger, status, runner, started_at, updated_at)
		VALUES (p_chat_id, p_workspace_id, p_created_by, p_trigger, 'running', p_runner,
			clock_timestamp(), clock_timestamp())
		ON CONFLICT (chat_id) WHERE status IN ('pending', 'running') DO NOTHING
		RETURNING id INTO v_id;
		IF FOUND THEN
			RETURN v_id;
		END IF;

		-- Whose slot is it? If nobody's by now, try again.
		SELECT r.id INTO v_active
		FROM bench.runs r
		WHERE r.chat_id = p_chat_id AND r.status IN ('pending', 'running');
		IF FOUND AND NOT (
			EXISTS (SELECT FROM bench.deferred d WHERE d.run_id = v_active AND d.workspace_id = p_workspace_id)
			AND bench.settle_deferred(v_active, p_workspace_id)
		) THEN
			RAISE EXCEPTION USING ERRCODE = 'RN409',
				MESSAGE = format('an agent run is already in progress for chat %s', p_chat_id),
				DETAIL = format('Run %s is active.', v_active),
				SCHEMA = 'bench', TABLE = 'runs', CONSTRAINT = 'runs_chat_id_idx';
		END IF;
	END LOOP;
	RAISE EXCEPTION 'could not begin a run for chat %', p_chat_id;
END
$$;

-- Applies the deferred end of a run; whether there was one.
CREATE FUNCTION bench.settle_deferred(p_run_id uuid, p_workspace_id uuid)
RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
	UPDATE bench.runs r
	SET status = d.status, error = d.error, finished_at = d.deferred_at, updated_at = clock_timestamp()
	FROM bench.deferred d
	WHERE r.id = p_run_id AND r.workspace_id = p_workspace_id
		AND r.status NOT IN ('succeeded', 'failed', 'aborted')
		AND d.run_id = p_run_id AND d.workspace_id = p_workspace_id;
	DELETE FROM bench.deferred d WHERE d.run_id = p_run_id AND d.workspace_id = p_workspace_id;
	RETURN FOUND;
END
$$;

-- The once gate, in an exception block for the tries; what cannot be written is kept for later.
CREATE FUNCTION bench.finalize_run(
	p_run_id uuid,
	p_workspace_id uuid,
	p_turn_status text,
	p_error text DEFAULT NULL
)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
	v_status text := CASE p_turn_status
		WHEN 'completed' THEN 'succeeded' WHEN 'error' THEN 'failed' WHEN 'aborted' THEN 'aborted' END;
	v_cause text;
BEGIN
	IF v_status IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = format('unknown turn status "%s"', p_turn_status);
	END IF;
	FOR attempt IN 1..3 LOOP
		BEGIN
			UPDATE bench.runs r
			SET status = v_status, error = p_error, finished_at = clock_timestamp(), updated_at = clock_timestamp()
			WHERE r.id = p_run_id AND r.workspace_id = p_workspace_id
				AND r.status NOT IN ('succeeded', 'failed', 'aborted')
				AND NOT EXISTS (
					SELECT FROM bench.deferred d WHERE d.run_id = p_run_id AND d.workspace_id = p_workspace_id
				);
			IF FOUND THEN
				RETURN 'finalized';
			END IF;
			IF bench.settle_deferred(p_run_id, p_workspace_id)
				OR EXISTS (SELECT FROM bench.runs r WHERE r.id = p_run_id AND r.workspace_id = p_workspace_id)
			THEN
				RETURN 'already_finalized';
			END IF;
			RETURN 'not_found';
		EXCEPTION WHEN OTHERS THEN
			v_cause := SQLERRM;
			RAISE WARNING 'failed to finalize run % (attempt %/3): %', p_run_id, attempt, v_cause;
		END;
		PERFORM pg_sleep(0.05 * attempt);
	END LOOP;
	INSERT INTO bench.deferred (workspace_id, run_id, status, error, cause)
	VALUES (p_workspace_id, p_run_id, v_status, p_error, v_cause)
	ON CONFLICT DO NOTHING;
	RETURN 'deferred';
END
$$;

-- Like an application's role: the functions of the one, the rights on the table of the other.
SELECT ai_chat_run.grant_app_access('chat_app');
GRANT USAGE ON SCHEMA bench TO chat_app;
GRANT SELECT, INSERT, UPDATE ON bench.plain, bench.words TO chat_app;
GRANT EXECUTE ON FUNCTION ai_chat_run.new_run_id(), ai_chat_run.is_run_status(text),
	ai_chat_run.is_terminal_status(text) TO chat_app;

-- The same runs in any of the tables, without triggers and in the order of all indexes, which is quick also for the
-- many. Their ids are either of long ago and in order, or random.
CREATE FUNCTION bench.fill(p_table regclass, p_status text, p_ids text, p_rows bigint)
RETURNS void
LANGUAGE plpgsql
SET session_replication_role = replica
SET work_mem = '256MB'
AS $$
BEGIN
	EXECUTE format($sql$
		INSERT INTO %s (id, chat_id, workspace_id, status, started_at, finished_at)
		SELECT u, u, '00000000-0000-4000-9000-000000000001', %L, now(),
			CASE WHEN %2$L IN ('succeeded', 'failed', 'aborted') THEN now() END
		FROM (
			SELECT CASE %L
				WHEN 'ordered' THEN '01890000-0000-7000-8000-' || lpad(to_hex(i), 12, '0')
				ELSE md5(i::text)
				END::uuid AS u
			FROM generate_series(1, %s) i
			ORDER BY u
		) ids
	$sql$, p_table, p_status, p_ids, p_rows);
END
$$;
