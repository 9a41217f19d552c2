/*
 * What the roads of a sweep to its batches share.
 */
#ifndef ACR_SWEEP_BATCH_H
#define ACR_SWEEP_BATCH_H

#include "run_batch.h"

extern ArrayType *acr_place_array(Datum *places, int n);
extern void acr_sweep_add_boot_filter(AcrParams *p, const AcrSweepFilter *filter);
extern uint64 acr_sweep_look(const AcrSweepFilter *filter, int64 limit,
							 pg_uuid_t *from_chat, bool *more);
extern ItemPointerData acr_sweep_place(uint64 row);
extern ArrayType *acr_sweep_places(const AcrSweepFilter *filter, uint64 n,
								   int *collected);
extern int64 acr_sweep_abort_locked(ArrayType *places, const char *error);

extern int64 acr_boot_batch_abort(const AcrSweepFilter *filter, const char *error,
								  int64 limit, AcrCursor *cursor);

#endif							/* ACR_SWEEP_BATCH_H */
