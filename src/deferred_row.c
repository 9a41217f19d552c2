/*
 * One deferred finalization: its row, typed.
 */
#include "postgres.h"

#include "deferred_row.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

/* how many are listed at once */
#define LIST_LENGTH		100

/* The reason is for people; nobody reads more of it. */
#define CAUSE_MAXLEN	1000

/* Records what could not be written.  False if there was one already. */
bool
acr_table_defer(const AcrRunKey *key, const char *status, text *error,
				const char *cause)
{
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	acr_param_value(&p, CStringGetTextDatum(status));
	acr_param_pointer(&p, error);
	acr_param_value(&p, PointerGetDatum(cstring_to_text_with_len(cause,
																 pg_mbcliplen(cause, strlen(cause), CAUSE_MAXLEN))));
	acr_param_time(&p, GetCurrentTimestamp());
	return acr_table_run(ACR_SQL_DEFER, ACR_AS_WRITE, &p) > 0;
}

/* The status that is deferred for the run, as of now, or NULL. */
char *
acr_table_find_deferred(const AcrRunKey *key)
{
	MemoryContext caller = CurrentMemoryContext;
	AcrParams	p = {0};
	char	   *status = NULL;

	acr_param_key(&p, &key->id, &key->workspace_id);
	acr_table_open();
	if (acr_table_execute(ACR_SQL_FIND_DEFERRED, ACR_AS_OF_NOW, &p) > 0)
	{
		bool		isnull;

		status = MemoryContextStrdup(caller,
									 TextDatumGetCString(acr_column(0, 1, &isnull)));
	}
	acr_table_close();
	return status;
}

/*
 * The next few deferred finalizations, from the given one on (all zeroes: from
 * the first), that are to be tried by the given time, those of one run only if
 * run_id is given.  Returns how many, and moves *from past them; *more tells
 * whether to go on: not if they were fewer than could be, nor past the last of
 * all ids.
 */
int
acr_table_list_deferred(AcrRunKey *from, const pg_uuid_t *run_id,
						TimestampTz due_by, AcrRunKey **keys, bool *more)
{
	MemoryContext caller = CurrentMemoryContext;
	AcrParams	p = {0};
	uint64		n;

	acr_param_pointer(&p, &from->workspace_id);
	acr_param_pointer(&p, &from->id);
	acr_param_pointer(&p, run_id);
	acr_param_time(&p, due_by);
	acr_param_value(&p, Int64GetDatum(LIST_LENGTH));
	acr_table_open();
	n = acr_table_execute(ACR_SQL_LIST_DEFERRED, ACR_AS_OF_NOW, &p);
	*keys = MemoryContextAlloc(caller, Max(n, 1) * sizeof(AcrRunKey));
	for (uint64 i = 0; i < n; i++)
	{
		acr_column_uuid(i, 1, &(*keys)[i].workspace_id);
		acr_column_uuid(i, 2, &(*keys)[i].id);
	}
	acr_table_close();

	*more = n == LIST_LENGTH;
	if (*more)
	{
		*from = (*keys)[n - 1];
		*more = acr_uuid_increment(&from->id) ||
			acr_uuid_increment(&from->workspace_id);
	}
	return (int) n;
}

/* Locks the run's row if that needs no waiting for a client. */
bool
acr_table_lock_now(const AcrRunKey *key)
{
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	return acr_table_run(ACR_SQL_LOCK_RUN, ACR_AS_WRITE, &p) > 0;
}

/* True if this call made the run terminal. */
bool
acr_table_apply_deferred(const AcrRunKey *key)
{
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	acr_param_time(&p, GetCurrentTimestamp());
	return acr_table_run(ACR_SQL_APPLY_DEFERRED, ACR_AS_WRITE, &p) > 0;
}

bool
acr_table_forget_deferred(const AcrRunKey *key)
{
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	return acr_table_run(ACR_SQL_FORGET_DEFERRED, ACR_AS_WRITE, &p) > 0;
}

/* A try failed: the next one comes after 1, 2, 4 ... 60 seconds. */
void
acr_table_postpone_deferred(const AcrRunKey *key)
{
	Interval	second = {.time = USECS_PER_SEC};
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	acr_param_time(&p, GetCurrentTimestamp());
	acr_param_pointer(&p, &second);
	acr_table_run(ACR_SQL_POSTPONE_DEFERRED, ACR_AS_WRITE, &p);
}

/* When is the first of all to be tried?  False if there is none. */
bool
acr_table_next_deferred(TimestampTz *next_attempt_at)
{
	AcrParams	p = {0};
	bool		any;

	acr_table_open();
	any = acr_table_execute(ACR_SQL_NEXT_DEFERRED, ACR_AS_OF_NOW, &p) > 0;
	if (any)
	{
		bool		isnull;

		*next_attempt_at = DatumGetTimestampTz(acr_column(0, 1, &isnull));
	}
	acr_table_close();
	return any;
}
