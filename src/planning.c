/*
 * Plans for the extension's own statements that do not depend on statistics.
 *
 * A run table is empty when it is made and has few active runs among millions
 * of finished ones later; ANALYZE may look at either moment.  A plan that a
 * session keeps from the wrong one reads the whole table, or all entries of
 * the partial index, for each call.  There is nothing to weigh: each of our
 * statements is written for one index of the run table.  So while one of them
 * is planned, and only then, the planner is shown that index alone and is kept
 * from sequential and bitmap scans, sorts and hashes.
 *
 * This leans on two hooks of the planner, both passed on: planner_hook, to know
 * that the statement is ours (by its text), and get_relation_info_hook, which
 * exists to let a module edit a table's list of indexes.  Everything else, row
 * security, triggers, other modules' hooks, works as for any statement.  If
 * the index is not there, say because somebody rebuilt the table in his own
 * way, all indexes stay in the list and the planner picks one.
 */
#include "postgres.h"

#include "ai_chat_run.h"
#include "catalog/namespace.h"
#include "jit/jit.h"
#include "nodes/pathnodes.h"
#include "optimizer/cost.h"
#include "optimizer/plancat.h"
#include "optimizer/planner.h"
#include "planning.h"
#include "run_sql.h"
#include "utils/lsyscache.h"

static planner_hook_type prev_planner_hook = NULL;
static get_relation_info_hook_type prev_get_relation_info_hook = NULL;

/* the statement of ours that is being planned, or NULL */
static const AcrSql *planned = NULL;

/* the planner's switches, and how we want them */
static const struct
{
	bool	   *variable;
	bool		value;
}			switches[] = {
	{&enable_indexscan, true},
	{&enable_tidscan, true},
	{&enable_nestloop, true},
	{&enable_seqscan, false},
	{&enable_bitmapscan, false},
	{&enable_sort, false},
	{&enable_hashjoin, false},
	{&enable_mergejoin, false},
	{&jit_enabled, false},
};

/* how the user has them, while one of our statements is planned */
static bool users_switches[lengthof(switches)];

static const AcrSql *
find_statement(const char *query_string)
{
	if (query_string == NULL ||
		strncmp(query_string, ACR_SQL_MARK, strlen(ACR_SQL_MARK)) != 0)
		return NULL;

	for (int i = 0; i < ACR_N_SQL; i++)
	{
		if (strcmp(query_string, acr_sql[i].text) == 0)
			return &acr_sql[i];
	}
	return NULL;
}

static PlannedStmt *
call_planner(Query *parse, const char *query_string, int cursorOptions,
			 ParamListInfo boundParams)
{
	if (prev_planner_hook)
		return prev_planner_hook(parse, query_string, cursorOptions, boundParams);
	return standard_planner(parse, query_string, cursorOptions, boundParams);
}

static void
save_switches(bool *saved)
{
	for (size_t i = 0; i < lengthof(switches); i++)
		saved[i] = *switches[i].variable;
}

static void
restore_switches(const bool *saved)
{
	for (size_t i = 0; i < lengthof(switches); i++)
		*switches[i].variable = saved[i];
}

/* Turns the switches for a statement of ours, or back for one of the user's. */
static void
turn_switches(bool ours)
{
	if (!ours)
		restore_switches(users_switches);
	else
	{
		if (planned == NULL)
			save_switches(users_switches);
		for (size_t i = 0; i < lengthof(switches); i++)
			*switches[i].variable = switches[i].value;
	}
}

/*
 * The switches are set directly, not through the settings machinery: for the
 * time of one call of the planner.  The planner may evaluate a user's function,
 * in a row security policy say, and that may have statements of its own to
 * plan; for those everything is as the user has set it.
 */
static PlannedStmt *
plan_statement(Query *parse, const char *query_string, int cursorOptions,
			   ParamListInfo boundParams)
{
	const AcrSql *statement = find_statement(query_string);
	const AcrSql *volatile outer = planned;
	bool		saved[lengthof(switches)];
	PlannedStmt *volatile result;

	if (statement == NULL && outer == NULL)
		return call_planner(parse, query_string, cursorOptions, boundParams);

	save_switches(saved);
	turn_switches(statement != NULL);
	planned = statement;
	PG_TRY();
	{
		result = call_planner(parse, query_string, cursorOptions, boundParams);
	}
	PG_FINALLY();
	{
		planned = outer;
		restore_switches(saved);
	}
	PG_END_TRY();

	return result;
}

static bool
is_run_table(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name != NULL && strcmp(name, ACR_RUNS_TABLE) == 0 &&
		get_rel_namespace(relid) == get_namespace_oid(ACR_SCHEMA, true);
}

/* Leaves the statement's own index in the list, if it is there. */
static void
show_one_index(PlannerInfo *root, Oid relationObjectId, bool inhparent,
			   RelOptInfo *rel)
{
	ListCell   *lc;

	if (prev_get_relation_info_hook)
		prev_get_relation_info_hook(root, relationObjectId, inhparent, rel);

	if (planned == NULL || planned->index == NULL ||
		!is_run_table(relationObjectId))
		return;

	foreach(lc, rel->indexlist)
	{
		IndexOptInfo *index = lfirst_node(IndexOptInfo, lc);
		char	   *name = get_rel_name(index->indexoid);

		if (name != NULL && strcmp(name, planned->index) == 0)
		{
			rel->indexlist = list_make1(index);
			return;
		}
	}
}

void
acr_planning_init(void)
{
	prev_planner_hook = planner_hook;
	planner_hook = plan_statement;
	prev_get_relation_info_hook = get_relation_info_hook;
	get_relation_info_hook = show_one_index;
}
