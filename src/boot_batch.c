/*
 * The batches of a boot sweep that asks nobody which runs to keep.
 *
 * It goes through the runs of before server start in the order in which they
 * stand in the table.  That is the order in which one UPDATE of all would go; by
 * the chats, which may be random, each run would be on another page.
 *
 * As a rule nobody is interested in these runs any more: so a batch is aborted
 * at once, but for the rows that somebody has locked, or had.  Those take the
 * road of all sweeps, and so does the whole batch if anything comes in between:
 *
 *	 sweep: sees that a row is free		client: locks it
 *	 sweep: waits for a millisecond, gives up, and locks the batch, skipping it
 *
 *	 sweep: sees that nothing is deferred, aborts
 *										A: cannot wait for the row, defers
 *	 sweep: sees that something is deferred, takes the abort back, and leaves
 *	 out A's run
 */
#include "postgres.h"

#include "attempt.h"
#include "deferred_row.h"
#include "sweep_batch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* how many runs are looked at at once: so many batches */
#define LOOK_AHEAD		100
#define LOOK_AHEAD_MAX	20000

typedef struct QuickAbort
{
	const AcrSweepFilter *filter;
	ArrayType  *places;
	const char *error;
	int64		aborted;
} QuickAbort;

static int
compare_places(const void *a, const void *b)
{
	return ItemPointerCompare(unconstify(ItemPointerData *, (const ItemPointerData *) a),
							  unconstify(ItemPointerData *, (const ItemPointerData *) b));
}

/* Looks at the next many runs, and keeps their places. */
static void
look_ahead(const AcrSweepFilter *filter, int64 limit, AcrCursor *cursor)
{
	uint64		n = acr_sweep_look(filter,
								   Max(limit, Min(limit * LOOK_AHEAD, LOOK_AHEAD_MAX)),
								   &cursor->from, &cursor->more_beyond);

	if (cursor->places != NULL)
		pfree(cursor->places);
	cursor->places = MemoryContextAlloc(TopMemoryContext,
										Max(n, 1) * sizeof(ItemPointerData));
	for (uint64 i = 0; i < n; i++)
		cursor->places[i] = acr_sweep_place(i);
	cursor->n_places = (int) n;
	cursor->next_place = 0;
	qsort(cursor->places, n, sizeof(ItemPointerData), compare_places);
}

/*
 * The places of the next batch.
 *
 * A run that has another place since it was looked at is left for the next
 * visit; one that has got the place of another is not from before server start.
 */
static ArrayType *
next_places(const AcrSweepFilter *filter, int64 limit, AcrCursor *cursor, int *n)
{
	Datum	   *places;

	if (cursor->next_place >= cursor->n_places)
		look_ahead(filter, limit, cursor);
	*n = (int) Min(limit, cursor->n_places - cursor->next_place);
	places = palloc(Max(*n, 1) * sizeof(Datum));
	for (int i = 0; i < *n; i++)
		places[i] = PointerGetDatum(&cursor->places[cursor->next_place + i]);

	cursor->next_place += *n;
	cursor->more = cursor->next_place < cursor->n_places || cursor->more_beyond;
	return acr_place_array(places, *n);
}

/* As of now.  As a rule there is not even a page of such records. */
static bool
is_anything_deferred(void)
{
	TimestampTz unused;

	return !acr_table_deferred_is_blank() && acr_table_next_deferred(&unused);
}

static void
quick_abort_body(void *arg)
{
	QuickAbort *quick = arg;
	AcrParams	p = {0};

	acr_param_pointer(&p, quick->places);
	acr_param_value(&p, CStringGetTextDatum(quick->error));
	acr_sweep_add_boot_filter(&p, quick->filter);
	acr_param_time(&p, GetCurrentTimestamp());
	quick->aborted = acr_table_run(ACR_SQL_BOOT_SWEEP_ABORT_FREE, ACR_AS_WRITE, &p);

	/* Our snapshot was older than what was deferred while we wrote. */
	if (is_anything_deferred())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent deferral")));
}

/*
 * Aborts those that nobody has locked, or none.  Any failure is left for the
 * longer road to meet.
 */
static int64
abort_free(const AcrSweepFilter *filter, ArrayType *places, const char *error)
{
	QuickAbort	quick = {.filter = filter,.places = places,.error = error};
	ErrorData  *failure;

	if (is_anything_deferred())
		return 0;
	failure = acr_attempt_within(quick_abort_body, &quick, 1);
	if (failure == NULL)
		return quick.aborted;
	FreeErrorData(failure);
	return 0;
}

/* Locks those that are still to be swept, but for what a client has locked. */
static ArrayType *
lock_places(const AcrSweepFilter *filter, ArrayType *places, int n, int *locked)
{
	AcrParams	p = {0};
	uint64		found;

	acr_param_pointer(&p, places);
	acr_param_value(&p, Int64GetDatum(n));
	acr_sweep_add_boot_filter(&p, filter);
	found = acr_table_execute(ACR_SQL_BOOT_SWEEP_LOCK, ACR_AS_WRITE, &p);
	return acr_sweep_places(filter, found, locked);
}

/*
 * Aborts the next batch, as acr_table_sweep_batch() does, which calls this with
 * the tables open.
 */
int64
acr_boot_batch_abort(const AcrSweepFilter *filter, const char *error, int64 limit,
					 AcrCursor *cursor)
{
	int			n;
	int			locked;
	ArrayType  *places = next_places(filter, limit, cursor, &n);
	int64		aborted = n > 0 ? abort_free(filter, places, error) : 0;

	if (aborted < n)
	{
		ArrayType  *rest = lock_places(filter, places, n, &locked);

		if (locked > 0)
			aborted += acr_sweep_abort_locked(rest, error);
	}
	if (!cursor->more)
	{
		pfree(cursor->places);
		cursor->places = NULL;
	}
	return aborted;
}
