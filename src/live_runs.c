/*
 * Active runs, tracked in shared memory.
 *
 * An entry says: this run was active when its row was last looked at, its
 * runner was last heard then, a stop is requested.  From it heartbeat() answers
 * without a write, and a stop reaches the runner while the row is locked.  The
 * row is the truth; an entry may be missing at any time, but must never say
 * that a run is active which is settled.
 *
 * Entries are made in two steps, as the row and the entry cannot be changed at
 * the same instant.  First acr_live_expect() makes one that is not confirmed,
 * of which nobody believes anything, and gives a ticket for it.  Then the row
 * is looked at, or the transaction that inserts it commits.  If the run is
 * active, acr_live_confirm() makes the entry valid, provided that it is still
 * the one that the ticket was given for.  Whoever settles the run removes its
 * entry, confirmed or not, after his commit; that ends the life of the ticket:
 *
 *	 H: expects		F: commits		H: reads "active", as of before
 *	 F: forgets		H: confirms: no such entry, nothing happens
 *
 *	 F: commits		H: expects		F: forgets		H: reads "terminal"
 *
 *	 B: expects		B: commits		F: finalizes B's run, commits, forgets
 *	 B: confirms: no such entry
 *
 * An entry that somebody made anew in between has another ticket number.
 *
 * There are changes of a row that nobody is told of: a prepared transaction is
 * committed by a session that does not know what it did; a trigger may be
 * disabled.  For the first, and whatever else may have changed any row,
 * acr_live_distrust_all() begins a new epoch: entries of an older one are not
 * current until their row was looked at again.  For the rest, an entry is
 * current for a minute only after its row was last looked at.
 *
 * The table of the runs is part of the key, so that nothing is left over from
 * before a DROP EXTENSION.
 *
 * Locks: an entry belongs to one of ACR_LIVE_PARTITIONS by the hash of its key.
 * The partition's lock is held exclusively to make, confirm and remove entries;
 * shared to read one and to write its atomics.  A walk takes all partitions'
 * locks, in order.
 */
#include "postgres.h"

#include "live_runs.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "settings.h"
#include "shared_state.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

/* For so long an entry is believed after its row was looked at. */
#define CURRENT_MS	60000

/* What was not looked at for so long is, by the worker. */
#define DOUBTFUL_MS	(10 * 60 * 1000)

typedef struct LiveRun
{
	AcrLiveKey	key;			/* hash key */

	/* written under the partition's lock, exclusive */
	uint64		ticket;
	uint32		epoch;
	bool		confirmed;
	TimestampTz looked_at;		/* at the row */
	AcrLiveRun	run;

	/* written by any session, under the partition's lock, shared */
	pg_atomic_uint64 heard_at;	/* a TimestampTz */
	pg_atomic_uint32 stop_requested;
} LiveRun;

typedef struct LiveRunsState
{
	pg_atomic_uint64 last_ticket;
	pg_atomic_uint32 epoch;
	pg_atomic_uint32 n;			/* entries */
} LiveRunsState;

static LiveRunsState *state = NULL;
static HTAB *live_runs = NULL;

Size
acr_live_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(LiveRunsState)),
					hash_estimate_size(acr_max_active_runs, sizeof(LiveRun)));
}

/* Called from the startup hook, which holds AddinShmemInitLock. */
void
acr_live_shmem_init(void)
{
	HASHCTL		ctl;
	bool		found;

	state = ShmemInitStruct("ai_chat_run live runs", sizeof(LiveRunsState), &found);
	if (!found)
	{
		pg_atomic_init_u64(&state->last_ticket, 0);
		pg_atomic_init_u32(&state->epoch, 0);
		pg_atomic_init_u32(&state->n, 0);
	}

	ctl.keysize = sizeof(AcrLiveKey);
	ctl.entrysize = sizeof(LiveRun);
	ctl.num_partitions = ACR_LIVE_PARTITIONS;
	live_runs = ShmemInitHash("ai_chat_run live run table", acr_max_active_runs,
							  acr_max_active_runs, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_PARTITION);
}

/* ---- one entry, under its partition's lock ---- */

