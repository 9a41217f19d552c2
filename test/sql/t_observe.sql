-- What operators see: the counters of what was done and not rolled back, the active runs with what shared memory knows of them,
-- the worker's visits, and health(). All of it is pg_monitor's, and nobody's else. Without preloading there are no counters and
-- no worker; that has its own expected output.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set c3 'c0000000-0000-4000-8000-000000000003'
\set r1 'a8000000-0000-4000-8000-000000000001'
\set r2 'a8000000-0000-4000-8000-000000000002'
\set r3 'a8000000-0000-4000-8000-000000000003'
\set r4 'a8000000-0000-4000-8000-000000000004'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT current_setting('shared_preload_libraries') ~ 'ai_chat_run' AS preloaded \gset
SELECT :'preloaded' AS preloaded;
CREATE ROLE regress_acr_monitor IN ROLE pg_monitor;
CREATE ROLE regress_acr_nobody;

-- the worker comes to a new database soon
DO $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		EXIT WHEN current_setting('shared_preload_libraries') !~ 'ai_chat_run' OR EXISTS (
			SELECT FROM ai_chat_run.workers WHERE datname = current_database() AND boot_sweep_done_at IS NOT NULL);
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
SELECT datname = current_database() AS here, boot_sweep_done_at < now() AS boot_sweep_done, runs_swept
FROM ai_chat_run.workers WHERE datname = current_database();
SELECT count(*) FROM ai_chat_run.workers GROUP BY datname HAVING count(*) > 1;

-- the counters: what counts, once and if it is not rolled back
SELECT ai_chat_run.stats_reset();
CREATE TEMP VIEW counted AS
SELECT begun, rejected, finalized_succeeded AS succeeded, finalized_failed AS failed, finalized_aborted AS aborted, deferred,
	settled_later, swept_at_boot, stops, heartbeats, waits
FROM ai_chat_run.stats WHERE datname = current_database();
SELECT * FROM counted;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c2', :'w', run_id => :'r2');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c2', :'w', run_id => :'r2');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c2', :'w');
\set VERBOSITY sqlstate
SELECT ai_chat_run.begin_run(:'c1', :'w');
\set VERBOSITY default
SELECT ai_chat_run.heartbeat(:'r1', :'w') FROM generate_series(1, 3);
SELECT ai_chat_run.record_step(:'r1', :'w', 1);
SELECT ai_chat_run.request_stop(:'r1', :'w'), ai_chat_run.request_stop(:'r1', :'w'), ai_chat_run.request_stop(:'r3', :'w');
SELECT * FROM counted;
BEGIN;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r3');
SELECT * FROM counted;
ROLLBACK;
SELECT * FROM counted;
BEGIN;
SAVEPOINT s;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'error');
ROLLBACK TO s;
SAVEPOINT s;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
RELEASE s;
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'error');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r3');
COMMIT;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'error'), ai_chat_run.finalize_run(:'r3', :'w', 'aborted'),
	ai_chat_run.finalize_run(:'r4', :'w', 'aborted');
SELECT * FROM counted;
-- an end that cannot be written at once
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r4');
CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no ends on a holiday';
END
$$;
SET ai_chat_run.finalize_max_attempts = 1;
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise();
SET LOCAL client_min_messages = error;
SELECT ai_chat_run.finalize_run(:'r4', :'w', 'error');
SELECT run_id, deferred FROM ai_chat_run.active_runs;
DROP TRIGGER meddle ON ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.settle_deferred();
SELECT run_id, deferred FROM ai_chat_run.active_runs;
COMMIT;
RESET ai_chat_run.finalize_max_attempts;
SELECT begun, succeeded, failed, aborted, deferred, settled_later FROM counted;
\if :preloaded
CALL ai_chat_run.await_run(:'r4', :'w', '0');
CALL ai_chat_run.await_stop(:'r4', :'w', '0');
CALL ai_chat_run.await_stops('runner of t_observe', '{}', '0');
SELECT waits FROM counted;
\endif
-- from zero again
SELECT clock_timestamp() AS reset_before \gset
SELECT ai_chat_run.stats_reset();
SELECT * FROM counted;
SELECT stats_reset BETWEEN :'reset_before' AND now() AS reset_now FROM ai_chat_run.stats
WHERE datname = current_database();

-- the active runs and no others
SELECT count(*) FROM ai_chat_run.active_runs;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => 'a8000000-0000-4000-8000-000000000005', runner => 'runner of t_observe');
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => 'a8000000-0000-4000-8000-000000000006');
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, runner, created_at, updated_at)
VALUES ('a8000000-0000-4000-8000-000000000007', :'c3', :'w', 'runner of t_observe 2', now() - interval '1 hour',
	now() - interval '1 minute');
SELECT ai_chat_run.record_step('a8000000-0000-4000-8000-000000000006', :'w', 3);
SELECT run_id, chat_id, workspace_id, runner, step_count, stop_requested, deferred, attached FROM ai_chat_run.active_runs
ORDER BY run_id;
SELECT run_id, age = now() - coalesce(started_at, created_at) AS of_that_age, last_seen >= updated_at AS seen,
	last_seen > updated_at AS seen_elsewhere
