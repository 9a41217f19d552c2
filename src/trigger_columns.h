/*
 * Columns of the rows that a trigger is given, by name.
 */
#ifndef ACR_TRIGGER_COLUMNS_H
#define ACR_TRIGGER_COLUMNS_H

#include "access/htup.h"
#include "utils/relcache.h"
#include "utils/uuid.h"

extern int	acr_column_number(Relation rel, const char *name);
extern int	acr_column_require(Relation rel, const char *name, Oid type);

/* columns of the run table that its triggers look at */
typedef enum AcrRunColumn
{
	ACR_COLUMN_ID,
	ACR_COLUMN_CHAT_ID,
	ACR_COLUMN_WORKSPACE_ID,
	ACR_COLUMN_STATUS,
	ACR_COLUMN_ERROR,
	ACR_COLUMN_RUNNER,
	ACR_COLUMN_STOP_REQUESTED_AT,
	ACR_COLUMN_FINISHED_AT,
	ACR_N_RUN_COLUMNS
} AcrRunColumn;

extern const char *acr_run_column_name(AcrRunColumn column);
extern int	acr_run_column_number(Relation rel, AcrRunColumn column);
extern Datum acr_run_column(Relation rel, HeapTuple row, AcrRunColumn column,
							bool *isnull);
extern pg_uuid_t *acr_run_column_uuid(Relation rel, HeapTuple row,
									  AcrRunColumn column);

#endif							/* ACR_TRIGGER_COLUMNS_H */
