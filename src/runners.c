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

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "compat.h"
#include "databases.h"
#include "miscadmin.h"
#include "runners.h"
#include "settings.h"
#include "shared_state.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define MAX_RUNNERS		(2 * MaxBackends + 64)

typedef enum RunnerState
{
	RUNNER_ATTACHED,
	RUNNER_DEPARTED,
	RUNNER_REAPING
} RunnerState;

typedef struct RunnerKey
{
	Oid			dboid;
	char		name[ACR_RUNNER_MAXLEN + 1];	/* padded with zeroes */
} RunnerKey;

typedef struct Runner
{
	RunnerKey	key;			/* hash key */
	RunnerState state;
	int			pid;			/* of the session, or of the worker */
	TimestampTz departed_at;
} Runner;

/* An attachment that its transaction has not committed yet. */
typedef struct Attachment
{
	struct Attachment *outer;	/* the one made before */
	int			level;			/* nesting level of the subtransaction */
	RunnerKey	key;
	bool		was_there;
	Runner		before;
} Attachment;

static HTAB *runners = NULL;
static ConditionVariable *reaped = NULL;	/* signalled when a reaping ends */

/* last one first; in TopTransactionContext */
static Attachment *attachments = NULL;

/* has this session ever attached a name? */
static bool have_attached = false;

/* in a worker: the runner that is being reaped */
static RunnerKey reaping;

Size
acr_runners_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(ConditionVariable)),
					hash_estimate_size(MAX_RUNNERS, sizeof(Runner)));
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

	ctl.keysize = sizeof(RunnerKey);
	ctl.entrysize = sizeof(Runner);
	runners = ShmemInitHash("ai_chat_run runner table", MAX_RUNNERS, MAX_RUNNERS,
							&ctl, HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

static LWLock *
runners_lock(void)
{
	return acr_shared_lock(ACR_LOCK_RUNNERS);
}

static void
make_key(RunnerKey *key, const char *name)
{
	memset(key, 0, sizeof(*key));
	key->dboid = MyDatabaseId;
	strlcpy(key->name, name, sizeof(key->name));
}

/* ---- attaching ---- */

/* Takes an attachment back.  Caller holds the lock. */
static void
undo(const Attachment *attachment)
{
	Runner	   *runner;

	if (!attachment->was_there)
	{
		(void) hash_search(runners, &attachment->key, HASH_REMOVE, NULL);
		return;
	}
	runner = hash_search(runners, &attachment->key, HASH_FIND, NULL);
	if (runner != NULL)
		*runner = attachment->before;
}

/* Takes back those of this nesting level and of inner ones. */
static void
undo_down_to(int level)
{
	bool		departed = false;

	if (attachments == NULL || attachments->level < level)
		return;
	LWLockAcquire(runners_lock(), LW_EXCLUSIVE);
	while (attachments != NULL && attachments->level >= level)
	{
		undo(attachments);
		departed |= attachments->was_there;
		attachments = attachments->outer;
	}
	LWLockRelease(runners_lock());

	/* A departure that was due meanwhile was not seen. */
	if (departed)
		acr_databases_raise(ACR_NEWS_DEPARTED);
}

/* What this session has attached has departed. */
void
acr_runners_depart(void)
{
	HASH_SEQ_STATUS seq;
	Runner	   *runner;
	bool		departed = false;

	/* Most sessions have nothing to do with runners. */
	if (!have_attached)
		return;
	undo_down_to(0);

	LWLockAcquire(runners_lock(), LW_EXCLUSIVE);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->state == RUNNER_ATTACHED && runner->pid == MyProcPid)
		{
			runner->state = RUNNER_DEPARTED;
			runner->pid = 0;
			runner->departed_at = GetCurrentTimestamp();
			departed = true;
		}
	}
	LWLockRelease(runners_lock());

	if (departed)
		acr_databases_raise(ACR_NEWS_DEPARTED);
}

