-- What operators see. The functions behind the views show shared memory; they
-- give nothing where the library is not preloaded.

CREATE FUNCTION ai_chat_run.live_state(
	run_id uuid,
	runner text,
	OUT heard_at timestamptz,
	OUT stop_requested boolean,
	OUT attached boolean
)
RETURNS record
LANGUAGE c VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'acr_live_state';

COMMENT ON FUNCTION ai_chat_run.live_state(uuid, text) IS
'What shared memory knows of a run and its runner; for the view active_runs.';

CREATE FUNCTION ai_chat_run.database_counters(
	OUT datid oid,
	OUT begun bigint,
	OUT rejected bigint,
	OUT finalized_succeeded bigint,
	OUT finalized_failed bigint,
	OUT finalized_aborted bigint,
	OUT retries bigint,
	OUT deferred bigint,
	OUT settled_later bigint,
	OUT swept_at_boot bigint,
	OUT swept_stale bigint,
	OUT swept_departed bigint,
	OUT stops bigint,
	OUT heartbeats bigint,
	OUT waits bigint,
	OUT untracked bigint,
	OUT stats_reset timestamptz
)
RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 10
AS 'MODULE_PATHNAME', 'acr_database_counters';

COMMENT ON FUNCTION ai_chat_run.database_counters() IS
'The counters of each database; for the view stats.';

CREATE FUNCTION ai_chat_run.database_visits(
	OUT datid oid,
	OUT has_extension boolean,
	OUT boot_sweep_done_at timestamptz,
	OUT runs_swept bigint,
	OUT last_error text,
	OUT last_error_at timestamptz,
	OUT working boolean,
	OUT next_due timestamptz
)
RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 10
AS 'MODULE_PATHNAME', 'acr_database_visits';

COMMENT ON FUNCTION ai_chat_run.database_visits() IS
'What the background worker knows of each database; for the view workers.';

CREATE FUNCTION ai_chat_run.server_state(
	OUT preloaded boolean,
	OUT launcher_alive boolean,
	OUT opened_at timestamptz,
	OUT overdue_since timestamptz
)
RETURNS record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'acr_server_state';

COMMENT ON FUNCTION ai_chat_run.server_state() IS
'Whether the library is preloaded and the launcher runs, since when the server is open, and since when a run has to be silent to be overdue; for health().';

CREATE FUNCTION ai_chat_run.stats_reset()
RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'acr_stats_reset';

COMMENT ON FUNCTION ai_chat_run.stats_reset() IS
'Sets the counters of the current database to zero. Does nothing without preloading.';

-- A barrier: a condition of whoever looks must not see the runs that have ended.
CREATE VIEW ai_chat_run.active_runs WITH (security_barrier) AS
SELECT
	r.id AS run_id,
	r.chat_id,
	r.workspace_id,
	r.runner,
	-- a direct writer's infinity has no age; before 17 that would be an error
	CASE WHEN isfinite(coalesce(r.started_at, r.created_at))
		THEN now() - coalesce(r.started_at, r.created_at) END AS age,
	greatest(r.updated_at, l.heard_at) AS last_seen,
	r.step_count,
	r.stop_requested_at IS NOT NULL OR coalesce(l.stop_requested, false) AS stop_requested,
	EXISTS (
		SELECT FROM ai_chat_run.deferred_finalizations d
		WHERE d.workspace_id = r.workspace_id AND d.run_id = r.id
	) AS deferred,
	coalesce(l.attached, false) AS attached
FROM ai_chat_run.ai_chat_runs r
CROSS JOIN LATERAL ai_chat_run.live_state(r.id, r.runner) l
WHERE r.status IN ('pending', 'running');

COMMENT ON VIEW ai_chat_run.active_runs IS
'The active runs of this database, with what is known of their runners.';
COMMENT ON COLUMN ai_chat_run.active_runs.run_id IS
'The run: column id of ai_chat_runs.';
COMMENT ON COLUMN ai_chat_run.active_runs.chat_id IS
'The chat whose turn this is.';
COMMENT ON COLUMN ai_chat_run.active_runs.workspace_id IS
'The workspace (tenant) of the chat.';
COMMENT ON COLUMN ai_chat_run.active_runs.runner IS
'Name of the application process that executes the run, if it told.';
COMMENT ON COLUMN ai_chat_run.active_runs.age IS
'How long ago the run was begun; null if a direct writer set no finite time.';
COMMENT ON COLUMN ai_chat_run.active_runs.last_seen IS
'When the runner was last heard, through the row or a heartbeat, whichever is later.';
COMMENT ON COLUMN ai_chat_run.active_runs.step_count IS
'Number of finished steps.';
COMMENT ON COLUMN ai_chat_run.active_runs.stop_requested IS
'Whether a stop is requested, if only in shared memory.';
COMMENT ON COLUMN ai_chat_run.active_runs.deferred IS
'Whether its end is decided and waits to be written.';
COMMENT ON COLUMN ai_chat_run.active_runs.attached IS
'Whether its runner is attached.';

