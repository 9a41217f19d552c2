/*
 * The SQL text of every statement that the extension runs on its tables.
 *
 * All names are qualified, operators too, so that no search_path of a caller
 * can put another table, function or operator in their place while the rights
 * of the extension's owner are in force.  Values are parameters.  A change of
 * state is one conditional statement that says which states it may leave; the
 * number of rows that it touched is the answer.
 *
 * "Active" comes in two spellings.  A statement that shall use the partial
 * index says IS_ACTIVE, which the planner can prove to imply the index
 * predicate.  One that finds its run by id says NOT_TERMINAL, which means the
 * same but cannot drag it to the partial index.  Which index a statement is
 * meant for stands beside it; planning.c holds the planner to that.
 */
#include "postgres.h"

#include "ai_chat_run.h"
#include "catalog/pg_type_d.h"
#include "run_sql.h"
#include "run_state.h"

#define RUNS			ACR_SCHEMA "." ACR_RUNS_TABLE
#define DEFERRED		ACR_SCHEMA "." ACR_DEFERRED_TABLE
#define RUNNERS			ACR_SCHEMA "." ACR_RUNNERS_TABLE

#define BY_ID			ACR_RUNS_TABLE "_pkey"
#define BY_ACTIVE_CHAT	ACR_ACTIVE_INDEX
#define BY_CHAT			ACR_RUNS_TABLE "_chat_id_id_idx"

#define EQ				" OPERATOR(pg_catalog.=) "
#define NE				" OPERATOR(pg_catalog.<>) "
#define LT				" OPERATOR(pg_catalog.<) "
#define GT				" OPERATOR(pg_catalog.>) "
#define GE				" OPERATOR(pg_catalog.>=) "
#define LE				" OPERATOR(pg_catalog.<=) "
#define PLUS			" OPERATOR(pg_catalog.+) "
#define TIMES			" OPERATOR(pg_catalog.*) "

#define TEXTS(literal)	"('" literal "'::pg_catalog.text[])"
#define IS_ACTIVE		"r.status" EQ "ANY " TEXTS(ACR_ACTIVE_STATES)
#define IS_TERMINAL		"r.status" EQ "ANY " TEXTS(ACR_TERMINAL_STATES)
#define NOT_TERMINAL	"r.status" NE "ALL " TEXTS(ACR_TERMINAL_STATES)

/* $1 is the run, $2 the workspace */
#define THIS_RUN		"r.id" EQ "$1 AND r.workspace_id" EQ "$2"
/* $1 is the chat, $2 the workspace */
#define THIS_CHAT		"r.chat_id" EQ "$1 AND r.workspace_id" EQ "$2"

#define NOT_DEFERRED \
	"NOT EXISTS (SELECT FROM " DEFERRED " d" \
	" WHERE d.workspace_id" EQ "r.workspace_id AND d.run_id" EQ "r.id)"

/*
 * Left by the previous life of the server: not written since start ($3 is the
 * start xid), or begun before it ($4) and without a call since ($5).
 */
#define FROM_BEFORE_START \
	"(pg_catalog.age(r.xmin)" GT "pg_catalog.age($3)" \
	" OR (r.created_at" LT "$4 AND r.updated_at" LT "$5))"

#define INSERT_RUN \
	"INSERT INTO " RUNS " (id, chat_id, workspace_id, created_by, trigger," \
	" status, runner, started_at, updated_at)" \
	" VALUES ($1, $2, $3, $4, $5, '" ACR_RUN_RUNNING "', $6, $7, $7)"

#define FINISH_RUN \
	"UPDATE " RUNS " r SET status = $3, error = $4," \
	" finished_at = $5, updated_at = $5" \
	" WHERE " THIS_RUN " AND " NOT_TERMINAL

#define RUN_COLUMNS \
	"r.status, r.chat_id, r.stop_requested_at IS NOT NULL, r.runner, r.error"

/* what decides whether a sweep keeps a run, and where that is */
#define CANDIDATE \
	"r.id, r.chat_id, r.runner, COALESCE(r.started_at, r.created_at), r.ctid"

/* $2 is why */
#define ABORTED_AT(now) \
	"status = '" ACR_RUN_ABORTED "', error = COALESCE(r.error, $2)," \
	" finished_at = " now ", updated_at = " now

/* $1 is where they are */
#define ABORT_RUNS \
	"UPDATE " RUNS " r SET " ABORTED_AT("$3") \
	" WHERE r.ctid" EQ "ANY ($1) AND " NOT_TERMINAL

#define SQL(...)		ACR_SQL_MARK __VA_ARGS__

