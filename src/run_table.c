/*
 * The run table and its companion, reached through the server's planner and
 * executor.  This is the only room that uses SPI.
 *
 * Plans are kept for the life of the session; the server replans them when an
 * object that they depend on changes, so DROP EXTENSION and CREATE EXTENSION
 * in one session need nothing here.
 *
 * Three kinds of snapshot are in use.  Writes run as any statement of the
 * caller's transaction does.  The get functions, being STABLE, see what the
 * calling query sees.  Look-ups that decide an outcome (is it terminal? who
 * holds the chat?) want the truth of this moment: in READ COMMITTED that is
 * what every statement sees, in REPEATABLE READ and SERIALIZABLE they use the
 * latest snapshot, as the server's foreign-key checks do.  What an application
 * is told then may be newer than what its own queries show, never older.
 */
#include "postgres.h"

#include "access/xact.h"
#include "ai_chat_run.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "run_state.h"
#include "run_table.h"
#include "shared_state.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

typedef enum SnapshotKind
{
	AS_WRITE,					/* a write, or a read that locks */
	AS_OF_NOW,					/* a read that decides */
	AS_OF_CALLER				/* a read for a STABLE function */
} SnapshotKind;

typedef struct Parameters
{
	Datum		values[ACR_SQL_MAX_ARGS];
	char		nulls[ACR_SQL_MAX_ARGS];
	int			n;
} Parameters;

static SPIPlanPtr plans[ACR_N_SQL];

/* ---- parameters, in the order of the statement's numbering ---- */

static void
add_value(Parameters *p, Datum value)
{
	p->values[p->n] = value;
	p->nulls[p->n++] = ' ';
}

static void
add_pointer(Parameters *p, const void *value)
{
	p->values[p->n] = PointerGetDatum(value);
	p->nulls[p->n++] = value == NULL ? 'n' : ' ';
}

static void
add_time(Parameters *p, TimestampTz value)
{
	add_value(p, TimestampTzGetDatum(value));
}

/* $1 is the run or chat, $2 the workspace */
static void
add_key(Parameters *p, const pg_uuid_t *id, const pg_uuid_t *workspace_id)
{
	add_pointer(p, id);
	add_pointer(p, workspace_id);
}

/* ---- execution ---- */

static SPIPlanPtr
plan_for(AcrSqlId id)
{
	if (plans[id] == NULL)
	{
		SPIPlanPtr	plan;

		/* One plan for all values: that is what planning.c makes safe. */
		plan = SPI_prepare_cursor(acr_sql[id].text, acr_sql[id].nargs,
								  (Oid *) acr_sql[id].argtypes,
								  CURSOR_OPT_GENERIC_PLAN);
		if (plan == NULL)
			elog(ERROR, "SPI_prepare_cursor failed: %s",
				 SPI_result_code_string(SPI_result));
		if (SPI_keepplan(plan) != 0)
			elog(ERROR, "SPI_keepplan failed");
		plans[id] = plan;
	}
	return plans[id];
}

static Snapshot
snapshot_for(SnapshotKind kind)
{
	/* An invalid snapshot leaves the choice to SPI. */
	if (kind == AS_OF_NOW && IsolationUsesXactSnapshot())
		return GetLatestSnapshot();
	return InvalidSnapshot;
}

/*
 * Runs a statement within an SPI connection and returns the number of rows.
 * Rows, if any, are in SPI_tuptable until SPI_finish().
 */
