/*
 * The way to the run table and its companion, deferred_finalizations: every
 * read and write of them goes through here.
 */
#ifndef ACR_RUN_TABLE_H
#define ACR_RUN_TABLE_H

#include "postgres_ext.h"
#include "run_sql.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* which run: every statement of the application functions names both */
typedef struct AcrRunKey
{
	pg_uuid_t	id;
	pg_uuid_t	workspace_id;
} AcrRunKey;

typedef enum AcrSnapshotKind
{
	ACR_AS_WRITE,				/* a write, or a read that locks */
	ACR_AS_OF_NOW,				/* a read that decides */
	ACR_AS_OF_CALLER			/* a read for a STABLE function */
} AcrSnapshotKind;

/* parameters, in the order of the statement's numbering */
typedef struct AcrParams
{
	Datum		values[ACR_SQL_MAX_ARGS];
	char		nulls[ACR_SQL_MAX_ARGS];
	int			n;
} AcrParams;

extern void acr_param_value(AcrParams *p, Datum value);
extern void acr_param_pointer(AcrParams *p, const void *value);
extern void acr_param_time(AcrParams *p, TimestampTz value);
extern void acr_param_key(AcrParams *p, const pg_uuid_t *id,
						  const pg_uuid_t *workspace_id);

extern void acr_table_open(void);
extern void acr_table_close(void);
extern void acr_table_open_nonatomic(void);
extern void acr_table_commit(void);
extern uint64 acr_table_execute(AcrSqlId id, AcrSnapshotKind kind,
								AcrParams *p);
extern uint64 acr_table_run(AcrSqlId id, AcrSnapshotKind kind, AcrParams *p);

extern Datum acr_column(uint64 row, int number, bool *isnull);
extern bool acr_column_bool(uint64 row, int number);
extern void acr_column_uuid(uint64 row, int number, pg_uuid_t *result);

extern bool acr_uuid_increment(pg_uuid_t *uuid);

extern bool acr_table_exists(Oid *owner);
extern Oid	acr_table_oid(void);
extern bool acr_table_has_policies(void);
extern bool acr_table_deferred_is_blank(void);
extern void acr_table_grant(const char *command);

#endif							/* ACR_RUN_TABLE_H */
