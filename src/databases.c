/*
 * The registry of databases.
 *
 * One entry a database, in a shared hash table: when its next visit by a
 * worker is due, how the last one went, what sessions have told since, and the
 * counters.  The launcher decides from it whom to visit; a worker reports into
 * it; sessions raise their news.  An entry lives as long as its database: the
 * launcher removes it after a scan of pg_database that did not find it, so a
 * session may keep a pointer to the entry of its own database, which cannot be
 * dropped while the session is connected.
 *
 * If more databases than fit are there, those beyond are neither visited nor
 * counted; the launcher says so.
 */
#include "postgres.h"

#include "databases.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "shared_state.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

typedef enum VisitState
{
	VISIT_NONE,
	VISIT_REQUESTED,			/* a worker was asked for */
	VISIT_RUNNING				/* the worker has begun */
} VisitState;

#define LAST_ERROR_MAXLEN	256

/* pauses after failures: 1, 2, 4 ... 60 seconds */
#define PAUSE_MIN_S			1
#define PAUSE_MAX_S			60

/* Between two visits for news; a burst of news shall not mean one of workers. */
#define VISIT_SPACING_MS	200

typedef struct Database
{
	Oid			dboid;			/* hash key */

	/* The launcher writes these, under the lock. */
	uint32		seen_in_scan;	/* the last scan of pg_database that saw it */
	bool		connectable;
	bool		present_at_start;

	/* The launcher and the worker write these, under the lock. */
	VisitState	visit;
	bool		has_extension;	/* as of the last visit */
	AcrTask		tasks[ACR_N_TASKS];
	TimestampTz visited_at;		/* end of the last visit */
	bool		reconsider;		/* settings changed during a visit */
	uint32		taken_news;		/* what the visit was told */
	TimestampTz boot_done_at;	/* 0: not yet */
	int64		boot_runs;
	char		last_error[LAST_ERROR_MAXLEN];
	TimestampTz last_error_at;

	/* Every session of the database writes these, at any time. */
	pg_atomic_uint32 news;
	pg_atomic_uint64 counters[ACR_N_COUNTERS];
} Database;

typedef struct Registry
{
	uint32		scan;			/* number of the current or last scan; lock */
} Registry;

static Registry *registry = NULL;
static HTAB *databases = NULL;

/* the entry of this process's own database, once looked up */
static Database *my_database = NULL;

Size
acr_databases_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(Registry)),
					hash_estimate_size(ACR_MAX_DATABASES, sizeof(Database)));
}

/* Called from the startup hook, which holds AddinShmemInitLock. */
void
acr_databases_shmem_init(void)
{
	HASHCTL		ctl;
	bool		found;

	registry = ShmemInitStruct("ai_chat_run registry", sizeof(Registry), &found);
	if (!found)
		registry->scan = 0;

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Database);
	databases = ShmemInitHash("ai_chat_run databases", 64, ACR_MAX_DATABASES,
							  &ctl, HASH_ELEM | HASH_BLOBS);
}

/*
 * Finds or makes an entry; NULL if there is no room.  Caller holds the lock
 * exclusively.
 */
static Database *
find_or_make(Oid dboid)
{
	Database   *db;
	bool		found;

	db = hash_search(databases, &dboid, HASH_ENTER_NULL, &found);
	if (db == NULL || found)
		return db;

	memset((char *) db + sizeof(Oid), 0, sizeof(Database) - sizeof(Oid));
	db->seen_in_scan = registry->scan;
	db->connectable = true;
	for (int i = 0; i < ACR_N_TASKS; i++)
		db->tasks[i].due = DT_NOBEGIN;	/* the first visit is due at once */
	/* a transaction prepared before server start may hold something */
	pg_atomic_init_u32(&db->news, ACR_NEWS_PREPARED);
	for (int i = 0; i < ACR_N_COUNTERS; i++)
		pg_atomic_init_u64(&db->counters[i], 0);
	return db;
}

/* This session's own entry; NULL if there is no preload or no room. */
static Database *
my_entry(void)
{
	if (my_database == NULL && databases != NULL && OidIsValid(MyDatabaseId))
	{
		LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
		my_database = find_or_make(MyDatabaseId);
		LWLockRelease(acr_shared_lock());
	}
	return my_database;
}

/* Looks the entry up now, so that nothing can fail at commit. */
void
acr_databases_prepare(void)
{
	(void) my_entry();
}

/*
 * Tells the launcher something of this database.  Raises no error once the
 * entry was looked up.  The launcher is woken only by what it does not know.
 */
