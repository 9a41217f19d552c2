/*
 * Counting, and what else shared memory learns from a transaction.
 *
 * What a transaction did counts only if it commits, so it is kept here, one
 * record for each level of subtransaction that has something to tell, and goes
 * to shared memory at commit; a rolled-back level takes its record with it.
 * The idea is that of the server's own per-transaction statistics.
 *
 * A prepared transaction commits in another session, which cannot know what to
 * count: its counts are left out.  Its news for the launcher are told when it
 * is prepared; the worker that comes for them finds the prepared transaction
 * and comes again.
 *
 * Without preloading there is nobody to tell, and all of this does nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "counters.h"
#include "databases.h"
#include "run_state.h"
#include "shared_state.h"
#include "utils/memutils.h"

typedef struct Pending
{
	int			level;			/* nesting level of the subtransaction */
	struct Pending *outer;		/* the next level out that has a record */
	uint32		news;
	uint64		counts[ACR_N_COUNTERS];
} Pending;

/* innermost record; lives in TopTransactionContext */
static Pending *pending = NULL;

static Pending *
my_pending(void)
{
	int			level = GetCurrentTransactionNestLevel();

	if (pending == NULL || pending->level != level)
	{
		Pending    *record;

		acr_databases_prepare();
		record = MemoryContextAllocZero(TopTransactionContext, sizeof(Pending));
		record->level = level;
		record->outer = pending;
		pending = record;
	}
	return pending;
}

/* Counts at once, whatever becomes of the transaction. */
void
acr_count_now(AcrCounter counter)
{
	acr_databases_count(counter, 1);
}

/* Counts if the current (sub)transaction commits. */
void
acr_count_at_commit(AcrCounter counter, uint64 n)
{
	if (acr_shared_exists())
		my_pending()->counts[counter] += n;
}

/* Tells the launcher if the current (sub)transaction commits. */
void
acr_news_at_commit(uint32 news)
{
	if (acr_shared_exists())
		my_pending()->news |= news;
}

/* The counter of runs finalized with this status. */
AcrCounter
acr_counter_of_status(const char *status)
{
	if (strcmp(status, "succeeded") == 0)
		return ACR_FINALIZED_SUCCEEDED;
	if (strcmp(status, "failed") == 0)
		return ACR_FINALIZED_FAILED;
	Assert(strcmp(status, ACR_RUN_ABORTED) == 0);
	return ACR_FINALIZED_ABORTED;
}

static void
tell_all(void)
{
	for (int i = 0; i < ACR_N_COUNTERS; i++)
	{
		if (pending->counts[i] != 0)
			acr_databases_count(i, pending->counts[i]);
	}
	if (pending->news != 0)
		acr_databases_raise(pending->news);
}

static void
at_xact_event(XactEvent event, void *arg)
{
	if (pending == NULL)
		return;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
			tell_all();
			pending = NULL;
			break;
		case XACT_EVENT_PREPARE:
			if (pending->news != 0)
				acr_databases_raise(pending->news | ACR_NEWS_PREPARED);
			pending = NULL;
			break;
		case XACT_EVENT_ABORT:
			pending = NULL;
			break;
		default:
			break;
	}
}

/* Gives the record of a committed level to the level around it. */
static void
hand_out(int level)
{
	Pending    *outer = pending->outer;

	if (outer == NULL || outer->level != level - 1)
	{
		pending->level = level - 1;
		return;
	}
	outer->news |= pending->news;
	for (int i = 0; i < ACR_N_COUNTERS; i++)
		outer->counts[i] += pending->counts[i];
	pfree(pending);
	pending = outer;
}

static void
at_subxact_event(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (pending == NULL || pending->level < level)
		return;

	if (event == SUBXACT_EVENT_COMMIT_SUB)
		hand_out(level);
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		pending = pending->outer;
}

void
acr_counters_init(void)
{
	RegisterXactCallback(at_xact_event, NULL);
	RegisterSubXactCallback(at_subxact_event, NULL);
}
