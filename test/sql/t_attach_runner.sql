-- attach_runner binds a runner's name to the session: it aborts, and counts, the runs that an earlier incarnation of that name
-- left, and keeps those of the same one; it is part of its transaction. What becomes of a runner whose session ends, and of
-- two sessions with one name, is for other tests. Without preloading there is nothing to attach to.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set life1 'd0000000-0000-4000-8000-000000000001'
\set life2 'd0000000-0000-4000-8000-000000000002'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations, ai_chat_run.runners;
SELECT current_setting('shared_preload_libraries') ~ 'ai_chat_run' AS preloaded \gset
SELECT :'preloaded' AS preloaded;

-- nobody was there before
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
\echo :SQLSTATE
\if :preloaded
\else
\quit
\endif
SELECT runner, incarnation FROM ai_chat_run.runners;

-- a null, and what makes no sense
SELECT ai_chat_run.attach_runner(NULL, :'life1');
\echo :SQLSTATE
SELECT ai_chat_run.attach_runner('', :'life1');
\echo :SQLSTATE
SELECT ai_chat_run.attach_runner(repeat('x', 128), :'life1');
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
\echo :SQLSTATE
ROLLBACK;

-- Two runs of the runner, of different workspaces, one of them pending; one that is over; one of another runner, one of none.
-- Their chats have their numbers.
CREATE FUNCTION pg_temp.run(n int) RETURNS uuid LANGUAGE sql AS
	$$SELECT ('a6000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid$$;
CREATE PROCEDURE pg_temp.make_runs() LANGUAGE plpgsql AS $$
DECLARE
	w uuid := 'e0000000-0000-4000-8000-000000000001';
	other_w uuid := 'e0000000-0000-4000-8000-000000000002';
BEGIN
	DELETE FROM ai_chat_run.ai_chat_runs;
	PERFORM ai_chat_run.begin_run(pg_temp.run(n), w, run_id => pg_temp.run(n), runner => runner)
	FROM (VALUES (1, 'runner of t_attach'), (3, 'runner of t_attach'), (4, 'runner of t_attach 2'), (5, NULL)) v(n, runner);
	INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, runner)
	VALUES (pg_temp.run(2), pg_temp.run(2), other_w, 'runner of t_attach');
	PERFORM ai_chat_run.finalize_run(pg_temp.run(3), w, 'completed');
END
$$;
CREATE TEMP VIEW runs AS
SELECT right(id::text, 1) AS run, status, error, finished_at IS NOT NULL AS finished FROM ai_chat_run.ai_chat_runs ORDER BY id;
CREATE TEMP VIEW attached AS
SELECT DISTINCT runner FROM ai_chat_run.active_runs WHERE attached ORDER BY runner;
CALL pg_temp.make_runs();
SELECT * FROM attached;

-- the same incarnation only reconnects
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
SELECT ai_chat_run.attach_runner(incarnation => :'life1', runner => 'runner of t_attach');
SELECT * FROM runs;
-- another one finds what was left, and aborts it
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life2');
SELECT * FROM runs;
SELECT runner, incarnation FROM ai_chat_run.runners;
SELECT ai_chat_run.heartbeat(pg_temp.run(1), :'w'), ai_chat_run.record_step(pg_temp.run(2), :'other_w', 1);
-- nothing is left then, also to one that comes back
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life2');
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
-- a null means a new one, each time
CALL pg_temp.make_runs();
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
SELECT ai_chat_run.attach_runner('runner of t_attach');
CALL pg_temp.make_runs();
SELECT ai_chat_run.attach_runner('runner of t_attach', NULL);
SELECT * FROM runs;
SELECT runner, incarnation NOT IN (:'life1', :'life2') AS new_incarnation FROM ai_chat_run.runners;
-- an error that the run bears already stays
CALL pg_temp.make_runs();
UPDATE ai_chat_run.ai_chat_runs SET error = 'out of tokens' WHERE id = pg_temp.run(1);
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
SELECT status, error FROM ai_chat_run.ai_chat_runs WHERE id = pg_temp.run(1);

-- several names in one session, of which each has its own runs; a restart would abort the runs of both, which a WARNING says
-- once in the life of the server
SET client_min_messages = error;
SELECT ai_chat_run.attach_runner('runner of t_attach 2', :'life2');
RESET client_min_messages;
SELECT runner, incarnation FROM ai_chat_run.runners ORDER BY runner;
CALL pg_temp.make_runs();
SELECT * FROM attached;
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life2');
SELECT * FROM runs;
SELECT ai_chat_run.attach_runner('runner of t_attach 2', :'life1');
SELECT * FROM runs;

