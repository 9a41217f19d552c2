/*
 * Deferred finalizations: decided, but not written yet.
 */
#ifndef ACR_DEFERRAL_H
#define ACR_DEFERRAL_H

#include "deferred_row.h"
#include "run_row.h"

typedef enum AcrSettleOutcome
{
	ACR_SETTLED,				/* this call made the run terminal */
	ACR_SETTLE_MOOT,			/* the run is terminal or gone: forgotten */
	ACR_SETTLE_BLOCKED,			/* somebody holds the row or the table */
	ACR_SETTLE_FAILED			/* the write failed */
} AcrSettleOutcome;

typedef struct AcrSettleTally
{
	MemoryContext context;		/* where to keep the failure */
	int64		settled;
	int64		blocked;
	int64		failed;
	AcrRunKey	failed_key;		/* the first one that failed, and why */
	ErrorData  *failure;
} AcrSettleTally;

extern bool acr_deferral_finish_undecided(const AcrRunKey *key,
										  const char *status, text *error);
extern bool acr_deferral_make_way(const AcrRunKey *key, bool wait,
								  ErrorData **failure);
extern void acr_deferral_settle_here(const AcrRunKey *key);
extern AcrSettleOutcome acr_deferral_settle(const AcrRunKey *key, bool wait,
											ErrorData **failure);
extern bool acr_deferral_settle_due(AcrRunKey *from, AcrSettleTally *tally);
extern void acr_deferral_report(const AcrSettleTally *tally);
extern void acr_deferral_settle_all(const pg_uuid_t *run_id, int64 limit,
									AcrSettleTally *tally);

#endif							/* ACR_DEFERRAL_H */
