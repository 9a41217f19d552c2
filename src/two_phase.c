/*
 * Noticing that a prepared transaction is committed.
 *
 * The server tells modules when their own session's transactions commit, but
 * not of a prepared transaction that a session commits for another one.  What
 * that did is visible all at once, and shared memory and those who wait know
 * nothing of it.  So we watch the command, through the hook for utility
 * commands.  The command cannot be rolled back: when it returns, all is done.
 */
#include "postgres.h"

#include "commit_news.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "two_phase.h"

static ProcessUtility_hook_type prev_process_utility_hook = NULL;

static bool
commits_prepared(PlannedStmt *pstmt)
{
	return IsA(pstmt->utilityStmt, TransactionStmt) &&
		castNode(TransactionStmt, pstmt->utilityStmt)->kind == TRANS_STMT_COMMIT_PREPARED;
}

static void
watch_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			  ProcessUtilityContext context, ParamListInfo params,
			  QueryEnvironment *queryEnv, DestReceiver *dest,
			  QueryCompletion *qc)
{
	/* The tree may be gone afterwards. */
	bool		told = commits_prepared(pstmt);

	if (prev_process_utility_hook)
		prev_process_utility_hook(pstmt, queryString, readOnlyTree, context,
								  params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);

	if (told)
		acr_news_prepared_committed();
}

/* Called while the library is being preloaded. */
void
acr_two_phase_init(void)
{
	prev_process_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = watch_utility;
}
