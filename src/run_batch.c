/*
 * Many runs: the batches of purges, and questions about all.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "run_batch.h"
#include "shared_state.h"
#include "utils/array.h"

/* An array of uuids in the current memory context. */
ArrayType *
acr_uuid_array(Datum *ids, int n)
{
	return construct_array(ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
}

/* Which of these runs are active, as of now?  Returns their number. */
int
acr_table_which_active(pg_uuid_t *ids, int n, pg_uuid_t **active)
{
	MemoryContext caller = CurrentMemoryContext;
	AcrParams	p = {0};
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));
	uint64		found;

	for (int i = 0; i < n; i++)
		elements[i] = UUIDPGetDatum(&ids[i]);
	acr_param_pointer(&p, acr_uuid_array(elements, n));
	acr_table_open();
	found = acr_table_execute(ACR_SQL_WHICH_ACTIVE, ACR_AS_OF_NOW, &p);
	*active = MemoryContextAlloc(caller, Max(found, 1) * sizeof(pg_uuid_t));
	for (uint64 i = 0; i < found; i++)
		acr_column_uuid(i, 1, *active + i);
	acr_table_close();
	return (int) found;
}

/*
 * Looks at the next runs in the order of their ids and collects those that
 * are terminal since before the given time, at most "limit" of them.
 */
static ArrayType *
collect_old(TimestampTz before, int64 limit, pg_uuid_t *from_id, bool *more,
			int *collected)
{
	const int64 step = 10000;
	AcrParams	p = {0};
	Datum	   *ids;
	uint64		n;
	uint64		i;
	int			old = 0;

	acr_param_pointer(&p, from_id);
	acr_param_time(&p, before);
	acr_param_value(&p, Int64GetDatum(step));
	n = acr_table_execute(ACR_SQL_PURGE_LOOK, ACR_AS_OF_NOW, &p);

	ids = palloc(Max(n, 1) * sizeof(Datum));
	for (i = 0; i < n && old < limit; i++)
	{
		bool		isnull;

		if (acr_column_bool(i, 2))
			ids[old++] = acr_column(i, 1, &isnull);
	}
	*more = i < n || (int64) n == step;
	if (*more)
	{
		acr_column_uuid(i - 1, 1, from_id);
		*more = acr_uuid_increment(from_id);
	}
	*collected = old;
	return acr_uuid_array(ids, old);
}

/*
 * Deletes terminal runs that finished before the given time, at most "limit",
 * among the next ones in the order of their ids.  A run with a deferred
 * finalization or locked by a client stays.  Returns the number deleted; *more
 * tells whether to go on, from *from_id, which the first call must set to
 * zeroes.
 */
int64
acr_table_purge_batch(TimestampTz before, int64 limit, pg_uuid_t *from_id,
					  bool *more)
{
	ArrayType  *ids;
	int			old;
	int64		deleted = 0;

	acr_table_open();
	ids = collect_old(before, limit, from_id, more, &old);
	if (old > 0)
	{
		AcrParams	p = {0};

		acr_param_pointer(&p, ids);
		deleted = acr_table_execute(ACR_SQL_PURGE_DELETE, ACR_AS_WRITE, &p);
	}
	acr_table_close();
	return deleted;
}

/* Is there a prepared transaction that is older than this life of the server? */
bool
acr_table_any_old_prepared(void)
{
	AcrParams	p = {0};

	acr_param_value(&p, TransactionIdGetDatum(acr_shared_start_xid()));
	return acr_table_run(ACR_SQL_ANY_OLD_PREPARED_XACT, ACR_AS_OF_NOW, &p) > 0;
}

/* Does a statement without parameters find a row? */
bool
acr_table_any(AcrSqlId which)
{
	AcrParams	p = {0};

	return acr_table_run(which, ACR_AS_OF_NOW, &p) > 0;
}
