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
extern Datum acr_column_of(Relation rel, HeapTuple row, const char *name,
						   Oid type, bool *isnull);
extern pg_uuid_t *acr_column_uuid_of(Relation rel, HeapTuple row,
									 const char *name);
extern pg_uuid_t *acr_column_run_id(Relation rel, HeapTuple row);

#endif							/* ACR_TRIGGER_COLUMNS_H */
