-- The settings have units and bounds, refuse bad text when it is set and not when it is used, may be set where that makes
-- sense, and nobody else can use their prefix.
\set SHOW_CONTEXT never
\pset null '(null)'
LOAD 'ai_chat_run';

SELECT name, boot_val, unit, vartype, min_val, max_val, enumvals, context
FROM pg_settings WHERE name LIKE 'ai\_chat\_run.%' AND name <> 'ai_chat_run.max_active_runs' ORDER BY name COLLATE "C";
SELECT name, short_desc, extra_desc
FROM pg_settings WHERE name LIKE 'ai\_chat\_run.%' AND name <> 'ai_chat_run.max_active_runs' ORDER BY name COLLATE "C";
-- what decides the size of shared memory is there where the library is preloaded, and only there
SELECT count(*) = (current_setting('shared_preload_libraries') ~ 'ai_chat_run')::int AS there,
	coalesce(bool_and(boot_val = '10000' AND unit IS NULL AND vartype = 'integer' AND min_val = '1' AND max_val = '1000000'
		AND context = 'postmaster' AND short_desc <> ''), true) AS as_promised
FROM pg_settings WHERE name = 'ai_chat_run.max_active_runs';

-- units
SET ai_chat_run.finalize_retry_base = '2s';
SHOW ai_chat_run.finalize_retry_base;
SET ai_chat_run.lock_timeout = '1.5 min';
SHOW ai_chat_run.lock_timeout;
SET ai_chat_run.lock_timeout = 250;
SHOW ai_chat_run.lock_timeout;
SET ai_chat_run.lock_timeout = '1 kB';
\echo :SQLSTATE

-- bounds
SET ai_chat_run.finalize_max_attempts = 1;
SET ai_chat_run.finalize_max_attempts = 100;
SET ai_chat_run.finalize_max_attempts = 0;
\echo :SQLSTATE
SET ai_chat_run.finalize_max_attempts = 101;
SET ai_chat_run.finalize_max_attempts = 'many';
-- since 17 the server's text has the unit twice more
SET ai_chat_run.finalize_retry_base = 0;
SET ai_chat_run.finalize_retry_base = '60s';
\set VERBOSITY sqlstate
SET ai_chat_run.finalize_retry_base = '60001ms';
SET ai_chat_run.finalize_retry_base = -1;
SET ai_chat_run.lock_timeout = 0;
SET ai_chat_run.lock_timeout = '2147483648ms';
\set VERBOSITY default
SHOW ai_chat_run.finalize_retry_base;
SHOW ai_chat_run.lock_timeout;

-- the runner's name
SET ai_chat_run.runner = 'runner "1"';
SHOW ai_chat_run.runner;
SELECT length(set_config('ai_chat_run.runner', repeat('x', 127), false));
SELECT set_config('ai_chat_run.runner', repeat('x', 128), false);
\echo :SQLSTATE
SELECT length(current_setting('ai_chat_run.runner'));
RESET ai_chat_run.runner;
SHOW ai_chat_run.runner;

-- what the background worker goes by is the server's, not a session's; bad text is refused there, too
SET ai_chat_run.boot_sweep = off;
\echo :SQLSTATE
SET ai_chat_run.stale_after = '1h';
SET ai_chat_run.runner_grace = '1s';
ALTER SYSTEM SET ai_chat_run.boot_sweep = 'maybe';
\echo :SQLSTATE
\set VERBOSITY sqlstate
ALTER SYSTEM SET ai_chat_run.boot_grace = '-1s';
ALTER SYSTEM SET ai_chat_run.stale_after = 'long';
ALTER SYSTEM SET ai_chat_run.reconcile_interval = '99ms';
ALTER SYSTEM SET ai_chat_run.runner_grace = '-1ms';
\set VERBOSITY default
ALTER SYSTEM SET ai_chat_run.retention = '1 furlong';
ALTER SYSTEM SET ai_chat_run.sweep_batch_size = 0;
ALTER SYSTEM SET ai_chat_run.sweep_batch_size = 100001;

-- a transaction may have one for itself
BEGIN;
SET LOCAL ai_chat_run.runner = 'runner one';
SELECT ai_chat_run.begin_run('c0000000-0000-4000-8000-000000000001', 'e0000000-0000-4000-8000-000000000001',
	run_id => 'a0000000-0000-4000-8000-000000000001');
SELECT runner FROM ai_chat_run.ai_chat_runs WHERE id = 'a0000000-0000-4000-8000-000000000001';
ROLLBACK;
SHOW ai_chat_run.runner;

-- the prefix is reserved
SET ai_chat_run.boot_swepe = on;
\echo :SQLSTATE
