/*
 * What shared memory learns from a transaction when it commits.
 *
 * What a transaction did counts only if it commits, so it is kept here, one
 * record for each level of subtransaction that has something to tell, and goes
 * to shared memory at commit; a rolled-back level takes its record with it.
 * The idea is that of the server's own per-transaction statistics.  There are
 * counts, news for the launcher, and what happened to runs: which are active,
 * which were settled, which are to stop.  The latter wakes who waits for it.
 *
 * The server calls us for the commit when others can see it already.  That is
 * late: a run that was begun may be settled by then, and one that was settled
 * must not be taken for active.  So it is announced before the commit, and told
 * after (live_runs.c).
 *
 * A prepared transaction commits in another session, which cannot know what it
 * did, only that it was one of these (prepared.c): its counts are left out, and
 * after COMMIT PREPARED, which watched_commands.c sees, all of shared memory is
 * distrusted and everybody looks again, the launcher, too.
 *
 * Without preloading there is nobody to tell, and all of this does nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commit_news.h"
#include "databases.h"
#include "miscadmin.h"
#include "prepared.h"
#include "run_state.h"
#include "shared_state.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "wakeup.h"

/* More than that, and it is cheaper to have everybody look at the rows. */
#define MAX_RUN_NEWS	10000

typedef enum RunNewsKind
{
	RUN_ACTIVE,
	RUN_MOVED,
	RUN_SETTLED,
	RUN_STOPPED
} RunNewsKind;

typedef struct RunNews
{
	struct RunNews *next;
	RunNewsKind kind;
	AcrLiveKey	key;
	bool		announced;		/* shared memory is prepared for it */
	AcrLiveRun *run;			/* of a run that is active */
	AcrLiveTicket ticket;		/* likewise */
	bool		stop_requested; /* likewise */
	uint32		runner_bucket;	/* of a run that is to stop, or may be */
} RunNews;

typedef struct Pending
{
	int			level;			/* nesting level of the subtransaction */
	struct Pending *outer;		/* the next level out that has a record */
	uint32		news;
	uint64		counts[ACR_N_COUNTERS];
	RunNews    *first_run;		/* in the order in which it happened */
	RunNews    *last_run;
	int			n_runs;
	bool		all_changed;	/* and then there are none */
	bool		all_gone;		/* likewise, since there are no runs at all */
	bool		distrusting;	/* announced that */
} Pending;

/* innermost record; lives in TopTransactionContext */
static Pending *pending = NULL;

/* does this session distrust what is known, for a COMMIT PREPARED? */
static bool committing_prepared = false;

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

/* ---- collecting ---- */

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

/*
 * Nobody is to be told of these runs any more.  A transaction may be long, and
 * roll back to a savepoint again and again, so we do not leave them to its end.
 */
static void
free_runs(Pending *record)
{
	RunNews    *news = record->first_run;

	while (news != NULL)
	{
		RunNews    *next = news->next;

		if (news->run != NULL)
			pfree(news->run);
		pfree(news);
		news = next;
	}
	record->first_run = record->last_run = NULL;
	record->n_runs = 0;
}

static void
set_all_changed(Pending *record)
{
	record->all_changed = true;
	free_runs(record);
}

static void
append_runs(Pending *record, RunNews *first, RunNews *last, int n)
{
	if (record->last_run != NULL)
		record->last_run->next = first;
	else
		record->first_run = first;
	record->last_run = last;
	record->n_runs += n;
}

/* Makes a piece of news, or says that there are too many to tell each. */
static RunNews *
add_run_news(RunNewsKind kind, const pg_uuid_t *run_id)
{
	Pending    *record = my_pending();
	RunNews    *news;

	if (record->n_runs >= MAX_RUN_NEWS)
		set_all_changed(record);
	if (record->all_changed)
		return NULL;

	news = MemoryContextAllocZero(TopTransactionContext, sizeof(RunNews));
	news->kind = kind;
	acr_live_key(&news->key, run_id);
	append_runs(record, news, news, 1);
	return news;
}

