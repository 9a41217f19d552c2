/*
 * Counters per database, for the views.
 */
#ifndef ACR_COUNTERS_H
#define ACR_COUNTERS_H

#include "c.h"

typedef enum AcrCounter
{
	ACR_BEGUN,
	ACR_REJECTED,
	ACR_FINALIZED_SUCCEEDED,
	ACR_FINALIZED_FAILED,
	ACR_FINALIZED_ABORTED,
	ACR_RETRIES,
	ACR_DEFERRED,
	ACR_SETTLED_LATER,
	ACR_SWEPT_AT_BOOT,
	ACR_SWEPT_STALE,
	ACR_STOPS,
	ACR_HEARTBEATS,
	ACR_N_COUNTERS
} AcrCounter;

extern void acr_counters_init(void);
extern void acr_count_now(AcrCounter counter);
extern void acr_count_at_commit(AcrCounter counter, uint64 n);
extern void acr_news_at_commit(uint32 news);
extern AcrCounter acr_counter_of_status(const char *status);

#endif							/* ACR_COUNTERS_H */
