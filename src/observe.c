/*
 * What the views show of shared memory.
 *
 * Without preloading there is none, and these give no rows, or nulls.
 */
#include "postgres.h"

#include "database_entry.h"
#include "funcapi.h"
#include "live_runs.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "runners.h"
#include "settings.h"
#include "shared_state.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(acr_live_state);
PG_FUNCTION_INFO_V1(acr_database_counters);
PG_FUNCTION_INFO_V1(acr_database_visits);
PG_FUNCTION_INFO_V1(acr_server_state);
PG_FUNCTION_INFO_V1(acr_stats_reset);

static Datum
time_or_null(TimestampTz time, bool *isnull)
{
	*isnull = time == 0 || TIMESTAMP_NOT_FINITE(time);
	return TimestampTzGetDatum(time);
}

static bool
is_attached(text *runner)
{
	return acr_shared_exists() && acr_runners_is_attached(text_to_cstring(runner));
}

/*
 * live_state(run_id uuid, runner text, out heard_at timestamptz,
 *			  out stop_requested boolean, out attached boolean)
 *
 * What shared memory knows of a run and of its runner; nulls if nothing.
 */
Datum
acr_live_state(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	AcrLiveLook look = {0};
	Datum		values[3];
	bool		nulls[3];

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (acr_shared_exists() && !PG_ARGISNULL(0))
		acr_live_look(PG_GETARG_UUID_P(0), &look);
	values[0] = time_or_null(look.heard_at, &nulls[0]);
	values[1] = BoolGetDatum(look.stop_requested);
	nulls[1] = !look.known;
	values[2] = BoolGetDatum(!PG_ARGISNULL(1) && is_attached(PG_GETARG_TEXT_PP(1)));
	nulls[2] = false;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  values, nulls)));
}

/* A copy of the registry, to work with without the lock. */
static AcrDatabase *
copy_registry(int *n)
{
	HASH_SEQ_STATUS seq;
	AcrDatabase *db;
	AcrDatabase *copies;

	*n = 0;
	if (!acr_shared_exists())
		return NULL;
	copies = MemoryContextAllocHuge(CurrentMemoryContext,
									ACR_MAX_DATABASES * sizeof(AcrDatabase));
	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_SHARED);
	hash_seq_init(&seq, acr_databases_table());
	while ((db = hash_seq_search(&seq)) != NULL)
		copies[(*n)++] = *db;
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
	return copies;
}

/*
 * database_counters() returns setof record
 *
 * Of each database: its oid, the counters in the order of AcrCounter, and since
 * when they count.
 */
Datum
acr_database_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			n;
	AcrDatabase *dbs;

	InitMaterializedSRF(fcinfo, 0);
	dbs = copy_registry(&n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[ACR_N_COUNTERS + 2];
		bool		nulls[ACR_N_COUNTERS + 2] = {false};

		values[0] = ObjectIdGetDatum(dbs[i].dboid);
		for (int c = 0; c < ACR_N_COUNTERS; c++)
			values[c + 1] = Int64GetDatum((int64) pg_atomic_read_u64(&dbs[i].counters[c]));
		values[ACR_N_COUNTERS + 1] = TimestampTzGetDatum(dbs[i].counted_since);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* The text may come from a database of another encoding. */
static text *
error_text(const char *error)
{
	char	   *copy = pstrdup(error);

	if (!pg_verifymbstr(copy, strlen(copy), true))
	{
		for (char *c = copy; *c != '\0'; c++)
		{
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
		}
	}
	return cstring_to_text(copy);
}

static TimestampTz
next_due(const AcrDatabase *db)
{
	TimestampTz due = DT_NOEND;

	for (int i = 0; i < ACR_N_TASKS; i++)
		due = Min(due, db->tasks[i].due);
	return TIMESTAMP_IS_NOBEGIN(due) ? GetCurrentTimestamp() : due;
}

/*
 * database_visits() returns setof record
 *
 * Of each database: its oid, whether a worker found the extension there, when
 * its boot sweep was done, how many runs that aborted, the last error and its
 * time, whether a worker is there, and when the next one is due.
 */
Datum
acr_database_visits(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			n;
	AcrDatabase *dbs;

	InitMaterializedSRF(fcinfo, 0);
	dbs = copy_registry(&n);
	for (int i = 0; i < n; i++)
	{
		AcrDatabase *db = &dbs[i];
		Datum		values[8];
		bool		nulls[8] = {false};

		values[0] = ObjectIdGetDatum(db->dboid);
		values[1] = BoolGetDatum(db->has_extension);
		values[2] = time_or_null(db->boot_done_at, &nulls[2]);
		values[3] = Int64GetDatum(db->boot_runs);
		nulls[4] = db->last_error_at == 0;
		if (!nulls[4])
			values[4] = PointerGetDatum(error_text(db->last_error));
		values[5] = time_or_null(db->last_error_at, &nulls[5]);
		values[6] = BoolGetDatum(db->visit == ACR_VISIT_RUNNING);
		values[7] = time_or_null(next_due(db), &nulls[7]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * server_state(out preloaded boolean, out launcher_alive boolean,
 *				out opened_at timestamptz, out overdue_since timestamptz)
 *
 * Is the library preloaded, does the launcher run, and since when is the server
 * open?  And, for health(): the time since which an active run must have been
 * silent to be overdue for the sweep of silent runs; null if that is off.
 */
Datum
acr_server_state(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	int64		overdue_ms = (int64) acr_stale_after + 2 * (int64) acr_reconcile_interval;
	Datum		values[4];
	bool		nulls[4] = {false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	acr_shared_note_start();
	values[0] = BoolGetDatum(acr_shared_exists());
	values[1] = BoolGetDatum(acr_shared_has_launcher());
	values[2] = time_or_null(acr_shared_open_time(), &nulls[2]);
	values[3] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
																-overdue_ms));
	nulls[3] = acr_stale_after == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  values, nulls)));
}

/*
 * stats_reset() returns void
 *
 * Sets the counters of the current database to zero.
 */
Datum
acr_stats_reset(PG_FUNCTION_ARGS)
{
	AcrDatabase *db;

	if (!acr_shared_exists())
		PG_RETURN_VOID();
	acr_databases_prepare();
	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	db = acr_databases_find(MyDatabaseId);
	if (db != NULL)
	{
		for (int i = 0; i < ACR_N_COUNTERS; i++)
			pg_atomic_write_u64(&db->counters[i], 0);
		db->counted_since = GetCurrentTimestamp();
	}
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
	PG_RETURN_VOID();
}
