/*
 * Sleeping until something happens to a run, a runner or a chat.
 *
 * What a session waits for is a condition that only a look at the row, or into
 * shared memory, can decide.  Here is what tells it when to look again.  There
 * is a fixed number of buckets; what is waited for hashes to one of them.  A
 * bucket counts events and has a condition variable, of which only the list of
 * sleepers is used.  Whoever changes something signals its bucket after the
 * change can be seen: first the count, then the sleepers.  Whoever waits does
 *
 *		acr_wait_before_look()		notes the count
 *		look						SQL, a commit, anything
 *		acr_wait_sleep()			joins the sleepers, and sleeps unless the
 *									count has moved since it was noted
 *
 * and so on from the start.  No wake-up is lost:
 *
 *	 W: note 5		W: look, nothing	C: change, count 6, nobody sleeps
 *	 W: joins, reads 6: looks again
 *
 *	 W: note 5		W: look, nothing	W: joins, reads 5
 *	 C: change, count 6, wakes W
 *
 * Noting the count and joining the list are apart since the look may use
 * condition variables of the server's own (reading a page does), and a process
 * can be on one list only.  Two things in one bucket cost a look for nothing.
 *
 * While it sleeps, a session has no snapshot and no lock.  It ends at once on
 * cancel, terminate and shutdown; and, which the server does not do for a
 * backend that is busy, when its client's connection is closed: a client that
 * waits here is often the one whose death others have to hear of.
 */
#include "postgres.h"

#include <limits.h>

#include "common/hashfn.h"
#include "compat.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "wakeup.h"

#define N_BUCKETS	1024

typedef struct Bucket
{
	pg_atomic_uint64 events;	/* any session raises it, at any time */
	ConditionVariable sleepers;
} Bucket;

static Bucket *buckets = NULL;

Size
acr_wakeup_shmem_size(void)
{
	return MAXALIGN(mul_size(N_BUCKETS, sizeof(Bucket)));
}

/* Called from the startup hook, which holds AddinShmemInitLock. */
void
acr_wakeup_shmem_init(void)
{
	bool		found;

	buckets = ShmemInitStruct("ai_chat_run wakeup", acr_wakeup_shmem_size(), &found);
	if (found)
		return;
	for (int i = 0; i < N_BUCKETS; i++)
	{
		pg_atomic_init_u64(&buckets[i].events, 0);
		ConditionVariableInit(&buckets[i].sleepers);
	}
}

/* The bucket of a run, or of a chat. */
uint32
acr_wakeup_of_uuid(const pg_uuid_t *id)
{
	return hash_bytes(id->data, UUID_LEN) % N_BUCKETS;
}

uint32
acr_wakeup_of_runner(const char *runner)
{
	return hash_bytes((const unsigned char *) runner, strlen(runner)) % N_BUCKETS;
}

/* Raises no error, so it may be called at commit. */
void
acr_wakeup_signal(uint32 bucket)
{
	if (buckets == NULL)
		return;
	pg_atomic_fetch_add_u64(&buckets[bucket].events, 1);
	ConditionVariableBroadcast(&buckets[bucket].sleepers);
}

/* Something has happened, we do not know to whom. */
void
acr_wakeup_signal_all(void)
{
	for (uint32 i = 0; i < N_BUCKETS; i++)
		acr_wakeup_signal(i);
}

void
acr_wait_init(AcrWait *wait, uint32 bucket, int64 timeout_ms,
			  uint32 wait_event)
{
	INSTR_TIME_SET_CURRENT(wait->started);
	wait->timeout_ms = timeout_ms;
	acr_wait_watch(wait, bucket, wait_event);
}

/* From now on waits for something else, with the time that is left. */
void
acr_wait_watch(AcrWait *wait, uint32 bucket, uint32 wait_event)
{
	wait->bucket = bucket;
	wait->wait_event = wait_event;
	acr_wait_before_look(wait);
}

void
acr_wait_before_look(AcrWait *wait)
{
	wait->seen = pg_atomic_read_u64(&buckets[wait->bucket].events);

	/* What the look will find must not be older than the count. */
	pg_memory_barrier();
}

/* In ms; not positive if it is over. */
int64
acr_wait_time_left(const AcrWait *wait)
{
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, wait->started);
	return wait->timeout_ms - (int64) INSTR_TIME_GET_MILLISEC(elapsed);
}

/* Sleeps on the latch and on the client's socket, should that be closed. */
static void
sleep_with_client(long ms, uint32 wait_event)
{
	WaitEvent	events[FeBeWaitSetNEvents];
	int			n;

	/* All users of this set say anew what they want of the socket. */
	ModifyWaitEvent(FeBeWaitSet, FeBeWaitSetSocketPos, WL_SOCKET_CLOSED, NULL);
	n = WaitEventSetWait(FeBeWaitSet, ms, events, lengthof(events), wait_event);
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_POSTMASTER_DEATH)
			ereport(FATAL,
					(errcode(ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("terminating connection due to unexpected postmaster exit")));
		if (events[i].events & WL_SOCKET_CLOSED)
		{
			/* as the server does where it looks for this itself */
			ClientConnectionLost = true;
			InterruptPending = true;
		}
	}
}

static void
sleep_once(long ms, uint32 wait_event)
{
	if (MyProcPort != NULL && WaitEventSetCanReportClosed())
		sleep_with_client(ms, wait_event);
	else
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ms, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Sleeps until there was an event since the last look; false if the time is
 * over before.  An interrupt leaves with its error, and the end of the
 * transaction takes us off the list.
 */
bool
acr_wait_sleep(AcrWait *wait)
{
	return acr_wait_sleep_for(wait, wait->timeout_ms);
}

/* The same, but not for longer than the given time. */
bool
acr_wait_sleep_for(AcrWait *wait, int64 ms)
{
	Bucket	   *bucket = &buckets[wait->bucket];
	int64		end = Max(acr_wait_time_left(wait) - ms, 0);
	bool		woken;

	for (;;)
	{
		int64		left = acr_wait_time_left(wait) - end;

		ConditionVariablePrepareToSleep(&bucket->sleepers);
		woken = pg_atomic_read_u64(&bucket->events) != wait->seen;
		if (woken || left <= 0)
			break;
		sleep_once((long) Min(left, INT_MAX), wait->wait_event);
	}
	ConditionVariableCancelSleep();
	CHECK_FOR_INTERRUPTS();
	return woken;
}
