/*
 * Checks of SQL arguments.
 */
#include "postgres.h"

#include "ai_chat_run.h"
#include "arguments.h"
#include "utils/builtins.h"

/* Raises 22004 if the argument is null. */
void
acr_require_not_null(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

pg_uuid_t *
acr_require_uuid(FunctionCallInfo fcinfo, int argno, const char *name)
{
	acr_require_not_null(fcinfo, argno, name);
	return PG_GETARG_UUID_P(argno);
}

pg_uuid_t *
acr_optional_uuid(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_UUID_P(argno);
}

text *
acr_optional_text(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_TEXT_PP(argno);
}

/* A bound on how many; null means no bound.  Raises 22023 if negative. */
int64
acr_optional_count(FunctionCallInfo fcinfo, int argno, const char *name)
{
	int64		count;

	if (PG_ARGISNULL(argno))
		return PG_INT64_MAX;
	count = PG_GETARG_INT64(argno);
	if (count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name)));
	return count;
}

/*
 * The moment that lies the given interval before now.  Raises 22004 for a
 * null, 22023 for a negative interval; one that reaches beyond the calendar
 * gets the server's own 22008.
 */
TimestampTz
acr_require_age(FunctionCallInfo fcinfo, int argno, const char *name,
				TimestampTz now)
{
	TimestampTz moment;

	acr_require_not_null(fcinfo, argno, name);
	moment = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
													 TimestampTzGetDatum(now),
													 PG_GETARG_DATUM(argno)));
	if (moment > now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name)));
	return moment;
}

/*
 * How long to wait, in ms.  Raises 22004 for a null, 22023 if negative; one that
 * reaches beyond the calendar gets the server's own 22008.
 */
int64
acr_require_timeout(FunctionCallInfo fcinfo, int argno)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;

	acr_require_not_null(fcinfo, argno, "timeout");
	until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													TimestampTzGetDatum(now),
													PG_GETARG_DATUM(argno)));
	if (until < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	return (until - now) / 1000;
}

/* Raises 22023 for a runner name that no runner may have. */
void
acr_check_runner_name(const char *runner)
{
	if (strlen(runner) > ACR_RUNNER_MAXLEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("runner name is too long"),
				 errdetail("A runner name has at most %d bytes.",
						   ACR_RUNNER_MAXLEN)));
}

/*
 * Copies a name that stands in a row.  One that is too long is nobody's: it must
 * not become another one by being cut.
 */
void
acr_copy_runner_name(char *copy, const char *runner)
{
	strlcpy(copy, strlen(runner) <= ACR_RUNNER_MAXLEN ? runner : "",
			ACR_RUNNER_MAXLEN + 1);
}

char *
acr_uuid_string(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}
