-- Functions for applications. SECURITY DEFINER: an application's role needs no
-- right on the tables. Safe against any search_path, since every name in the
-- statements behind them is qualified.

CREATE FUNCTION ai_chat_run.begin_run(
	chat_id uuid,
	workspace_id uuid,
	created_by uuid DEFAULT NULL,
	trigger text DEFAULT 'user',
	run_id uuid DEFAULT NULL,
	runner text DEFAULT NULL
)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_begin_run';

COMMENT ON FUNCTION ai_chat_run.begin_run(uuid, uuid, uuid, text, uuid, text) IS
'Begins a run and returns its id. Error RN409 if the chat has an active run. A given run_id makes the call repeatable.';

CREATE FUNCTION ai_chat_run.try_begin_run(
	chat_id uuid,
	workspace_id uuid,
	created_by uuid DEFAULT NULL,
	trigger text DEFAULT 'user',
	run_id uuid DEFAULT NULL,
	runner text DEFAULT NULL,
	OUT outcome text,
	OUT run_id uuid
)
RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_try_begin_run';

COMMENT ON FUNCTION ai_chat_run.try_begin_run(uuid, uuid, uuid, text, uuid, text) IS
'As begin_run, with the outcome as data: began, resumed (the given run_id was there) or busy (run_id is the active run).';

CREATE FUNCTION ai_chat_run.record_step(
	run_id uuid,
	workspace_id uuid,
	step_count integer
)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_record_step';

COMMENT ON FUNCTION ai_chat_run.record_step(uuid, uuid, integer) IS
'Stores the number of finished steps. Returns continue, stop, finalized or not_found; null after a WARNING if the write failed.';

CREATE FUNCTION ai_chat_run.heartbeat(
	run_id uuid,
	workspace_id uuid
)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_heartbeat';

COMMENT ON FUNCTION ai_chat_run.heartbeat(uuid, uuid) IS
'Says that the runner is alive, with the library preloaded in shared memory alone. Returns continue, stop, finalized or not_found; null after a WARNING if the write failed.';

CREATE FUNCTION ai_chat_run.link_assistant_message(
	run_id uuid,
	workspace_id uuid,
	assistant_message_id uuid
)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_link_assistant_message';

COMMENT ON FUNCTION ai_chat_run.link_assistant_message(uuid, uuid, uuid) IS
'Links the assistant''s message to its run. Returns whether the run is there; null after a WARNING if the write failed.';

CREATE FUNCTION ai_chat_run.finalize_run(
	run_id uuid,
	workspace_id uuid,
	turn_status text,
	error text DEFAULT NULL
)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_finalize_run';

COMMENT ON FUNCTION ai_chat_run.finalize_run(uuid, uuid, text, text) IS
'Makes the run terminal, once: turn_status is completed, error or aborted. Returns finalized, already_finalized, deferred or not_found.';

CREATE FUNCTION ai_chat_run.map_turn_status(turn_status text)
RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'acr_map_turn_status';

COMMENT ON FUNCTION ai_chat_run.map_turn_status(text) IS
'The run status that a turn status leads to: completed is succeeded, error is failed, aborted is aborted.';

CREATE FUNCTION ai_chat_run.request_stop(
	run_id uuid,
	workspace_id uuid
)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_request_stop';

COMMENT ON FUNCTION ai_chat_run.request_stop(uuid, uuid) IS
'Requests an active run to stop, and notifies channel ai_chat_run_stop with its id. Returns whether there was something to stop.';

CREATE FUNCTION ai_chat_run.request_stop_for_chat(
	chat_id uuid,
	workspace_id uuid
)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_request_stop_for_chat';

COMMENT ON FUNCTION ai_chat_run.request_stop_for_chat(uuid, uuid) IS
'As request_stop, for whatever run is active in the chat. Returns its id, or null if there was nothing to stop.';

