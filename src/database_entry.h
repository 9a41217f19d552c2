/*
 * An entry of the registry of databases, for the rooms that know it:
 * databases.c, which keeps the registry, visits.c, and observe.c, which shows it.
 */
#ifndef ACR_DATABASE_ENTRY_H
#define ACR_DATABASE_ENTRY_H

#include "databases.h"
#include "port/atomics.h"
#include "utils/hsearch.h"
#include "visits.h"

typedef enum AcrVisitState
{
	ACR_VISIT_NONE,
	ACR_VISIT_REQUESTED,		/* a worker was asked for */
	ACR_VISIT_RUNNING			/* the worker has begun */
} AcrVisitState;

#define ACR_LAST_ERROR_MAXLEN	256

typedef struct AcrDatabase
{
	Oid			dboid;			/* hash key */

	/* The launcher writes these, under the lock. */
	uint32		seen_in_scan;	/* the last scan of pg_database that saw it */
	bool		connectable;
	bool		present_at_start;

	/* The launcher and the worker write these, under the lock. */
	AcrVisitState visit;
	uint32		visit_number;	/* of the current or last one */
	bool		has_extension;	/* as of the last visit */
	AcrTask		tasks[ACR_N_TASKS];
	TimestampTz visited_at;		/* end of the last visit */
	int			failed_visits;	/* in a row */
	TimestampTz not_before;		/* end of the pause after the last of them */
	bool		reconsider;		/* settings changed during a visit */
	uint32		taken_news;		/* what the visit was told */
	TimestampTz boot_done_at;	/* 0: not yet */
	int64		boot_runs;
	char		last_error[ACR_LAST_ERROR_MAXLEN];
	TimestampTz last_error_at;

	/* Whoever resets the counters writes this, under the lock. */
	TimestampTz counted_since;

	/* Every session of the database writes these, at any time. */
	pg_atomic_uint32 news;
	pg_atomic_uint32 warned;	/* of several runners and what a restart does */
	pg_atomic_uint64 counters[ACR_N_COUNTERS];
} AcrDatabase;

/* The caller of these, and whoever walks the table, holds the lock. */
extern HTAB *acr_databases_table(void);
extern AcrDatabase *acr_databases_find(Oid dboid);

#endif							/* ACR_DATABASE_ENTRY_H */
