/*
 * Runners that have attached: their rows, typed.
 */
#include "postgres.h"

#include "runner_row.h"
#include "utils/memutils.h"

/* The incarnation that attached last under this name, as of now. */
bool
acr_table_find_runner(text *runner, AcrIncarnation *incarnation)
{
	AcrParams	p = {0};
	bool		found;

	acr_param_pointer(&p, runner);
	acr_table_open();
	found = acr_table_execute(ACR_SQL_FIND_RUNNER, ACR_AS_OF_NOW, &p) > 0;
	if (found)
	{
		bool		isnull;

		acr_column_uuid(0, 1, &incarnation->id);
		incarnation->since = DatumGetTimestampTz(acr_column(0, 2, &isnull));
		incarnation->attached_in = DatumGetTimestampTz(acr_column(0, 3, &isnull));
	}
	acr_table_close();
	return found;
}

void
acr_table_attach_runner(text *runner, const AcrIncarnation *incarnation)
{
	AcrParams	p = {0};

	acr_param_pointer(&p, runner);
	acr_param_pointer(&p, &incarnation->id);
	acr_param_time(&p, incarnation->since);
	acr_param_time(&p, incarnation->attached_in);
	acr_param_time(&p, GetCurrentTimestamp());
	(void) acr_table_run(ACR_SQL_ATTACH_RUNNER, ACR_AS_WRITE, &p);
}

/* The runner was there until now. */
void
acr_table_see_runner(text *runner)
{
	AcrParams	p = {0};

	acr_param_pointer(&p, runner);
	acr_param_time(&p, GetCurrentTimestamp());
	(void) acr_table_run(ACR_SQL_SEE_RUNNER, ACR_AS_WRITE, &p);
}

/* Forgets the runners that are not present and were last seen before. */
void
acr_table_forget_runners(ArrayType *present, TimestampTz seen_before)
{
	AcrParams	p = {0};

	acr_param_pointer(&p, present);
	acr_param_time(&p, seen_before);
	(void) acr_table_run(ACR_SQL_FORGET_RUNNERS, ACR_AS_WRITE, &p);
}

/* The runner's active runs that nobody has decided on, as of now. */
int
acr_table_active_of_runner(text *runner, AcrRunKey **keys)
{
	MemoryContext caller = CurrentMemoryContext;
	AcrParams	p = {0};
	uint64		n;

	acr_param_pointer(&p, runner);
	acr_table_open();
	n = acr_table_execute(ACR_SQL_ACTIVE_OF_RUNNER, ACR_AS_OF_NOW, &p);
	*keys = MemoryContextAlloc(caller, Max(n, 1) * sizeof(AcrRunKey));
	for (uint64 i = 0; i < n; i++)
	{
		acr_column_uuid(i, 1, &(*keys)[i].id);
		acr_column_uuid(i, 2, &(*keys)[i].workspace_id);
	}
	acr_table_close();
	return (int) n;
}