CREATE FUNCTION ai_chat_run.settle_deferred(run_id uuid DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_settle_deferred';

COMMENT ON FUNCTION ai_chat_run.settle_deferred(uuid) IS
'Applies the deferred finalizations that can be applied now, all or that of one run. Returns the number of runs made terminal.';

CREATE FUNCTION ai_chat_run.get_run(
	run_id uuid,
	workspace_id uuid
)
RETURNS SETOF ai_chat_run.ai_chat_runs
LANGUAGE c STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 1
AS 'MODULE_PATHNAME', 'acr_get_run';

COMMENT ON FUNCTION ai_chat_run.get_run(uuid, uuid) IS
'The run: zero or one row.';

CREATE FUNCTION ai_chat_run.get_latest_for_chat(
	chat_id uuid,
	workspace_id uuid
)
RETURNS SETOF ai_chat_run.ai_chat_runs
LANGUAGE c STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 1
AS 'MODULE_PATHNAME', 'acr_get_latest_for_chat';

COMMENT ON FUNCTION ai_chat_run.get_latest_for_chat(uuid, uuid) IS
'The chat''s latest run, active or terminal: zero or one row.';

CREATE FUNCTION ai_chat_run.get_active_for_chat(
	chat_id uuid,
	workspace_id uuid
)
RETURNS SETOF ai_chat_run.ai_chat_runs
LANGUAGE c STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 1
AS 'MODULE_PATHNAME', 'acr_get_active_for_chat';

COMMENT ON FUNCTION ai_chat_run.get_active_for_chat(uuid, uuid) IS
'The chat''s active run: zero or one row.';

CREATE FUNCTION ai_chat_run.delete_runs_of_chat()
RETURNS trigger
LANGUAGE c VOLATILE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_delete_runs_of_chat';

COMMENT ON FUNCTION ai_chat_run.delete_runs_of_chat() IS
'Trigger function for AFTER DELETE FOR EACH ROW on the application''s table of chats: removes a deleted chat''s runs. Arguments: the columns of the chat''s id and of its workspace, if not id and workspace_id.';

CREATE FUNCTION ai_chat_run.is_locally_active(run_id uuid)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_is_locally_active';

COMMENT ON FUNCTION ai_chat_run.is_locally_active(uuid) IS
'Whether the run is active and this server has heard from its runner since server start. Needs preloading.';

CREATE FUNCTION ai_chat_run.attach_runner(
	runner text,
	incarnation uuid DEFAULT NULL
)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_attach_runner';

COMMENT ON FUNCTION ai_chat_run.attach_runner(text, uuid) IS
'Binds the name of an application process to this session, and aborts the runs that an earlier incarnation of it left: returns their number. Needs preloading.';

-- Procedures that wait. They commit in between, which the server forbids to a
-- SECURITY DEFINER procedure: they take on the rights of their owner themselves.

CREATE PROCEDURE ai_chat_run.await_run(
	run_id uuid,
	workspace_id uuid,
	timeout interval DEFAULT '30 s',
	INOUT status text DEFAULT NULL,
	INOUT error text DEFAULT NULL
)
LANGUAGE c
AS 'MODULE_PATHNAME', 'acr_await_run';

COMMENT ON PROCEDURE ai_chat_run.await_run(uuid, uuid, interval, text, text) IS
'Waits until the run is terminal: its status and error, or nulls at the timeout. Needs preloading.';

CREATE PROCEDURE ai_chat_run.await_stop(
	run_id uuid,
	workspace_id uuid,
	timeout interval DEFAULT '30 s',
	INOUT signal text DEFAULT NULL
)
LANGUAGE c
AS 'MODULE_PATHNAME', 'acr_await_stop';

COMMENT ON PROCEDURE ai_chat_run.await_stop(uuid, uuid, interval, text) IS
'Waits until a stop of the run is requested (stop), or it is settled (finalized) or gone (not_found); null at the timeout. Needs preloading.';

CREATE PROCEDURE ai_chat_run.await_stops(
	runner text,
	already_seen uuid[] DEFAULT '{}',
	timeout interval DEFAULT '30 s',
	INOUT run_ids uuid[] DEFAULT NULL
)
LANGUAGE c
AS 'MODULE_PATHNAME', 'acr_await_stops';

COMMENT ON PROCEDURE ai_chat_run.await_stops(text, uuid[], interval, uuid[]) IS
'Waits until a stop is requested of any active run of that runner, other than those already seen: their ids, or null at the timeout. Needs preloading.';

CREATE PROCEDURE ai_chat_run.supersede_run(
	chat_id uuid,
	target_run_id uuid,
	workspace_id uuid,
	created_by uuid DEFAULT NULL,
	trigger text DEFAULT 'user',
	timeout interval DEFAULT '10 s',
	force boolean DEFAULT false,
	INOUT outcome text DEFAULT NULL,
	INOUT run_id uuid DEFAULT NULL
)
LANGUAGE c
AS 'MODULE_PATHNAME', 'acr_supersede_run';

COMMENT ON PROCEDURE ai_chat_run.supersede_run(uuid, uuid, uuid, uuid, text, interval, boolean, text, uuid) IS
'Stops the target, waits until it is terminal, and begins a new run, whose slot nobody else can take: superseded, began, mismatch or timeout. With force, the target is aborted at the timeout. Needs preloading.';

-- Functions for operators.

CREATE FUNCTION ai_chat_run.sweep_runs(
	stale_after interval DEFAULT NULL,
	runner text DEFAULT NULL,
	max_runs bigint DEFAULT NULL
)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_sweep_runs';

COMMENT ON FUNCTION ai_chat_run.sweep_runs(interval, text, bigint) IS
'Aborts active runs: all, or those silent for stale_after, or those of one runner. Deferred finalizations are applied first. Returns the number of runs made terminal.';

CREATE FUNCTION ai_chat_run.purge_runs(
	older_than interval,
	max_runs bigint DEFAULT NULL
)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_purge_runs';

COMMENT ON FUNCTION ai_chat_run.purge_runs(interval, bigint) IS
'Deletes terminal runs that finished longer ago than that. Returns the number deleted.';

-- Grants with the rights of whoever calls it, so not SECURITY DEFINER.
CREATE FUNCTION ai_chat_run.grant_app_access(role regrole)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'acr_grant_app_access';

COMMENT ON FUNCTION ai_chat_run.grant_app_access(regrole) IS
'Lets a role use the schema and call the functions for applications; it gets no right on the tables.';

