/*
 * grant_app_access: what an application's role needs, and no more.
 */
#include "postgres.h"

#include "ai_chat_run.h"
#include "arguments.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "run_table.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

PG_FUNCTION_INFO_V1(acr_grant_app_access);

/* The functions and procedures that an application may call; none is overloaded. */
static const char *const app_functions[] = {
	"begin_run", "try_begin_run", "record_step", "heartbeat",
	"link_assistant_message", "finalize_run", "map_turn_status",
	"request_stop", "request_stop_for_chat", "settle_deferred",
	"get_run", "get_latest_for_chat", "get_active_for_chat",
	"delete_runs_of_chat", "is_locally_active", "attach_runner",
	"await_run", "await_stop", "await_stops", "supersede_run",
};

/*
 * GRANT by somebody who has no grant option is a mere warning of the server's;
 * here it shall not look like a success.
 */
static void
require_grant_option(bool has_option, const char *kind, const char *name)
{
	if (!has_option)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to grant access to %s %s", kind, name)));
}

static void
grant_schema(const char *role)
{
	Oid			schema = get_namespace_oid(ACR_SCHEMA, false);
	Datum		option = CStringGetTextDatum("USAGE WITH GRANT OPTION");

	require_grant_option(DatumGetBool(DirectFunctionCall2(has_schema_privilege_id,
														  ObjectIdGetDatum(schema),
														  option)),
						 "schema", ACR_SCHEMA);
	acr_table_grant(psprintf("GRANT USAGE ON SCHEMA %s TO %s", ACR_SCHEMA, role));
}

static void
grant_function(const char *name, const char *role)
{
	ObjectWithArgs *object = makeNode(ObjectWithArgs);
	Oid			function;
	Datum		option = CStringGetTextDatum("EXECUTE WITH GRANT OPTION");

	object->objname = list_make2(makeString(ACR_SCHEMA), makeString(pstrdup(name)));
	object->args_unspecified = true;
	function = LookupFuncWithArgs(OBJECT_ROUTINE, object, false);
	require_grant_option(DatumGetBool(DirectFunctionCall2(has_function_privilege_id,
														  ObjectIdGetDatum(function),
														  option)),
						 "function", name);
	acr_table_grant(psprintf("GRANT EXECUTE ON ROUTINE %s.%s TO %s",
							 ACR_SCHEMA, name, role));
}

/*
 * grant_app_access(role regrole) returns void
 *
 * Lets the role use the schema and execute the functions for applications.  It
 * gets no right on the tables: the functions are the way in.  Runs with the
 * rights of the caller, who has to be the owner or to have the grant options.
 *
 * Errors: 22004 for a null, 42704 for a role that does not exist, 42501 for a
 * caller who may not grant.
 */
Datum
acr_grant_app_access(PG_FUNCTION_ARGS)
{
	const char *role;

	acr_require_not_null(fcinfo, 0, "role");
	PreventCommandIfReadOnly("grant_app_access()");
	if (!OidIsValid(PG_GETARG_OID(0)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"-\" does not exist")));
	role = quote_identifier(GetUserNameFromId(PG_GETARG_OID(0), false));

	grant_schema(role);
	for (size_t i = 0; i < lengthof(app_functions); i++)
		grant_function(app_functions[i], role);
	PG_RETURN_VOID();
}
