/*
 * The SQL text of every statement that the extension runs on its tables.
 */
#ifndef ACR_RUN_SQL_H
#define ACR_RUN_SQL_H

#include "postgres_ext.h"

#define ACR_SQL_MAX_ARGS	8

typedef enum AcrSqlId
{
	ACR_SQL_INSERT_RUN,
	ACR_SQL_INSERT_RUN_ONCE,
	ACR_SQL_FIND_RUN,
	ACR_SQL_FIND_ACTIVE_OF_CHAT,
	ACR_SQL_CHAT_BUSY_ELSEWHERE,
	ACR_SQL_FINISH_RUN,
	ACR_SQL_RECORD_STEP,
	ACR_SQL_HEARTBEAT,
	ACR_SQL_LINK_MESSAGE,
	ACR_SQL_MARK_STOP,
	ACR_SQL_MARK_STOP_OF_CHAT,
	ACR_SQL_GET_RUN,
	ACR_SQL_GET_LATEST_OF_CHAT,
	ACR_SQL_GET_ACTIVE_OF_CHAT,
	ACR_SQL_DEFER,
	ACR_SQL_FIND_DEFERRED,
	ACR_SQL_LIST_DEFERRED,
	ACR_SQL_POSTPONE_DEFERRED,
	ACR_SQL_NEXT_DEFERRED,
	ACR_SQL_LOCK_RUN,
	ACR_SQL_APPLY_DEFERRED,
	ACR_SQL_FORGET_DEFERRED,
	ACR_SQL_SWEEP_LOCK,
	ACR_SQL_BOOT_SWEEP_LOCK,
	ACR_SQL_SWEEP_NOT_DEFERRED,
	ACR_SQL_SWEEP_ABORT,
	ACR_SQL_BOOT_SWEEP_LEFT,
	ACR_SQL_ANY_ACTIVE,
	ACR_SQL_ANY_PREPARED_XACT,
	ACR_SQL_PURGE_LOOK,
	ACR_SQL_PURGE_DELETE,
	ACR_SQL_DELETE_OF_CHAT,
	ACR_SQL_DELETE_OF_CHAT_ANYWHERE,
	ACR_N_SQL
} AcrSqlId;

typedef struct AcrSql
{
	const char *text;
	const char *index;			/* the index of the run table that it must use */
	int			nargs;
	Oid			argtypes[ACR_SQL_MAX_ARGS];
} AcrSql;

extern const AcrSql acr_sql[ACR_N_SQL];

/* Every text begins with this, so that the planner hook knows it at a glance. */
#define ACR_SQL_MARK	"/* ai_chat_run */ "

#endif							/* ACR_RUN_SQL_H */
