/*
 * Procedures that wait, and commit in between.
 */
#ifndef ACR_PROCEDURE_H
#define ACR_PROCEDURE_H

#include "access/tupdesc.h"
#include "fmgr.h"

typedef struct AcrProcedure
{
	TupleDesc	result;			/* of the INOUT arguments */
	MemoryContext context;		/* the caller's, for what is returned */
	MemoryContext step_context; /* for one step, and until the next begins */
	Oid			owner;

	/* of the caller, while a step of ours runs */
	Oid			user;
	int			sec_context;
} AcrProcedure;

extern void acr_procedure_begin(AcrProcedure *proc, FunctionCallInfo fcinfo,
								const char *name);
extern void acr_procedure_enter(AcrProcedure *proc);
extern void acr_procedure_commit(AcrProcedure *proc);
extern void acr_procedure_let_go(AcrProcedure *proc);
extern void acr_procedure_end(AcrProcedure *proc);
extern Datum acr_procedure_result(AcrProcedure *proc, Datum *values,
								  bool *nulls);

#endif							/* ACR_PROCEDURE_H */
