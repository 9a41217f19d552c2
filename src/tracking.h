/*
 * A look at a run's row that shared memory learns from.
 */
#ifndef ACR_TRACKING_H
#define ACR_TRACKING_H

#include "live_runs.h"
#include "run_row.h"

extern bool acr_track(const AcrRunKey *key, bool heard, AcrRun *run,
					  bool *tracked);
extern bool acr_track_is_visible(const AcrRunKey *key);
extern int	acr_track_check_some(TimestampTz before);
extern void acr_track_fill(AcrLiveRun *live, const pg_uuid_t *workspace_id,
						   const pg_uuid_t *chat_id, const char *runner);

#endif							/* ACR_TRACKING_H */
