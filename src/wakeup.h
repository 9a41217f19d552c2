/*
 * Sleeping until something happens to a run, a runner or a chat.
 */
#ifndef ACR_WAKEUP_H
#define ACR_WAKEUP_H

#include "portability/instr_time.h"
#include "utils/uuid.h"

/* a session's wait; see the head of wakeup.c for how to use it */
typedef struct AcrWait
{
	uint32		bucket;
	uint64		seen;			/* events up to the last look */
	instr_time	started;
	int64		timeout_ms;
	uint32		wait_event;
} AcrWait;

extern Size acr_wakeup_shmem_size(void);
extern void acr_wakeup_shmem_init(void);

/* whom to wake */
extern uint32 acr_wakeup_of_uuid(const pg_uuid_t *id);
extern uint32 acr_wakeup_of_runner(const char *runner);
extern void acr_wakeup_signal(uint32 bucket);
extern void acr_wakeup_signal_all(void);

/* to wait */
extern void acr_wait_init(AcrWait *wait, uint32 bucket, int64 timeout_ms,
						  uint32 wait_event);
extern void acr_wait_watch(AcrWait *wait, uint32 bucket, uint32 wait_event);
extern void acr_wait_before_look(AcrWait *wait);
extern int64 acr_wait_time_left(const AcrWait *wait);
extern bool acr_wait_sleep(AcrWait *wait);
extern bool acr_wait_sleep_for(AcrWait *wait, int64 ms);

#endif							/* ACR_WAKEUP_H */
