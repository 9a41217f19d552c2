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
 * A commit can be seen by others before its session is told of it.  So before
 * the commit the entry is marked as settling, and nobody believes that the run
 * is active any more; the row tells, which changes at the instant of the commit.
 *
 * There are changes of a row that nobody is told of: a prepared transaction is
 * committed by a session that does not know what it did; a trigger may be
 * disabled.  For the first, and whatever else may have changed any row, while it
 * is being committed nobody believes any entry, and with its end a new epoch
 * begins: entries of an older one are not current until their row was looked at
 * again.  For the rest, an entry is
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

#include "live_entry.h"
#include "miscadmin.h"
#include "settings.h"
#include "shared_state.h"
#include "storage/shmem.h"

/* For so long an entry is believed after its row was looked at. */
#define CURRENT_MS	60000

typedef struct LiveRunsState
{
	pg_atomic_uint32 distrust;	/* sessions whose commit may settle any run */
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
					hash_estimate_size(acr_max_active_runs, sizeof(AcrLiveEntry)));
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
		pg_atomic_init_u32(&state->distrust, 0);
		pg_atomic_init_u64(&state->last_ticket, 0);
		pg_atomic_init_u32(&state->epoch, 0);
		pg_atomic_init_u32(&state->n, 0);
	}

	ctl.keysize = sizeof(AcrLiveKey);
	ctl.entrysize = sizeof(AcrLiveEntry);
	ctl.num_partitions = ACR_LIVE_PARTITIONS;
	live_runs = ShmemInitHash("ai_chat_run live run table", acr_max_active_runs,
							  acr_max_active_runs, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_PARTITION);
}

/* ---- one entry, under its partition's lock ---- */

LWLock *
acr_live_partition_lock(int partition)
{
	return acr_shared_lock(ACR_LOCK_LIVE_RUNS + partition);
}

/* Locks the partition of the key; NULL if it has no entry. */
AcrLiveEntry *
acr_live_lock_entry(const AcrLiveKey *key, LWLockMode mode, LWLock **lock)
{
	uint32		hash = get_hash_value(live_runs, key);

	*lock = acr_live_partition_lock(hash % ACR_LIVE_PARTITIONS);
	LWLockAcquire(*lock, mode);
	return hash_search_with_hash_value(live_runs, key, hash, HASH_FIND, NULL);
}

/* Caller holds the partition's lock exclusively. */
void
acr_live_remove_entry(AcrLiveEntry *entry)
{
	(void) hash_search(live_runs, &entry->key, HASH_REMOVE, NULL);
	pg_atomic_fetch_sub_u32(&state->n, 1);
}

/* The same; NULL if there is no room. */
static AcrLiveEntry *
make_entry(const AcrLiveKey *key)
{
	AcrLiveEntry *entry = NULL;

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
	entry->settling = 0;
	entry->looked_at = 0;
	memset(&entry->run, 0, sizeof(entry->run));
	pg_atomic_init_u64(&entry->heard_at, 0);
	pg_atomic_init_u32(&entry->stop_requested, 0);
	return entry;
}

HTAB *
acr_live_table(void)
{
	return live_runs;
}

/* Entries of an earlier epoch are not current. */
uint32
acr_live_epoch(void)
{
	return pg_atomic_read_u32(&state->epoch);
}

bool
acr_live_is_current(const AcrLiveEntry *entry)
{
	return entry->confirmed && entry->settling == 0 &&
		pg_atomic_read_u32(&state->distrust) == 0 &&
		entry->epoch == acr_live_epoch() &&
		!TimestampDifferenceExceeds(entry->looked_at, GetCurrentTimestamp(), CURRENT_MS);
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
	AcrLiveEntry *entry;

	ticket->key = *key;
	entry = acr_live_lock_entry(key, LW_EXCLUSIVE, &lock);
	if (entry == NULL)
		entry = make_entry(key);
	ticket->number = entry != NULL ? entry->ticket : 0;
	ticket->looked_at = entry != NULL ? entry->looked_at : 0;
	ticket->epoch = acr_live_epoch();
	LWLockRelease(lock);
}

