/*
 * Taking a chat's slot.
 */
#ifndef ACR_BEGIN_H
#define ACR_BEGIN_H

#include "run_row.h"

typedef enum AcrBeginOutcome
{
	ACR_BEGAN,
	ACR_RESUMED,				/* the given run id was there */
	ACR_BUSY,					/* this workspace's run is active */
	ACR_BUSY_ELSEWHERE,			/* another workspace's run is active */
	ACR_BUSY_CLAIMED,			/* another session supersedes the chat's run */
	ACR_BUSY_UNNAMED			/* it supersedes what is no run of the chat */
} AcrBeginOutcome;

extern text *acr_begin_runner(text *runner);
extern AcrBeginOutcome acr_begin(const AcrNewRun *run, bool id_given,
								 bool quietly, AcrActiveRun *active);

#endif							/* ACR_BEGIN_H */
