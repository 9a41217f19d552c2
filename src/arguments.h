/*
 * Checks of SQL arguments, so that bad input is refused in the same words
 * everywhere and before anything was touched.
 */
#ifndef ACR_ARGUMENTS_H
#define ACR_ARGUMENTS_H

#include "fmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

extern void acr_require_not_null(FunctionCallInfo fcinfo, int argno,
								 const char *name);
extern pg_uuid_t *acr_require_uuid(FunctionCallInfo fcinfo, int argno,
								   const char *name);
extern pg_uuid_t *acr_optional_uuid(FunctionCallInfo fcinfo, int argno);
extern text *acr_optional_text(FunctionCallInfo fcinfo, int argno);
extern int64 acr_optional_count(FunctionCallInfo fcinfo, int argno,
								const char *name);
extern TimestampTz acr_require_age(FunctionCallInfo fcinfo, int argno,
								   const char *name, TimestampTz now);
extern int64 acr_require_timeout(FunctionCallInfo fcinfo, int argno);
extern void acr_check_runner_name(const char *runner);
extern void acr_copy_runner_name(char *copy, const char *runner);
extern char *acr_uuid_string(const pg_uuid_t *id);

#endif							/* ACR_ARGUMENTS_H */
