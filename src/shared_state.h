/*
 * The extension's shared memory: when this server started, and whom to wake.
 *
 * It exists only where the library is preloaded.  Nothing whose loss matters
 * lives here.
 */
#ifndef ACR_SHARED_STATE_H
#define ACR_SHARED_STATE_H

#include "access/transam.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

/* the live runs are divided among so many locks; a power of 2 */
#define ACR_LIVE_PARTITIONS		16

typedef enum AcrLockId
{
	ACR_LOCK_REGISTRY,			/* databases, visits, server start */
	ACR_LOCK_RUNNERS,
	ACR_LOCK_CLAIMS,
	ACR_LOCK_PREPARED,
	ACR_LOCK_LIVE_RUNS,			/* the first of as many as partitions */
	ACR_N_LOCKS = ACR_LOCK_LIVE_RUNS + ACR_LIVE_PARTITIONS
} AcrLockId;

extern void acr_shared_request(void);
extern bool acr_shared_exists(void);
extern void acr_shared_require(const char *function);
extern LWLock *acr_shared_lock(AcrLockId id);

extern void acr_shared_note_start(void);
extern TransactionId acr_shared_start_xid(void);
extern TimestampTz acr_shared_start_time(void);
extern TimestampTz acr_shared_open_time(void);

extern bool acr_shared_has_launcher(void);
extern void acr_shared_become_launcher(void);
extern void acr_shared_wake_launcher(void);

#endif							/* ACR_SHARED_STATE_H */
