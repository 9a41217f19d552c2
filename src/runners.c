/*
 * Attached runners: application processes that hold a session open.
 *
 * A runner's name is attached to one session at a time.  When that session
 * ends, for whatever reason, the runner has departed; the entry stays, and if
 * nobody attaches the name within ai_chat_run.runner_grace, a worker reaps it:
 * aborts the runs that it left, and removes the entry.
 *
 *		none ---> ATTACHED ---> DEPARTED ---> REAPING ---> none
 *					  ^------------/  ^----------/ a run was locked, an error
 *
 * Attaching is part of a transaction, but has to be seen by others at once, so
 * that of two that attach the same name one is refused.  The entry is changed
 * at once, and put back if the (sub)transaction rolls back.  While a worker
 * reaps a name, whoever wants to attach it waits: his runs are being aborted,
 * and he shall find that done.
 *
 * After a crash of the server, or of any backend, all of this is empty.  What
 * runners there were is in the table ai_chat_run.runners, so that a runner
 * which comes back is known.
 *
 * All fields are written under the one lock of this room.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "runner_entry.h"
#include "settings.h"
#include "shared_state.h"
#include "storage/shmem.h"
#include "utils/builtins.h"

static HTAB *runners = NULL;
static ConditionVariable *reaped = NULL;

Size
acr_runners_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(ConditionVariable)),
					hash_estimate_size(ACR_MAX_RUNNERS, sizeof(AcrRunner)));
}

/* Called from the startup hook, which holds AddinShmemInitLock. */
void
acr_runners_shmem_init(void)
{
	HASHCTL		ctl;
	bool		found;

	reaped = ShmemInitStruct("ai_chat_run runners", sizeof(ConditionVariable), &found);
	if (!found)
		ConditionVariableInit(reaped);

	ctl.keysize = sizeof(AcrRunnerKey);
	ctl.entrysize = sizeof(AcrRunner);
	runners = ShmemInitHash("ai_chat_run runner table", ACR_MAX_RUNNERS, ACR_MAX_RUNNERS,
							&ctl, HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

HTAB *
acr_runners_table(void)
{
	return runners;
}

/* Signalled when a reaping ends. */
ConditionVariable *
acr_runners_reaped(void)
{
	return reaped;
}

LWLock *
acr_runners_lock(void)
{
	return acr_shared_lock(ACR_LOCK_RUNNERS);
}

void
acr_runner_key(AcrRunnerKey *key, const char *name)
{
	memset(key, 0, sizeof(*key));
	key->dboid = MyDatabaseId;
	strlcpy(key->name, name, sizeof(key->name));
}

/* How many are attached in this database? */
int
acr_runners_count_attached(void)
{
	HASH_SEQ_STATUS seq;
	AcrRunner  *runner;
	int			n = 0;

	LWLockAcquire(acr_runners_lock(), LW_SHARED);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->key.dboid == MyDatabaseId && runner->state == ACR_RUNNER_ATTACHED)
			n++;
	}
	LWLockRelease(acr_runners_lock());
	return n;
}

/* The names of all that are attached, or may come back, in this database. */
ArrayType *
acr_runners_list(void)
{
	HASH_SEQ_STATUS seq;
	AcrRunner  *runner;
	char		(*names)[ACR_RUNNER_MAXLEN + 1] = palloc(ACR_MAX_RUNNERS * sizeof(*names));
	Datum	   *values;
	int			n = 0;

	LWLockAcquire(acr_runners_lock(), LW_SHARED);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->key.dboid == MyDatabaseId)
			memcpy(names[n++], runner->key.name, sizeof(*names));
	}
	LWLockRelease(acr_runners_lock());

	values = palloc(Max(n, 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
		values[i] = CStringGetTextDatum(names[i]);
	return construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Finds a runner by a name that may be too long to be one's.  Caller holds the lock. */
static AcrRunner *
find(const char *name)
{
	AcrRunnerKey key;

	if (strlen(name) > ACR_RUNNER_MAXLEN)
		return NULL;
	acr_runner_key(&key, name);
	return hash_search(runners, &key, HASH_FIND, NULL);
}

/* Is the runner attached, now? */
bool
acr_runners_is_attached(const char *name)
{
	AcrRunner  *runner;
	bool		attached;

	LWLockAcquire(acr_runners_lock(), LW_SHARED);
	runner = find(name);
	attached = runner != NULL && runner->state == ACR_RUNNER_ATTACHED;
	LWLockRelease(acr_runners_lock());
	return attached;
}

/*
 * Is the runner attached, or departed so recently that it may come back, and is
 * a run that was begun then one of this incarnation's?  One that is older was
 * not committed when its runner was replaced; nobody executes it.  It is no such
 * one if the transaction that attached has inserted it, with the time of its own
 * beginning.
 */
bool
acr_runners_looks_after(const char *name, TimestampTz begun_at)
{
	AcrRunner  *runner;
	bool		looks_after;

	LWLockAcquire(acr_runners_lock(), LW_SHARED);
	runner = find(name);
	looks_after = runner != NULL &&
		(begun_at >= runner->incarnation.since ||
		 begun_at == runner->incarnation.attached_in);
	LWLockRelease(acr_runners_lock());
	return looks_after;
}

TimestampTz
acr_runner_grace_end(const AcrRunner *runner)
{
	return TimestampTzPlusMilliseconds(runner->departed_at, acr_runner_grace);
}

/* When will a departed runner of the database be due?  DT_NOEND: none. */
TimestampTz
acr_runners_next_departure(Oid dboid)
{
	HASH_SEQ_STATUS seq;
	AcrRunner  *runner;
	TimestampTz due = DT_NOEND;

	LWLockAcquire(acr_runners_lock(), LW_SHARED);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->key.dboid == dboid && runner->state == ACR_RUNNER_DEPARTED)
			due = Min(due, acr_runner_grace_end(runner));
	}
	LWLockRelease(acr_runners_lock());
	return due;
}

/* The database is gone. */
void
acr_runners_forget_database(Oid dboid)
{
	HASH_SEQ_STATUS seq;
	AcrRunner  *runner;

	LWLockAcquire(acr_runners_lock(), LW_EXCLUSIVE);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->key.dboid == dboid)
			(void) hash_search(runners, &runner->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(acr_runners_lock());
}