static uint64
execute(AcrSqlId id, SnapshotKind kind, Parameters *p)
{
	Snapshot	snapshot = snapshot_for(kind);
	bool		read_only;
	int			rc;

	/*
	 * Outside a read-only call SPI takes a new snapshot for the statement,
	 * which in READ COMMITTED is the latest.
	 */
	read_only = kind == AS_OF_CALLER || snapshot != InvalidSnapshot;

	Assert(p->n == acr_sql[id].nargs);
	rc = SPI_execute_snapshot(plan_for(id), p->values, p->nulls, snapshot,
							  InvalidSnapshot, read_only, true, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

/* Runs a statement of which only the number of rows is of interest. */
static uint64
run(AcrSqlId id, SnapshotKind kind, Parameters *p)
{
	uint64		rows;

	SPI_connect();
	rows = execute(id, kind, p);
	SPI_finish();
	return rows;
}

static Datum
column(uint64 row, int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number,
						 isnull);
}

static bool
bool_column(uint64 row, int number)
{
	bool		isnull;

	return DatumGetBool(column(row, number, &isnull)) && !isnull;
}

static void
uuid_column(uint64 row, int number, pg_uuid_t *result)
{
	bool		isnull;

	*result = *DatumGetUUIDP(column(row, number, &isnull));
}

/* ---- begin ---- */

/*
 * Inserts a running run.  Returns false if there was a conflict: on the chat's
 * slot, or, with "once", also on the run id.  Waits for an uncommitted rival.
 */
bool
acr_table_insert(const AcrNewRun *new_run, bool once)
{
	Parameters	p = {0};

	add_pointer(&p, &new_run->key.id);
	add_pointer(&p, &new_run->chat_id);
	add_pointer(&p, &new_run->key.workspace_id);
	add_pointer(&p, new_run->created_by);
	add_pointer(&p, new_run->trigger);
	add_pointer(&p, new_run->runner);
	add_time(&p, GetCurrentTimestamp());
	return run(once ? ACR_SQL_INSERT_RUN_ONCE : ACR_SQL_INSERT_RUN,
			   AS_WRITE, &p) > 0;
}

bool
acr_table_find_active(const pg_uuid_t *chat_id, const pg_uuid_t *workspace_id,
					  AcrActiveRun *active)
{
	Parameters	p = {0};
	bool		found;

	add_key(&p, chat_id, workspace_id);
	SPI_connect();
	found = execute(ACR_SQL_FIND_ACTIVE_OF_CHAT, AS_OF_NOW, &p) > 0;
	if (found)
	{
		bool		isnull;

		uuid_column(0, 1, &active->id);
		active->since = DatumGetTimestampTz(column(0, 2, &isnull));
	}
	SPI_finish();
	return found;
}

/* Does the chat have an active run in another workspace? */
bool
acr_table_busy_elsewhere(const pg_uuid_t *chat_id,
						 const pg_uuid_t *workspace_id)
{
	Parameters	p = {0};

	add_key(&p, chat_id, workspace_id);
	return run(ACR_SQL_CHAT_BUSY_ELSEWHERE, AS_OF_NOW, &p) > 0;
}

/* ---- one run ---- */

/* Looks a run up as of now. */
bool
acr_table_find(const AcrRunKey *key, AcrRun *found)
{
	Parameters	p = {0};
	bool		exists;

	add_key(&p, &key->id, &key->workspace_id);
	SPI_connect();
	exists = execute(ACR_SQL_FIND_RUN, AS_OF_NOW, &p) > 0;
	if (exists)
	{
		bool		isnull;

		strlcpy(found->status, TextDatumGetCString(column(0, 1, &isnull)),
				sizeof(found->status));
		found->is_terminal = acr_state_is_terminal(found->status);
		uuid_column(0, 2, &found->chat_id);
		found->stop_requested = bool_column(0, 3);
	}
	SPI_finish();
	return exists;
}

/* The once gate: true if this call made the run terminal. */
bool
acr_table_finish(const AcrRunKey *key, const char *status, text *error)
{
	Parameters	p = {0};

	add_key(&p, &key->id, &key->workspace_id);
	add_value(&p, CStringGetTextDatum(status));
	add_pointer(&p, error);
	add_time(&p, GetCurrentTimestamp());
	return run(ACR_SQL_FINISH_RUN, AS_WRITE, &p) > 0;
}

/* Runs a write of the runner that returns whether a stop is requested. */
static bool
run_and_get_signal(AcrSqlId id, Parameters *p, bool *stop_requested)
{
	bool		done;

	SPI_connect();
	done = execute(id, AS_WRITE, p) > 0;
	if (done)
		*stop_requested = bool_column(0, 1);
	SPI_finish();
	return done;
}

bool
acr_table_record_step(const AcrRunKey *key, int32 step_count,
					  bool *stop_requested)
{
	Parameters	p = {0};

	add_key(&p, &key->id, &key->workspace_id);
	add_value(&p, Int32GetDatum(step_count));
	add_time(&p, GetCurrentTimestamp());
	return run_and_get_signal(ACR_SQL_RECORD_STEP, &p, stop_requested);
}

bool
acr_table_heartbeat(const AcrRunKey *key, bool *stop_requested)
{
	Parameters	p = {0};

	add_key(&p, &key->id, &key->workspace_id);
	add_time(&p, GetCurrentTimestamp());
	return run_and_get_signal(ACR_SQL_HEARTBEAT, &p, stop_requested);
}

bool
acr_table_link(const AcrRunKey *key, const pg_uuid_t *message_id)
{
	Parameters	p = {0};

	add_key(&p, &key->id, &key->workspace_id);
	add_pointer(&p, message_id);
	add_time(&p, GetCurrentTimestamp());
	return run(ACR_SQL_LINK_MESSAGE, AS_WRITE, &p) > 0;
}

/* Stamps the stop request.  False if the run is not active or has one. */
bool
acr_table_mark_stop(const AcrRunKey *key)
{
	Parameters	p = {0};

	add_key(&p, &key->id, &key->workspace_id);
	add_time(&p, GetCurrentTimestamp());
	return run(ACR_SQL_MARK_STOP, AS_WRITE, &p) > 0;
}

/* The same for whatever run is active in the chat; tells which. */
bool
acr_table_mark_stop_of_chat(const pg_uuid_t *chat_id,
							const pg_uuid_t *workspace_id, pg_uuid_t *run_id)
{
	Parameters	p = {0};
	bool		marked;

	add_key(&p, chat_id, workspace_id);
	add_time(&p, GetCurrentTimestamp());
	SPI_connect();
	marked = execute(ACR_SQL_MARK_STOP_OF_CHAT, AS_WRITE, &p) > 0;
	if (marked)
		uuid_column(0, 1, run_id);
	SPI_finish();
	return marked;
}

/* Deletes a chat's runs, in any workspace if none is given. */
void
acr_table_delete_of_chat(const pg_uuid_t *chat_id,
						 const pg_uuid_t *workspace_id)
{
	Parameters	p = {0};

	add_pointer(&p, chat_id);
	if (workspace_id != NULL)
		add_pointer(&p, workspace_id);
	run(workspace_id != NULL ? ACR_SQL_DELETE_OF_CHAT :
		ACR_SQL_DELETE_OF_CHAT_ANYWHERE, AS_WRITE, &p);
}

/*
 * Answers a get function: zero or one row of the table.  The row comes as one
 * composite value, which has the table's own shape whatever columns somebody
 * has added or dropped.
 */
Datum
acr_table_get(FunctionCallInfo fcinfo, AcrSqlId which, const pg_uuid_t *id,
			  const pg_uuid_t *workspace_id)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Parameters	p = {0};

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);

	add_key(&p, id, workspace_id);
	SPI_connect();
	if (execute(which, AS_OF_CALLER, &p) > 0)
	{
		bool		isnull;
		HeapTupleHeader row = DatumGetHeapTupleHeader(column(0, 1, &isnull));
		HeapTupleData tuple = {0};

		tuple.t_len = HeapTupleHeaderGetDatumLength(row);
		tuple.t_data = row;
		tuplestore_puttuple(rsinfo->setResult, &tuple);
	}
	SPI_finish();
	return (Datum) 0;
}

