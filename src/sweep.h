/*
 * Sweeps: aborting active runs that nobody executes any more.
 */
#ifndef ACR_SWEEP_H
#define ACR_SWEEP_H

#include "run_batch.h"

#define ACR_SWEPT_AT_BOOT_TEXT	"Run interrupted by a server restart."
#define ACR_SWEPT_STALE_TEXT	"Run aborted: its runner has been silent for too long."
#define ACR_REAPED_TEXT			"Run aborted: its runner has departed."
#define ACR_REPLACED_TEXT		"Run interrupted by a restart of its runner."
#define ACR_SUPERSEDED_TEXT		"Run superseded by another one."
#define ACR_SWEPT_BY_HAND_TEXT	"Run aborted by an operator."

extern bool acr_sweep_silent_since(TimestampTz since, AcrSweepFilter *filter);
extern bool acr_sweep_keep_if_called(const AcrSweepFilter *filter,
									 const AcrSweepCandidate *run);
extern bool acr_sweep_keep_if_alive(const AcrSweepFilter *filter,
									const AcrSweepCandidate *run);
extern int64 acr_sweep_step(const AcrSweepFilter *filter, const char *error,
							int64 limit, AcrCursor *cursor);
extern int64 acr_sweep_defer_locked(text *runner, const char *error,
									bool *all_decided);
extern int64 acr_purge_step(TimestampTz before, int64 limit,
							AcrCursor *cursor);

#endif							/* ACR_SWEEP_H */
