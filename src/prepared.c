/*
 * Prepared transactions that have changed runs.
 *
 * A prepared transaction is committed by a session that does not know what it
 * did, perhaps long after.  Here is kept which ones concern us, by the global
 * identifiers that their users gave them, so that COMMIT PREPARED of all others
 * costs nothing.  Of those that are older than this life of the server we know
 * nothing; until a worker has found that there are none, every one that is
 * committed may be ours.  Once there are none there never will be.
 *
 * The server tells us that a transaction is being prepared without saying under
 * which name; that is remembered from the command.  We are told before anybody
 * else can commit it.
 *
 * The table is written under the one lock of this room.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "port/atomics.h"
#include "prepared.h"
#include "shared_state.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

typedef struct Prepared
{
	char		gid[GIDSIZE];	/* hash key */
} Prepared;

static HTAB *prepared = NULL;
static pg_atomic_uint32 *old_ones = NULL;	/* may there be any? */

/* the name under which this session is about to prepare its transaction */
static char preparing[GIDSIZE];

Size
acr_prepared_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(pg_atomic_uint32)),
					hash_estimate_size(Max(max_prepared_xacts, 1), sizeof(Prepared)));
}

/* Called from the startup hook, which holds AddinShmemInitLock. */
void
acr_prepared_shmem_init(void)
{
	HASHCTL		ctl;
	bool		found;

	old_ones = ShmemInitStruct("ai_chat_run prepared", sizeof(pg_atomic_uint32), &found);
	if (!found)
		pg_atomic_init_u32(old_ones, 1);

	ctl.keysize = GIDSIZE;
	ctl.entrysize = sizeof(Prepared);
	prepared = ShmemInitHash("ai_chat_run prepared table", Max(max_prepared_xacts, 1),
							 Max(max_prepared_xacts, 1), &ctl,
							 HASH_ELEM | HASH_STRINGS);
}

/* The command is about to prepare this session's transaction. */
void
acr_prepared_expect(const char *gid)
{
	strlcpy(preparing, gid, GIDSIZE);
}

static void
add(const char *gid)
{
	bool		found;

	LWLockAcquire(acr_shared_lock(ACR_LOCK_PREPARED), LW_EXCLUSIVE);
	/* If one does not fit, we know nothing of any. */
	if (hash_search(prepared, gid, HASH_ENTER_NULL, &found) == NULL)
		pg_atomic_write_u32(old_ones, 1);
	LWLockRelease(acr_shared_lock(ACR_LOCK_PREPARED));
}

/* This session's transaction has changed runs, and is prepared now. */
void
acr_prepared_add(void)
{
	add(preparing);
}

/*
 * The prepared transaction is about to be committed, or rolled back.  Returns
 * whether it is known to have changed runs.
 */
bool
acr_prepared_take(const char *gid)
{
	char		key[GIDSIZE];
	bool		found;

	strlcpy(key, gid, GIDSIZE);
	LWLockAcquire(acr_shared_lock(ACR_LOCK_PREPARED), LW_EXCLUSIVE);
	(void) hash_search(prepared, key, HASH_REMOVE, &found);
	LWLockRelease(acr_shared_lock(ACR_LOCK_PREPARED));
	return found;
}

/* That has failed. */
void
acr_prepared_put_back(const char *gid)
{
	char		key[GIDSIZE];

	strlcpy(key, gid, GIDSIZE);
	add(key);
}

/* May there be any that are older than this life of the server? */
bool
acr_prepared_old_ones(void)
{
	return pg_atomic_read_u32(old_ones) != 0;
}

void
acr_prepared_no_old_ones(void)
{
	pg_atomic_write_u32(old_ones, 0);
}
