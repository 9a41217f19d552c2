/*
 * Attaching a runner's name to this session, and the end of that.
 *
 * An attachment is in force at once, and remembered here until its transaction
 * commits; a rolled-back (sub)transaction takes its attachments back.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "databases.h"
#include "miscadmin.h"
#include "runner_entry.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

/* An attachment that its transaction has not committed yet. */
typedef struct Attachment
{
	struct Attachment *outer;	/* the one made before */
	int			level;			/* nesting level of the subtransaction */
	AcrRunnerKey key;
	bool		was_there;
	AcrRunner	before;
} Attachment;

/* last one first; in TopTransactionContext */
static Attachment *attachments = NULL;

/* has this session ever attached a name? */
static bool have_attached = false;

/*
 * Takes an attachment back.  Returns true if the runner has departed then.
 * Caller holds the lock.
 */
static bool
undo(const Attachment *attachment)
{
	AcrRunner  *runner;

	if (!attachment->was_there)
	{
		(void) hash_search(acr_runners_table(), &attachment->key, HASH_REMOVE, NULL);
		return false;
	}
	runner = hash_search(acr_runners_table(), &attachment->key, HASH_FIND, NULL);
	if (runner != NULL)
		*runner = attachment->before;
	return attachment->before.state == ACR_RUNNER_DEPARTED;
}

/* Takes back those of this nesting level and of inner ones. */
static void
undo_down_to(int level)
{
	bool		departed = false;

	if (attachments == NULL || attachments->level < level)
		return;
	LWLockAcquire(acr_runners_lock(), LW_EXCLUSIVE);
	while (attachments != NULL && attachments->level >= level)
	{
		Attachment *undone = attachments;

		departed |= undo(undone);
		attachments = undone->outer;
		pfree(undone);
	}
	LWLockRelease(acr_runners_lock());

	/* A departure that was due meanwhile was not seen. */
	if (departed)
		acr_databases_raise(ACR_NEWS_DEPARTED);
}

/* What this session has attached has departed. */
void
acr_runners_depart(void)
{
	HASH_SEQ_STATUS seq;
	AcrRunner  *runner;
	bool		departed = false;

	/* Most sessions have nothing to do with runners. */
	if (!have_attached)
		return;
	undo_down_to(0);

	LWLockAcquire(acr_runners_lock(), LW_EXCLUSIVE);
	hash_seq_init(&seq, acr_runners_table());
	while ((runner = hash_seq_search(&seq)) != NULL)
	{
		if (runner->state == ACR_RUNNER_ATTACHED && runner->pid == MyProcPid)
		{
			runner->state = ACR_RUNNER_DEPARTED;
			runner->pid = 0;
			runner->departed_at = GetCurrentTimestamp();
			departed = true;
		}
	}
	LWLockRelease(acr_runners_lock());

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
	AcrRunner  *runner;
	bool		reaping_now = false;

	LWLockAcquire(acr_runners_lock(), LW_EXCLUSIVE);
	runner = hash_search(acr_runners_table(), &attachment->key, HASH_ENTER_NULL,
						 &attachment->was_there);
	if (runner == NULL)
		*full = true;
	else if (attachment->was_there && runner->state == ACR_RUNNER_REAPING)
		reaping_now = true;
	else if (attachment->was_there && runner->state == ACR_RUNNER_ATTACHED &&
			 runner->pid != MyProcPid)
		*in_use_by = runner->pid;
	else
	{
		attachment->before = *runner;
		attachment->outer = attachments;
		attachments = attachment;
		runner->state = ACR_RUNNER_ATTACHED;
		runner->pid = MyProcPid;
		runner->incarnation.since = DT_NOBEGIN; /* as long as that is not
												 * known */
		runner->departed_at = 0;
	}
	LWLockRelease(acr_runners_lock());
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

	acr_runner_key(&attachment->key, runner);
	attachment->level = GetCurrentTransactionNestLevel();

	ConditionVariablePrepareToSleep(acr_runners_reaped());
	while (!try_attach(attachment, &in_use_by, &full))
		ConditionVariableSleep(acr_runners_reaped(), wait_event);
	ConditionVariableCancelSleep();

	if (full || in_use_by != 0)
		pfree(attachment);
	if (full)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many runners are attached or have just departed"),
				 errhint("Their number is bounded by the configuration parameter \"max_connections\".")));
	if (in_use_by != 0)
		raise_attached(runner, in_use_by);
}

/* Tells which incarnation it is that this session has attached. */
void
acr_runners_set_incarnation(const char *name, const AcrIncarnation *incarnation)
{
	AcrRunnerKey key;
	AcrRunner  *runner;

	acr_runner_key(&key, name);
	LWLockAcquire(acr_runners_lock(), LW_EXCLUSIVE);
	runner = hash_search(acr_runners_table(), &key, HASH_FIND, NULL);
	if (runner != NULL && runner->pid == MyProcPid)
		runner->incarnation = *incarnation;
	LWLockRelease(acr_runners_lock());
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
