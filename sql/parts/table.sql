\echo Use "CREATE EXTENSION ai_chat_run" to load this file. \quit

-- Whoever owns the schema can put other functions beside ours. CREATE EXTENSION
-- takes a schema that somebody has made before; we only take one of a superuser
-- or of the installing role.
DO $$
BEGIN
	IF NOT EXISTS (
		SELECT FROM pg_catalog.pg_namespace n
		JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
		WHERE n.nspname OPERATOR(pg_catalog.=) 'ai_chat_run'
			AND (r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) current_user)
	) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'insufficient_privilege',
			MESSAGE = 'schema "ai_chat_run" belongs to another role',
			HINT = 'Drop the schema, or make the installing role its owner.';
	END IF;
END
$$;

COMMENT ON SCHEMA ai_chat_run IS
'Durable agent runs of AI chats: the tables and functions of extension ai_chat_run.';

CREATE FUNCTION ai_chat_run.new_run_id()
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'acr_new_run_id';

COMMENT ON FUNCTION ai_chat_run.new_run_id() IS
'A new version 7 UUID, time-ordered also within a millisecond; the default of ai_chat_runs.id.';

CREATE FUNCTION ai_chat_run.is_run_status(status text)
RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'acr_is_run_status';

COMMENT ON FUNCTION ai_chat_run.is_run_status(text) IS
'Is this the status of a run: pending, running, succeeded, failed or aborted? For a check of the table.';

CREATE FUNCTION ai_chat_run.is_terminal_status(status text)
RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'acr_is_terminal_status';

COMMENT ON FUNCTION ai_chat_run.is_terminal_status(text) IS
'Is this the status of a run that has ended: succeeded, failed or aborted? For checks of the tables.';

-- The checks are functions: the server reads the text of a check anew for each
-- statement that writes, and that of a list of words is long.
CREATE TABLE ai_chat_run.ai_chat_runs (
	id uuid NOT NULL DEFAULT ai_chat_run.new_run_id(),
	chat_id uuid NOT NULL,
	workspace_id uuid NOT NULL,
	created_by uuid,
	assistant_message_id uuid,
	trigger text NOT NULL DEFAULT 'user',
	status text NOT NULL DEFAULT 'pending',
	error text,
	step_count integer NOT NULL DEFAULT 0,
	runner text,
	stop_requested_at timestamptz,
	started_at timestamptz,
	finished_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT ai_chat_runs_pkey PRIMARY KEY (id),
	CONSTRAINT ai_chat_runs_status_known
		CHECK (ai_chat_run.is_run_status(status)),
	CONSTRAINT ai_chat_runs_finished_when_terminal
		CHECK ((finished_at IS NOT NULL) = ai_chat_run.is_terminal_status(status)),
	CONSTRAINT ai_chat_runs_step_count_not_negative
		CHECK (step_count >= 0)
)
-- Room in each page for the next version of a row, so that a step's update, which
-- changes no indexed column, stays a HOT update.
WITH (fillfactor = 80);

-- The gate: one active run per chat.
CREATE UNIQUE INDEX ai_chat_runs_one_active_per_chat
	ON ai_chat_run.ai_chat_runs (chat_id)
	WHERE status IN ('pending', 'running');

-- The latest run of a chat.
CREATE INDEX ai_chat_runs_chat_id_id_idx
	ON ai_chat_run.ai_chat_runs (chat_id, id);

-- No foreign key to the run: recording one must not need a lock on its row.
CREATE TABLE ai_chat_run.deferred_finalizations (
	workspace_id uuid NOT NULL,
	run_id uuid NOT NULL,
	status text NOT NULL,
	error text,
	cause text NOT NULL,
	deferred_at timestamptz NOT NULL DEFAULT now(),
	attempts integer NOT NULL DEFAULT 0,
	next_attempt_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT deferred_finalizations_pkey PRIMARY KEY (workspace_id, run_id),
	CONSTRAINT deferred_finalizations_status_terminal
		CHECK (ai_chat_run.is_terminal_status(status))
);

