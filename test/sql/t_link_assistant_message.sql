-- link_assistant_message stores which message a run writes, also after the run's end, and is best effort: a write that
-- fails is a WARNING and a null.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set m1 'd0000000-0000-4000-8000-000000000001'
\set m2 'd0000000-0000-4000-8000-000000000002'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');

SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'m1');
SELECT assistant_message_id, status, updated_at >= started_at AS updated FROM ai_chat_run.ai_chat_runs;

-- there is no such run: of another workspace, or of nobody
SELECT ai_chat_run.link_assistant_message(:'r1', :'other_w', :'m2');
SELECT ai_chat_run.link_assistant_message('a0000000-0000-4000-8000-00000000000f', :'w', :'m2');
SELECT assistant_message_id FROM ai_chat_run.ai_chat_runs;

-- after the end; how the run ended stays
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'error', 'out of tokens');
SELECT finished_at AS finished_before FROM ai_chat_run.ai_chat_runs \gset
SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'m2');
SELECT assistant_message_id, status, error, finished_at = :'finished_before' AS same_end FROM ai_chat_run.ai_chat_runs;

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'m1');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'m1');
COMMIT;
SELECT assistant_message_id FROM ai_chat_run.ai_chat_runs;

BEGIN READ ONLY;
SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'m2');
\echo :SQLSTATE
ROLLBACK;

CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no messages on a holiday' USING ERRCODE = TG_ARGV[0];
END
$$;
BEGIN;
CREATE TRIGGER meddle BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise('XX999');
SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'m2');
\set VERBOSITY sqlstate
SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'m2');
\set VERBOSITY default
DROP TRIGGER meddle ON ai_chat_run.ai_chat_runs;
SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'m2');
COMMIT;
BEGIN;
CREATE TRIGGER meddle BEFORE UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise('57P01');
SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'m1');
\echo :SQLSTATE
ROLLBACK;
SELECT assistant_message_id FROM ai_chat_run.ai_chat_runs;

TRUNCATE ai_chat_run.ai_chat_runs;