static LWLock *
partition_lock(int partition)
{
	return acr_shared_lock(ACR_LOCK_LIVE_RUNS + partition);
}

static LiveRun *
lock_and_find(const AcrLiveKey *key, LWLockMode mode, LWLock **lock)
{
	uint32		hash = get_hash_value(live_runs, key);

	*lock = partition_lock(hash % ACR_LIVE_PARTITIONS);
	LWLockAcquire(*lock, mode);
	return hash_search_with_hash_value(live_runs, key, hash, HASH_FIND, NULL);
}

/* Caller holds the partition's lock exclusively. */
static void
remove_entry(LiveRun *entry)
{
	(void) hash_search(live_runs, &entry->key, HASH_REMOVE, NULL);
	pg_atomic_fetch_sub_u32(&state->n, 1);
}

/* The same; NULL if there is no room. */
static LiveRun *
make_entry(const AcrLiveKey *key)
{
	LiveRun    *entry = NULL;

	/* The server would let a hash table grow into what others have left. */
	if (pg_atomic_fetch_add_u32(&state->n, 1) < (uint32) acr_max_active_runs)
		entry = hash_search(live_runs, key, HASH_ENTER_NULL, NULL);
	if (entry == NULL)
	{
		pg_atomic_fetch_sub_u32(&state->n, 1);
		return NULL;
	}
	entry->ticket = pg_atomic_add_fetch_u64(&state->last_ticket, 1);
	entry->epoch = 0;
	entry->confirmed = false;
	entry->looked_at = 0;
	memset(&entry->run, 0, sizeof(entry->run));
	pg_atomic_init_u64(&entry->heard_at, 0);
	pg_atomic_init_u32(&entry->stop_requested, 0);
	return entry;
}

static bool
is_current(const LiveRun *entry)
{
	return entry->confirmed &&
		entry->epoch == pg_atomic_read_u32(&state->epoch) &&
		!TimestampDifferenceExceeds(entry->looked_at, GetCurrentTimestamp(), CURRENT_MS);
}

/* An entry that was confirmed of that run in that workspace, or NULL. */
static LiveRun *
lock_and_find_confirmed(const AcrRunKey *run, LWLock **lock)
{
	AcrLiveKey	key;
	LiveRun    *entry;

	acr_live_key(&key, &run->id);
	entry = lock_and_find(&key, LW_SHARED, lock);
	if (entry == NULL || !entry->confirmed ||
		memcmp(&entry->run.workspace_id, &run->workspace_id, UUID_LEN) != 0)
		return NULL;
	return entry;
}

/* ---- by what the row says ---- */

/* The key of a run of this database; needs a transaction. */
void
acr_live_key(AcrLiveKey *key, const pg_uuid_t *run_id)
{
	key->dboid = MyDatabaseId;
	key->relid = acr_table_oid();
	key->run_id = *run_id;
}

/*
 * To be called before the row is looked at, or committed.  If the run does not
 * fit, the ticket is good for nothing, which does no harm.
 */
void
acr_live_expect(AcrLiveTicket *ticket, const AcrLiveKey *key)
{
	LWLock	   *lock;
	LiveRun    *entry;

	ticket->key = *key;
	entry = lock_and_find(key, LW_EXCLUSIVE, &lock);
	if (entry == NULL)
		entry = make_entry(key);
	ticket->number = entry != NULL ? entry->ticket : 0;
	ticket->epoch = pg_atomic_read_u32(&state->epoch);
	LWLockRelease(lock);
}

/* The entry that the ticket was given for, if it is there still. */
static LiveRun *
lock_and_find_expected(const AcrLiveTicket *ticket, LWLock **lock)
{
	LiveRun    *entry = lock_and_find(&ticket->key, LW_EXCLUSIVE, lock);

	return entry != NULL && entry->ticket == ticket->number ? entry : NULL;
}

static void
set_current(LiveRun *entry, const AcrLiveTicket *ticket)
{
	entry->epoch = ticket->epoch;
	entry->looked_at = GetCurrentTimestamp();
}

/*
 * The run is active: its row says so, with a look that came after the ticket,
 * or it was just committed.  "heard" tells that its runner is calling.
 */