-- a rollback takes it back: the runs, the name, and the incarnation
CALL pg_temp.make_runs();
BEGIN;
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
SELECT * FROM runs;
ROLLBACK;
SELECT * FROM runs;
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life2');
BEGIN;
SAVEPOINT s;
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
ROLLBACK TO s;
SELECT * FROM runs;
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life2');
COMMIT;
SELECT * FROM attached;
-- of a name that was not attached before, nothing is left
SET client_min_messages = error;
SELECT ai_chat_run.begin_run(pg_temp.run(6), :'w', run_id => pg_temp.run(6), runner => 'runner of t_attach 3');
BEGIN;
SELECT ai_chat_run.attach_runner('runner of t_attach 3', :'life1') IS NOT NULL AS attached;
SELECT ai_chat_run.begin_run(pg_temp.run(7), :'w', run_id => pg_temp.run(7), runner => 'runner of t_attach 3');
SELECT * FROM attached;
ROLLBACK;
SELECT * FROM attached;
DO $$
BEGIN
	PERFORM ai_chat_run.attach_runner('runner of t_attach 3', 'd0000000-0000-4000-8000-000000000001');
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	RAISE INFO 'undone';
END
$$;
SELECT * FROM attached;
SELECT runner FROM ai_chat_run.runners ORDER BY runner;
SELECT status FROM ai_chat_run.ai_chat_runs WHERE id = pg_temp.run(6);
-- a savepoint that is released, in one that is, in a transaction that commits
BEGIN;
SAVEPOINT s;
SAVEPOINT t;
SELECT ai_chat_run.attach_runner('runner of t_attach 3', :'life1') IS NOT NULL AS attached;
RELEASE t;
RELEASE s;
SAVEPOINT u;
SELECT ai_chat_run.begin_run(pg_temp.run(8), :'w', run_id => pg_temp.run(8), runner => 'runner of t_attach 3');
ROLLBACK TO u;
SELECT ai_chat_run.begin_run(pg_temp.run(9), :'w', run_id => pg_temp.run(9), runner => 'runner of t_attach 3');
COMMIT;
SELECT * FROM attached;
SELECT runner FROM ai_chat_run.runners ORDER BY runner;
-- or does not
BEGIN;
SAVEPOINT s;
SAVEPOINT t;
SELECT ai_chat_run.attach_runner('runner of t_attach 4', :'life1');
RELEASE t;
SELECT ai_chat_run.begin_run(gen_random_uuid(), :'w', runner => 'runner of t_attach 4') IS NOT NULL AS begun;
SELECT * FROM attached;
ROLLBACK TO s;
SELECT ai_chat_run.begin_run(gen_random_uuid(), :'w', runner => 'runner of t_attach 4') IS NOT NULL AS begun;
SELECT * FROM attached;
COMMIT;
RESET client_min_messages;

-- what binds to a session cannot wait for another one
BEGIN;
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life2');
PREPARE TRANSACTION 'regress_acr_attach';
\echo :SQLSTATE
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life2');

-- in any isolation level
CALL pg_temp.make_runs();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
SELECT ai_chat_run.attach_runner('runner of t_attach', :'life1');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT ai_chat_run.attach_runner('runner of t_attach 2', :'life2');
COMMIT;
SELECT * FROM runs;

-- a name that is too long for a runner is nobody's, though it begins as that of one who is attached
TRUNCATE ai_chat_run.ai_chat_runs;
SET client_min_messages = error;
SELECT ai_chat_run.attach_runner(repeat('x', 127), :'life1');
RESET client_min_messages;
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, runner, updated_at)
SELECT pg_temp.run(n), pg_temp.run(n), :'w', repeat('x', 126 + n), now() - interval '1 year' FROM generate_series(1, 2) n;
SELECT right(run_id::text, 1) AS run, attached, ai_chat_run.is_locally_active(run_id) FROM ai_chat_run.active_runs ORDER BY 1;
SELECT ai_chat_run.request_stop(pg_temp.run(2), :'w');
SELECT ai_chat_run.request_stop(pg_temp.run(1), :'w');
CALL ai_chat_run.await_stops(repeat('x', 127), timeout => '0');
-- and its runs are not of those that another incarnation aborts
SELECT ai_chat_run.attach_runner(repeat('x', 127), :'life2');
SELECT * FROM runs;

TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.runners;
