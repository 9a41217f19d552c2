/*
 * Claims on chats: a superseder's word that the next run is his.
 *
 * While supersede_run() waits for the end of its target, it holds a claim on
 * the chat.  Everybody else who begins a run looks for a claim after he has
 * inserted his row, and undoes that if he finds one.  Between the
 * claim and the insert there is no common lock, but each side writes first and
 * looks then, so that at least one of them sees the other:
 *
 *	 S: claims		B: inserts		B: finds the claim, undoes the insert
 *	 B: inserts		B: no claim		S: claims		S: finds B's row: mismatch
 *
 * A claim belongs to a session, and ends with the call that made it, however
 * that ends; with the session at the latest.  A backend that crashes takes all
 * of shared memory with it.
 *
 * The table is written under the one lock of this room; the number of claims
 * is an atomic, so that where nobody supersedes nobody takes the lock.
 */
#include "postgres.h"

#include "claims.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "shared_state.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "wakeup.h"

typedef struct ClaimKey
{
	Oid			dboid;
	pg_uuid_t	chat_id;
} ClaimKey;

typedef struct Claim
{
	ClaimKey	key;			/* hash key */
	int			pid;
	AcrRunKey	target;			/* the run to be superseded */
} Claim;

static pg_atomic_uint32 *n_claims = NULL;
static HTAB *claims = NULL;

/* this session's claim */
static ClaimKey my_claim;
static bool have_claim = false;

Size
acr_claims_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(pg_atomic_uint32)),
					hash_estimate_size(MaxBackends, sizeof(Claim)));
}

/* Called from the startup hook, which holds AddinShmemInitLock. */
void
acr_claims_shmem_init(void)
{
	HASHCTL		ctl;
	bool		found;

	n_claims = ShmemInitStruct("ai_chat_run claims", sizeof(pg_atomic_uint32), &found);
	if (!found)
		pg_atomic_init_u32(n_claims, 0);

	ctl.keysize = sizeof(ClaimKey);
	ctl.entrysize = sizeof(Claim);
	claims = ShmemInitHash("ai_chat_run claim table", MaxBackends, MaxBackends,
						   &ctl, HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

static LWLock *
claims_lock(void)
{
	return acr_shared_lock(ACR_LOCK_CLAIMS);
}

static void
make_key(ClaimKey *key, const pg_uuid_t *chat_id)
{
	key->dboid = MyDatabaseId;
	key->chat_id = *chat_id;
}

static void
release_at_exit(int code, Datum arg)
{
	acr_claims_release();
}

/*
 * Claims the chat; false if another session has.  Whoever waits for that looks
 * again when the chat's bucket is signalled.
 */
bool
acr_claims_take(const pg_uuid_t *chat_id, const AcrRunKey *target)
{
	static bool exit_registered = false;
	Claim	   *claim;
	bool		found;

	if (!exit_registered)
	{
		before_shmem_exit(release_at_exit, (Datum) 0);
		exit_registered = true;
	}

	make_key(&my_claim, chat_id);
	LWLockAcquire(claims_lock(), LW_EXCLUSIVE);
	/* There is room, since each session has one claim at most. */
	claim = hash_search(claims, &my_claim, HASH_ENTER_NULL, &found);
	if (claim != NULL && !found)
	{
		claim->pid = MyProcPid;
		claim->target = *target;
		pg_atomic_fetch_add_u32(n_claims, 1);
		have_claim = true;
	}
	LWLockRelease(claims_lock());
	return have_claim;
}

/* Does nothing if there is no claim. */
void
acr_claims_release(void)
{
	if (!have_claim)
		return;
	LWLockAcquire(claims_lock(), LW_EXCLUSIVE);
	(void) hash_search(claims, &my_claim, HASH_REMOVE, NULL);
	pg_atomic_fetch_sub_u32(n_claims, 1);
	have_claim = false;
	LWLockRelease(claims_lock());
	acr_wakeup_signal(acr_wakeup_of_uuid(&my_claim.chat_id));
}

/* Does another session claim the chat?  Then *target is what it supersedes. */
bool
acr_claims_has_other(const pg_uuid_t *chat_id, AcrRunKey *target)
{
	ClaimKey	key;
	Claim	   *claim;
	bool		has_other;

	if (n_claims == NULL)
		return false;
	/* What we have written must be there for him to see, before we look. */
	pg_memory_barrier();
	if (pg_atomic_read_u32(n_claims) == 0)
		return false;

	make_key(&key, chat_id);
	LWLockAcquire(claims_lock(), LW_SHARED);
	claim = hash_search(claims, &key, HASH_FIND, NULL);
	has_other = claim != NULL && claim->pid != MyProcPid;
	if (has_other)
		*target = claim->target;
	LWLockRelease(claims_lock());
	return has_other;
}
