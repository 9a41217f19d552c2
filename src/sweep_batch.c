/*
 * Many runs: the batches of sweeps.
 *
 * A batch is locked first, but for rows that a client has locked, and aborted
 * then, by the places of the rows, which nobody can change any more.  The boot
 * sweep, where it asks nobody, has a shorter road: see boot_batch.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "run_batch.h"
#include "shared_state.h"
#include "storage/itemptr.h"
#include "sweep_batch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* columns of the statements that look at runs, or lock them */
#define COLUMN_ID		1
#define COLUMN_CHAT		2
#define COLUMN_RUNNER	3
#define COLUMN_BEGUN	4
#define COLUMN_PLACE	5

/* An array of places in the table, in the current memory context. */
ArrayType *
acr_place_array(Datum *places, int n)
{
	return construct_array(places, n, TIDOID, sizeof(ItemPointerData), false,
						   TYPALIGN_SHORT);
}

void
acr_sweep_add_boot_filter(AcrParams *p, const AcrSweepFilter *filter)
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
		acr_sweep_add_boot_filter(p, filter);
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
		acr_column_uuid(n - 1, COLUMN_CHAT, from_chat);
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
	acr_column_uuid(row, COLUMN_ID, &run.id);
	runner = acr_column(row, COLUMN_RUNNER, &isnull);
	run.runner = isnull ? NULL : TextDatumGetCString(runner);
	run.begun_at = DatumGetTimestampTz(acr_column(row, COLUMN_BEGUN, &isnull));
	return filter->keep(filter, &run);
}

/* That column of the n runs that a statement gave, but for those to be kept. */
static Datum *
collect(const AcrSweepFilter *filter, uint64 n, int column, int *collected)
{
	Datum	   *values = palloc(Max(n, 1) * sizeof(Datum));

	*collected = 0;
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		if (!is_kept(filter, i))
			values[(*collected)++] = acr_column(i, column, &isnull);
	}
	return values;
}

/* The places of the n runs that a statement gave, but for those to be kept. */
ArrayType *
acr_sweep_places(const AcrSweepFilter *filter, uint64 n, int *collected)
{
	Datum	   *places = collect(filter, n, COLUMN_PLACE, collected);

	return acr_place_array(places, *collected);
}

/* The place of the run in a row that a look gave. */
ItemPointerData
acr_sweep_place(uint64 row)
{
	bool		isnull;

	return *(ItemPointer) DatumGetPointer(acr_column(row, COLUMN_PLACE, &isnull));
}

/* Looks at the next batch of runs and moves *from_chat past it. */
uint64
acr_sweep_look(const AcrSweepFilter *filter, int64 limit, pg_uuid_t *from_chat,
			   bool *more)
{
	AcrParams	p = {0};
	uint64		n;

	batch_params(&p, filter, limit, from_chat);
	n = acr_table_execute(filter->at_boot ? ACR_SQL_BOOT_SWEEP_LOOK : ACR_SQL_SWEEP_LOOK,
						  ACR_AS_OF_NOW, &p);
	move_past(n, limit, from_chat, more);
	return n;
}

/*
 * The same; returns the ids of those that are not kept, in SPI memory, and how
 * many there are.
 */
static ArrayType *
look_at_batch(const AcrSweepFilter *filter, int64 limit, pg_uuid_t *from_chat,
			  bool *more, int *collected)
{
	uint64		n = acr_sweep_look(filter, limit, from_chat, more);
	Datum	   *ids = collect(filter, n, COLUMN_ID, collected);

	return acr_uuid_array(ids, *collected);
}

/* Locks those of the ids whose runs are still to be swept. */
static uint64
lock_these(const AcrSweepFilter *filter, ArrayType *ids)
{
	AcrParams	p = {0};

	acr_param_pointer(&p, ids);
	acr_param_time(&p, filter->at_boot ? DT_NOEND : filter->silent_since);
	return acr_table_execute(ACR_SQL_SWEEP_LOCK_THESE, ACR_AS_WRITE, &p);
}

/* Locks the next batch of runs in the order of their chats. */
static uint64
lock_next_chats(const AcrSweepFilter *filter, int64 limit, AcrCursor *cursor)
{
	AcrParams	p = {0};
	uint64		n;

	batch_params(&p, filter, limit, &cursor->from);
	n = acr_table_execute(ACR_SQL_SWEEP_LOCK, ACR_AS_WRITE, &p);
	move_past(n, limit, &cursor->from, &cursor->more);
	return n;
}

/*
 * Locks the next batch of runs and returns their places, and how many there are.
 * Where each is to be asked for, locks only those that are not kept, and asks
 * again: one may have been heard of just before it was locked.
 */
static ArrayType *
lock_batch(const AcrSweepFilter *filter, int64 limit, AcrCursor *cursor,
		   int *locked)
{
	uint64		n;

	if (filter->keep != NULL)
	{
		ArrayType  *ids = look_at_batch(filter, limit, &cursor->from,
										&cursor->more, locked);

		n = *locked > 0 ? lock_these(filter, ids) : 0;
	}
	else
		n = lock_next_chats(filter, limit, cursor);
	return acr_sweep_places(filter, n, locked);
}

/*
 * With a snapshot for the whole transaction the abort would not see a deferred
 * finalization recorded since, and overrule it; so this looks as of now.
 */
static ArrayType *
leave_out_deferred(ArrayType *places)
{
	AcrParams	p = {0};
	Datum	   *kept;
	uint64		n;

	acr_param_pointer(&p, places);
	n = acr_table_execute(ACR_SQL_SWEEP_NOT_DEFERRED, ACR_AS_OF_NOW, &p);
	kept = palloc(Max(n, 1) * sizeof(Datum));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		kept[i] = acr_column(i, 1, &isnull);
	}
	return acr_place_array(kept, (int) n);
}

/* Aborts the runs at these places, which we have locked. */
int64
acr_sweep_abort_locked(ArrayType *places, const char *error)
{
	AcrParams	p = {0};

	if (IsolationUsesXactSnapshot())
		places = leave_out_deferred(places);
	acr_param_pointer(&p, places);
	acr_param_value(&p, CStringGetTextDatum(error));
	acr_param_time(&p, GetCurrentTimestamp());
	return acr_table_execute(acr_table_deferred_is_blank() ?
							 ACR_SQL_SWEEP_ABORT : ACR_SQL_SWEEP_ABORT_UNDECIDED,
							 ACR_AS_WRITE, &p);
}

/*
 * Aborts the next batch of at most "limit" active runs that the filter picks.
 * Runs that a client has locked and runs with a deferred finalization are left
 * out.  Returns the number of runs aborted; cursor->more tells whether to go on.
 */
int64
acr_table_sweep_batch(const AcrSweepFilter *filter, const char *error,
					  int64 limit, AcrCursor *cursor)
{
	int64		aborted = 0;

	acr_table_open();
	if (filter->at_boot && filter->keep == NULL)
		aborted = acr_boot_batch_abort(filter, error, limit, cursor);
	else
	{
		int			locked;
		ArrayType  *places = lock_batch(filter, limit, cursor, &locked);

		if (locked > 0)
			aborted = acr_sweep_abort_locked(places, error);
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