-- Who comes back after a lost connection or a restart is known by this.
CREATE TABLE ai_chat_run.runners (
	runner text NOT NULL,
	incarnation uuid NOT NULL,
	since timestamptz NOT NULL DEFAULT now(),
	attached_in timestamptz NOT NULL DEFAULT now(),
	seen_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT runners_pkey PRIMARY KEY (runner)
);

-- A dump takes the rows along.
SELECT pg_catalog.pg_extension_config_dump('ai_chat_run.ai_chat_runs', '');
SELECT pg_catalog.pg_extension_config_dump('ai_chat_run.runners', '');
SELECT pg_catalog.pg_extension_config_dump('ai_chat_run.deferred_finalizations', '');

CREATE FUNCTION ai_chat_run.terminal_is_final()
RETURNS trigger
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'acr_terminal_is_final';

COMMENT ON FUNCTION ai_chat_run.terminal_is_final() IS
'Trigger function: refuses to reopen a terminal run or to change its status, finished_at, error, chat or workspace.
Errors: RN410; 39P01 as any other trigger.';

CREATE FUNCTION ai_chat_run.run_inserted()
RETURNS trigger
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'acr_run_inserted';

COMMENT ON FUNCTION ai_chat_run.run_inserted() IS
'Trigger function: lets the background worker know that there may be an active run, and wakes who waits for its stop.
Errors: 39P01 as any other trigger.';

-- Without a condition: the server would read that anew for each statement.
CREATE TRIGGER run_inserted
	BEFORE INSERT ON ai_chat_run.ai_chat_runs
	FOR EACH ROW EXECUTE FUNCTION ai_chat_run.run_inserted();

COMMENT ON TRIGGER run_inserted ON ai_chat_run.ai_chat_runs IS
'The background worker looks after a run whoever inserted it; and who waits for a stop is told if it was inserted with one.';

CREATE TRIGGER terminal_is_final
	AFTER UPDATE ON ai_chat_run.ai_chat_runs
	FOR EACH ROW EXECUTE FUNCTION ai_chat_run.terminal_is_final();

COMMENT ON TRIGGER terminal_is_final ON ai_chat_run.ai_chat_runs IS
'A terminal run stays as it ended, for direct writers too; and who waits for the end or the stop of a run is woken.';

CREATE FUNCTION ai_chat_run.run_deleted()
RETURNS trigger
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'acr_run_deleted';

COMMENT ON FUNCTION ai_chat_run.run_deleted() IS
'Trigger function: wakes who waits for a run that is gone.
Errors: 39P01 as any other trigger.';

-- The condition keeps the deletion of old runs, which nobody waits for, quick.
CREATE TRIGGER run_deleted
	AFTER DELETE ON ai_chat_run.ai_chat_runs
	FOR EACH ROW WHEN (OLD.status IN ('pending', 'running'))
	EXECUTE FUNCTION ai_chat_run.run_deleted();

COMMENT ON TRIGGER run_deleted ON ai_chat_run.ai_chat_runs IS
'Who waits for the end of an active run is woken when it is deleted.';

CREATE FUNCTION ai_chat_run.runs_truncated()
RETURNS trigger
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'acr_runs_truncated';

COMMENT ON FUNCTION ai_chat_run.runs_truncated() IS
'Trigger function: wakes who waits for any run.
Errors: 39P01 as any other trigger.';

CREATE TRIGGER runs_truncated
	AFTER TRUNCATE ON ai_chat_run.ai_chat_runs
	FOR EACH STATEMENT EXECUTE FUNCTION ai_chat_run.runs_truncated();

COMMENT ON TRIGGER runs_truncated ON ai_chat_run.ai_chat_runs IS
'Who waits for any run looks again.';