void
acr_databases_raise(uint32 news)
{
	Database   *db = my_entry();

	if (db == NULL || (pg_atomic_read_u32(&db->news) & news) == news)
		return;
	pg_atomic_fetch_or_u32(&db->news, news);
	acr_shared_wake_launcher();
}

/* The same, but what is told can wait until the launcher wakes anyway. */
void
acr_databases_raise_quietly(uint32 news)
{
	Database   *db = my_entry();

	if (db != NULL)
		pg_atomic_fetch_or_u32(&db->news, news);
}

void
acr_databases_count(AcrCounter counter, uint64 n)
{
	Database   *db = my_entry();

	if (db != NULL)
		pg_atomic_fetch_add_u64(&db->counters[counter], n);
}

/*
 * A scan of pg_database: begin_scan before its snapshot is taken, see for each
 * row, end_scan afterwards.  An entry made by a session meanwhile belongs to
 * the scan, so end_scan cannot take it for one of a dropped database.
 *
 * Returns true if this is the first scan since server start.
 */
bool
acr_databases_begin_scan(void)
{
	bool		first;

	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	first = (registry->scan++ == 0);
	LWLockRelease(acr_shared_lock());
	return first;
}

/* Returns false if there is no room for the database. */
bool
acr_databases_see(Oid dboid, bool connectable, bool at_start)
{
	Database   *db;

	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	db = find_or_make(dboid);
	if (db != NULL)
	{
		db->seen_in_scan = registry->scan;
		db->connectable = connectable;
		if (at_start)
			db->present_at_start = true;
	}
	LWLockRelease(acr_shared_lock());
	return db != NULL;
}

void
acr_databases_end_scan(void)
{
	HASH_SEQ_STATUS seq;
	Database   *db;

	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		if (db->seen_in_scan != registry->scan && db->visit == VISIT_NONE)
			hash_search(databases, &db->dboid, HASH_REMOVE, NULL);
	}
	LWLockRelease(acr_shared_lock());
}

/*
 * When is the next visit of this database due, given what its sessions told?
 * Caller holds the lock.
 */
static TimestampTz
visit_due(Database *db, TimestampTz periodic_due)
{
	AcrTask    *settle = &db->tasks[ACR_TASK_SETTLE];
	AcrTask    *silent = &db->tasks[ACR_TASK_SWEEP_SILENT];
	TimestampTz spaced = TimestampTzPlusMilliseconds(db->visited_at, VISIT_SPACING_MS);
	uint32		news = pg_atomic_read_u32(&db->news);
	TimestampTz due = DT_NOEND;

	if ((news & ACR_NEWS_DEFERRED) != 0)
		settle->due = Min(settle->due, spaced);
	if ((news & ACR_NEWS_ACTIVE) != 0)
		silent->due = Min(silent->due, periodic_due);

	for (int i = 0; i < ACR_N_TASKS; i++)
		due = Min(due, db->tasks[i].due);
	return due;
}

/*
 * Claims one database whose visit is due, or returns InvalidOid.  Then
 * *next_due is the earliest time at which another one will be.
 */
Oid
acr_databases_claim_due(TimestampTz now, TimestampTz periodic_due,
						TimestampTz *next_due)
{
	HASH_SEQ_STATUS seq;
	Database   *db;
	Oid			claimed = InvalidOid;

	*next_due = DT_NOEND;
	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		TimestampTz due;

		if (!db->connectable || db->visit != VISIT_NONE)
			continue;
		due = visit_due(db, periodic_due);
		if (due <= now)
		{
			db->visit = VISIT_REQUESTED;
			claimed = db->dboid;
			hash_seq_term(&seq);
			break;
		}
		*next_due = Min(*next_due, due);
	}
	LWLockRelease(acr_shared_lock());
	return claimed;
}

/*
 * A new launcher knows nothing of the workers that its predecessor asked for:
 * it asks again where none has begun.
 */
void
acr_databases_forget_claims(void)
{
	HASH_SEQ_STATUS seq;
	Database   *db;

	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		if (db->visit == VISIT_REQUESTED)
			db->visit = VISIT_NONE;
	}
	LWLockRelease(acr_shared_lock());
}

/* Gives a claim back, for later. */
void
acr_databases_unclaim(Oid dboid)
{
	Database   *db;

	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	db = hash_search(databases, &dboid, HASH_FIND, NULL);
	if (db != NULL && db->visit == VISIT_REQUESTED)
		db->visit = VISIT_NONE;
	LWLockRelease(acr_shared_lock());
}

/*
 * All of it is to be looked at anew.  A boot sweep that is done stays done.
 * Caller holds the lock.
 */