/* The entry that the ticket was given for, if it is there still. */
static AcrLiveEntry *
lock_and_find_expected(const AcrLiveTicket *ticket, LWLock **lock)
{
	AcrLiveEntry *entry = acr_live_lock_entry(&ticket->key, LW_EXCLUSIVE, lock);

	return entry != NULL && entry->ticket == ticket->number ? entry : NULL;
}

static void
set_current(AcrLiveEntry *entry, const AcrLiveTicket *ticket)
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
	AcrLiveEntry *entry = lock_and_find_expected(ticket, &lock);

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
	AcrLiveEntry *entry = lock_and_find_expected(ticket, &lock);

	if (entry != NULL && entry->confirmed)
		set_current(entry, ticket);
	else if (entry != NULL)
		acr_live_remove_entry(entry);
	LWLockRelease(lock);
}

/*
 * The run was not active when the ticket's holder looked; but a begin may have
 * been committed and confirmed since, and somebody may have requested a stop.
 */
void
acr_live_forget_unchanged(const AcrLiveTicket *ticket)
{
	LWLock	   *lock;
	AcrLiveEntry *entry = lock_and_find_expected(ticket, &lock);

	if (entry != NULL && entry->looked_at == ticket->looked_at)
		acr_live_remove_entry(entry);
	LWLockRelease(lock);
}

/* The run is terminal. */
void
acr_live_forget_expected(const AcrLiveTicket *ticket)
{
	LWLock	   *lock;
	AcrLiveEntry *entry = lock_and_find_expected(ticket, &lock);

	if (entry != NULL)
		acr_live_remove_entry(entry);
	LWLockRelease(lock);
}

/* There is nothing to confirm. */
void
acr_live_give_up(const AcrLiveTicket *ticket)
{
	LWLock	   *lock;
	AcrLiveEntry *entry = lock_and_find_expected(ticket, &lock);

	if (entry != NULL && !entry->confirmed)
		acr_live_remove_entry(entry);
	LWLockRelease(lock);
}

/* ---- by what is about to be committed, and was ---- */

/*
 * The run will be settled by a commit that is about to come: from now on only
 * the row tells.  An entry is made for that if there is none, lest somebody else
 * confirms one of his own in between.
 */
void
acr_live_begin_settling(const AcrLiveKey *key)
{
	LWLock	   *lock;
	AcrLiveEntry *entry = acr_live_lock_entry(key, LW_EXCLUSIVE, &lock);

	if (entry == NULL)
		entry = make_entry(key);
	if (entry != NULL)
		entry->settling++;
	LWLockRelease(lock);
}

/* That commit has failed. */
void
acr_live_end_settling(const AcrLiveKey *key)
{
	LWLock	   *lock;
	AcrLiveEntry *entry = acr_live_lock_entry(key, LW_EXCLUSIVE, &lock);

	if (entry != NULL && entry->settling > 0)
		entry->settling--;
	LWLockRelease(lock);
}

/* Whatever is known of the run, it is settled. */
void
acr_live_forget(const AcrLiveKey *key)
{
	LWLock	   *lock;
	AcrLiveEntry *entry = acr_live_lock_entry(key, LW_EXCLUSIVE, &lock);

	if (entry != NULL)
		acr_live_remove_entry(entry);
	LWLockRelease(lock);
}

/* The row bears a stop request. */
void
acr_live_note_stop(const AcrLiveKey *key)
{
	LWLock	   *lock;
	AcrLiveEntry *entry = acr_live_lock_entry(key, LW_SHARED, &lock);

	if (entry != NULL)
		pg_atomic_write_u32(&entry->stop_requested, 1);
	LWLockRelease(lock);
}

/*
 * A commit that is about to come may settle any run: until the end of that only
 * rows tell.  Each beginning needs its end.
 */
void
acr_live_begin_distrust(void)
{
	pg_atomic_fetch_add_u32(&state->distrust, 1);
}

/* It has come, or failed: what was known before is void. */
void
acr_live_end_distrust(void)
{
	pg_atomic_fetch_add_u32(&state->epoch, 1);
	pg_atomic_fetch_sub_u32(&state->distrust, 1);
}