FROM ai_chat_run.active_runs JOIN ai_chat_run.ai_chat_runs ON id = run_id
WHERE run_id = 'a8000000-0000-4000-8000-000000000007';
-- a heartbeat is seen, though a preloaded server writes none
SELECT clock_timestamp() AS before \gset
SELECT ai_chat_run.heartbeat('a8000000-0000-4000-8000-000000000007', :'w');
SELECT last_seen BETWEEN :'before' AND now() AS seen, last_seen = updated_at AS seen_by_row
FROM ai_chat_run.active_runs JOIN ai_chat_run.ai_chat_runs ON id = run_id
WHERE run_id = 'a8000000-0000-4000-8000-000000000007';
-- so is a stop that its caller rolls back
BEGIN;
SELECT ai_chat_run.request_stop('a8000000-0000-4000-8000-000000000006', :'w');
ROLLBACK;
SELECT ai_chat_run.request_stop('a8000000-0000-4000-8000-000000000005', :'w');
SELECT run_id, stop_requested FROM ai_chat_run.active_runs ORDER BY run_id;
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause)
VALUES (gen_random_uuid(), 'a8000000-0000-4000-8000-000000000005', 'failed', 'a test of another workspace');
SELECT count(*) FROM ai_chat_run.active_runs WHERE deferred;
\if :preloaded
SELECT ai_chat_run.attach_runner('runner of t_observe', 'd0000000-0000-4000-8000-000000000001') IS NOT NULL AS attached;
SELECT ai_chat_run.begin_run('c0000000-0000-4000-8000-000000000004', :'w', run_id => 'a8000000-0000-4000-8000-000000000008',
	runner => 'runner of t_observe');
SELECT run_id, runner FROM ai_chat_run.active_runs WHERE attached ORDER BY run_id;
\endif
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;

-- health: a row a check, with advice where there is something to do
SELECT check_name, ok, what_to_do IS NOT NULL AS advised, detail <> '' AS detailed FROM ai_chat_run.health();
SELECT check_name, detail, what_to_do FROM ai_chat_run.health() WHERE check_name <> 'boot_sweep';
-- without its index, nothing keeps a chat from having two runs
BEGIN;
DROP INDEX ai_chat_run.ai_chat_runs_one_active_per_chat;
SELECT check_name, ok, detail, what_to_do FROM ai_chat_run.health() WHERE check_name = 'index';
CREATE INDEX ai_chat_runs_one_active_per_chat ON ai_chat_run.ai_chat_runs (chat_id) WHERE status IN ('pending', 'running');
SELECT check_name, ok, what_to_do IS NOT NULL AS advised FROM ai_chat_run.health() WHERE check_name = 'index';
ROLLBACK;
-- an end that waits for long
BEGIN;
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause, deferred_at)
VALUES (:'w', :'r1', 'failed', 'a test', now());
SELECT check_name, ok FROM ai_chat_run.health() WHERE check_name = 'deferred';
INSERT INTO ai_chat_run.deferred_finalizations (workspace_id, run_id, status, cause, deferred_at)
VALUES (:'w', :'r2', 'failed', 'a test', now() - interval '1 day');
SELECT check_name, ok, detail LIKE '2 %' AS counted, what_to_do FROM ai_chat_run.health() WHERE check_name = 'deferred';
ROLLBACK;
-- a runner that calls is not silent
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT check_name, ok FROM ai_chat_run.health() WHERE check_name = 'silent';

-- who watches the server sees all that, and touches nothing
SET ROLE regress_acr_monitor;
SELECT count(*) FROM ai_chat_run.active_runs;
SELECT bool_or(datname = current_database()) AS here FROM ai_chat_run.stats;
SELECT bool_or(datname = current_database()) AS here FROM ai_chat_run.workers;
SELECT check_name, ok FROM ai_chat_run.health();
\set VERBOSITY terse
SELECT ai_chat_run.stats_reset();
SELECT ai_chat_run.sweep_runs();
SELECT ai_chat_run.begin_run(:'c1', :'w');
SELECT * FROM ai_chat_run.ai_chat_runs;
SELECT * FROM ai_chat_run.deferred_finalizations;
SELECT * FROM ai_chat_run.runners;
DELETE FROM ai_chat_run.active_runs;
\set VERBOSITY default
RESET ROLE;
-- nobody else does, not even where the schema is open to him
GRANT USAGE ON SCHEMA ai_chat_run TO regress_acr_nobody;
SET ROLE regress_acr_nobody;
SELECT * FROM ai_chat_run.active_runs;
\echo :SQLSTATE
SELECT * FROM ai_chat_run.stats;
\echo :SQLSTATE
SELECT * FROM ai_chat_run.workers;
\echo :SQLSTATE
SELECT * FROM ai_chat_run.health();
\echo :SQLSTATE
SELECT ai_chat_run.stats_reset();
\echo :SQLSTATE
RESET ROLE;
TRUNCATE ai_chat_run.ai_chat_runs;

DROP OWNED BY regress_acr_nobody;
DROP ROLE regress_acr_monitor, regress_acr_nobody;