/* ---- deferred finalizations ---- */

/* Records what could not be written.  False if there was one already. */
bool
acr_table_defer(const AcrRunKey *key, const char *status, text *error,
				const char *cause)
{
	Parameters	p = {0};

	add_key(&p, &key->id, &key->workspace_id);
	add_value(&p, CStringGetTextDatum(status));
	add_pointer(&p, error);
	add_value(&p, CStringGetTextDatum(cause));
	add_time(&p, GetCurrentTimestamp());
	return run(ACR_SQL_DEFER, AS_WRITE, &p) > 0;
}

/* The status that is deferred for the run, as of now, or NULL. */
char *
acr_table_find_deferred(const AcrRunKey *key)
{
	MemoryContext caller = CurrentMemoryContext;
	Parameters	p = {0};
	char	   *status = NULL;

	add_key(&p, &key->id, &key->workspace_id);
	SPI_connect();
	if (execute(ACR_SQL_FIND_DEFERRED, AS_OF_NOW, &p) > 0)
	{
		bool		isnull;

		status = MemoryContextStrdup(caller,
									 TextDatumGetCString(column(0, 1, &isnull)));
	}
	SPI_finish();
	return status;
}

/*
 * The next few deferred finalizations after the given one (NULL: from the
 * first on), those of one run only if run_id is given.  Returns how many.
 */
