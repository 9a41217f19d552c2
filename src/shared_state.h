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

extern void acr_shared_request(void);
extern bool acr_shared_exists(void);
extern LWLock *acr_shared_lock(void);

extern void acr_shared_note_start(void);
extern TransactionId acr_shared_start_xid(void);
extern TimestampTz acr_shared_start_time(void);
extern TimestampTz acr_shared_open_time(void);

extern void acr_shared_become_launcher(void);
extern void acr_shared_wake_launcher(void);

#endif							/* ACR_SHARED_STATE_H */
