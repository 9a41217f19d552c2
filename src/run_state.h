/*
 * The state machine of a run.
 *
 *	  begin ----> running ----> succeeded | failed | aborted
 *	  pending --/  (an application's own INSERT may start at pending)
 *
 * A terminal state has no way out.  The names below are what the table's
 * check, the SQL texts and the trigger use; to add a state, edit this room,
 * the check and the index predicate in sql/parts/table.sql, and the diagram in
 * src/README.md.
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
