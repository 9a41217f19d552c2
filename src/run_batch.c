/*
 * Many runs: the batches of sweeps and purges.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "run_batch.h"
#include "shared_state.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* An array of uuids in the current memory context. */
static ArrayType *
uuid_array(Datum *ids, int n)
{
	return construct_array(ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
}

static void
add_boot_filter(AcrParams *p, const AcrSweepFilter *filter)
{
	acr_param_value(p, TransactionIdGetDatum(acr_shared_start_xid()));
	acr_param_time(p, filter->created_before);
	acr_param_time(p, filter->silent_since);
}

/* The parameters of the statements that choose the next batch. */
static void
batch_params(AcrParams *p, const AcrSweepFilter *filter, int64 limit,
			 const pg_uuid_t *from_chat)
{
	acr_param_pointer(p, from_chat);
	acr_param_value(p, Int64GetDatum(limit));
	if (filter->at_boot)
		add_boot_filter(p, filter);
	else
	{
		acr_param_time(p, filter->silent_since);
		acr_param_pointer(p, filter->runner);
	}
}

/* Moves *from_chat past a batch of n runs; *more tells whether to go on. */
static void
move_past(uint64 n, int64 limit, pg_uuid_t *from_chat, bool *more)
{
	*more = n > 0 && (int64) n >= limit;
	if (*more)
	{
		acr_column_uuid(n - 1, 2, from_chat);
		*more = acr_uuid_increment(from_chat);
	}
}

static bool
is_kept(const AcrSweepFilter *filter, uint64 row)
{
	AcrSweepCandidate run;
	Datum		runner;
	bool		isnull;

	if (filter->keep == NULL)
		return false;
	acr_column_uuid(row, 1, &run.id);
	runner = acr_column(row, 3, &isnull);
	run.runner = isnull ? NULL : TextDatumGetCString(runner);
	run.begun_at = DatumGetTimestampTz(acr_column(row, 4, &isnull));
	return filter->keep(filter, &run);
}

/* The ids of the n runs that a statement gave, but for those to be kept. */
static ArrayType *
collect_ids(const AcrSweepFilter *filter, uint64 n, int *collected)
{
	Datum	   *ids = palloc(Max(n, 1) * sizeof(Datum));

	*collected = 0;
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		if (!is_kept(filter, i))
			ids[(*collected)++] = acr_column(i, 1, &isnull);
	}
	return uuid_array(ids, *collected);
}

/*
 * Looks at the next batch of runs and moves *from_chat past it.  Returns the
 * ids of those that are not kept, in SPI memory, and how many there are.
 */
static ArrayType *
look_at_batch(const AcrSweepFilter *filter, int64 limit, pg_uuid_t *from_chat,
			  bool *more, int *collected)
{
	AcrParams	p = {0};
	uint64		n;

	batch_params(&p, filter, limit, from_chat);
	n = acr_table_execute(filter->at_boot ? ACR_SQL_BOOT_SWEEP_LOOK : ACR_SQL_SWEEP_LOOK,
						  ACR_AS_OF_NOW, &p);
	move_past(n, limit, from_chat, more);
	return collect_ids(filter, n, collected);
}

/*
 * Locks the next batch of runs, likewise.  Where each is to be asked for, locks
 * only those that are not kept, and asks again: one may have been heard of just
 * before it was locked.
 */
static ArrayType *
lock_batch(const AcrSweepFilter *filter, int64 limit, pg_uuid_t *from_chat,
		   bool *more, int *locked)
{
	AcrParams	p = {0};
	uint64		n;

	if (filter->keep != NULL)
	{
		ArrayType  *ids = look_at_batch(filter, limit, from_chat, more, locked);

		if (*locked == 0)
			return ids;
		acr_param_pointer(&p, ids);
		acr_param_time(&p, filter->at_boot ? DT_NOEND : filter->silent_since);
		n = acr_table_execute(ACR_SQL_SWEEP_LOCK_THESE, ACR_AS_WRITE, &p);
	}
	else
	{
		batch_params(&p, filter, limit, from_chat);
		n = acr_table_execute(filter->at_boot ? ACR_SQL_BOOT_SWEEP_LOCK : ACR_SQL_SWEEP_LOCK,
							  ACR_AS_WRITE, &p);
		move_past(n, limit, from_chat, more);
	}
	return collect_ids(filter, n, locked);
}

/*
 * With a snapshot for the whole transaction the abort would not see a deferred
 * finalization recorded since, and overrule it; so this looks as of now.
 */
