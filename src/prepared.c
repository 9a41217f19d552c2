/*
 * Prepared transactions that have changed runs.
 *
 * A prepared transaction is committed by a session that does not know what it
 * did, perhaps long after.  Here is kept which ones concern us, by the global
 * identifiers that their users gave them, so that COMMIT PREPARED of all others
 * costs nothing.  Of those that are older than this life of the server we know
 * nothing; until a worker has found that there are none, every one that is
 * committed may be ours.  Once there are none there never will be.  It is the
 * same, and for ever, if one does not fit.
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
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

typedef struct Prepared
{
	char		gid[GIDSIZE];	/* hash key */
} Prepared;

static HTAB *prepared = NULL;

/* may there be some that we do not know? */
static pg_atomic_uint32 *unknown_ones = NULL;

#define NO_UNKNOWN_ONES		0
#define UNTIL_NONE_IS_OLD	1
#define FOR_EVER			2

/* the name under which this session is about to prepare its transaction */
static char preparing[GIDSIZE];

/* what this session has taken off the table, to commit it or roll it back */
static char taken[GIDSIZE];

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

	unknown_ones = ShmemInitStruct("ai_chat_run prepared", sizeof(pg_atomic_uint32), &found);
	if (!found)
		pg_atomic_init_u32(unknown_ones, UNTIL_NONE_IS_OLD);

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
	if (hash_search(prepared, gid, HASH_ENTER_NULL, &found) == NULL)
		pg_atomic_write_u32(unknown_ones, FOR_EVER);
	LWLockRelease(acr_shared_lock(ACR_LOCK_PREPARED));
}

/* This session's transaction has changed runs, and is prepared now. */
void
acr_prepared_add(void)
{
	add(preparing);
}

/* That was done, or it has failed. */
void
acr_prepared_end_take(bool done)
{
	if (!done && taken[0] != '\0')
		add(taken);
	taken[0] = '\0';
}

static void
put_back_at_exit(int code, Datum arg)
{
	acr_prepared_end_take(false);
}

/*
 * The prepared transaction is about to be committed, or rolled back.  Returns
 * whether it is known to have changed runs.
 */
bool
acr_prepared_take(const char *gid)
{
	static bool exit_registered = false;
	bool		found;

	if (!exit_registered)
	{
		before_shmem_exit(put_back_at_exit, (Datum) 0);
		exit_registered = true;
	}

	strlcpy(taken, gid, GIDSIZE);
	LWLockAcquire(acr_shared_lock(ACR_LOCK_PREPARED), LW_EXCLUSIVE);
	(void) hash_search(prepared, taken, HASH_REMOVE, &found);
	LWLockRelease(acr_shared_lock(ACR_LOCK_PREPARED));
	if (!found)
		taken[0] = '\0';
	return found;
}

/* May there be any that changed runs and that we do not know? */
bool
acr_prepared_unknown_ones(void)
{
	return pg_atomic_read_u32(unknown_ones) != NO_UNKNOWN_ONES;
}

/* Is it to be found out whether any is older than this life of the server? */
bool
acr_prepared_doubtful(void)
{
	return pg_atomic_read_u32(unknown_ones) == UNTIL_NONE_IS_OLD;
}

/* There is none that is so old. */
void
acr_prepared_none_is_old(void)
{
	uint32		expected = UNTIL_NONE_IS_OLD;

	(void) pg_atomic_compare_exchange_u32(unknown_ones, &expected, NO_UNKNOWN_ONES);
}