CREATE VIEW ai_chat_run.stats AS
SELECT d.datname, c.*
FROM ai_chat_run.database_counters() c
JOIN pg_catalog.pg_database d ON d.oid = c.datid
WHERE d.datallowconn;

COMMENT ON VIEW ai_chat_run.stats IS
'What was counted in each database since server start or stats_reset(); empty without preloading.';
COMMENT ON COLUMN ai_chat_run.stats.datname IS
'Name of the database.';
COMMENT ON COLUMN ai_chat_run.stats.datid IS
'OID of the database.';
COMMENT ON COLUMN ai_chat_run.stats.begun IS
'Runs begun.';
COMMENT ON COLUMN ai_chat_run.stats.rejected IS
'Begins that were refused, since the chat had an active run.';
COMMENT ON COLUMN ai_chat_run.stats.finalized_succeeded IS
'Runs ended by finalize_run() as completed.';
COMMENT ON COLUMN ai_chat_run.stats.finalized_failed IS
'Runs ended by finalize_run() with an error.';
COMMENT ON COLUMN ai_chat_run.stats.finalized_aborted IS
'Runs ended by finalize_run() as aborted, or by supersede_run() with force.';
COMMENT ON COLUMN ai_chat_run.stats.retries IS
'Further tries of finalize_run(), after failed ones.';
COMMENT ON COLUMN ai_chat_run.stats.deferred IS
'Ends that were deferred.';
COMMENT ON COLUMN ai_chat_run.stats.settled_later IS
'Deferred ends that were applied.';
COMMENT ON COLUMN ai_chat_run.stats.swept_at_boot IS
'Runs aborted by the boot sweep.';
COMMENT ON COLUMN ai_chat_run.stats.swept_stale IS
'Runs aborted for their silence, or by sweep_runs().';
COMMENT ON COLUMN ai_chat_run.stats.swept_departed IS
'Runs aborted since their runner had departed, or was started anew.';
COMMENT ON COLUMN ai_chat_run.stats.stops IS
'Stops requested, each run once.';
COMMENT ON COLUMN ai_chat_run.stats.heartbeats IS
'Calls of heartbeat().';
COMMENT ON COLUMN ai_chat_run.stats.waits IS
'Calls that wait: of await_run(), await_stop(), await_stops() and supersede_run().';
COMMENT ON COLUMN ai_chat_run.stats.untracked IS
'How often a run found no place in shared memory: see ai_chat_run.max_active_runs.';
COMMENT ON COLUMN ai_chat_run.stats.stats_reset IS
'Since when these are counted.';

CREATE VIEW ai_chat_run.workers AS
SELECT d.datname, v.*
FROM ai_chat_run.database_visits() v
JOIN pg_catalog.pg_database d ON d.oid = v.datid
WHERE d.datallowconn;

COMMENT ON VIEW ai_chat_run.workers IS
'What the background worker knows of each database, and when it will be there next; empty without preloading.';
COMMENT ON COLUMN ai_chat_run.workers.datname IS
'Name of the database.';
COMMENT ON COLUMN ai_chat_run.workers.datid IS
'OID of the database.';
COMMENT ON COLUMN ai_chat_run.workers.has_extension IS
'Whether the extension was there at the last visit.';
COMMENT ON COLUMN ai_chat_run.workers.boot_sweep_done_at IS
'When the boot sweep was done; null: not yet.';
COMMENT ON COLUMN ai_chat_run.workers.runs_swept IS
'Runs that the boot sweep aborted.';
COMMENT ON COLUMN ai_chat_run.workers.last_error IS
'The last error since server start, which may be over.';
COMMENT ON COLUMN ai_chat_run.workers.last_error_at IS
'When that was.';
COMMENT ON COLUMN ai_chat_run.workers.working IS
'Whether a worker is there just now.';
COMMENT ON COLUMN ai_chat_run.workers.next_due IS
'When the next visit is due; null: nothing is.';

