/*
 * Many runs: the batches of sweeps and purges.
 */
#ifndef ACR_RUN_BATCH_H
#define ACR_RUN_BATCH_H

#include "run_table.h"

struct AcrSweepFilter;

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

extern int64 acr_table_sweep_batch(const AcrSweepFilter *filter,
								   const char *error, int64 limit,
								   pg_uuid_t *from_chat, bool *more);
extern bool acr_table_boot_sweep_left(const AcrSweepFilter *filter);
extern int64 acr_table_purge_batch(TimestampTz before, int64 limit,
								   pg_uuid_t *from_id, bool *more);
extern int	acr_table_which_active(pg_uuid_t *ids, int n, pg_uuid_t **active);
extern bool acr_table_any_old_prepared(void);
extern bool acr_table_any(AcrSqlId which);

#endif							/* ACR_RUN_BATCH_H */
