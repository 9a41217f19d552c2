/*
 * One deferred finalization: its row, typed.
 */
#ifndef ACR_DEFERRED_ROW_H
#define ACR_DEFERRED_ROW_H

#include "run_table.h"

extern bool acr_table_defer(const AcrRunKey *key, const char *status,
							text *error, const char *cause);
extern char *acr_table_find_deferred(const AcrRunKey *key);
extern int	acr_table_list_deferred(AcrRunKey *from,
									const pg_uuid_t *run_id,
									TimestampTz due_by, AcrRunKey **keys,
									bool *more);
extern void acr_table_postpone_deferred(const AcrRunKey *key);
extern bool acr_table_next_deferred(TimestampTz *next_attempt_at);
extern bool acr_table_lock_now(const AcrRunKey *key);
extern bool acr_table_apply_deferred(const AcrRunKey *key);
extern bool acr_table_forget_deferred(const AcrRunKey *key);

#endif							/* ACR_DEFERRED_ROW_H */