const AcrSql acr_sql[ACR_N_SQL] = {
	/* the gate: a conflict on the partial index, and on nothing else, is none */
	[ACR_SQL_INSERT_RUN] = {
		SQL(INSERT_RUN " ON CONFLICT (chat_id) WHERE status" EQ "ANY "
			TEXTS(ACR_ACTIVE_STATES) " DO NOTHING"),
		NULL, 7,
		{UUIDOID, UUIDOID, UUIDOID, UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
	},
	/* for a given run id, whose row may be there already */
	[ACR_SQL_INSERT_RUN_ONCE] = {
		SQL(INSERT_RUN " ON CONFLICT DO NOTHING"),
		NULL, 7,
		{UUIDOID, UUIDOID, UUIDOID, UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_FIND_RUN] = {
		SQL("SELECT " RUN_COLUMNS " FROM " RUNS " r WHERE " THIS_RUN),
		BY_ID, 2, {UUIDOID, UUIDOID}
	},
	[ACR_SQL_FIND_ACTIVE_OF_CHAT] = {
		SQL("SELECT r.id, COALESCE(r.started_at, r.created_at)"
			" FROM " RUNS " r WHERE " THIS_CHAT " AND " IS_ACTIVE),
		BY_ACTIVE_CHAT, 2, {UUIDOID, UUIDOID}
	},
	[ACR_SQL_CHAT_BUSY_ELSEWHERE] = {
		SQL("SELECT FROM " RUNS " r WHERE r.chat_id" EQ "$1"
			" AND r.workspace_id" NE "$2 AND " IS_ACTIVE),
		BY_ACTIVE_CHAT, 2, {UUIDOID, UUIDOID}
	},
	/* the once gate */
	[ACR_SQL_FINISH_RUN] = {
		SQL(FINISH_RUN),
		BY_ID, 5, {UUIDOID, UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
	},
	/* a deferred finalization, decided earlier, goes first */
	[ACR_SQL_FINISH_RUN_UNDECIDED] = {
		SQL(FINISH_RUN " AND NOT EXISTS (SELECT FROM " DEFERRED " d"
			" WHERE d.workspace_id" EQ "$2 AND d.run_id" EQ "$1)"),
		BY_ID, 5, {UUIDOID, UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
	},
	/* stamps a stop ($5) that could not be written when it was requested */
	[ACR_SQL_RECORD_STEP] = {
		SQL("UPDATE " RUNS " r SET step_count = GREATEST(r.step_count, $3),"
			" updated_at = $4,"
			" stop_requested_at = COALESCE(r.stop_requested_at, $5)"
			" WHERE " THIS_RUN " AND " NOT_TERMINAL " RETURNING " RUN_COLUMNS),
		BY_ID, 5, {UUIDOID, UUIDOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID}
	},
	/* where shared memory does not track the run */
	[ACR_SQL_HEARTBEAT] = {
		SQL("UPDATE " RUNS " r SET updated_at = $3"
			" WHERE " THIS_RUN " AND " NOT_TERMINAL " RETURNING " RUN_COLUMNS),
		BY_ID, 3, {UUIDOID, UUIDOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_LINK_MESSAGE] = {
		SQL("UPDATE " RUNS " r SET assistant_message_id = $3, updated_at = $4"
			" WHERE " THIS_RUN),
		BY_ID, 4, {UUIDOID, UUIDOID, UUIDOID, TIMESTAMPTZOID}
	},
	/* updated_at stays: it is the runner that it tells of, not the user */
	[ACR_SQL_MARK_STOP] = {
		SQL("UPDATE " RUNS " r SET stop_requested_at = $3"
			" WHERE " THIS_RUN " AND " NOT_TERMINAL
			" AND r.stop_requested_at IS NULL"),
		BY_ID, 3, {UUIDOID, UUIDOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_MARK_STOP_OF_CHAT] = {
		SQL("UPDATE " RUNS " r SET stop_requested_at = $3"
			" WHERE " THIS_CHAT " AND " IS_ACTIVE
			" AND r.stop_requested_at IS NULL RETURNING r.id"),
		BY_ACTIVE_CHAT, 3, {UUIDOID, UUIDOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_GET_RUN] = {
		SQL("SELECT r FROM " RUNS " r WHERE " THIS_RUN),
		BY_ID, 2, {UUIDOID, UUIDOID}
	},
	[ACR_SQL_GET_LATEST_OF_CHAT] = {
		SQL("SELECT r FROM " RUNS " r WHERE " THIS_CHAT
			" ORDER BY r.chat_id DESC, r.id DESC LIMIT 1"),
		BY_CHAT, 2, {UUIDOID, UUIDOID}
	},
	[ACR_SQL_GET_ACTIVE_OF_CHAT] = {
		SQL("SELECT r FROM " RUNS " r WHERE " THIS_CHAT " AND " IS_ACTIVE),
		BY_ACTIVE_CHAT, 2, {UUIDOID, UUIDOID}
	},
	/* $2: those that the caller knows of already */
	[ACR_SQL_STOPS_OF_RUNNER] = {
		SQL("SELECT r.id FROM " RUNS " r WHERE " IS_ACTIVE
			" AND r.runner" EQ "$1 AND r.stop_requested_at IS NOT NULL"
			" AND r.id" NE "ALL ($2)"),
		BY_ACTIVE_CHAT, 2, {TEXTOID, UUIDARRAYOID}
	},
	/* of whatever workspace; is it active, and written since $2? */
	[ACR_SQL_IS_ACTIVE] = {
		SQL("SELECT r.updated_at" GE "$2, r.runner FROM " RUNS " r"
			" WHERE r.id" EQ "$1 AND " NOT_TERMINAL),
		BY_ID, 2, {UUIDOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_WHICH_ACTIVE] = {
		SQL("SELECT r.id FROM " RUNS " r WHERE r.id" EQ "ANY ($1) AND "
			NOT_TERMINAL),
		BY_ID, 1, {UUIDARRAYOID}
	},
	[ACR_SQL_FIND_RUNNER] = {
		SQL("SELECT w.incarnation, w.since, w.attached_in FROM " RUNNERS " w"
			" WHERE w.runner" EQ "$1"),
		NULL, 1, {TEXTOID}
	},
	[ACR_SQL_ATTACH_RUNNER] = {
		SQL("INSERT INTO " RUNNERS " AS w (runner, incarnation, since, attached_in,"
			" seen_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (runner) DO UPDATE"
			" SET incarnation = EXCLUDED.incarnation, since = EXCLUDED.since,"
			" attached_in = EXCLUDED.attached_in, seen_at = EXCLUDED.seen_at"),
		NULL, 5,
		{TEXTOID, UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_SEE_RUNNER] = {
		SQL("UPDATE " RUNNERS " w SET seen_at = $2 WHERE w.runner" EQ "$1"),
		NULL, 2, {TEXTOID, TIMESTAMPTZOID}
	},
	/* $1: those that are there now */
	[ACR_SQL_FORGET_RUNNERS] = {
		SQL("DELETE FROM " RUNNERS " w WHERE w.seen_at" LT "$2"
			" AND w.runner" NE "ALL ($1) AND NOT EXISTS (SELECT FROM " RUNS " r"
			" WHERE " IS_ACTIVE " AND r.runner" EQ "w.runner)"),
		NULL, 2, {TEXTARRAYOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_ACTIVE_OF_RUNNER] = {
		SQL("SELECT r.id, r.workspace_id FROM " RUNS " r WHERE " IS_ACTIVE
			" AND r.runner" EQ "$1 AND " NOT_DEFERRED),
		BY_ACTIVE_CHAT, 1, {TEXTOID}
	},

	/* the first one recorded wins */
	[ACR_SQL_DEFER] = {
		SQL("INSERT INTO " DEFERRED " (workspace_id, run_id, status, error,"
			" cause, deferred_at) VALUES ($2, $1, $3, $4, $5, $6)"
			" ON CONFLICT DO NOTHING"),
		NULL, 6, {UUIDOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_FIND_DEFERRED] = {
		SQL("SELECT d.status FROM " DEFERRED " d"
			" WHERE d.run_id" EQ "$1 AND d.workspace_id" EQ "$2"),
		NULL, 2, {UUIDOID, UUIDOID}
	},

	/*
	 * $5 of them from ($1, $2) on; $3 picks one run, if given; to be tried by
	 * $4
	 */
	[ACR_SQL_LIST_DEFERRED] = {
		SQL("SELECT d.workspace_id, d.run_id FROM " DEFERRED " d"
			" WHERE ROW(d.workspace_id, d.run_id)" GE "ROW($1, $2)"
			" AND ($3 IS NULL OR d.run_id" EQ "$3)"
			" AND d.next_attempt_at" LE "$4"
			" ORDER BY d.workspace_id, d.run_id LIMIT $5"),
		NULL, 5, {UUIDOID, UUIDOID, UUIDOID, TIMESTAMPTZOID, INT8OID}
	},
	[ACR_SQL_POSTPONE_DEFERRED] = {
		SQL("UPDATE " DEFERRED " d SET attempts = d.attempts" PLUS "1,"
			" next_attempt_at = $3" PLUS "($4" TIMES
			"LEAST(60, pg_catalog.power(2, LEAST(d.attempts, 6))))"
			" WHERE d.run_id" EQ "$1 AND d.workspace_id" EQ "$2"),
		NULL, 4, {UUIDOID, UUIDOID, TIMESTAMPTZOID, INTERVALOID}
	},
	[ACR_SQL_NEXT_DEFERRED] = {
		SQL("SELECT d.next_attempt_at FROM " DEFERRED " d"
			" ORDER BY d.next_attempt_at LIMIT 1"),
		NULL, 0, {0}
	},
	[ACR_SQL_LOCK_RUN] = {
		SQL("SELECT FROM " RUNS " r WHERE " THIS_RUN
			" FOR NO KEY UPDATE SKIP LOCKED"),
		BY_ID, 2, {UUIDOID, UUIDOID}
	},
	/* the turn ended when it was decided, not when it could be written */
	[ACR_SQL_APPLY_DEFERRED] = {
		SQL("UPDATE " RUNS " r SET status = d.status, error = d.error,"
			" finished_at = d.deferred_at, updated_at = $3"
			" FROM " DEFERRED " d"
			" WHERE " THIS_RUN " AND " NOT_TERMINAL
			" AND d.run_id" EQ "$1 AND d.workspace_id" EQ "$2"),
		BY_ID, 3, {UUIDOID, UUIDOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_FORGET_DEFERRED] = {
		SQL("DELETE FROM " DEFERRED " d"
			" WHERE d.run_id" EQ "$1 AND d.workspace_id" EQ "$2"),
		NULL, 2, {UUIDOID, UUIDOID}
	},

	/*
	 * A sweep goes through the active runs in the order of their chats, from
	 * chat $1 on and at most $2 at a time: it locks a batch, leaving out what
	 * a client has locked, and then settles that batch by id.
	 */
	[ACR_SQL_SWEEP_LOCK] = {
		SQL("SELECT " CANDIDATE " FROM " RUNS " r"
			" WHERE " IS_ACTIVE " AND r.chat_id" GE "$1"
			" AND r.updated_at" LE "$3 AND ($4 IS NULL OR r.runner" EQ "$4)"
			" AND " NOT_DEFERRED
			" ORDER BY r.chat_id LIMIT $2 FOR NO KEY UPDATE OF r SKIP LOCKED"),
		BY_ACTIVE_CHAT, 4, {UUIDOID, INT8OID, TIMESTAMPTZOID, TEXTOID}
	},
	/* of those at these places; $2 is more than enough */
	[ACR_SQL_BOOT_SWEEP_LOCK] = {
		SQL("SELECT " CANDIDATE " FROM " RUNS " r"
			" WHERE r.ctid" EQ "ANY ($1) AND " NOT_TERMINAL
			" AND " FROM_BEFORE_START " AND " NOT_DEFERRED
			" LIMIT $2 FOR NO KEY UPDATE OF r SKIP LOCKED"),
		BY_ID, 5,
		{TIDARRAYOID, INT8OID, XIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
	},

	/*
	 * Those that nobody has locked, or had.  xmax says so, and a row that was
	 * locked in the past and is free may bear one, too.
	 */
	[ACR_SQL_BOOT_SWEEP_ABORT_FREE] = {
		SQL("UPDATE " RUNS " r SET " ABORTED_AT("$6")
			" WHERE r.ctid" EQ "ANY ($1) AND " NOT_TERMINAL
			" AND " FROM_BEFORE_START " AND r.xmax" EQ "0"),
		BY_ID, 6,
		{TIDARRAYOID, TEXTOID, XIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
	},

	/*
	 * Where shared memory has a say, the sweep looks first, without a lock,
	 * asks there, and then locks those that it shall have.
	 */
	[ACR_SQL_SWEEP_LOOK] = {
		SQL("SELECT " CANDIDATE " FROM " RUNS " r"
			" WHERE " IS_ACTIVE " AND r.chat_id" GE "$1"
			" AND r.updated_at" LE "$3 AND ($4 IS NULL OR r.runner" EQ "$4)"
			" AND " NOT_DEFERRED " ORDER BY r.chat_id LIMIT $2"),
		BY_ACTIVE_CHAT, 4, {UUIDOID, INT8OID, TIMESTAMPTZOID, TEXTOID}
	},
	[ACR_SQL_BOOT_SWEEP_LOOK] = {
		SQL("SELECT " CANDIDATE " FROM " RUNS " r"
			" WHERE " IS_ACTIVE " AND r.chat_id" GE "$1"
			" AND " FROM_BEFORE_START " AND " NOT_DEFERRED
			" ORDER BY r.chat_id LIMIT $2"),
		BY_ACTIVE_CHAT, 5,
		{UUIDOID, INT8OID, XIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_SWEEP_LOCK_THESE] = {
		SQL("SELECT " CANDIDATE " FROM " RUNS " r"
			" WHERE r.id" EQ "ANY ($1) AND " NOT_TERMINAL
			" AND r.updated_at" LE "$2 FOR NO KEY UPDATE SKIP LOCKED"),
		BY_ID, 2, {UUIDARRAYOID, TIMESTAMPTZOID}
	},

	/* by their places, which nobody can change: we have locked them */
	[ACR_SQL_SWEEP_ABORT] = {
		SQL(ABORT_RUNS),
		BY_ID, 3, {TIDARRAYOID, TEXTOID, TIMESTAMPTZOID}
	},

	/*
	 * Looks for deferred finalizations once more, with a snapshot taken after
	 * the rows were locked: one recorded in between was decided earlier.
	 */
	[ACR_SQL_SWEEP_ABORT_UNDECIDED] = {
		SQL(ABORT_RUNS " AND " NOT_DEFERRED),
		BY_ID, 3, {TIDARRAYOID, TEXTOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_SWEEP_NOT_DEFERRED] = {
		SQL("SELECT r.ctid FROM " RUNS " r WHERE r.ctid" EQ "ANY ($1) AND "
			NOT_DEFERRED),
		BY_ID, 1, {TIDARRAYOID}
	},
	/* $1 and $2 keep the numbering of FROM_BEFORE_START */
	[ACR_SQL_BOOT_SWEEP_LEFT] = {
		SQL("SELECT FROM " RUNS " r WHERE " IS_ACTIVE " AND r.chat_id" GE "$1"
			" AND " FROM_BEFORE_START " LIMIT $2"),
		BY_ACTIVE_CHAT, 5,
		{UUIDOID, INT8OID, XIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
	},
	[ACR_SQL_ANY_ACTIVE] = {
		SQL("SELECT FROM " RUNS " r WHERE " IS_ACTIVE " LIMIT 1"),
		BY_ACTIVE_CHAT, 0, {0}
	},
	/* in any database; $1 is the start xid */
	[ACR_SQL_ANY_OLD_PREPARED_XACT] = {
		SQL("SELECT FROM pg_catalog.pg_prepared_xacts p"
			" WHERE pg_catalog.age(p.transaction)" GT "pg_catalog.age($1) LIMIT 1"),
		NULL, 1, {XIDOID}
	},

	/*
	 * A purge goes through all runs in the order of their ids, from $1 on and
	 * $3 at a time, whether they are old enough or not: so a step takes the
	 * same time with few old runs as with many.
	 */
	[ACR_SQL_PURGE_LOOK] = {
		SQL("SELECT r.id, " IS_TERMINAL " AND r.finished_at" LT "$2"
			" FROM " RUNS " r WHERE r.id" GE "$1 ORDER BY r.id LIMIT $3"),
		BY_ID, 3, {UUIDOID, TIMESTAMPTZOID, INT8OID}
	},
	[ACR_SQL_PURGE_DELETE] = {
		SQL("DELETE FROM " RUNS " g WHERE g.id" EQ "ANY (ARRAY("
			"SELECT r.id FROM " RUNS " r WHERE r.id" EQ "ANY ($1)"
			" AND " IS_TERMINAL " AND " NOT_DEFERRED
			" FOR UPDATE OF r SKIP LOCKED))"),
		BY_ID, 1, {UUIDARRAYOID}
	},
	[ACR_SQL_DELETE_OF_CHAT] = {
		SQL("WITH gone AS (DELETE FROM " RUNS " r WHERE " THIS_CHAT
			" RETURNING r.id, r.workspace_id)"
			" DELETE FROM " DEFERRED " d USING gone g"
			" WHERE d.workspace_id" EQ "g.workspace_id AND d.run_id" EQ "g.id"),
		BY_CHAT, 2, {UUIDOID, UUIDOID}
	},
	[ACR_SQL_DELETE_OF_CHAT_ANYWHERE] = {
		SQL("WITH gone AS (DELETE FROM " RUNS " r WHERE r.chat_id" EQ "$1"
			" RETURNING r.id, r.workspace_id)"
			" DELETE FROM " DEFERRED " d USING gone g"
			" WHERE d.workspace_id" EQ "g.workspace_id AND d.run_id" EQ "g.id"),
		BY_CHAT, 1, {UUIDOID}
	},
};
