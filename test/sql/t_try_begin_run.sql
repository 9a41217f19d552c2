-- try_begin_run is begin_run with the outcome as data: began, resumed or busy with the active run; whatever begin_run
-- passes unchanged is an error here too.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set other_w 'e0000000-0000-4000-8000-000000000002'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set person 'b0000000-0000-4000-8000-000000000001'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;

SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w', :'person', 'schedule', :'r1', 'runner one');
SELECT id, chat_id, workspace_id, created_by, trigger, status, runner FROM ai_chat_run.ai_chat_runs;

-- a given id is found again, as the only outcome that repeats; any other call is told who is active
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r1');
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r2');
SELECT count(*) FROM ai_chat_run.ai_chat_runs;

-- of another workspace's run nothing is told but that it is there, also to who knows its id
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'other_w');
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'other_w', run_id => :'r1');

-- without a given id, one is made
SELECT outcome, run_id AS made FROM ai_chat_run.try_begin_run(:'c2', :'w') \gset
SELECT :'outcome' AS outcome, trigger, status, runner FROM ai_chat_run.ai_chat_runs WHERE id = :'made';
SELECT outcome, run_id = :'made' AS same_run FROM ai_chat_run.try_begin_run(:'c2', :'w');

-- the end of the run frees the chat; a terminal run resumes as itself
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r1');
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r2');
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r1');

-- many chats in one statement, each twice
SELECT n, t.outcome
FROM generate_series(1, 4) n,
	LATERAL ai_chat_run.try_begin_run(format('c0000000-0000-4000-8000-%s', lpad((n / 2 + 1)::text, 12, '0'))::uuid, :'w') t
ORDER BY n;

-- twice in one transaction, undone, and in every isolation level
BEGIN;
SAVEPOINT s;
SELECT outcome FROM ai_chat_run.try_begin_run('c0000000-0000-4000-8000-000000000005', :'w');
SELECT outcome FROM ai_chat_run.try_begin_run('c0000000-0000-4000-8000-000000000005', :'w');
ROLLBACK TO s;
SELECT outcome FROM ai_chat_run.try_begin_run('c0000000-0000-4000-8000-000000000005', :'w');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT outcome FROM ai_chat_run.try_begin_run('c0000000-0000-4000-8000-000000000005', :'w');
SELECT outcome FROM ai_chat_run.try_begin_run('c0000000-0000-4000-8000-000000000005', :'w');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT outcome FROM ai_chat_run.try_begin_run('c0000000-0000-4000-8000-000000000005', :'w');
SELECT outcome FROM ai_chat_run.try_begin_run('c0000000-0000-4000-8000-000000000005', :'w');
ROLLBACK;

-- what is no outcome
SELECT * FROM ai_chat_run.try_begin_run('c0000000-0000-4000-8000-000000000005', :'w', run_id => :'r1');
\echo :SQLSTATE
SELECT * FROM ai_chat_run.try_begin_run('c0000000-0000-4000-8000-000000000005', :'w', runner => repeat('x', 128));
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT * FROM ai_chat_run.try_begin_run(:'c1', :'w');
\echo :SQLSTATE
ROLLBACK;
SELECT count(*) FROM ai_chat_run.ai_chat_runs WHERE chat_id = 'c0000000-0000-4000-8000-000000000005';

TRUNCATE ai_chat_run.ai_chat_runs;
