/*
 * Visits of workers to databases: which is due, who is there, how it went.
 *
 * A visit is requested by the launcher, begun and ended by the worker; the
 * state is in the database's entry, so that it outlives a launcher.  Each has a
 * number: a worker that comes too late, or is on its way out, and a launcher
 * that hears of its end late, shall not take its successor's for it.  A visit
 * has several tasks, each with a time when it is due and with the failures that
 * it had in a row, after which it pauses.
 */
#include "postgres.h"

#include "database_entry.h"
#include "mb/pg_wchar.h"
#include "runners.h"
#include "shared_state.h"
#include "storage/ipc.h"

/* pauses after failures: 1, 2, 4 ... 60 seconds */
#define PAUSE_MIN_S			1
#define PAUSE_MAX_S			60

/* Between two visits; a burst of news shall not mean one of workers. */
#define VISIT_SPACING_MS	200

/* in a worker: the entry of the database that it visits, until it has reported */
static AcrDatabase *visited = NULL;

/*
 * When is the next visit of this database due, given what its sessions told?
 * Caller holds the lock.
 *
 * Of a departure we wish to be told again once we know of it: the next one may
 * come after a long time without any.  It is taken before we look.
 */
static TimestampTz
visit_due(AcrDatabase *db, TimestampTz periodic_due)
{
	AcrTask    *settle = &db->tasks[ACR_TASK_SETTLE];
	AcrTask    *silent = &db->tasks[ACR_TASK_SWEEP_SILENT];
	AcrTask    *reap = &db->tasks[ACR_TASK_REAP];
	TimestampTz spaced = TimestampTzPlusMilliseconds(db->visited_at, VISIT_SPACING_MS);
	uint32		news = pg_atomic_fetch_and_u32(&db->news, ~ACR_NEWS_DEPARTED);
	TimestampTz due = DT_NOEND;

	if ((news & ACR_NEWS_DEFERRED) != 0)
		settle->due = Min(settle->due, spaced);
	if ((news & ACR_NEWS_ACTIVE) != 0)
		silent->due = Min(silent->due, periodic_due);
	if ((news & ACR_NEWS_DEPARTED) != 0)
		reap->due = Min(reap->due, Max(acr_runners_next_departure(db->dboid),
									   reap->quiet_until));

	for (int i = 0; i < ACR_N_TASKS; i++)
		due = Min(due, db->tasks[i].due);
	return Max(Max(due, spaced), db->not_before);
}

/*
 * Claims one visit that is due, or none.  Then *next_due is the earliest time at
 * which there will be another one.
 */
AcrVisitClaim
acr_visits_claim_due(TimestampTz now, TimestampTz periodic_due,
					 TimestampTz *next_due)
{
	HASH_SEQ_STATUS seq;
	AcrDatabase *db;
	AcrVisitClaim claim = {InvalidOid, 0};

	*next_due = DT_NOEND;
	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	hash_seq_init(&seq, acr_databases_table());
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		TimestampTz due;

		if (!db->connectable || db->visit != ACR_VISIT_NONE)
			continue;
		due = visit_due(db, periodic_due);
		if (due <= now)
		{
			db->visit = ACR_VISIT_REQUESTED;
			claim.dboid = db->dboid;
			claim.number = ++db->visit_number;
			hash_seq_term(&seq);
			break;
		}
		*next_due = Min(*next_due, due);
	}
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
	return claim;
}

/*
 * A new launcher knows nothing of the workers that its predecessor asked for:
 * it asks again where none has begun.
 */
void
acr_visits_forget_claims(void)
{
	HASH_SEQ_STATUS seq;
	AcrDatabase *db;

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	hash_seq_init(&seq, acr_databases_table());
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		if (db->visit == ACR_VISIT_REQUESTED)
			db->visit = ACR_VISIT_NONE;
	}
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
}

/* The entry, if the visit is still asked for, and not begun.  Caller holds the lock. */
static AcrDatabase *
find_claimed(const AcrVisitClaim *claim)
{
	AcrDatabase *db = acr_databases_find(claim->dboid);

	return db != NULL && db->visit == ACR_VISIT_REQUESTED &&
		db->visit_number == claim->number ? db : NULL;
}

/* Gives a claim back, for later. */
void
acr_visits_unclaim(const AcrVisitClaim *claim)
{
	AcrDatabase *db;

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	db = find_claimed(claim);
	if (db != NULL)
		db->visit = ACR_VISIT_NONE;
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
}

/*
 * All of it is to be looked at anew.  A boot sweep that is done stays done.
 * Caller holds the lock.
 */
static void
make_all_due(AcrDatabase *db)
{
	for (int i = 0; i < ACR_N_TASKS; i++)
	{
		if (i != ACR_TASK_BOOT_SWEEP || db->boot_done_at == 0)
			db->tasks[i].due = DT_NOBEGIN;
		db->tasks[i].quiet_until = 0;
	}
	db->reconsider = false;
	db->visited_at = 0;
	db->not_before = 0;
}