/* The same of a run that is active, with what is to be known of it. */
static RunNews *
add_active_news(RunNewsKind kind, const pg_uuid_t *run_id, const AcrLiveRun *run)
{
	RunNews    *news = acr_shared_exists() ? add_run_news(kind, run_id) : NULL;

	if (news != NULL)
	{
		news->run = MemoryContextAlloc(TopTransactionContext, sizeof(AcrLiveRun));
		*news->run = *run;
	}
	return news;
}

/* If the transaction commits, the run is active, and its runner was heard. */
void
acr_news_run_active(const pg_uuid_t *run_id, const AcrLiveRun *run,
					bool stop_requested)
{
	RunNews    *news = add_active_news(RUN_ACTIVE, run_id, run);

	if (news != NULL)
		news->stop_requested = stop_requested;
}

/*
 * If the transaction commits, the run, which stays active, is another's than it
 * was; who has it now is to look whether it shall stop.
 */
void
acr_news_run_moved(const pg_uuid_t *run_id, const AcrLiveRun *run)
{
	RunNews    *news = add_active_news(RUN_MOVED, run_id, run);

	if (news != NULL)
		news->runner_bucket = acr_wakeup_of_runner(run->runner);
}

/* If the transaction commits, the run is terminal, or gone. */
void
acr_news_run_settled(const pg_uuid_t *run_id)
{
	if (acr_shared_exists())
		(void) add_run_news(RUN_SETTLED, run_id);
}

/* If the transaction commits, the run's row bears a stop request. */
void
acr_news_run_stopped(const pg_uuid_t *run_id, const char *runner)
{
	RunNews    *news = acr_shared_exists() ? add_run_news(RUN_STOPPED, run_id) : NULL;

	if (news != NULL)
		news->runner_bucket = acr_wakeup_of_runner(runner);
}

/* If the transaction commits, there are no runs any more. */
void
acr_news_all_gone(void)
{
	if (!acr_shared_exists())
		return;
	set_all_changed(my_pending());
	my_pending()->all_gone = true;
}

/*
 * Has the transaction changed runs, so that only the rows tell how they are?  Of
 * a direct insert there is no more news than that something may be active.
 */
