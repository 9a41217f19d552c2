/*
 * Names that every room of the extension shares.
 *
 * The SQLSTATEs are interface: applications branch on them.
 */
#ifndef AI_CHAT_RUN_H
#define AI_CHAT_RUN_H

#include "utils/elog.h"

#define ACR_EXTENSION		"ai_chat_run"
#define ACR_SCHEMA			"ai_chat_run"
#define ACR_RUNS_TABLE		"ai_chat_runs"
#define ACR_DEFERRED_TABLE	"deferred_finalizations"
#define ACR_RUNNERS_TABLE	"runners"
#define ACR_ACTIVE_INDEX	"ai_chat_runs_one_active_per_chat"

/* the chat has an active run already */
#define ACR_ERRCODE_RUN_ALREADY_ACTIVE	MAKE_SQLSTATE('R', 'N', '4', '0', '9')
/* a terminal run was about to be changed */
#define ACR_ERRCODE_RUN_IS_FINAL		MAKE_SQLSTATE('R', 'N', '4', '1', '0')
/* the terminal write was given up and deferred */
#define ACR_ERRCODE_RUN_DEFERRED		MAKE_SQLSTATE('R', 'N', '5', '0', '0')

/* the longest runner name; it has to fit a fixed place in shared memory */
#define ACR_RUNNER_MAXLEN	127

#endif							/* AI_CHAT_RUN_H */