static void
make_all_due(Database *db)
{
	for (int i = 0; i < ACR_N_TASKS; i++)
	{
		if (i != ACR_TASK_BOOT_SWEEP || db->boot_done_at == 0)
			db->tasks[i].due = DT_NOBEGIN;
		db->tasks[i].quiet_until = 0;
	}
	db->reconsider = false;
	db->visited_at = 0;
}

/*
 * The settings or the clock have changed: when what is due is to be found out
 * anew, wherever the extension is; where a visit is going on, once it has ended.
 */
void
acr_databases_reconsider(void)
{
	HASH_SEQ_STATUS seq;
	Database   *db;

	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		if (db->visit != VISIT_NONE)
			db->reconsider = true;
		else if (db->has_extension)
			make_all_due(db);
	}
	LWLockRelease(acr_shared_lock());
}

/* The pause after the failures so far, in seconds. */
int
acr_task_pause(const AcrTask *task)
{
	return Min(PAUSE_MIN_S << Min(Max(task->failures - 1, 0), 10), PAUSE_MAX_S);
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
set_last_error(Database *db, const char *error)
{
	strlcpy(db->last_error, error, LAST_ERROR_MAXLEN);
	db->last_error_at = GetCurrentTimestamp();
}

/* A visit came to nothing: all that was due failed.  Caller holds the lock. */
static void
book_failed_visit(Database *db, const char *error)
{
	TimestampTz now = GetCurrentTimestamp();

	if (db->visit == VISIT_RUNNING)
		pg_atomic_fetch_or_u32(&db->news, db->taken_news);
	db->visit = VISIT_NONE;
	for (int i = 0; i < ACR_N_TASKS; i++)
	{
		if (db->tasks[i].due <= now)
			(void) acr_task_book_failure(&db->tasks[i]);
	}
	set_last_error(db, error);
}

/*
 * The launcher found the worker gone.  If that worker had never begun (the
 * server could not start it), the visit is still to be booked as failed.
 */
void
acr_databases_visit_lost(Oid dboid)
{
	Database   *db;

	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	db = hash_search(databases, &dboid, HASH_FIND, NULL);
	if (db != NULL && db->visit == VISIT_REQUESTED)
		book_failed_visit(db, "could not start a worker");
	LWLockRelease(acr_shared_lock());
}

/* The worker exits without a report: it could not connect, or was killed. */
static void
book_unreported_visit(int code, Datum arg)
{
	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	if (my_database->visit == VISIT_RUNNING)
		book_failed_visit(my_database, "the worker ended early");
	LWLockRelease(acr_shared_lock());
}

/*
 * A worker begins its visit.  The news are taken first: what is raised from
 * now on asks for another visit.  Returns false if there is nothing to visit:
 * the entry is gone, or another worker is there, which happens when a launcher
 * died between asking for a worker and hearing of it.
 */
bool
acr_databases_visit_begin(Oid dboid, AcrVisit *visit)
{
	bool		begun = false;

	memset(visit, 0, sizeof(*visit));

	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	my_database = hash_search(databases, &dboid, HASH_FIND, NULL);
	if (my_database != NULL && my_database->visit != VISIT_RUNNING)
	{
		begun = true;
		my_database->visit = VISIT_RUNNING;
		memcpy(visit->tasks, my_database->tasks, sizeof(visit->tasks));
		visit->present_at_start = my_database->present_at_start;
		visit->news = pg_atomic_exchange_u32(&my_database->news, 0);
		my_database->taken_news = visit->news;
	}
	LWLockRelease(acr_shared_lock());

	if (begun)
		before_shmem_exit(book_unreported_visit, (Datum) 0);
	return begun;
}

/* Ends the visit, with its report. */
void
acr_databases_visit_end(const AcrVisit *visit)
{
	Database   *db = my_database;

	LWLockAcquire(acr_shared_lock(), LW_EXCLUSIVE);
	db->visit = VISIT_NONE;
	db->has_extension = visit->has_extension;
	db->visited_at = GetCurrentTimestamp();
	memcpy(db->tasks, visit->tasks, sizeof(visit->tasks));
	if (db->boot_done_at == 0 && visit->tasks[ACR_TASK_BOOT_SWEEP].due == DT_NOEND)
		db->boot_done_at = GetCurrentTimestamp();
	if (db->reconsider && db->has_extension)
		make_all_due(db);
	db->boot_runs += visit->boot_runs;
	if (visit->error != NULL)
		set_last_error(db, visit->error);
	LWLockRelease(acr_shared_lock());

	acr_shared_wake_launcher();
}
