/*
 * Visits of workers to databases.
 */
#ifndef ACR_VISITS_H
#define ACR_VISITS_H

#include "utils/timestamp.h"

/* what a visit may have to do, in this order */
typedef enum AcrTaskId
{
	ACR_TASK_SETTLE,			/* apply deferred finalizations */
	ACR_TASK_BOOT_SWEEP,
	ACR_TASK_REAP,				/* abort the runs of departed runners */
	ACR_TASK_SWEEP_SILENT,
	ACR_TASK_PURGE,
	ACR_N_TASKS
} AcrTaskId;

typedef struct AcrTask
{
	TimestampTz due;			/* DT_NOEND: not to be done */
	int			failures;		/* in a row */
	TimestampTz quiet_until;	/* end of the pause after the last one */
} AcrTask;

/* A visit that a worker was asked for, and the number that tells it from others. */
typedef struct AcrVisitClaim
{
	Oid			dboid;			/* InvalidOid: there is none to be made */
	uint32		number;
} AcrVisitClaim;

/* What a worker is given when its visit begins, and reports when it ends. */
typedef struct AcrVisit
{
	AcrTask		tasks[ACR_N_TASKS];
	uint32		news;			/* told by sessions since the last visit */
	bool		present_at_start;	/* the database is older than this start */
	bool		has_extension;
	int64		boot_runs;		/* runs that the boot sweep aborted */
	const char *error;			/* what went wrong, or NULL */
} AcrVisit;

extern AcrVisitClaim acr_visits_claim_due(TimestampTz now,
										  TimestampTz periodic_due,
										  TimestampTz *next_due);
extern void acr_visits_forget_claims(void);
extern void acr_visits_unclaim(const AcrVisitClaim *claim);
extern void acr_visits_reconsider(void);
extern void acr_visits_lost(const AcrVisitClaim *claim);

extern bool acr_visits_begin(const AcrVisitClaim *claim, AcrVisit *visit);
extern void acr_visits_end(const AcrVisit *visit);

extern bool acr_task_book_failure(AcrTask *task);
extern int	acr_task_pause(const AcrTask *task);

#endif							/* ACR_VISITS_H */