static void
depart_at_exit(int code, Datum arg)
{
	acr_runners_depart();
}

static void
raise_attached(const char *name, int pid)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("runner \"%s\" is attached by another session", name),
			 errdetail("The session's process ID is %d.", pid),
			 errhint("If that session is what is left of a dead process, terminate it with pg_terminate_backend(%d).",
					 pid)));
}

/*
 * Tries to make the name ours.  Returns false if it is being reaped.  Sets
 * *in_use_by to the session that has it, if there is one.
 */
static bool
try_attach(Attachment *attachment, int *in_use_by, bool *full)
{
	Runner	   *runner;
	bool		reaping_now = false;

	LWLockAcquire(runners_lock(), LW_EXCLUSIVE);
	runner = hash_search(runners, &attachment->key, HASH_ENTER_NULL,
						 &attachment->was_there);
	if (runner == NULL)
		*full = true;
	else if (attachment->was_there && runner->state == RUNNER_REAPING)
		reaping_now = true;
	else if (attachment->was_there && runner->state == RUNNER_ATTACHED &&
			 runner->pid != MyProcPid)
		*in_use_by = runner->pid;
	else
	{
		attachment->before = *runner;
		attachment->outer = attachments;
		attachments = attachment;
		runner->state = RUNNER_ATTACHED;
		runner->pid = MyProcPid;
		runner->departed_at = 0;
	}
	LWLockRelease(runners_lock());
	return !reaping_now;
}

/*
 * Attaches the name to this session, as part of the transaction.
 *
 * Errors: 55006 if another session has it, 53400 if there are too many.
 */
void
acr_runners_attach(const char *runner)
{
	static uint32 wait_event = 0;
	Attachment *attachment = MemoryContextAllocZero(TopTransactionContext,
													sizeof(Attachment));
	int			in_use_by = 0;
	bool		full = false;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AiChatRunAttachRunner");
	if (!have_attached)
	{
		acr_databases_prepare();
		before_shmem_exit(depart_at_exit, (Datum) 0);
		have_attached = true;
	}

	make_key(&attachment->key, runner);
	attachment->level = GetCurrentTransactionNestLevel();

	ConditionVariablePrepareToSleep(reaped);
	while (!try_attach(attachment, &in_use_by, &full))
		ConditionVariableSleep(reaped, wait_event);
	ConditionVariableCancelSleep();

	if (full)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many runners are attached or have just departed"),
				 errhint("Their number is bounded by the configuration parameter \"max_connections\".")));
	if (in_use_by != 0)
		raise_attached(runner, in_use_by);
}

static void
at_xact_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			attachments = NULL;
			break;
		case XACT_EVENT_ABORT:
			undo_down_to(0);
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (attachments != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has attached a runner")));
			break;
		default:
			break;
	}
}

static void
at_subxact_event(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		undo_down_to(level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (Attachment *a = attachments; a != NULL && a->level >= level; a = a->outer)
			a->level = level - 1;
	}
}

/* Called when the library is loaded. */
void
acr_runners_init(void)
{
	RegisterXactCallback(at_xact_event, NULL);
	RegisterSubXactCallback(at_subxact_event, NULL);
}

/* ---- looking ---- */

/* How many are attached in this database? */
int
acr_runners_count_attached(void)
{
	HASH_SEQ_STATUS seq;
	Runner	   *runner;
	int			n = 0;

	LWLockAcquire(runners_lock(), LW_SHARED);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->key.dboid == MyDatabaseId && runner->state == RUNNER_ATTACHED)
			n++;
	}
	LWLockRelease(runners_lock());
	return n;
}

