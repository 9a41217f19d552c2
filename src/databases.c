/*
 * The registry of databases.
 *
 * One entry a database, in a shared hash table: when its next visit by a
 * worker is due, how the last one went, what sessions have told since, and the
 * counters.  The launcher decides from it whom to visit, and a worker reports
 * into it (visits.c); sessions raise their news.  An entry lives as long as
 * its database: the launcher removes it, and what other rooms know of that
 * database, after a scan of pg_database that did not find it.  So a session may
 * keep a pointer to the entry of its own database, which cannot be dropped
 * while the session is connected.
 *
 * If more databases than fit are there, those beyond are neither visited nor
 * counted; the launcher says so.
 */
#include "postgres.h"

#include "database_entry.h"
#include "live_runs.h"
#include "miscadmin.h"
#include "runners.h"
#include "shared_state.h"
#include "storage/shmem.h"

typedef struct Registry
{
	uint32		scan;			/* number of the current or last scan; lock */
} Registry;

static Registry *registry = NULL;
static HTAB *databases = NULL;

/* the entry of this process's own database, once looked up */
static AcrDatabase *my_database = NULL;

Size
acr_databases_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(Registry)),
					hash_estimate_size(ACR_MAX_DATABASES, sizeof(AcrDatabase)));
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
	ctl.entrysize = sizeof(AcrDatabase);
	databases = ShmemInitHash("ai_chat_run databases", ACR_MAX_DATABASES, ACR_MAX_DATABASES,
							  &ctl, HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

/*
 * Finds or makes an entry; NULL if there is no room.  Caller holds the lock
 * exclusively.
 */
static AcrDatabase *
find_or_make(Oid dboid)
{
	AcrDatabase *db;
	bool		found;

	db = hash_search(databases, &dboid, HASH_ENTER_NULL, &found);
	if (db == NULL || found)
		return db;

	memset((char *) db + sizeof(Oid), 0, sizeof(AcrDatabase) - sizeof(Oid));
	db->seen_in_scan = registry->scan;
	db->connectable = true;
	for (int i = 0; i < ACR_N_TASKS; i++)
		db->tasks[i].due = DT_NOBEGIN;	/* the first visit is due at once */
	pg_atomic_init_u32(&db->news, 0);
	pg_atomic_init_u32(&db->warned, 0);
	for (int i = 0; i < ACR_N_COUNTERS; i++)
		pg_atomic_init_u64(&db->counters[i], 0);
	db->counted_since = GetCurrentTimestamp();
	return db;
}

/* Caller holds the lock. */
AcrDatabase *
acr_databases_find(Oid dboid)
{
	return hash_search(databases, &dboid, HASH_FIND, NULL);
}

/* Caller holds the lock. */
HTAB *
acr_databases_table(void)
{
	return databases;
}

/* This session's own entry; NULL if there is no preload or no room. */
static AcrDatabase *
my_entry(void)
{
	if (my_database == NULL && databases != NULL && OidIsValid(MyDatabaseId))
	{
		LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
		my_database = find_or_make(MyDatabaseId);
		LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
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
	AcrDatabase *db = my_entry();

	if (db == NULL || (pg_atomic_read_u32(&db->news) & news) == news)
		return;
	pg_atomic_fetch_or_u32(&db->news, news);
	acr_shared_wake_launcher();
}

/* The same, but what is told can wait until the launcher wakes anyway. */
void
acr_databases_raise_quietly(uint32 news)
{
	AcrDatabase *db = my_entry();

	if (db != NULL)
		pg_atomic_fetch_or_u32(&db->news, news);
}

/* Is this the first time that somebody asks, in this database? */
bool
acr_databases_warn_once(void)
{
	AcrDatabase *db = my_entry();

	return db != NULL && pg_atomic_exchange_u32(&db->warned, 1) == 0;
}

void
acr_databases_count(AcrCounter counter, uint64 n)
{
	AcrDatabase *db = my_entry();

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

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	first = (registry->scan++ == 0);
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
	return first;
}

/* Returns false if there is no room for the database. */
bool
acr_databases_see(Oid dboid, bool connectable, bool at_start)
{
	AcrDatabase *db;

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	db = find_or_make(dboid);
	if (db != NULL)
	{
		db->seen_in_scan = registry->scan;
		db->connectable = connectable;
		if (at_start)
			db->present_at_start = true;
	}
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
	return db != NULL;
}

void
acr_databases_end_scan(void)
{
	HASH_SEQ_STATUS seq;
	AcrDatabase *db;

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		if (db->seen_in_scan == registry->scan || db->visit != ACR_VISIT_NONE)
			continue;
		acr_live_forget_database(db->dboid);
		acr_runners_forget_database(db->dboid);
		hash_search(databases, &db->dboid, HASH_REMOVE, NULL);
	}
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
}
