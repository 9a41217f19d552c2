/*
 * The run table and its companion, deferred_finalizations: every read and
 * write of them goes through here.
 */
#ifndef ACR_RUN_TABLE_H
#define ACR_RUN_TABLE_H

#include "access/transam.h"
#include "fmgr.h"
#include "run_sql.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* which run: every statement of the application functions names both */
typedef struct AcrRunKey
{
	pg_uuid_t	id;
	pg_uuid_t	workspace_id;
} AcrRunKey;

typedef struct AcrRun
{
	char		status[NAMEDATALEN];
	bool		is_terminal;
	bool		stop_requested;
	pg_uuid_t	chat_id;
} AcrRun;

typedef struct AcrNewRun
{
	AcrRunKey	key;
	pg_uuid_t	chat_id;
	pg_uuid_t  *created_by;		/* or NULL */
	text	   *trigger;
	text	   *runner;			/* or NULL */
} AcrNewRun;

typedef struct AcrActiveRun
{
	pg_uuid_t	id;
	TimestampTz since;
} AcrActiveRun;

/* a sweep's choice of runs; see run_sql.c */
typedef struct AcrSweepFilter
{
	bool		at_boot;
	TimestampTz silent_since;	/* updated before this; DT_NOEND: whenever */
	text	   *runner;			/* or NULL; not at boot */
	TimestampTz created_before; /* at boot only */
} AcrSweepFilter;

typedef enum AcrStopMark
{
	ACR_STOP_MARKED,			/* this call stamped it */
	ACR_STOP_WAS_MARKED,		/* active, and stamped already */
	ACR_STOP_NOTHING			/* no such active run */
} AcrStopMark;

/* begin */
extern bool acr_table_insert(const AcrNewRun *run, bool once);
extern bool acr_table_find_active(const pg_uuid_t *chat_id,
								  const pg_uuid_t *workspace_id,
								  AcrActiveRun *active);
extern bool acr_table_busy_elsewhere(const pg_uuid_t *chat_id,
									 const pg_uuid_t *workspace_id);

/* one run */
extern bool acr_table_find(const AcrRunKey *key, AcrRun *run);
extern bool acr_table_finish(const AcrRunKey *key, const char *status,
							 text *error);
extern bool acr_table_record_step(const AcrRunKey *key, int32 step_count,
								  bool *stop_requested);
extern bool acr_table_heartbeat(const AcrRunKey *key, bool *stop_requested);
extern bool acr_table_link(const AcrRunKey *key, const pg_uuid_t *message_id);
extern bool acr_table_mark_stop(const AcrRunKey *key);
extern bool acr_table_mark_stop_of_chat(const pg_uuid_t *chat_id,
										const pg_uuid_t *workspace_id,
										pg_uuid_t *run_id);
extern void acr_table_delete_of_chat(const pg_uuid_t *chat_id,
									 const pg_uuid_t *workspace_id);
extern Datum acr_table_get(FunctionCallInfo fcinfo, AcrSqlId which,
						   const pg_uuid_t *id, const pg_uuid_t *workspace_id);

/* deferred finalizations */
extern bool acr_table_defer(const AcrRunKey *key, const char *status,
							text *error, const char *cause);
extern char *acr_table_find_deferred(const AcrRunKey *key);
extern int	acr_table_list_deferred(const AcrRunKey *after,
									const pg_uuid_t *run_id,
									AcrRunKey **keys);
extern bool acr_table_lock_now(const AcrRunKey *key);
extern bool acr_table_apply_deferred(const AcrRunKey *key);
extern bool acr_table_forget_deferred(const AcrRunKey *key);

/* many runs */
extern int64 acr_table_sweep_batch(const AcrSweepFilter *filter,
								   const char *error, int64 limit,
								   pg_uuid_t *from_chat, bool *more);
extern bool acr_table_boot_sweep_left(const AcrSweepFilter *filter);
extern int64 acr_table_purge_batch(TimestampTz before, int64 limit,
								   pg_uuid_t *from_id, bool *more);
extern bool acr_table_any(AcrSqlId which);

/* the place itself */
extern bool acr_table_exists(Oid *owner);
extern void acr_table_grant(const char *command);

#endif							/* ACR_RUN_TABLE_H */