/* The names of all that are attached, or may come back, in this database. */
ArrayType *
acr_runners_list(void)
{
	HASH_SEQ_STATUS seq;
	Runner	   *runner;
	char		(*names)[ACR_RUNNER_MAXLEN + 1] = palloc(MAX_RUNNERS * sizeof(*names));
	Datum	   *values;
	int			n = 0;

	LWLockAcquire(runners_lock(), LW_SHARED);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->key.dboid == MyDatabaseId)
			memcpy(names[n++], runner->key.name, sizeof(*names));
	}
	LWLockRelease(runners_lock());

	values = palloc(Max(n, 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
		values[i] = CStringGetTextDatum(names[i]);
	return construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Is the runner attached, or departed so recently that it may come back? */
bool
acr_runners_is_known(const char *runner)
{
	RunnerKey	key;
	bool		found;

	make_key(&key, runner);
	LWLockAcquire(runners_lock(), LW_SHARED);
	(void) hash_search(runners, &key, HASH_FIND, &found);
	LWLockRelease(runners_lock());
	return found;
}

/* ---- reaping ---- */

static TimestampTz
grace_end(const Runner *runner)
{
	return TimestampTzPlusMilliseconds(runner->departed_at, acr_runner_grace);
}

/* When will a departed runner of the database be due?  DT_NOEND: none. */
TimestampTz
acr_runners_next_departure(Oid dboid)
{
	HASH_SEQ_STATUS seq;
	Runner	   *runner;
	TimestampTz due = DT_NOEND;

	LWLockAcquire(runners_lock(), LW_SHARED);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->key.dboid == dboid && runner->state == RUNNER_DEPARTED)
			due = Min(due, grace_end(runner));
	}
	LWLockRelease(runners_lock());
	return due;
}

/* The worker exits, or was thrown out, in the middle of it. */
static void
give_back_reaping(int code, Datum arg)
{
	acr_runners_end_reaping(false);
}

static bool
is_due(const Runner *runner, TimestampTz now)
{
	return runner->key.dboid == MyDatabaseId &&
		runner->state == RUNNER_DEPARTED && grace_end(runner) <= now;
}

/* The departed runners of this database whose grace is over. */
int
acr_runners_list_due(TimestampTz now, char ***names)
{
	HASH_SEQ_STATUS seq;
	Runner	   *runner;
	Runner	   *due = palloc(MAX_RUNNERS * sizeof(Runner));
	int			n = 0;

	LWLockAcquire(runners_lock(), LW_SHARED);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (is_due(runner, now))
			due[n++] = *runner;
	}
	LWLockRelease(runners_lock());

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
	Runner	   *runner;
	bool		begun;

	if (!exit_registered)
	{
		before_shmem_exit(give_back_reaping, (Datum) 0);
		exit_registered = true;
	}

	make_key(&reaping, name);
	LWLockAcquire(runners_lock(), LW_EXCLUSIVE);
	runner = hash_search(runners, &reaping, HASH_FIND, NULL);
	begun = runner != NULL && is_due(runner, now);
	if (begun)
	{
		runner->state = RUNNER_REAPING;
		runner->pid = MyProcPid;
	}
	LWLockRelease(runners_lock());
	return begun;
}

/* It is reaped; or it is not, and is still departed. */
void
acr_runners_end_reaping(bool done)
{
	Runner	   *runner;

	LWLockAcquire(runners_lock(), LW_EXCLUSIVE);
	runner = hash_search(runners, &reaping, HASH_FIND, NULL);
	if (runner != NULL && runner->state == RUNNER_REAPING &&
		runner->pid == MyProcPid)
	{
		if (done)
			(void) hash_search(runners, &reaping, HASH_REMOVE, NULL);
		else
		{
			runner->state = RUNNER_DEPARTED;
			runner->pid = 0;
		}
	}
	LWLockRelease(runners_lock());
	ConditionVariableBroadcast(reaped);
}

/* The database is gone. */
void
acr_runners_forget_database(Oid dboid)
{
	HASH_SEQ_STATUS seq;
	Runner	   *runner;

	LWLockAcquire(runners_lock(), LW_EXCLUSIVE);
	hash_seq_init(&seq, runners);
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->key.dboid == dboid)
			(void) hash_search(runners, &runner->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(runners_lock());
}
