/*
 * Commands of the server's own that change what shared memory knows.
 *
 * COMMIT PREPARED: the server tells modules when their own session's
 * transactions commit, but not of a prepared transaction that a session commits
 * for another one.  What that did is visible all at once, and shared memory and
 * those who wait know nothing of it.  The command cannot be rolled back: when
 * it returns, all is done.  PREPARE TRANSACTION and ROLLBACK PREPARED: for
 * prepared.c to know which ones concern us.
 *
 * DISCARD ALL: so a pooler gives a session to another client.  To the runner
 * that had attached it is as if the session had ended.
 */
#include "postgres.h"

#include "commit_news.h"
#include "nodes/parsenodes.h"
#include "prepared.h"
#include "runners.h"
#include "tcop/utility.h"
#include "watched_commands.h"

static ProcessUtility_hook_type prev_process_utility_hook = NULL;

static bool
discards_all(Node *command)
{
	return IsA(command, DiscardStmt) &&
		castNode(DiscardStmt, command)->target == DISCARD_ALL;
}

/* The global identifier, if the command is about a prepared transaction. */
static char *
prepared_gid(Node *command, TransactionStmtKind *kind)
{
	TransactionStmt *stmt = (TransactionStmt *) command;

	if (!IsA(command, TransactionStmt) || stmt->gid == NULL)
		return NULL;
	*kind = stmt->kind;

	/* The tree may be gone when the command is done. */
	return pstrdup(stmt->gid);
}

static void
call_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			 ProcessUtilityContext context, ParamListInfo params,
			 QueryEnvironment *queryEnv, DestReceiver *dest,
			 QueryCompletion *qc)
{
	if (prev_process_utility_hook)
		prev_process_utility_hook(pstmt, queryString, readOnlyTree, context,
								  params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/*
 * COMMIT PREPARED or ROLLBACK PREPARED.  The name is taken off the list before,
 * since it may be given anew as soon as the command is done.
 */
static void
call_for_prepared(const char *gid, bool commits, PlannedStmt *pstmt,
				  const char *queryString, bool readOnlyTree,
				  ProcessUtilityContext context, ParamListInfo params,
				  QueryEnvironment *queryEnv, DestReceiver *dest,
				  QueryCompletion *qc)
{
	bool		listed = acr_prepared_take(gid);
	volatile bool ours = commits && (listed || acr_prepared_unknown_ones());

	if (ours)
		acr_news_prepared_committing();
	PG_TRY();
	{
		call_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv,
					 dest, qc);
	}
	PG_CATCH();
	{
		acr_prepared_end_take(false);
		if (ours)
			acr_news_prepared_committed();
		PG_RE_THROW();
	}
	PG_END_TRY();
	acr_prepared_end_take(true);
	if (ours)
		acr_news_prepared_committed();
}

static void
watch_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			  ProcessUtilityContext context, ParamListInfo params,
			  QueryEnvironment *queryEnv, DestReceiver *dest,
			  QueryCompletion *qc)
{
	TransactionStmtKind kind = TRANS_STMT_BEGIN;
	char	   *gid = prepared_gid(pstmt->utilityStmt, &kind);
	bool		discards = discards_all(pstmt->utilityStmt);

	if (gid != NULL && kind == TRANS_STMT_PREPARE)
		acr_prepared_expect(gid);

	if (gid != NULL && kind != TRANS_STMT_PREPARE)
		call_for_prepared(gid, kind == TRANS_STMT_COMMIT_PREPARED, pstmt,
						  queryString, readOnlyTree, context, params, queryEnv,
						  dest, qc);
	else
		call_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv,
					 dest, qc);

	if (discards)
		acr_runners_depart();
}

/* Called while the library is being preloaded. */
void
acr_watch_commands(void)
{
	prev_process_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = watch_utility;
}