bool
acr_news_of_runs_pending(void)
{
	for (Pending *record = pending; record != NULL; record = record->outer)
	{
		if (record->n_runs > 0 || record->all_changed ||
			(record->news & ACR_NEWS_ACTIVE) != 0)
			return true;
	}
	return false;
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

/* ---- telling ---- */

/* Before the commit: prepares shared memory for what will be told. */
static void
announce_runs(void)
{
	for (RunNews *news = pending->first_run; news != NULL; news = news->next)
	{
		if (news->run != NULL)
		{
			acr_live_expect(&news->ticket, &news->key);
			if (news->ticket.number == 0)
				acr_count_now(ACR_UNTRACKED);
		}
		if (news->kind == RUN_SETTLED || news->kind == RUN_MOVED)
			acr_live_begin_settling(&news->key);
		news->announced = true;
	}
	if (pending->all_changed)
	{
		acr_live_begin_distrust();
		pending->distrusting = true;
	}
}

static void
tell_run(const RunNews *news)
{
	switch (news->kind)
	{
		case RUN_ACTIVE:
			acr_live_confirm(&news->ticket, news->run, news->stop_requested,
							 true);
			break;
		case RUN_MOVED:
			acr_live_confirm(&news->ticket, news->run, false, false);
			acr_live_end_settling(&news->key);
			acr_wakeup_signal(news->runner_bucket);
			break;
		case RUN_SETTLED:
			acr_live_forget(&news->key);
			acr_wakeup_signal(acr_wakeup_of_uuid(&news->key.run_id));
			break;
		case RUN_STOPPED:
			acr_live_note_stop(&news->key);
			acr_wakeup_signal(acr_wakeup_of_uuid(&news->key.run_id));
			acr_wakeup_signal(news->runner_bucket);
			break;
	}
}

static void
tell_all(void)
{
	for (RunNews *news = pending->first_run; news != NULL; news = news->next)
		tell_run(news);
	if (pending->distrusting)
	{
		acr_live_end_distrust();
		acr_wakeup_signal_all();
	}
	if (pending->all_gone)
		acr_live_forget_database(MyDatabaseId);

	for (int i = 0; i < ACR_N_COUNTERS; i++)
	{
		if (pending->counts[i] != 0)
			acr_databases_count(i, pending->counts[i]);
	}
	if (pending->news != 0)
		acr_databases_raise(pending->news);
}

/* The transaction failed, maybe after its runs were announced. */
static void
give_up_runs(void)
{
	Pending    *outermost = pending;

	while (outermost->outer != NULL)
		outermost = outermost->outer;
	for (RunNews *news = outermost->first_run; news != NULL; news = news->next)
	{
		if (!news->announced)
			continue;
		if (news->kind == RUN_SETTLED || news->kind == RUN_MOVED)
			acr_live_end_settling(&news->key);
		if (news->run != NULL)
			acr_live_give_up(&news->ticket);
	}
	if (outermost->distrusting)
		acr_live_end_distrust();
}

static void
at_xact_event(XactEvent event, void *arg)
{
	if (pending == NULL)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			announce_runs();
			break;
		case XACT_EVENT_COMMIT:
			tell_all();
			pending = NULL;
			break;
		case XACT_EVENT_PREPARE:
			acr_prepared_add();
			pending = NULL;
			break;
		case XACT_EVENT_ABORT:
			give_up_runs();
			pending = NULL;
			break;
		default:
			break;
	}
}

static void
end_distrust_at_exit(int code, Datum arg)
{
	if (committing_prepared)
		acr_live_end_distrust();
}

/*
 * A prepared transaction that may have changed runs is about to be committed.
 */
void
acr_news_prepared_committing(void)
{
	static bool exit_registered = false;

	if (!exit_registered)
	{
		before_shmem_exit(end_distrust_at_exit, (Datum) 0);
		exit_registered = true;
	}
	acr_databases_prepare();
	acr_live_begin_distrust();
	committing_prepared = true;
}

/* It was, or that failed.  Nobody knows what it did, so everybody looks. */
void
acr_news_prepared_committed(void)
{
	committing_prepared = false;
	acr_live_end_distrust();
	acr_wakeup_signal_all();
	acr_databases_raise(ACR_NEWS_ACTIVE | ACR_NEWS_DEFERRED);
}

/* Gives the record of a committed level to the level around it. */
static void
hand_out(int level)
{
	Pending    *inner = pending;
	Pending    *outer = pending->outer;

	if (outer == NULL || outer->level != level - 1)
	{
		pending->level = level - 1;
		return;
	}

	pending = outer;
	outer->news |= inner->news;
	outer->all_gone |= inner->all_gone;
	for (int i = 0; i < ACR_N_COUNTERS; i++)
		outer->counts[i] += inner->counts[i];
	if (inner->all_changed)
		set_all_changed(outer);
	if (outer->all_changed)
		free_runs(inner);
	else if (inner->first_run != NULL)
		append_runs(outer, inner->first_run, inner->last_run, inner->n_runs);
	pfree(inner);
}

/* The record of a level that was rolled back goes with it. */
static void
throw_away(void)
{
	Pending    *record = pending;

	pending = record->outer;
	free_runs(record);
	pfree(record);
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
		throw_away();
}

/* Called when the library is loaded. */
void
acr_commit_news_init(void)
{
	RegisterXactCallback(at_xact_event, NULL);
	RegisterSubXactCallback(at_subxact_event, NULL);
}