/*
 * Is a visit planned?  So is one to a database that has got the extension since
 * the last one, once somebody has begun a run there.  Caller holds the lock.
 */
static bool
any_task_due(const AcrDatabase *db)
{
	for (int i = 0; i < ACR_N_TASKS; i++)
	{
		if (db->tasks[i].due != DT_NOEND)
			return true;
	}
	return false;
}

/*
 * The settings or the clock have changed: when what is due is to be found out
 * anew, wherever the extension is; where a visit is going on, once it has ended.
 */
void
acr_visits_reconsider(void)
{
	HASH_SEQ_STATUS seq;
	AcrDatabase *db;

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	hash_seq_init(&seq, acr_databases_table());
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		if (db->visit != ACR_VISIT_NONE)
			db->reconsider = true;
		else if (db->has_extension || any_task_due(db))
			make_all_due(db);
	}
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
}

/* The pause after so many failures, in seconds. */
static int
pause_after(int failures)
{
	return Min(PAUSE_MIN_S << Min(Max(failures - 1, 0), 10), PAUSE_MAX_S);
}

int
acr_task_pause(const AcrTask *task)
{
	return pause_after(task->failures);
}

/*
 * The task failed once more, and is due again after a pause.  Returns false if
 * the pause after an earlier failure is not over yet; then it stays as it is.
 */
bool
acr_task_book_failure(AcrTask *task)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		first = now >= task->quiet_until;

	if (first)
	{
		task->failures++;
		task->quiet_until = TimestampTzPlusMilliseconds(now, acr_task_pause(task) * 1000L);
	}
	task->due = task->quiet_until;
	return first;
}

/* Caller holds the lock. */
static void
set_last_error(AcrDatabase *db, const char *error)
{
	int			len = pg_mbcliplen(error, strlen(error), ACR_LAST_ERROR_MAXLEN - 1);

	memcpy(db->last_error, error, len);
	db->last_error[len] = '\0';
	db->last_error_at = GetCurrentTimestamp();
}

/*
 * A visit came to nothing.  All that was due still is, after a pause that is the
 * whole database's.  Caller holds the lock.
 */
static void
book_failed_visit(AcrDatabase *db, const char *error)
{
	if (db->visit == ACR_VISIT_RUNNING)
		pg_atomic_fetch_or_u32(&db->news, db->taken_news);
	db->visit = ACR_VISIT_NONE;
	db->failed_visits++;
	db->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												 pause_after(db->failed_visits) * 1000L);
	set_last_error(db, error);
}

/*
 * The launcher found the worker gone.  If that worker had never begun (the
 * server could not start it), the visit is still to be booked as failed.
 */
void
acr_visits_lost(const AcrVisitClaim *claim)
{
	AcrDatabase *db;

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	db = find_claimed(claim);
	if (db != NULL)
		book_failed_visit(db, "could not start a worker");
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
}

/* The worker exits without a report: it could not connect, or was killed. */
static void
book_unreported_visit(int code, Datum arg)
{
	if (visited == NULL)
		return;
	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	book_failed_visit(visited, "the worker ended early");
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
}

/*
 * A worker begins its visit.  The news are taken first: what is raised from
 * now on asks for another visit.  Returns false if there is nothing to visit:
 * the entry is gone, or a new launcher has asked for another worker.
 */
bool
acr_visits_begin(const AcrVisitClaim *claim, AcrVisit *visit)
{
	memset(visit, 0, sizeof(*visit));

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	visited = find_claimed(claim);
	if (visited != NULL)
	{
		visited->visit = ACR_VISIT_RUNNING;
		memcpy(visit->tasks, visited->tasks, sizeof(visit->tasks));
		visit->present_at_start = visited->present_at_start;
		visit->news = pg_atomic_exchange_u32(&visited->news, 0);
		visited->taken_news = visit->news;
	}
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));

	if (visited != NULL)
		before_shmem_exit(book_unreported_visit, (Datum) 0);
	return visited != NULL;
}

/* Ends the visit, with its report. */
void
acr_visits_end(const AcrVisit *visit)
{
	AcrDatabase *db = visited;

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	db->visit = ACR_VISIT_NONE;
	db->has_extension = visit->has_extension;
	db->visited_at = GetCurrentTimestamp();
	db->failed_visits = 0;
	db->not_before = 0;
	memcpy(db->tasks, visit->tasks, sizeof(visit->tasks));
	if (db->boot_done_at == 0 && visit->tasks[ACR_TASK_BOOT_SWEEP].due == DT_NOEND)
		db->boot_done_at = GetCurrentTimestamp();
	if (db->reconsider && db->has_extension)
		make_all_due(db);
	db->boot_runs += visit->boot_runs;
	if (visit->error != NULL)
		set_last_error(db, visit->error);
	visited = NULL;
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));

	acr_shared_wake_launcher();
}
