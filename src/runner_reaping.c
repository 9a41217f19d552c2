/*
 * Taking departed runners, to abort what they left.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "runner_entry.h"
#include "storage/ipc.h"

/* in a worker: the runner that is being reaped */
static AcrRunnerKey reaping;

/* The worker exits, or was thrown out, in the middle of it. */
static void
give_back_reaping(int code, Datum arg)
{
	acr_runners_end_reaping(false);
}

static bool
is_due(const AcrRunner *runner, TimestampTz now)
{
	return runner->key.dboid == MyDatabaseId &&
		runner->state == ACR_RUNNER_DEPARTED && acr_runner_grace_end(runner) <= now;
}

/* The departed runners of this database whose grace is over. */
int
acr_runners_list_due(TimestampTz now, char ***names)
{
	HASH_SEQ_STATUS seq;
	AcrRunner  *runner;
	AcrRunner  *due = palloc(ACR_MAX_RUNNERS * sizeof(AcrRunner));
	int			n = 0;

	LWLockAcquire(acr_runners_lock(), LW_SHARED);
	hash_seq_init(&seq, acr_runners_table());
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (is_due(runner, now))
			due[n++] = *runner;
	}
	LWLockRelease(acr_runners_lock());

	*names = palloc(Max(n, 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		(*names)[i] = due[i].key.name;
	return n;
}

/*
 * Takes a departed runner whose grace is over.  Returns false if it is none any
 * more.
 */
bool
acr_runners_begin_reaping(const char *name, TimestampTz now)
{
	static bool exit_registered = false;
	AcrRunner  *runner;
	bool		begun;

	if (!exit_registered)
	{
		before_shmem_exit(give_back_reaping, (Datum) 0);
		exit_registered = true;
	}

	acr_runner_key(&reaping, name);
	LWLockAcquire(acr_runners_lock(), LW_EXCLUSIVE);
	runner = hash_search(acr_runners_table(), &reaping, HASH_FIND, NULL);
	begun = runner != NULL && is_due(runner, now);
	if (begun)
	{
		runner->state = ACR_RUNNER_REAPING;
		runner->pid = MyProcPid;
	}
	LWLockRelease(acr_runners_lock());
	return begun;
}

/* It is reaped; or it is not, and is still departed. */
void
acr_runners_end_reaping(bool done)
{
	AcrRunner  *runner;

	LWLockAcquire(acr_runners_lock(), LW_EXCLUSIVE);
	runner = hash_search(acr_runners_table(), &reaping, HASH_FIND, NULL);
	if (runner != NULL && runner->state == ACR_RUNNER_REAPING &&
		runner->pid == MyProcPid)
	{
		if (done)
			(void) hash_search(acr_runners_table(), &reaping, HASH_REMOVE, NULL);
		else
		{
			runner->state = ACR_RUNNER_DEPARTED;
			runner->pid = 0;
		}
	}
	LWLockRelease(acr_runners_lock());
	ConditionVariableBroadcast(acr_runners_reaped());
}
