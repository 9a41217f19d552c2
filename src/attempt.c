/*
 * One attempt of a write.
 *
 * The write runs in a subtransaction of its own, so that a failure leaves the
 * caller's transaction usable, and waits for each lock for at most
 * ai_chat_run.lock_timeout.  A failure is handed back as data, except for those
 * that mean "stop now": everything of class 57 (a cancelled query, a timeout, a
 * terminated session, a shutdown) goes up at once.
 */
#include "postgres.h"

#include "access/xact.h"
#include "attempt.h"
#include "compat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/* Bounds lock waiting; a shorter lock_timeout of the session stays. */
static void
bound_lock_waits(int bound_ms)
{
	if (LockTimeout == 0 || LockTimeout > bound_ms)
	{
		char		value[32];

		snprintf(value, sizeof(value), "%d", bound_ms);
		(void) set_config_option("lock_timeout", value, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
}

static bool
means_stop_now(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
		ERRCODE_OPERATOR_INTERVENTION;
}

static ErrorData *
attempt(AcrAttemptBody body, void *arg, int bound_ms)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller_context);

	PG_TRY();
	{
		int			nest_level = NewGUCNestLevel();

		if (bound_ms > 0)
			bound_lock_waits(bound_ms);

		body(arg);

		AtEOXact_GUC(true, nest_level);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller_context);
		error = CopyErrorData();
		FlushErrorState();

		/* takes the settings back, too */
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller_context);
	CurrentResourceOwner = caller_owner;

	if (error != NULL && means_stop_now(error))
		ReThrowError(error);
	return error;
}

/*
 * Runs body(arg).  Returns NULL if it succeeded, and then its effects are part
 * of the caller's transaction; otherwise the error, in the caller's memory
 * context, and then they are undone.
 */
ErrorData *
acr_attempt(AcrAttemptBody body, void *arg)
{
	return attempt(body, arg, acr_lock_timeout);
}

/* The same, waiting for each lock for at most bound_ms. */
ErrorData *
acr_attempt_within(AcrAttemptBody body, void *arg, int bound_ms)
{
	return attempt(body, arg, Max(bound_ms, 1));
}

/* The same, waiting for locks as long as the session would. */
ErrorData *
acr_attempt_unbounded(AcrAttemptBody body, void *arg)
{
	return attempt(body, arg, 0);
}

/*
 * Is this a failure that no further attempt in this transaction can cure?  In
 * READ COMMITTED a serialization failure is somebody's own invention and may
 * pass; with a snapshot for the whole transaction it cannot.
 */
bool
acr_attempt_is_futile(const ErrorData *error)
{
	return IsolationUsesXactSnapshot() &&
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

static void
convert_body(void *arg)
{
	(void) pg_server_to_client(arg, strlen(arg));
}

/*
 * The failure's message, for a WARNING.  Where the client's encoding has no
 * letters for a message the server raises an error in its place, and the failure
 * that was survived would become one that is not.  So those letters are left out.
 *
 * To be called before the report is begun: an error caught meanwhile ends that.
 */
char *
acr_attempt_cause(const ErrorData *failure)
{
	char	   *cause = pstrdup(failure->message);

	if (acr_attempt_unbounded(convert_body, cause) != NULL)
	{
		for (char *c = cause; *c != '\0'; c++)
		{
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
		}
	}
	return cause;
}

/* Pauses; a cancel, a timeout or a shutdown ends the pause with its error. */
void
acr_attempt_pause(long ms)
{
	static uint32 wait_event = 0;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AiChatRunFinalizeRetry");

	for (;;)
	{
		long		left;

		CHECK_FOR_INTERRUPTS();
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (left <= 0)
			return;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, wait_event);
		ResetLatch(MyLatch);
	}
}
