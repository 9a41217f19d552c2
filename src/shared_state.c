/*
 * The extension's shared memory.
 *
 * "Server start" is the moment a server opens for writes: at postmaster start,
 * at a restart after a backend crash, at promotion.  In all three the boot
 * sweep has to tell the runs of before from those begun since, however early.
 * Clocks cannot be trusted with that alone (they are set back, and after a
 * promotion the runs bear another host's time), transaction ids can: no
 * transaction of before has an id at or past the oldest one that was running
 * when this life was first looked at.  That is the start xid.  It is noted by
 * the launcher, or earlier by the first session that begins a run, whose own
 * transaction is then among the running ones.
 *
 * A row that was updated since the start hides the transaction that inserted
 * it.  For such rows times have to do: that of start, noted before the server
 * opened, for when the run was begun; and that of opening, noted together with
 * the start xid before any runner's call is stamped, for whether its runner has
 * called since.
 *
 * Locks: each room with something shared has LWLocks of its own from the one
 * tranche that is requested here (AcrLockId).  They are held for a few lines,
 * never across SQL, a wait, or anything that can raise an error.  Order: first
 * that of the registry, then one of the others; of the others never two, but
 * for a walk of all live runs, which takes their partitions' locks in order.
 * While holding that of the registry, the server's own XidGenLock and
 * ProcArrayLock are taken, too (to note the start xid).
 */
#include "postgres.h"

#include "access/xlog.h"
#include "ai_chat_run.h"
#include "claims.h"
#include "databases.h"
#include "live_runs.h"
#include "miscadmin.h"
#include "prepared.h"
#include "runners.h"
#include "shared_state.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "wakeup.h"

typedef struct SharedState
{
	LWLockPadded *locks;		/* set once, at startup */
	TimestampTz started_at;		/* set once, before the server opens */

	pg_atomic_uint32 start_xid; /* 0 until noted; registry lock */
	TimestampTz opened_at;		/* set before start_xid */

	slock_t		launcher_mutex;
	Latch	   *launcher_latch; /* the launcher's, or NULL; under the mutex */
} SharedState;

static SharedState *shared = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
request_shared_memory(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(MAXALIGN(sizeof(SharedState)));
	RequestAddinShmemSpace(acr_databases_shmem_size());
	RequestAddinShmemSpace(acr_live_shmem_size());
	RequestAddinShmemSpace(acr_wakeup_shmem_size());
	RequestAddinShmemSpace(acr_runners_shmem_size());
	RequestAddinShmemSpace(acr_claims_shmem_size());
	RequestAddinShmemSpace(acr_prepared_shmem_size());
	RequestNamedLWLockTranche("ai_chat_run", ACR_N_LOCKS);
}

/*
 * Runs in the postmaster, again after each crash of a backend, and always
 * before recovery begins, so that the time noted here is before any
 * transaction of this life.
 */
static void
attach_shared_memory(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("ai_chat_run", sizeof(SharedState), &found);
	if (!found)
	{
		shared->locks = GetNamedLWLockTranche("ai_chat_run");
		shared->started_at = GetCurrentTimestamp();
		pg_atomic_init_u32(&shared->start_xid, InvalidTransactionId);
		SpinLockInit(&shared->launcher_mutex);
		shared->launcher_latch = NULL;
	}
	acr_databases_shmem_init();
	acr_live_shmem_init();
	acr_wakeup_shmem_init();
	acr_runners_shmem_init();
	acr_claims_shmem_init();
	acr_prepared_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

/* Called while the library is being preloaded. */
void
acr_shared_request(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = attach_shared_memory;
}

/* Is the library preloaded on this server? */
bool
acr_shared_exists(void)
{
	return shared != NULL;
}

/* For what cannot work without shared memory. */
void
acr_shared_require(const char *function)
{
	if (shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs the library \"%s\" to be preloaded",
						function, ACR_EXTENSION),
				 errhint("Put the line shared_preload_libraries = '%s' into postgresql.conf and restart the server.",
						 ACR_EXTENSION)));
}

LWLock *
acr_shared_lock(AcrLockId id)
{
	return &shared->locks[id].lock;
}

/*
 * The oldest transaction that is running, or else the next one to be.  Unlike
 * the server's GetOldestActiveTransactionId(), which this follows, it leaves
 * out prepared transactions: they live through a server start, and begin
 * nothing any more.
 */
static TransactionId
oldest_running_xid(void)
{
	TransactionId oldest = ReadNextTransactionId();

	LWLockAcquire(ProcArrayLock, LW_SHARED);
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];
		TransactionId xid = proc->xid;

		if (proc->pid != 0 && TransactionIdIsNormal(xid) &&
			TransactionIdPrecedes(xid, oldest))
			oldest = xid;
	}
	LWLockRelease(ProcArrayLock);
	return oldest;
}

/*
 * Notes that the server has opened, if nobody has yet.  Must come before the
 * calling transaction inserts a run or stamps a runner's call.  Cheap when it
 * is noted already.
 */
void
acr_shared_note_start(void)
{
	if (shared == NULL || RecoveryInProgress() ||
		pg_atomic_read_u32(&shared->start_xid) != InvalidTransactionId)
		return;

	LWLockAcquire(acr_shared_lock(ACR_LOCK_REGISTRY), LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&shared->start_xid) == InvalidTransactionId)
	{
		shared->opened_at = GetCurrentTimestamp();
		pg_write_barrier();
		pg_atomic_write_u32(&shared->start_xid, oldest_running_xid());
	}
	LWLockRelease(acr_shared_lock(ACR_LOCK_REGISTRY));
}

/* No transaction from before server start has this id or a later one. */
TransactionId
acr_shared_start_xid(void)
{
	return pg_atomic_read_u32(&shared->start_xid);
}

/* A moment before the first transaction of this life of the server. */
TimestampTz
acr_shared_start_time(void)
{
	return shared != NULL ? shared->started_at : PgStartTime;
}

/* When the server was first seen open; to be asked after the note. */
TimestampTz
acr_shared_open_time(void)
{
	return shared != NULL ? shared->opened_at : PgStartTime;
}

static void
resign_as_launcher(int code, Datum arg)
{
	SpinLockAcquire(&shared->launcher_mutex);
	shared->launcher_latch = NULL;
	SpinLockRelease(&shared->launcher_mutex);
}

/* Is there a launcher now? */
bool
acr_shared_has_launcher(void)
{
	bool		alive;

	if (shared == NULL)
		return false;
	SpinLockAcquire(&shared->launcher_mutex);
	alive = shared->launcher_latch != NULL;
	SpinLockRelease(&shared->launcher_mutex);
	return alive;
}

/* From now on the calling process is the one to wake. */
void
acr_shared_become_launcher(void)
{
	SpinLockAcquire(&shared->launcher_mutex);
	shared->launcher_latch = MyLatch;
	SpinLockRelease(&shared->launcher_mutex);
	before_shmem_exit(resign_as_launcher, (Datum) 0);
}

/*
 * Wakes the launcher, if there is one.  Raises no error, so it may be called
 * at commit.
 */
void
acr_shared_wake_launcher(void)
{
	Latch	   *latch;

	SpinLockAcquire(&shared->launcher_mutex);
	latch = shared->launcher_latch;
	SpinLockRelease(&shared->launcher_mutex);

	/*
	 * The latch lives in the launcher's PGPROC, which stays mapped after it
	 * exits: at worst somebody else is woken for nothing.
	 */
	if (latch != NULL)
		SetLatch(latch);
}
