/*
 * One run: its row, typed.
 */
#ifndef ACR_RUN_ROW_H
#define ACR_RUN_ROW_H

#include "ai_chat_run.h"
#include "fmgr.h"
#include "run_table.h"
#include "utils/array.h"

typedef struct AcrRun
{
	char		status[NAMEDATALEN];
	bool		is_terminal;
	bool		stop_requested;
	pg_uuid_t	chat_id;
	char		runner[ACR_RUNNER_MAXLEN + 1];	/* or empty */
	char	   *error;			/* of a terminal run, or NULL */
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

/* begin */
extern bool acr_table_insert(const AcrNewRun *run, bool once);
extern bool acr_table_find_active(const pg_uuid_t *chat_id,
								  const pg_uuid_t *workspace_id,
								  AcrActiveRun *active);
extern bool acr_table_busy_elsewhere(const pg_uuid_t *chat_id,
									 const pg_uuid_t *workspace_id);

/* one run */
extern void acr_table_raise_no_effect(const pg_uuid_t *run_id);
extern bool acr_table_find(const AcrRunKey *key, AcrRun *run);
extern bool acr_table_finish(const AcrRunKey *key, const char *status,
							 text *error);
extern bool acr_table_record_step(const AcrRunKey *key, int32 step_count,
								  bool stop_requested, AcrRun *run);
extern bool acr_table_heartbeat(const AcrRunKey *key, AcrRun *run);
extern bool acr_table_link(const AcrRunKey *key, const pg_uuid_t *message_id);
extern bool acr_table_mark_stop(const AcrRunKey *key);
extern bool acr_table_mark_stop_of_chat(const pg_uuid_t *chat_id,
										const pg_uuid_t *workspace_id,
										pg_uuid_t *run_id);
extern int	acr_table_stops_of_runner(const char *runner, ArrayType *seen,
									  pg_uuid_t **run_ids);
extern bool acr_table_is_active(const pg_uuid_t *run_id, TimestampTz since,
								bool *written_since, char *runner);
extern void acr_table_delete_of_chat(const pg_uuid_t *chat_id,
									 const pg_uuid_t *workspace_id);
extern Datum acr_table_get(FunctionCallInfo fcinfo, AcrSqlId which,
						   const pg_uuid_t *id, const pg_uuid_t *workspace_id);

#endif							/* ACR_RUN_ROW_H */
