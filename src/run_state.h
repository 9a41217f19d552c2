/*
 * The state machine of a run.
 *
 *	  begin ----> running ----> succeeded | failed | aborted
 *	  pending --/  (an application's own INSERT may start at pending)
 *
 * A terminal state has no way out.  The names below are what the table's
 * check, the SQL texts and the trigger use; src/README.md lists what else there
 * is to edit for a new state.
 */
#ifndef ACR_RUN_STATE_H
#define ACR_RUN_STATE_H

#include "fmgr.h"

#define ACR_RUN_RUNNING		"running"
#define ACR_RUN_ABORTED		"aborted"

/* array literals for SQL; ACTIVE must read as in the partial index */
#define ACR_ACTIVE_STATES	"{pending,running}"
#define ACR_TERMINAL_STATES	"{succeeded,failed,aborted}"

extern bool acr_state_is_terminal(const char *status);
extern const char *acr_state_require_turn(FunctionCallInfo fcinfo, int argno);

#endif							/* ACR_RUN_STATE_H */
