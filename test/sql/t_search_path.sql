-- Whatever a caller puts first in the search_path (operators, functions, types, tables, also temporary ones), the functions
-- that run with their owner's rights neither reach it nor answer otherwise.
\set SHOW_CONTEXT never
\pset null '(null)'
\set w 'e0000000-0000-4000-8000-000000000001'
\set c1 'c0000000-0000-4000-8000-000000000001'
\set c2 'c0000000-0000-4000-8000-000000000002'
\set r1 'a0000000-0000-4000-8000-000000000001'
\set r2 'a0000000-0000-4000-8000-000000000002'
\set r3 'a0000000-0000-4000-8000-000000000003'
TRUNCATE ai_chat_run.ai_chat_runs, ai_chat_run.deferred_finalizations;
CREATE ROLE regress_acr_caller;
SELECT ai_chat_run.grant_app_access('regress_acr_caller');
GRANT EXECUTE ON FUNCTION ai_chat_run.sweep_runs, ai_chat_run.purge_runs TO regress_acr_caller;
CREATE SCHEMA regress_acr_trap AUTHORIZATION regress_acr_caller;
GRANT TEMPORARY ON DATABASE :"DBNAME" TO regress_acr_caller;

-- a run that ended long ago
BEGIN;
INSERT INTO ai_chat_run.ai_chat_runs (id, chat_id, workspace_id, status, finished_at)
VALUES (:'r2', :'c2', :'w', 'failed', now() - interval '8 days');

