/*
 * What the launcher and its workers know of each database, and the counters.
 */
#ifndef ACR_DATABASES_H
#define ACR_DATABASES_H

#include "counters.h"
#include "utils/timestamp.h"

/* what a session tells the launcher of its database */
#define ACR_NEWS_ACTIVE		0x01	/* there may be an active run */
#define ACR_NEWS_DEFERRED	0x02	/* a finalization was deferred */
#define ACR_NEWS_PREPARED	0x04	/* by a transaction that is but prepared */

#define ACR_MAX_DATABASES	4096

/* what a visit may have to do, in this order */
typedef enum AcrTaskId
{
	ACR_TASK_SETTLE,			/* apply deferred finalizations */
	ACR_TASK_BOOT_SWEEP,
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

extern Size acr_databases_shmem_size(void);
extern void acr_databases_shmem_init(void);

extern void acr_databases_prepare(void);
extern void acr_databases_raise(uint32 news);
extern void acr_databases_raise_quietly(uint32 news);
extern void acr_databases_count(AcrCounter counter, uint64 n);

extern bool acr_databases_begin_scan(void);
extern bool acr_databases_see(Oid dboid, bool connectable, bool at_start);
extern void acr_databases_end_scan(void);
extern Oid	acr_databases_claim_due(TimestampTz now, TimestampTz periodic_due,
									TimestampTz *next_due);
extern void acr_databases_forget_claims(void);
extern void acr_databases_unclaim(Oid dboid);
extern void acr_databases_reconsider(void);
extern void acr_databases_visit_lost(Oid dboid);

extern bool acr_databases_visit_begin(Oid dboid, AcrVisit *visit);
extern void acr_databases_visit_end(const AcrVisit *visit);

extern bool acr_task_book_failure(AcrTask *task);
extern int	acr_task_pause(const AcrTask *task);

#endif							/* ACR_DATABASES_H */