int
acr_table_list_deferred(const AcrRunKey *after, const pg_uuid_t *run_id,
						AcrRunKey **keys)
{
	MemoryContext caller = CurrentMemoryContext;
	Parameters	p = {0};
	uint64		n;

	add_pointer(&p, after == NULL ? NULL : &after->workspace_id);
	add_pointer(&p, after == NULL ? NULL : &after->id);
	add_pointer(&p, run_id);
	SPI_connect();
	n = execute(ACR_SQL_LIST_DEFERRED, AS_OF_NOW, &p);
	*keys = MemoryContextAlloc(caller, Max(n, 1) * sizeof(AcrRunKey));
	for (uint64 i = 0; i < n; i++)
	{
		uuid_column(i, 1, &(*keys)[i].workspace_id);
		uuid_column(i, 2, &(*keys)[i].id);
	}
	SPI_finish();
	return (int) n;
}

/* Locks the run's row if that needs no waiting for a client. */
bool
acr_table_lock_now(const AcrRunKey *key)
{
	Parameters	p = {0};

	add_key(&p, &key->id, &key->workspace_id);
	return run(ACR_SQL_LOCK_RUN, AS_WRITE, &p) > 0;
}

/* True if this call made the run terminal. */
bool
acr_table_apply_deferred(const AcrRunKey *key)
{
	Parameters	p = {0};

	add_key(&p, &key->id, &key->workspace_id);
	add_time(&p, GetCurrentTimestamp());
	return run(ACR_SQL_APPLY_DEFERRED, AS_WRITE, &p) > 0;
}

bool
acr_table_forget_deferred(const AcrRunKey *key)
{
	Parameters	p = {0};

	add_key(&p, &key->id, &key->workspace_id);
	return run(ACR_SQL_FORGET_DEFERRED, AS_WRITE, &p) > 0;
}

/* ---- many runs ---- */

/* The next uuid in sort order; false if there is none. */
static bool
uuid_increment(pg_uuid_t *uuid)
{
	for (int i = UUID_LEN - 1; i >= 0; i--)
	{
		if (++uuid->data[i] != 0)
			return true;
	}
	return false;
}

/* An array of uuids in the current memory context. */
static ArrayType *
uuid_array(Datum *ids, int n)
{
	return construct_array(ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
}

static void
add_boot_filter(Parameters *p, const AcrSweepFilter *filter)
{
	add_value(p, TransactionIdGetDatum(acr_shared_start_xid()));
	add_time(p, filter->created_before);
	add_time(p, filter->silent_since);
}

/*
 * Locks the next batch of runs and moves *from_chat past it.  Returns their
 * ids, in SPI memory, and how many there are.
 */
static ArrayType *
lock_batch(const AcrSweepFilter *filter, int64 limit, pg_uuid_t *from_chat,
		   bool *more, int *locked)
{
	Parameters	p = {0};
	Datum	   *ids;
	uint64		n;

	add_pointer(&p, from_chat);
	add_value(&p, Int64GetDatum(limit));
	if (filter->at_boot)
		add_boot_filter(&p, filter);
	else
	{
		add_time(&p, filter->silent_since);
		add_pointer(&p, filter->runner);
	}
	n = execute(filter->at_boot ? ACR_SQL_BOOT_SWEEP_LOCK : ACR_SQL_SWEEP_LOCK,
				AS_WRITE, &p);

	ids = palloc(Max(n, 1) * sizeof(Datum));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		ids[i] = column(i, 1, &isnull);
	}
	*more = n > 0 && (int64) n >= limit;
	if (*more)
	{
		uuid_column(n - 1, 2, from_chat);
		*more = uuid_increment(from_chat);
	}
	*locked = (int) n;
	return uuid_array(ids, (int) n);
}

