/*
 * An entry of the tracked runs, for the rooms that know it: live_runs.c, which
 * makes and removes them, live_calls.c and live_walks.c.
 */
#ifndef ACR_LIVE_ENTRY_H
#define ACR_LIVE_ENTRY_H

#include "live_runs.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"

typedef struct AcrLiveEntry
{
	AcrLiveKey	key;			/* hash key */

	/* written under the partition's lock, exclusive */
	uint64		ticket;
	uint32		epoch;
	bool		confirmed;
	int			settling;		/* transactions about to settle the run */
	TimestampTz looked_at;		/* at the row */
	AcrLiveRun	run;

	/* written by any session, under the partition's lock, shared */
	pg_atomic_uint64 heard_at;	/* a TimestampTz */
	pg_atomic_uint32 stop_requested;
} AcrLiveEntry;

extern HTAB *acr_live_table(void);
extern uint32 acr_live_epoch(void);
extern LWLock *acr_live_partition_lock(int partition);
extern AcrLiveEntry *acr_live_lock_entry(const AcrLiveKey *key, LWLockMode mode,
										 LWLock **lock);

/* The caller of these holds the lock of the entry's partition. */
extern bool acr_live_is_current(const AcrLiveEntry *entry);
extern void acr_live_remove_entry(AcrLiveEntry *entry);

#endif							/* ACR_LIVE_ENTRY_H */
