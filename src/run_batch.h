/*
 * Many runs: the batches of sweeps (sweep_batch.c) and purges (run_batch.c).
 */
#ifndef ACR_RUN_BATCH_H
#define ACR_RUN_BATCH_H

#include "run_table.h"
#include "storage/itemptr.h"
#include "utils/array.h"

struct AcrSweepFilter;

extern ArrayType *acr_uuid_array(Datum *ids, int n);

typedef struct AcrSweepCandidate
{
	pg_uuid_t	id;
	char	   *runner;			/* or NULL */
	TimestampTz begun_at;
} AcrSweepCandidate;

/* Shall the run stay, whatever its row says? */
typedef bool (*AcrSweepKeep) (const struct AcrSweepFilter *filter,
							  const AcrSweepCandidate *run);

/* a sweep's choice of runs; see run_sql.c */
typedef struct AcrSweepFilter
{
	AcrSweepKeep keep;			/* asked of each run; or NULL */
	bool		at_boot;
	TimestampTz silent_since;	/* updated before this; DT_NOEND: whenever */
	text	   *runner;			/* or NULL; not at boot */
	TimestampTz created_before; /* at boot only */
} AcrSweepFilter;

/* where a sweep or purge is; all zeroes at its beginning */
typedef struct AcrCursor
{
	pg_uuid_t	from;
	bool		begun;
	bool		more;

	/* at boot: what was looked at up to "from" and is to be locked */
	ItemPointer places;			/* in the order of the table */
	int			n_places;
	int			next_place;
	bool		more_beyond;
} AcrCursor;

extern int64 acr_table_sweep_batch(const AcrSweepFilter *filter,
								   const char *error, int64 limit,
								   AcrCursor *cursor);
extern bool acr_table_boot_sweep_left(const AcrSweepFilter *filter);
extern int64 acr_table_purge_batch(TimestampTz before, int64 limit,
								   pg_uuid_t *from_id, bool *more);
extern int	acr_table_which_active(pg_uuid_t *ids, int n, pg_uuid_t **active);
extern bool acr_table_any_old_prepared(void);
extern bool acr_table_any(AcrSqlId which);

#endif							/* ACR_RUN_BATCH_H */
