-- request_stop and request_stop_for_chat stamp an active run once, notify channel ai_chat_run_stop with its id at commit,
-- each time, and say whether there was something to stop.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set c3 'c0000000-0000-4000-8000-000000000003'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set r3 'a0000000-0000-4000-8000-000000000003'
\set r4 'a0000000-0000-4000-8000-000000000004'
\set r5 'a0000000-0000-4000-8000-000000000005'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r2');
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r3');
SELECT ai_chat_run.finalize_run(:'r3', :'w', 'completed');

-- psql tells a notification where it writes results, and names a process id: both are kept from this test's output
\getenv dir PG_ABS_BUILDDIR
\set heard :dir '/results/t_request_stop.heard'
\setenv HEARD :heard
\setenv CHANNEL_AND_PAYLOAD 's/.*notification "\\(.*\\)" with payload "\\(.*\\)" received.*/\\1 \\2/p'
LISTEN ai_chat_run_stop;

-- stamped once, by the clock; the runner's own time stays
SELECT updated_at AS updated_before FROM ai_chat_run.ai_chat_runs WHERE id = :'r1' \gset
BEGIN;
SELECT ai_chat_run.request_stop(:'r1', :'w');
SELECT stop_requested_at > now() AS by_the_clock, updated_at = :'updated_before' AS not_updated, status
FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';
\o :heard
COMMIT;
\o
\set notified `sed -n "$CHANNEL_AND_PAYLOAD" "$HEARD"`
\echo :notified

-- asked again: the first stamp stays, and it is notified again
SELECT stop_requested_at AS stamp FROM ai_chat_run.ai_chat_runs WHERE id = :'r1' \gset
\o :heard
SELECT ai_chat_run.request_stop(:'r1', :'w') AS there_was \gset
\o
\set notified `sed -n "$CHANNEL_AND_PAYLOAD" "$HEARD"`
\echo :there_was :notified
SELECT stop_requested_at = :'stamp' AS same_stamp FROM ai_chat_run.ai_chat_runs WHERE id = :'r1';

-- for whatever run is active in the chat
\o :heard
SELECT ai_chat_run.request_stop_for_chat(:'c2', :'w') AS stopped \gset
\o
\set notified `sed -n "$CHANNEL_AND_PAYLOAD" "$HEARD"`
\echo :stopped :notified
SELECT stop_requested_at AS stamp FROM ai_chat_run.ai_chat_runs WHERE chat_id = :'c2' \gset
\o :heard
SELECT ai_chat_run.request_stop_for_chat(:'c2', :'w') AS stopped \gset
\o
\set notified `sed -n "$CHANNEL_AND_PAYLOAD" "$HEARD"`
\echo :stopped :notified
SELECT stop_requested_at = :'stamp' AS same_stamp, updated_at = started_at AS not_updated
FROM ai_chat_run.ai_chat_runs WHERE chat_id = :'c2';
SELECT id, stop_requested_at IS NOT NULL AS stamped FROM ai_chat_run.ai_chat_runs ORDER BY id;

-- nothing to stop: terminal, of another workspace, or of nobody
\o :heard
SELECT ai_chat_run.request_stop(:'r3', :'w') AS terminal, ai_chat_run.request_stop(:'r1', :'other_w') AS elsewhere,
	ai_chat_run.request_stop(:'r4', :'w') AS unknown,
	coalesce(ai_chat_run.request_stop_for_chat(:'c3', :'w')::text, 'none') AS idle_chat,
	coalesce(ai_chat_run.request_stop_for_chat(:'c1', :'other_w')::text, 'none') AS chat_elsewhere \gset
\o
\set notified `sed -n "$CHANNEL_AND_PAYLOAD" "$HEARD"`
\echo :terminal :elsewhere :unknown :idle_chat :chat_elsewhere [:notified]
SELECT stop_requested_at FROM ai_chat_run.ai_chat_runs WHERE id = :'r3';

-- rolled back, it leaves nothing and tells nobody
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id) VALUES (:'r4', :'c3', :'w');
BEGIN;
SELECT ai_chat_run.request_stop(:'r4', :'w'), ai_chat_run.request_stop_for_chat(:'c3', :'w');
\o :heard
ROLLBACK;
\o
\set notified `sed -n "$CHANNEL_AND_PAYLOAD" "$HEARD"`
\echo [:notified]
SELECT status, stop_requested_at FROM ai_chat_run.ai_chat_runs WHERE id = :'r4';

-- a pending run can be stopped, too; and in every isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ai_chat_run.request_stop(:'r4', :'w'), ai_chat_run.request_stop_for_chat(:'c3', :'w'),
	ai_chat_run.request_stop(:'r3', :'w');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT ai_chat_run.request_stop_for_chat(:'c3', :'w'), ai_chat_run.request_stop(:'r4', :'w'),
	ai_chat_run.request_stop(:'r3', :'w');
\o :heard
COMMIT;
\o
\set notified `sed -n "$CHANNEL_AND_PAYLOAD" "$HEARD"`
\echo :notified
SELECT ai_chat_run.record_step(:'r4', :'w', 1);
UNLISTEN *;

-- the caller has to know whether it worked: an error goes up; but a preloaded server has told the runner by then, through
-- shared memory, so it did work, and what is missing on the row is a WARNING
SELECT current_setting('shared_preload_libraries') ~ 'ai_chat_run' AS preloaded;
CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no stops on a holiday' USING ERRCODE = 'XX999', HINT = 'Come tomorrow.';
END
$$;
SELECT ai_chat_run.finalize_run(:'r4', :'w', 'aborted');
SELECT ai_chat_run.begin_run(:'c3', :'w', run_id => :'r5');
BEGIN;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise();
SAVEPOINT s;
SELECT ai_chat_run.request_stop(:'r5', :'w');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT ai_chat_run.request_stop_for_chat(:'c3', :'w');
\echo :SQLSTATE
ROLLBACK;

-- also where somebody's trigger suppresses the stamp
CREATE FUNCTION pg_temp.suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
BEGIN;
CREATE TRIGGER meddle BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SAVEPOINT s;
SELECT ai_chat_run.request_stop(:'r5', :'w');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT ai_chat_run.request_stop_for_chat(:'c3', :'w');
\echo :SQLSTATE
ROLLBACK;

BEGIN READ ONLY;
SELECT ai_chat_run.request_stop(:'r1', :'w');
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT ai_chat_run.request_stop_for_chat(:'c1', :'w');
\echo :SQLSTATE
ROLLBACK;

TRUNCATE ai_chat_run.ai_chat_runs;