COMMENT ON TABLE ai_chat_run.ai_chat_runs IS
'Agent runs of AI chats: one row a turn. At most one run of a chat is active (pending or running); a terminal run (succeeded, failed, aborted) is final.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.id IS
'The run; a version 7 UUID unless the application gave another.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.chat_id IS
'The chat whose turn this is.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.workspace_id IS
'The workspace (tenant) of the chat; a run of another workspace is "not found".';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.created_by IS
'The user who asked for the turn, if any.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.assistant_message_id IS
'The assistant''s message that the turn writes; may be linked after the end, too.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.trigger IS
'What started the turn: user, or a word of the application''s own.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.status IS
'pending or running (active); succeeded, failed or aborted (terminal, final).';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.error IS
'Why the run failed or was aborted, if known.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.step_count IS
'Number of finished steps; never goes down.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.runner IS
'Name of the application process that executes the run, if it told.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.stop_requested_at IS
'When an explicit stop was first requested.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.started_at IS
'When the run was begun.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.finished_at IS
'When the run became terminal; null exactly while it is active.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.created_at IS
'When the row was made: the start of the transaction that made it.';
COMMENT ON COLUMN ai_chat_run.ai_chat_runs.updated_at IS
'When the run''s runner was last heard of through the row, or the run settled.';
COMMENT ON CONSTRAINT ai_chat_runs_pkey ON ai_chat_run.ai_chat_runs IS
'A run has one id, by which it is found.';
COMMENT ON CONSTRAINT ai_chat_runs_status_known ON ai_chat_run.ai_chat_runs IS
'The states that there are.';
COMMENT ON CONSTRAINT ai_chat_runs_finished_when_terminal ON ai_chat_run.ai_chat_runs IS
'A run has an end exactly when it is terminal.';
COMMENT ON CONSTRAINT ai_chat_runs_step_count_not_negative ON ai_chat_run.ai_chat_runs IS
'Steps are counted from 0.';
COMMENT ON INDEX ai_chat_run.ai_chat_runs_one_active_per_chat IS
'The gate: at most one active run per chat.';
COMMENT ON INDEX ai_chat_run.ai_chat_runs_chat_id_id_idx IS
'Finds the latest run of a chat.';

COMMENT ON TABLE ai_chat_run.deferred_finalizations IS
'Terminal statuses that were decided but could not be written yet. The background worker, or the next call that meets one, applies them.';
COMMENT ON COLUMN ai_chat_run.deferred_finalizations.workspace_id IS
'The workspace that finalized the run.';
COMMENT ON COLUMN ai_chat_run.deferred_finalizations.run_id IS
'The run.';
COMMENT ON COLUMN ai_chat_run.deferred_finalizations.status IS
'The terminal status that was decided; the first one recorded wins.';
COMMENT ON COLUMN ai_chat_run.deferred_finalizations.error IS
'The error text that belongs to it.';
COMMENT ON COLUMN ai_chat_run.deferred_finalizations.cause IS
'Why it could not be written.';
COMMENT ON COLUMN ai_chat_run.deferred_finalizations.deferred_at IS
'When it was decided; becomes finished_at of the run.';
COMMENT ON COLUMN ai_chat_run.deferred_finalizations.attempts IS
'How often the background worker failed to apply it, not counting locks.';
COMMENT ON COLUMN ai_chat_run.deferred_finalizations.next_attempt_at IS
'When the background worker tries again at the earliest; any other call may at once.';
COMMENT ON CONSTRAINT deferred_finalizations_pkey ON ai_chat_run.deferred_finalizations IS
'One end a run; scoped by the workspace, so that a wrong one cannot take the place.';
COMMENT ON CONSTRAINT deferred_finalizations_status_terminal ON ai_chat_run.deferred_finalizations IS
'Only an end can be deferred.';

COMMENT ON TABLE ai_chat_run.runners IS
'Application processes that have attached: attach_runner() tells by it who comes back from who was started anew.';
COMMENT ON COLUMN ai_chat_run.runners.runner IS
'The name of the runner.';
COMMENT ON COLUMN ai_chat_run.runners.incarnation IS
'The life of the process that attached last under this name.';
COMMENT ON COLUMN ai_chat_run.runners.since IS
'When that life attached first.';
COMMENT ON COLUMN ai_chat_run.runners.attached_in IS
'The beginning of the transaction in which it did: runs that this has inserted are its own, too.';
COMMENT ON COLUMN ai_chat_run.runners.seen_at IS
'When it attached, or was last found departed; long after, it is forgotten.';
COMMENT ON CONSTRAINT runners_pkey ON ai_chat_run.runners IS
'A name has one incarnation.';
