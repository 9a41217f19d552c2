/*
 * What calls do with tracked runs: a runner says that it is there, somebody
 * wants it to stop, somebody looks.  All of it with the lock of the entry's
 * partition shared.
 */
#include "postgres.h"

#include "live_entry.h"

/* An entry that was confirmed of that run in that workspace, or NULL. */
static AcrLiveEntry *
lock_and_find_confirmed(const AcrRunKey *run, LWLock **lock)
{
	AcrLiveKey	key;
	AcrLiveEntry *entry;

	acr_live_key(&key, &run->id);
	entry = acr_live_lock_entry(&key, LW_SHARED, lock);
	if (entry == NULL || !entry->confirmed ||
		memcmp(&entry->run.workspace_id, &run->workspace_id, UUID_LEN) != 0)
		return NULL;
	return entry;
}

/*
 * The runner calls.  Returns false if the row has to be asked, too.
 */
bool
acr_live_hear(const AcrRunKey *run, bool *stop_requested)
{
	LWLock	   *lock;
	AcrLiveEntry *entry = lock_and_find_confirmed(run, &lock);
	bool		current = false;

	if (entry != NULL)
	{
		pg_atomic_write_u64(&entry->heard_at, GetCurrentTimestamp());
		*stop_requested = pg_atomic_read_u32(&entry->stop_requested) != 0;
		current = acr_live_is_current(entry);
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
	AcrLiveEntry *entry = lock_and_find_confirmed(run, &lock);

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
	AcrLiveEntry *entry;

	memset(look, 0, sizeof(*look));
	acr_live_key(&key, run_id);
	entry = acr_live_lock_entry(&key, LW_SHARED, &lock);
	if (entry != NULL && entry->confirmed)
	{
		look->known = true;
		look->current = acr_live_is_current(entry);
		look->workspace_id = entry->run.workspace_id;
		look->heard_at = (TimestampTz) pg_atomic_read_u64(&entry->heard_at);
		look->stop_requested = pg_atomic_read_u32(&entry->stop_requested) != 0;
	}
	LWLockRelease(lock);
}