CREATE FUNCTION ai_chat_run.health(
	OUT check_name text,
	OUT ok boolean,
	OUT detail text,
	OUT what_to_do text
)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER PARALLEL RESTRICTED ROWS 6
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off		-- it compares the text of an index
AS $$
	WITH server AS (
		SELECT s.*,
			current_setting('ai_chat_run.boot_sweep', true) = 'grace'
			AND s.opened_at + current_setting('ai_chat_run.boot_grace', true)::interval > now() AS in_grace
		FROM ai_chat_run.server_state() s
	), visit AS (
		SELECT w.* FROM ai_chat_run.workers w WHERE w.datname = current_database()
	), gate AS (
		SELECT i.indisunique AND i.indisvalid AND i.indisready AS valid,
			i.indnkeyatts = 1 AND a.attname = 'chat_id'
			AND pg_get_expr(i.indpred, i.indrelid) = '(status = ANY (ARRAY[''pending''::text, ''running''::text]))' AS right_one
		FROM pg_index i
		JOIN pg_class c ON c.oid = i.indexrelid
		LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
		WHERE i.indrelid = 'ai_chat_run.ai_chat_runs'::regclass
			AND c.relname = 'ai_chat_runs_one_active_per_chat'
	), backlog AS (
		SELECT count(*) AS n, min(d.deferred_at) AS oldest
		FROM ai_chat_run.deferred_finalizations d
	), silent AS (
		SELECT min(greatest(a.last_seen, s.opened_at)) FILTER (WHERE a.run_id IS NOT NULL) AS oldest, s.overdue_since
		FROM server s
		LEFT JOIN ai_chat_run.active_runs a ON NOT a.attached
		GROUP BY s.overdue_since
	), checks AS (
		SELECT 1 AS n, 'preload' AS check_name, s.preloaded AS ok,
			CASE WHEN s.preloaded THEN 'the library is preloaded'
				ELSE 'the library is not preloaded' END AS detail,
			'Put shared_preload_libraries = ''ai_chat_run'' into postgresql.conf and restart the server.' AS what_to_do
		FROM server s
		UNION ALL
		SELECT 2, 'index', coalesce(bool_and(g.valid AND coalesce(g.right_one, false)), false),
			CASE WHEN count(*) = 0 THEN 'index ai_chat_runs_one_active_per_chat is missing'
				WHEN NOT bool_and(coalesce(g.right_one, false)) THEN 'index ai_chat_runs_one_active_per_chat is another one'
				WHEN bool_and(g.valid) THEN 'index ai_chat_runs_one_active_per_chat is there and valid'
				ELSE 'index ai_chat_runs_one_active_per_chat is not valid' END,
			'Nothing else keeps a chat from having two active runs. Settle one of each two, then create the unique index on (chat_id) where status in (''pending'', ''running'') again.'
		FROM gate g
		UNION ALL
		SELECT 3, 'worker', s.launcher_alive,
			CASE WHEN s.launcher_alive THEN 'the launcher is running'
				ELSE 'the launcher is not running' END,
			CASE WHEN s.preloaded THEN 'Look for ai_chat_run in the server log; on a standby it runs after promotion.'
				ELSE 'It needs the library to be preloaded.' END
		FROM server s
		UNION ALL
		SELECT 4, 'boot_sweep', count(v.boot_sweep_done_at) > 0 OR coalesce(bool_or(s.in_grace), false),
			CASE WHEN count(v.boot_sweep_done_at) = 0 AND bool_or(s.in_grace)
					THEN 'the boot sweep of this database waits for runners to call'
				WHEN count(v.boot_sweep_done_at) = 0 THEN 'the boot sweep of this database is not done'
				ELSE format('done, %s run(s) aborted', max(v.runs_swept)) END
				|| coalesce('; last error: ' || max(v.last_error), ''),
			'Look at the last error in ai_chat_run.workers, and for sessions that lock rows of ai_chat_runs.'
		FROM server s
		LEFT JOIN visit v ON true
		UNION ALL
		SELECT 5, 'deferred', b.n = 0 OR b.oldest > now() - interval '1 min',
			CASE WHEN b.n = 0 THEN 'nothing is deferred'
				ELSE format('%s deferred finalization(s), the oldest since %s', b.n, b.oldest) END,
			'Look for sessions that hold locks on their runs, and at the causes in ai_chat_run.deferred_finalizations; settle_deferred() tries now.'
		FROM backlog b
		UNION ALL
		SELECT 6, 'silent', coalesce(i.oldest > i.overdue_since, true),
			CASE WHEN i.oldest IS NULL THEN 'no run is active without an attached runner'
				ELSE format('the most silent active run is so since %s', i.oldest) END,
			'Its runner is dead, or calls too rarely: see ai_chat_run.active_runs, and sweep_runs().'
		FROM silent i
	)
	SELECT c.check_name, c.ok, c.detail, CASE WHEN NOT c.ok THEN c.what_to_do END
	FROM checks c
	ORDER BY c.n
$$;

COMMENT ON FUNCTION ai_chat_run.health() IS
'One row for each check: whether all is well, what was found, and what to do if it is not.';
