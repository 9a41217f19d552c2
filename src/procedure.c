/*
 * Procedures that wait, and commit in between.
 *
 * A session that waits shall hold nothing that others could miss: no snapshot,
 * or VACUUM could remove nothing; no lock; no transaction id.  So a step that
 * looks at the tables is a transaction of its own, and while the procedure
 * sleeps it is in a new one that has not done anything yet.
 *
 * The server lets only a procedure commit that was called outside a transaction
 * block, and that is not SECURITY DEFINER.  The rights of the owner, which the
 * steps need, are taken on for each of them; an error gives them back, too.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_proc.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "procedure.h"
#include "run_table.h"
#include "shared_state.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

static Oid
owner_of(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * To be called first.
 *
 * Errors: 55000 without preloading, 25001 in a transaction block, 25006 on a
 * standby, whose shared memory knows nothing of what its primary does.
 */
void
acr_procedure_begin(AcrProcedure *proc, FunctionCallInfo fcinfo,
					const char *name)
{
	CallContext *call = (CallContext *) fcinfo->context;

	acr_shared_require(name);
	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block", name)));
	PreventCommandDuringRecovery(name);

	/*
	 * Looked up now, for while it sleeps the extension may be dropped, and
	 * made anew.
	 */
	if (get_call_result_type(fcinfo, NULL, &proc->result) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	proc->result = BlessTupleDesc(proc->result);

	proc->context = CurrentMemoryContext;
	proc->step_context = AllocSetContextCreate(proc->context, "ai_chat_run step",
											   ALLOCSET_DEFAULT_SIZES);
	proc->owner = owner_of(fcinfo->flinfo->fn_oid);
	acr_table_open_nonatomic();
	MemoryContextSwitchTo(proc->context);
}

/*
 * Begins a step: with a snapshot, with the owner's rights, and in a memory
 * context that is empty.  There may be many steps in one call.
 */
void
acr_procedure_enter(AcrProcedure *proc)
{
	MemoryContextReset(proc->step_context);
	MemoryContextSwitchTo(proc->step_context);
	EnsurePortalSnapshotExists();
	GetUserIdAndSecContext(&proc->user, &proc->sec_context);
	SetUserIdAndSecContext(proc->owner,
						   proc->sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

/*
 * Ends a step: gives up the rights and the snapshot.  The rights come first, as
 * the server wants it; a deferred trigger runs with those of the caller, as it
 * does after a SECURITY DEFINER function, and since 18 with the owner's.
 */
void
acr_procedure_commit(AcrProcedure *proc)
{
	SetUserIdAndSecContext(proc->user, proc->sec_context);
	acr_table_commit();
	MemoryContextSwitchTo(proc->context);
}

/* Before sleeping without a step: the call itself has a snapshot. */
void
acr_procedure_let_go(AcrProcedure *proc)
{
	acr_table_commit();
}

/* The last step must have been committed. */
void
acr_procedure_end(AcrProcedure *proc)
{
	acr_table_close();
	MemoryContextSwitchTo(proc->context);
}

/* The values of the INOUT arguments. */
Datum
acr_procedure_result(AcrProcedure *proc, Datum *values, bool *nulls)
{
	return HeapTupleGetDatum(heap_form_tuple(proc->result, values, nulls));
}
