/*
 * Walks through all tracked runs, with the locks of all partitions, taken in
 * order.
 */
#include "postgres.h"

#include "live_entry.h"
#include "miscadmin.h"
#include "shared_state.h"

/* What was not looked at for so long is, by the worker. */
#define DOUBTFUL_MS	(10 * 60 * 1000)

typedef bool (*Visitor) (AcrLiveEntry *entry, void *arg);	/* false: enough */

static void
walk(LWLockMode mode, Visitor visit, void *arg)
{
	HASH_SEQ_STATUS seq;
	AcrLiveEntry *entry;

	for (int i = 0; i < ACR_LIVE_PARTITIONS; i++)
		LWLockAcquire(acr_live_partition_lock(i), mode);

	hash_seq_init(&seq, acr_live_table());
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (!visit(entry, arg))
		{
			hash_seq_term(&seq);
			break;
		}
	}

	for (int i = ACR_LIVE_PARTITIONS - 1; i >= 0; i--)
		LWLockRelease(acr_live_partition_lock(i));
}

typedef struct StopList
{
	Oid			relid;
	const char *runner;
	pg_uuid_t  *run_ids;		/* room for as many as there can be */
	int			n;
	int			max;
	bool		all_current;
} StopList;

static bool
collect_stop(AcrLiveEntry *entry, void *arg)
{
	StopList   *list = arg;

	if (entry->key.dboid == MyDatabaseId && entry->key.relid == list->relid &&
		entry->confirmed && pg_atomic_read_u32(&entry->stop_requested) != 0 &&
		strcmp(entry->run.runner, list->runner) == 0)
	{
		list->run_ids[list->n++] = entry->key.run_id;
		list->all_current &= acr_live_is_current(entry);
	}
	return list->n < list->max;
}

/*
 * The runner's runs of which a stop is requested, as far as they are known.
 * *all_current tells whether all of them are surely active.
 */
int
acr_live_list_stops(const char *runner, pg_uuid_t **run_ids, bool *all_current)
{
	StopList	list = {
		.relid = acr_table_oid(),
		.runner = runner,
		.max = 1000,
		.all_current = true
	};

	list.run_ids = palloc(list.max * sizeof(pg_uuid_t));
	walk(LW_SHARED, collect_stop, &list);
	*run_ids = list.run_ids;
	*all_current = list.all_current;
	return list.n;
}

typedef struct DoubtfulList
{
	AcrLiveTicket *tickets;
	int			n;
	int			max;
	Oid			relid;
	uint32		epoch;
	TimestampTz since;
	TimestampTz before;
} DoubtfulList;

static bool
collect_doubtful(AcrLiveEntry *entry, void *arg)
{
	DoubtfulList *list = arg;

	if (entry->key.dboid == MyDatabaseId && entry->looked_at < list->before &&
		(entry->key.relid != list->relid || entry->epoch != list->epoch ||
		 entry->looked_at < list->since))
	{
		AcrLiveTicket *ticket = &list->tickets[list->n++];

		ticket->key = entry->key;
		ticket->number = entry->ticket;
		ticket->epoch = list->epoch;
		ticket->looked_at = entry->looked_at;
	}
	return list->n < list->max;
}

/*
 * Entries of this database that nobody has compared with their rows for long,
 * with tickets to say how they compare.  Those that nobody has confirmed are
 * among them: the session that was to do it may have failed; and all of a table
 * that was dropped, where the extension was made anew before a worker missed it.
 * Leaves out what was compared since "before", so that one round comes to an
 * end.
 */
int
acr_live_list_doubtful(TimestampTz before, int limit, AcrLiveTicket **tickets)
{
	DoubtfulList list = {
		.tickets = palloc(limit * sizeof(AcrLiveTicket)),
		.max = limit,
		.relid = acr_table_oid(),
		.epoch = acr_live_epoch(),
		.since = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -DOUBTFUL_MS),
		.before = before,
	};

	walk(LW_SHARED, collect_doubtful, &list);
	*tickets = list.tickets;
	return list.n;
}

static bool
remove_of_database(AcrLiveEntry *entry, void *arg)
{
	if (entry->key.dboid == *(Oid *) arg)
		acr_live_remove_entry(entry);
	return true;
}

/* The database, or its extension, is gone. */
void
acr_live_forget_database(Oid dboid)
{
	walk(LW_EXCLUSIVE, remove_of_database, &dboid);
}