void
acr_live_confirm(const AcrLiveTicket *ticket, const AcrLiveRun *run,
				 bool stop_requested, bool heard)
{
	LWLock	   *lock;
	LiveRun    *entry = lock_and_find_expected(ticket, &lock);

	if (entry != NULL)
	{
		entry->confirmed = true;
		entry->run = *run;
		set_current(entry, ticket);
		if (heard)
			pg_atomic_write_u64(&entry->heard_at, GetCurrentTimestamp());
		if (stop_requested)
			pg_atomic_write_u32(&entry->stop_requested, 1);
	}
	LWLockRelease(lock);
}

/*
 * The same for an entry that was confirmed before.  One that was not has been
 * left behind, or its session will do without.
 */
void
acr_live_trust(const AcrLiveTicket *ticket)
{
	LWLock	   *lock;
	LiveRun    *entry = lock_and_find_expected(ticket, &lock);

	if (entry != NULL && entry->confirmed)
		set_current(entry, ticket);
	else if (entry != NULL)
		remove_entry(entry);
	LWLockRelease(lock);
}

/* The run is not active, or its begin was rolled back. */
void
acr_live_forget_expected(const AcrLiveTicket *ticket)
{
	LWLock	   *lock;
	LiveRun    *entry = lock_and_find_expected(ticket, &lock);

	if (entry != NULL)
		remove_entry(entry);
	LWLockRelease(lock);
}

/* There is nothing to confirm. */
void
acr_live_give_up(const AcrLiveTicket *ticket)
{
	LWLock	   *lock;
	LiveRun    *entry = lock_and_find_expected(ticket, &lock);

	if (entry != NULL && !entry->confirmed)
		remove_entry(entry);
	LWLockRelease(lock);
}

/* ---- by what was committed ---- */

/* Whatever is known of the run, it is settled. */
void
acr_live_forget(const AcrLiveKey *key)
{
	LWLock	   *lock;
	LiveRun    *entry = lock_and_find(key, LW_EXCLUSIVE, &lock);

	if (entry != NULL)
		remove_entry(entry);
	LWLockRelease(lock);
}

/* The row bears a stop request. */
void
acr_live_note_stop(const AcrLiveKey *key)
{
	LWLock	   *lock;
	LiveRun    *entry = lock_and_find(key, LW_SHARED, &lock);

	if (entry != NULL)
		pg_atomic_write_u32(&entry->stop_requested, 1);
	LWLockRelease(lock);
}

/* Any run may be settled by now. */
void
acr_live_distrust_all(void)
{
	pg_atomic_fetch_add_u32(&state->epoch, 1);
}

/* ---- by what is called ---- */

/*
 * The runner calls.  Returns false if the row has to be asked, too.
 */
bool
acr_live_hear(const AcrRunKey *run, bool *stop_requested)
{
	LWLock	   *lock;
	LiveRun    *entry = lock_and_find_confirmed(run, &lock);
	bool		current = false;

	if (entry != NULL)
	{
		pg_atomic_write_u64(&entry->heard_at, GetCurrentTimestamp());
		*stop_requested = pg_atomic_read_u32(&entry->stop_requested) != 0;
		current = is_current(entry);
	}
	LWLockRelease(lock);
	return current;
}

/*
 * Somebody wants the run to stop.  Returns false if it is not known; otherwise
 * it may be known no longer to be active, which does no harm.
 */
bool
acr_live_request_stop(const AcrRunKey *run, AcrLiveRun *stopped)
{
	LWLock	   *lock;
	LiveRun    *entry = lock_and_find_confirmed(run, &lock);

	if (entry != NULL)
	{
		pg_atomic_write_u32(&entry->stop_requested, 1);
		*stopped = entry->run;
	}
	LWLockRelease(lock);
	return entry != NULL;
}