/*
 * Aborts the next batch of at most "limit" active runs that the filter picks.
 * Runs that a client has locked and runs with a deferred finalization are left
 * out.  Returns the number of runs aborted; *more tells whether to go on, from
 * *from_chat, which the first call must set to zeroes.
 */
int64
acr_table_sweep_batch(const AcrSweepFilter *filter, const char *error,
					  int64 limit, pg_uuid_t *from_chat, bool *more)
{
	ArrayType  *ids;
	int			locked;
	int64		aborted = 0;

	SPI_connect();
	ids = lock_batch(filter, limit, from_chat, more, &locked);
	if (locked > 0)
	{
		Parameters	p = {0};

		add_pointer(&p, ids);
		add_value(&p, CStringGetTextDatum(error));
		add_time(&p, GetCurrentTimestamp());
		aborted = execute(ACR_SQL_SWEEP_ABORT, AS_WRITE, &p);
	}
	SPI_finish();
	return aborted;
}

/* Is there a run left that the boot sweep has to settle? */
bool
acr_table_boot_sweep_left(const AcrSweepFilter *filter)
{
	pg_uuid_t	from_chat = {0};
	Parameters	p = {0};

	add_pointer(&p, &from_chat);
	add_value(&p, Int64GetDatum(1));
	add_boot_filter(&p, filter);
	return run(ACR_SQL_BOOT_SWEEP_LEFT, AS_OF_NOW, &p) > 0;
}

/*
 * Looks at the next runs in the order of their ids and collects those that
 * are terminal since before the given time, at most "limit" of them.
 */
static ArrayType *
collect_old(TimestampTz before, int64 limit, pg_uuid_t *from_id, bool *more,
			int *collected)
{
	const int64 step = 10000;
	Parameters	p = {0};
	Datum	   *ids;
	uint64		n;
	uint64		i;
	int			old = 0;

	add_pointer(&p, from_id);
	add_time(&p, before);
	add_value(&p, Int64GetDatum(step));
	n = execute(ACR_SQL_PURGE_LOOK, AS_OF_NOW, &p);

	ids = palloc(Max(n, 1) * sizeof(Datum));
	for (i = 0; i < n && old < limit; i++)
	{
		bool		isnull;

		if (bool_column(i, 2))
			ids[old++] = column(i, 1, &isnull);
	}
	*more = i < n || (int64) n == step;
	if (*more)
	{
		uuid_column(i - 1, 1, from_id);
		*more = uuid_increment(from_id);
	}
	*collected = old;
	return uuid_array(ids, old);
}

/*
 * Deletes terminal runs that finished before the given time, at most "limit",
 * among the next ones in the order of their ids.  A run with a deferred
 * finalization or locked by a client stays.  Returns the number deleted; *more
 * tells whether to go on, from *from_id, which the first call must set to
 * zeroes.
 */
int64
acr_table_purge_batch(TimestampTz before, int64 limit, pg_uuid_t *from_id,
					  bool *more)
{
	ArrayType  *ids;
	int			old;
	int64		deleted = 0;

	SPI_connect();
	ids = collect_old(before, limit, from_id, more, &old);
	if (old > 0)
	{
		Parameters	p = {0};

		add_pointer(&p, ids);
		deleted = execute(ACR_SQL_PURGE_DELETE, AS_WRITE, &p);
	}
	SPI_finish();
	return deleted;
}

/* Does a statement without parameters find a row? */
bool
acr_table_any(AcrSqlId which)
{
	Parameters	p = {0};

	return run(which, AS_OF_NOW, &p) > 0;
}

/* ---- the place itself ---- */

/*
 * Is the extension there, and who owns its table?
 */
bool
acr_table_exists(Oid *owner)
{
	Oid			schema;
	Oid			relid;
	HeapTuple	tuple;

	if (!OidIsValid(get_extension_oid(ACR_EXTENSION, true)))
		return false;
	schema = get_namespace_oid(ACR_SCHEMA, true);
	if (!OidIsValid(schema))
		return false;
	relid = get_relname_relid(ACR_RUNS_TABLE, schema);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	*owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return true;
}

/* Runs a GRANT command, with the rights of whoever is current. */
void
acr_table_grant(const char *command)
{
	int			rc;

	SPI_connect();
	rc = SPI_execute(command, false, 0);
	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	SPI_finish();
}