-- the traps: all tell when they are reached, and by whom
SET ROLE regress_acr_caller;
SET LOCAL search_path = regress_acr_trap;
CREATE FUNCTION trapped(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
	RAISE WARNING 'trapped: % as %', what,
		CASE current_user WHEN 'regress_acr_caller' THEN 'the caller' ELSE 'the owner of the extension' END;
END
$$;
DO $$
DECLARE
	argtype text;
	op text;
	n int := 0;
BEGIN
	FOREACH argtype IN ARRAY ARRAY['uuid', 'text', 'name', 'int4', 'int8', 'timestamptz', 'bool',
		'float8', 'interval', 'anyelement', 'record', 'oid'] LOOP
		FOREACH op IN ARRAY ARRAY['=', '<>', '<', '<=', '>', '>='] LOOP
			n := n + 1;
			EXECUTE format('CREATE FUNCTION op%1$s(pg_catalog.%2$s, pg_catalog.%2$s) RETURNS bool LANGUAGE plpgsql AS
				$f$BEGIN PERFORM regress_acr_trap.trapped(%3$L); RETURN true; END$f$', n, argtype, op || ' of ' || argtype);
			EXECUTE format('CREATE OPERATOR %s (FUNCTION = op%s, LEFTARG = pg_catalog.%3$s, RIGHTARG = pg_catalog.%3$s)',
				op, n, argtype);
		END LOOP;
	END LOOP;
END
$$;
CREATE FUNCTION plus(pg_catalog.timestamptz, pg_catalog.interval) RETURNS timestamptz LANGUAGE plpgsql AS
	$$BEGIN PERFORM regress_acr_trap.trapped('+'); RETURN $1; END$$;
CREATE OPERATOR + (FUNCTION = plus, LEFTARG = pg_catalog.timestamptz, RIGHTARG = pg_catalog.interval);
CREATE FUNCTION now() RETURNS timestamptz LANGUAGE plpgsql AS
	$$BEGIN PERFORM regress_acr_trap.trapped('now'); RETURN 'epoch'; END$$;
CREATE FUNCTION age(xid) RETURNS int LANGUAGE plpgsql AS
	$$BEGIN PERFORM regress_acr_trap.trapped('age'); RETURN 1; END$$;
CREATE FUNCTION "coalesce"(anyelement, anyelement) RETURNS anyelement LANGUAGE plpgsql AS
	$$BEGIN PERFORM regress_acr_trap.trapped('coalesce'); RETURN $2; END$$;
CREATE FUNCTION "greatest"(int, int) RETURNS int LANGUAGE plpgsql AS
	$$BEGIN PERFORM regress_acr_trap.trapped('greatest'); RETURN $2; END$$;
CREATE FUNCTION new_run_id() RETURNS pg_catalog.uuid LANGUAGE plpgsql AS
	$$BEGIN PERFORM regress_acr_trap.trapped('new_run_id'); RETURN NULL; END$$;
CREATE FUNCTION current_database() RETURNS name LANGUAGE plpgsql AS
	$$BEGIN PERFORM regress_acr_trap.trapped('current_database'); RETURN ''; END$$;
CREATE FUNCTION caught() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN PERFORM regress_acr_trap.trapped(TG_OP || ' of a table'); RETURN NULL; END$$;
CREATE TABLE ai_chat_runs (id pg_catalog.uuid, chat_id pg_catalog.uuid, workspace_id pg_catalog.uuid,
	status pg_catalog.text);
CREATE TABLE deferred_finalizations (run_id pg_catalog.uuid, workspace_id pg_catalog.uuid,
	status pg_catalog.text);
CREATE TABLE pg_prepared_xacts (database name);
CREATE TEMP TABLE ai_chat_runs (id pg_catalog.uuid, chat_id pg_catalog.uuid, workspace_id pg_catalog.uuid,
	status pg_catalog.text);
CREATE TEMP TABLE deferred_finalizations (run_id pg_catalog.uuid, workspace_id pg_catalog.uuid,
	status pg_catalog.text);
CREATE TRIGGER caught BEFORE INSERT OR UPDATE OR DELETE ON regress_acr_trap.ai_chat_runs EXECUTE FUNCTION caught();
CREATE TRIGGER caught BEFORE INSERT OR UPDATE OR DELETE ON regress_acr_trap.deferred_finalizations
	EXECUTE FUNCTION caught();
CREATE TRIGGER caught BEFORE INSERT OR UPDATE OR DELETE ON pg_temp.ai_chat_runs EXECUTE FUNCTION caught();
CREATE TRIGGER caught BEFORE INSERT OR UPDATE OR DELETE ON pg_temp.deferred_finalizations EXECUTE FUNCTION caught();
CREATE DOMAIN text AS pg_catalog.text CHECK (false);
CREATE DOMAIN uuid AS pg_catalog.uuid CHECK (false);
CREATE TABLE chats (id pg_catalog.uuid, workspace_id pg_catalog.uuid);
INSERT INTO chats VALUES (:'c2', :'w');
CREATE TRIGGER delete_runs AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION ai_chat_run.delete_runs_of_chat();

-- they work
SET LOCAL search_path = pg_temp, regress_acr_trap, pg_catalog;
SELECT 1 = 1 AS trapped;
SELECT now() OPERATOR(pg_catalog.=) 'epoch' AS trapped;

-- and catch nobody
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r1');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'w', run_id => :'r1');
SELECT outcome FROM ai_chat_run.try_begin_run(:'c1', :'r3');
SELECT ai_chat_run.record_step(:'r1', :'w', 5);
SELECT ai_chat_run.record_step(:'r1', :'w', 3);
SELECT ai_chat_run.heartbeat(:'r1', :'w');
SELECT ai_chat_run.link_assistant_message(:'r1', :'w', :'r3');
SELECT ai_chat_run.request_stop(:'r1', :'w');
SELECT ai_chat_run.request_stop_for_chat(:'c1', :'w');
SELECT ai_chat_run.settle_deferred();
SELECT id, status, step_count FROM ai_chat_run.get_active_for_chat(:'c1', :'w');
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'completed');
SELECT ai_chat_run.finalize_run(:'r1', :'w', 'error');
SELECT ai_chat_run.finalize_run(:'r1', :'r3', 'error');
SELECT id, status, step_count FROM ai_chat_run.get_run(:'r1', :'w');
SELECT id, status FROM ai_chat_run.get_latest_for_chat(:'c2', :'w');
SELECT ai_chat_run.map_turn_status('error');
SELECT ai_chat_run.begin_run(:'c1', :'w', run_id => :'r3');
SELECT ai_chat_run.sweep_runs('1 day');
SELECT ai_chat_run.sweep_runs();
SELECT ai_chat_run.purge_runs('10 days');
DELETE FROM regress_acr_trap.chats;

-- also where a finalization is deferred and met again
RESET ROLE;
SET LOCAL search_path = pg_catalog;
SELECT id, status, step_count, error FROM ai_chat_run.ai_chat_runs ORDER BY id;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => :'r2');
CREATE FUNCTION pg_temp.raise() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no ends on a holiday'; END$$;
CREATE TRIGGER meddle AFTER UPDATE ON ai_chat_run.ai_chat_runs FOR EACH ROW EXECUTE FUNCTION pg_temp.raise();
SET ROLE regress_acr_caller;
SET LOCAL search_path = pg_temp, regress_acr_trap, pg_catalog;
SET LOCAL ai_chat_run.finalize_max_attempts = 1;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'error', 'out of tokens');
RESET ROLE;
SET LOCAL search_path = pg_catalog;
DROP TRIGGER meddle ON ai_chat_run.ai_chat_runs;
SET ROLE regress_acr_caller;
SET LOCAL search_path = pg_temp, regress_acr_trap, pg_catalog;
SAVEPOINT s;
SELECT ai_chat_run.settle_deferred();
ROLLBACK TO s;
SELECT ai_chat_run.finalize_run(:'r2', :'w', 'completed');
ROLLBACK TO s;
SELECT ai_chat_run.begin_run(:'c2', :'w', run_id => 'a0000000-0000-4000-8000-000000000004');
SELECT ai_chat_run.purge_runs('0');
-- its own tables have stayed empty
SELECT count(*) FROM regress_acr_trap.ai_chat_runs;
SELECT count(*) FROM regress_acr_trap.deferred_finalizations;
SELECT count(*) FROM pg_temp.ai_chat_runs;
SELECT count(*) FROM pg_temp.deferred_finalizations;
RESET ROLE;
RESET search_path;
SELECT id, status, error FROM ai_chat_run.ai_chat_runs ORDER BY id;
ROLLBACK;

DROP OWNED BY regress_acr_caller;
DROP ROLE regress_acr_caller;