void
acr_live_look(const pg_uuid_t *run_id, AcrLiveLook *look)
{
	AcrLiveKey	key;
	LWLock	   *lock;
	LiveRun    *entry;

	memset(look, 0, sizeof(*look));
	acr_live_key(&key, run_id);
	entry = lock_and_find(&key, LW_SHARED, &lock);
	if (entry != NULL && entry->confirmed)
	{
		look->known = true;
		look->current = is_current(entry);
		look->workspace_id = entry->run.workspace_id;
		look->heard_at = (TimestampTz) pg_atomic_read_u64(&entry->heard_at);
		look->stop_requested = pg_atomic_read_u32(&entry->stop_requested) != 0;
	}
	LWLockRelease(lock);
}

/* ---- walks ---- */

typedef bool (*Visitor) (LiveRun *entry, void *arg);	/* false: enough */

static void
walk(LWLockMode mode, Visitor visit, void *arg)
{
	HASH_SEQ_STATUS seq;
	LiveRun    *entry;

	for (int i = 0; i < ACR_LIVE_PARTITIONS; i++)
		LWLockAcquire(partition_lock(i), mode);

	hash_seq_init(&seq, live_runs);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (!visit(entry, arg))
		{
			hash_seq_term(&seq);
			break;
		}
	}

	for (int i = ACR_LIVE_PARTITIONS - 1; i >= 0; i--)
		LWLockRelease(partition_lock(i));
}

typedef struct StopList
{
	Oid			relid;
	const char *runner;
	pg_uuid_t  *run_ids;		/* room for as many as there can be */
	int			n;
	int			max;
	bool		all_current;
} StopList;

static bool
collect_stop(LiveRun *entry, void *arg)
{
	StopList   *list = arg;

	if (entry->key.dboid == MyDatabaseId && entry->key.relid == list->relid &&
		entry->confirmed && pg_atomic_read_u32(&entry->stop_requested) != 0 &&
		strcmp(entry->run.runner, list->runner) == 0)
	{
		list->run_ids[list->n++] = entry->key.run_id;
		list->all_current &= is_current(entry);
	}
	return list->n < list->max;
}

/*
 * The runner's runs of which a stop is requested, as far as they are known.
 * *all_current tells whether all of them are surely active.
 */
int
acr_live_list_stops(const char *runner, pg_uuid_t **run_ids, bool *all_current)
{
	StopList	list = {
		.relid = acr_table_oid(),
		.runner = runner,
		.max = 1000,
		.all_current = true
	};

	list.run_ids = palloc(list.max * sizeof(pg_uuid_t));
	walk(LW_SHARED, collect_stop, &list);
	*run_ids = list.run_ids;
	*all_current = list.all_current;
	return list.n;
}

typedef struct DoubtfulList
{
	AcrLiveTicket *tickets;
	int			n;
	int			max;
	uint32		epoch;
	TimestampTz since;
} DoubtfulList;

static bool
collect_doubtful(LiveRun *entry, void *arg)
{
	DoubtfulList *list = arg;

	if (entry->key.dboid == MyDatabaseId &&
		(entry->epoch != list->epoch || entry->looked_at < list->since))
	{
		AcrLiveTicket *ticket = &list->tickets[list->n++];

		ticket->key = entry->key;
		ticket->number = entry->ticket;
		ticket->epoch = list->epoch;
	}
	return list->n < list->max;
}

/*
 * Entries of this database that nobody has compared with their rows for long,
 * with tickets to say how they compare.  Those that nobody has confirmed are
 * among them: the session that was to do it may have failed.
 */
int
acr_live_list_doubtful(int limit, AcrLiveTicket **tickets)
{
	DoubtfulList list = {
		.tickets = palloc(limit * sizeof(AcrLiveTicket)),
		.max = limit,
		.epoch = pg_atomic_read_u32(&state->epoch),
		.since = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -DOUBTFUL_MS),
	};

	walk(LW_SHARED, collect_doubtful, &list);
	*tickets = list.tickets;
	return list.n;
}

static bool
remove_of_database(LiveRun *entry, void *arg)
{
	if (entry->key.dboid == *(Oid *) arg)
		remove_entry(entry);
	return true;
}

/* The database, or its extension, is gone. */
void
acr_live_forget_database(Oid dboid)
{
	walk(LW_EXCLUSIVE, remove_of_database, &dboid);
}
