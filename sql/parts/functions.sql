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
'Begins a run in the chat and returns its id. A run_id of your own makes the call repeatable: the same
call again returns it. created_by is the user who asked for the turn, trigger what started it, runner
the process that executes it, by default the setting ai_chat_run.runner.
Errors: RN409 if the chat has an active run, 23505 for the run_id of another chat''s run, 22004 for a
null chat_id or workspace_id, 22023 for a runner of more than 127 bytes, 22021 for a setting that is no
text in this database, 55P03 at the session''s lock_timeout, 25006 if read-only.';

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
'As begin_run, with the outcome as data: began (run_id is the new run), resumed (the given run_id was
there) or busy (run_id is the active run; null if it cannot be told).
Errors: as begin_run, but never RN409.';

CREATE FUNCTION ai_chat_run.record_step(
	run_id uuid,
	workspace_id uuid,
	step_count integer
)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_record_step';

COMMENT ON FUNCTION ai_chat_run.record_step(uuid, uuid, integer) IS
'Stores the number of finished steps, which never goes down, and that the runner is alive. Returns what
the runner shall do: continue, stop (a stop is requested), finalized (the run has ended: quit) or
not_found; null, after a WARNING, if the write failed.
Errors: 22004 for a null, 22023 for a negative step_count, 25006 if read-only.';

CREATE FUNCTION ai_chat_run.heartbeat(
	run_id uuid,
	workspace_id uuid
)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_heartbeat';

COMMENT ON FUNCTION ai_chat_run.heartbeat(uuid, uuid) IS
'Says that the runner is alive; with the library preloaded in shared memory, without a write. Returns
what the runner shall do: continue, stop, finalized or not_found, as record_step does; null, after a
WARNING, if it had to write and that failed.
Errors: 22004 for a null, 25006 if read-only.';

CREATE FUNCTION ai_chat_run.link_assistant_message(
	run_id uuid,
	workspace_id uuid,
	assistant_message_id uuid
)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_link_assistant_message';

COMMENT ON FUNCTION ai_chat_run.link_assistant_message(uuid, uuid, uuid) IS
'Links the message that the turn writes to its run, also after the end. Returns whether the run is
there; null, after a WARNING, if the write failed.
Errors: 22004 for a null, 25006 if read-only.';

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
'Makes the run terminal, once: turn_status completed makes it succeeded, error failed, aborted aborted;
error says why. Returns finalized (this call wrote it), already_finalized (somebody had), deferred (it
could not be written, is recorded and will be, which a WARNING RN500 tells) or not_found.
Errors: 22004 for a null but error, 22023 for an unknown turn_status, 25006 if read-only; the last
failure, if not even the deferral can be recorded.';

CREATE FUNCTION ai_chat_run.map_turn_status(turn_status text)
RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'acr_map_turn_status';

COMMENT ON FUNCTION ai_chat_run.map_turn_status(text) IS
'The run status that a turn status leads to: completed is succeeded, error is failed, aborted is aborted.
Errors: 22004 for a null, 22023 for any other text.';

CREATE FUNCTION ai_chat_run.request_stop(
	run_id uuid,
	workspace_id uuid
)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_request_stop';

COMMENT ON FUNCTION ai_chat_run.request_stop(uuid, uuid) IS
'Requests an active run to stop, and notifies channel ai_chat_run_stop with its id. Its runner is told by
the next call, or at once if it waits. Returns whether there was something to stop.
Errors: 22004 for a null, 25006 if read-only; 55P03 if the row stays locked for ai_chat_run.lock_timeout
and shared memory does not know the run.';

CREATE FUNCTION ai_chat_run.request_stop_for_chat(
	chat_id uuid,
	workspace_id uuid
)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_request_stop_for_chat';

COMMENT ON FUNCTION ai_chat_run.request_stop_for_chat(uuid, uuid) IS
'As request_stop, for whatever run is active in the chat. Returns its id; null if there was nothing to
stop.
Errors: as request_stop.';

