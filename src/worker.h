/*
 * A worker's visit to one database, and its tasks.
 */
#ifndef ACR_WORKER_H
#define ACR_WORKER_H

#include "counters.h"
#include "deferral.h"
#include "sweep.h"
#include "visits.h"
#include "worker_unit.h"

/*
 * A deferred finalization whose row is locked is tried again this soon, so
 * that it is written within a second of the lock's release.
 */
#define ACR_BLOCKED_RETRY_MS	400

typedef struct AcrWork
{
	AcrVisit	visit;
	char	   *database;
	bool		leave;			/* extension gone, or database wanted */

	/* the current task, and state of its steps */
	AcrTaskId	task;
	AcrRunKey	from;
	AcrSettleTally tally;
	AcrSweepFilter filter;
	TimestampTz task_begun;
	AcrCounter	counter;
	const char *error_text;
	AcrCursor	cursor;
	TimestampTz purge_before;
	int64		done;			/* runs settled, or deleted, and committed */
	int64		done_in_step;
	bool		found;

	/* what is left */
	bool		any_active;
	bool		any_deferred;
	TimestampTz next_deferred;	/* when its next try is due */
} AcrWork;

extern bool acr_work_step(AcrWork *work, AcrUnitBody body);
extern void acr_work_task_put_off(AcrWork *work, TimestampTz next_due);
extern void acr_work_task_done(AcrWork *work, TimestampTz next_due);
extern void acr_work_task_blocked(AcrWork *work);
extern void acr_work_task_failed(AcrWork *work, const ErrorData *failure);
extern TimestampTz acr_work_in_ms(int64 ms);

extern void acr_work_do_task(AcrWork *work);

#endif							/* ACR_WORKER_H */