static ArrayType *
leave_out_deferred(ArrayType *ids)
{
	AcrParams	p = {0};
	Datum	   *kept;
	uint64		n;

	acr_param_pointer(&p, ids);
	n = acr_table_execute(ACR_SQL_SWEEP_NOT_DEFERRED, ACR_AS_OF_NOW, &p);
	kept = palloc(Max(n, 1) * sizeof(Datum));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		kept[i] = acr_column(i, 1, &isnull);
	}
	return uuid_array(kept, (int) n);
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

	acr_table_open();
	ids = lock_batch(filter, limit, from_chat, more, &locked);
	if (locked > 0)
	{
		AcrParams	p = {0};

		if (IsolationUsesXactSnapshot())
			ids = leave_out_deferred(ids);
		acr_param_pointer(&p, ids);
		acr_param_value(&p, CStringGetTextDatum(error));
		acr_param_time(&p, GetCurrentTimestamp());
		aborted = acr_table_execute(ACR_SQL_SWEEP_ABORT, ACR_AS_WRITE, &p);
	}
	acr_table_close();
	return aborted;
}

/* Is there a run left that nobody wants kept? */
static bool
any_not_kept(const AcrSweepFilter *filter)
{
	pg_uuid_t	from_chat = {0};
	bool		more = true;
	int			n = 0;

	while (more && n == 0)
	{
		acr_table_open();
		(void) look_at_batch(filter, 1000, &from_chat, &more, &n);
		acr_table_close();
	}
	return n > 0;
}

/* Is there a run left that the boot sweep has to settle? */
bool
acr_table_boot_sweep_left(const AcrSweepFilter *filter)
{
	pg_uuid_t	from_chat = {0};
	AcrParams	p = {0};

	if (filter->keep != NULL)
		return any_not_kept(filter);
	batch_params(&p, filter, 1, &from_chat);
	return acr_table_run(ACR_SQL_BOOT_SWEEP_LEFT, ACR_AS_OF_NOW, &p) > 0;
}

/* Which of these runs are active, as of now?  Returns their number. */
int
acr_table_which_active(pg_uuid_t *ids, int n, pg_uuid_t **active)
{
	MemoryContext caller = CurrentMemoryContext;
	AcrParams	p = {0};
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));
	uint64		found;

	for (int i = 0; i < n; i++)
		elements[i] = UUIDPGetDatum(&ids[i]);
	acr_param_pointer(&p, uuid_array(elements, n));
	acr_table_open();
	found = acr_table_execute(ACR_SQL_WHICH_ACTIVE, ACR_AS_OF_NOW, &p);
	*active = MemoryContextAlloc(caller, Max(found, 1) * sizeof(pg_uuid_t));
	for (uint64 i = 0; i < found; i++)
		acr_column_uuid(i, 1, *active + i);
	acr_table_close();
	return (int) found;
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
	AcrParams	p = {0};
	Datum	   *ids;
	uint64		n;
	uint64		i;
	int			old = 0;

	acr_param_pointer(&p, from_id);
	acr_param_time(&p, before);
	acr_param_value(&p, Int64GetDatum(step));
	n = acr_table_execute(ACR_SQL_PURGE_LOOK, ACR_AS_OF_NOW, &p);

	ids = palloc(Max(n, 1) * sizeof(Datum));
	for (i = 0; i < n && old < limit; i++)
	{
		bool		isnull;

		if (acr_column_bool(i, 2))
			ids[old++] = acr_column(i, 1, &isnull);
	}
	*more = i < n || (int64) n == step;
	if (*more)
	{
		acr_column_uuid(i - 1, 1, from_id);
		*more = acr_uuid_increment(from_id);
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

	acr_table_open();
	ids = collect_old(before, limit, from_id, more, &old);
	if (old > 0)
	{
		AcrParams	p = {0};

		acr_param_pointer(&p, ids);
		deleted = acr_table_execute(ACR_SQL_PURGE_DELETE, ACR_AS_WRITE, &p);
	}
	acr_table_close();
	return deleted;
}

/* Is there a prepared transaction that is older than this life of the server? */
bool
acr_table_any_old_prepared(void)
{
	AcrParams	p = {0};

	acr_param_value(&p, TransactionIdGetDatum(acr_shared_start_xid()));
	return acr_table_run(ACR_SQL_ANY_OLD_PREPARED_XACT, ACR_AS_OF_NOW, &p) > 0;
}

/* Does a statement without parameters find a row? */
bool
acr_table_any(AcrSqlId which)
{
	AcrParams	p = {0};

	return acr_table_run(which, ACR_AS_OF_NOW, &p) > 0;
}