CREATE FUNCTION ai_chat_run.settle_deferred(run_id uuid DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_settle_deferred';

COMMENT ON FUNCTION ai_chat_run.settle_deferred(uuid) IS
'Applies the deferred finalizations that can be applied now, all or that of one run, without waiting
behind a client''s row lock. Returns the number of runs made terminal. One that fails is a WARNING and
stays deferred.
Errors: 25006 if read-only.';

CREATE FUNCTION ai_chat_run.get_run(
	run_id uuid,
	workspace_id uuid
)
RETURNS SETOF ai_chat_run.ai_chat_runs
LANGUAGE c STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 1
AS 'MODULE_PATHNAME', 'acr_get_run';

COMMENT ON FUNCTION ai_chat_run.get_run(uuid, uuid) IS
'The run: zero or one row.
Errors: 22004 for a null.';

CREATE FUNCTION ai_chat_run.get_latest_for_chat(
	chat_id uuid,
	workspace_id uuid
)
RETURNS SETOF ai_chat_run.ai_chat_runs
LANGUAGE c STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 1
AS 'MODULE_PATHNAME', 'acr_get_latest_for_chat';

COMMENT ON FUNCTION ai_chat_run.get_latest_for_chat(uuid, uuid) IS
'The chat''s latest run, active or terminal: zero or one row.
Errors: 22004 for a null.';

CREATE FUNCTION ai_chat_run.get_active_for_chat(
	chat_id uuid,
	workspace_id uuid
)
RETURNS SETOF ai_chat_run.ai_chat_runs
LANGUAGE c STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 1
AS 'MODULE_PATHNAME', 'acr_get_active_for_chat';

COMMENT ON FUNCTION ai_chat_run.get_active_for_chat(uuid, uuid) IS
'The chat''s active run: zero or one row.
Errors: 22004 for a null.';

CREATE FUNCTION ai_chat_run.delete_runs_of_chat()
RETURNS trigger
LANGUAGE c VOLATILE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_delete_runs_of_chat';

COMMENT ON FUNCTION ai_chat_run.delete_runs_of_chat() IS
'Trigger function for AFTER DELETE FOR EACH ROW on the application''s table of chats: removes a deleted
chat''s runs. Arguments: the columns of the chat''s id and of its workspace, if not id and workspace_id.
Errors: 39P01 as any other trigger, 42703 for a column that is not there, 42804 for one that is no uuid,
22004 for a null in it, 42501 for a table without a workspace, unless its owner has the rights of
the extension''s owner.';

CREATE FUNCTION ai_chat_run.is_locally_active(run_id uuid)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_is_locally_active';

COMMENT ON FUNCTION ai_chat_run.is_locally_active(uuid) IS
'Whether the run is active and this server has heard from its runner since server start. Needs
preloading.
Errors: 55000 without preloading, 22004 for a null.';

CREATE FUNCTION ai_chat_run.attach_runner(
	runner text,
	incarnation uuid DEFAULT NULL
)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_attach_runner';

COMMENT ON FUNCTION ai_chat_run.attach_runner(text, uuid) IS
'Binds the name of an application process to this session: when that has ended, and nobody attaches the
name again in ai_chat_run.runner_grace, the runner''s active runs are aborted. incarnation is one life of
the process, null a new one: the runs that an earlier one left are aborted now, and their number is
returned. Needs preloading.
Errors: 55000 without preloading, 55006 if another live session has the name, 22004 for a null runner,
22023 for one that is empty or has more than 127 bytes, 53400 if too many are attached, 25006 if
read-only; the transaction cannot be prepared (0A000).';

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
'Waits until the run is terminal and gives its status and error, at once if it is; nulls at the timeout;
status not_found for a run that is not there. Needs preloading.
Errors: 55000 without preloading, 25001 in a transaction block, 22004 for a null, 22023 for a negative
timeout, 22008 for one beyond the calendar, 25006 on a standby.';

CREATE PROCEDURE ai_chat_run.await_stop(
	run_id uuid,
	workspace_id uuid,
	timeout interval DEFAULT '30 s',
	INOUT signal text DEFAULT NULL
)
LANGUAGE c
AS 'MODULE_PATHNAME', 'acr_await_stop';

COMMENT ON PROCEDURE ai_chat_run.await_stop(uuid, uuid, interval, text) IS
'Waits until a stop of the run is requested (signal is stop), or it has ended (finalized) or is not there
(not_found), also if that was before the call; null at the timeout. Needs preloading.
Errors: as await_run.';

CREATE PROCEDURE ai_chat_run.await_stops(
	runner text,
	already_seen uuid[] DEFAULT '{}',
	timeout interval DEFAULT '30 s',
	INOUT run_ids uuid[] DEFAULT NULL
)
LANGUAGE c
AS 'MODULE_PATHNAME', 'acr_await_stops';

COMMENT ON PROCEDURE ai_chat_run.await_stops(text, uuid[], interval, uuid[]) IS
'Waits until a stop is requested of an active run of that runner, other than those already seen, also if
that was before the call: run_ids has all of these; null at the timeout. Needs preloading.
Errors: as await_run; 22023 also for a runner of more than 127 bytes.';

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
'Stops the target, waits until it is terminal, and begins a new run, whose slot nobody else can take
meanwhile. outcome: superseded or began (run_id is the new run; with began none was active), mismatch
(run_id is the active run, which is another; nothing was changed) or timeout (nothing was begun). With
force, the target is aborted at the timeout. Needs preloading.
Errors: as await_run; 22023 also for a target of another chat; 22021 as begin_run; 25006 if read-only.';

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
'Aborts active runs: all, or those silent for stale_after, or those of one runner; at most max_runs.
Deferred finalizations are applied first. Rows that a client has locked are left out. Returns the number
of runs made terminal; of a long sweep, an INFO after each batch says how many by now.
Errors: 22023 for a negative argument, 22008 for an interval beyond the calendar, 25006 if read-only.';

CREATE FUNCTION ai_chat_run.purge_runs(
	older_than interval,
	max_runs bigint DEFAULT NULL
)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS 'MODULE_PATHNAME', 'acr_purge_runs';

COMMENT ON FUNCTION ai_chat_run.purge_runs(interval, bigint) IS
'Deletes terminal runs that finished longer ago than that, at most max_runs; never one that has a
deferred finalization. Rows that a client has locked are left out. Returns the number deleted; of a long
purge, an INFO after each batch says how many by now.
Errors: 22004 for a null older_than, 22023 for a negative argument, 22008 for an interval beyond the
calendar, 25006 if read-only.';

-- Grants with the rights of whoever calls it, so not SECURITY DEFINER.
CREATE FUNCTION ai_chat_run.grant_app_access(role regrole)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'acr_grant_app_access';

COMMENT ON FUNCTION ai_chat_run.grant_app_access(regrole) IS
'Lets a role use the schema and call the functions for applications; it gets no right on the tables. To
be called by the owner, or with grant options.
Errors: 22004 for a null, 42704 for a role that does not exist, 42501 for who may not grant, 25006 if
read-only.';

