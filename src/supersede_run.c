/*
 * supersede_run: stop the chat's run, wait for its end, begin the next one.
 *
 * The claim (claims.c) keeps the slot for us from the moment it is made: a
 * begin_run that comes later is refused even when the old run has ended.  What
 * is committed, and when:
 *
 *	 1. claim the chat; if somebody else has, wait until he has done, and go on
 *		with what is left of the time
 *	 2. look who is active: nobody (begin), another run (mismatch), the target
 *	 3. request the target to stop, commit, so that its runner is told
 *	 4. sleep and look, until the target is terminal or the time is over
 *	 5. begin the new run, commit, and only then release the claim
 *
 * A begin that was under way before the claim, and is not committed, is not to
 * be seen in step 2; it is met in step 5, whose insert waits for it as
 * begin_run's does, for as long as there is time.
 *
 * Two superseders of one target: the second waits in step 1; when the first has
 * begun its run, the second finds that one active, and that is a mismatch.
 *
 * A step that meets a lock, or a serialization failure, which a snapshot for the
 * whole transaction makes of any concurrent change, is repeated in a new
 * transaction.
 *
 * An error, a cancel or the end of the session in any step releases the claim,
 * and what was committed stays: the target may have been told to stop.
 */
#include "postgres.h"

#include <limits.h>

#include "arguments.h"
#include "attempt.h"
#include "begin.h"
#include "claims.h"
#include "commit_news.h"
#include "compat.h"
#include "deferral.h"
#include "miscadmin.h"
#include "procedure.h"
#include "run_id.h"
#include "run_state.h"
#include "stop.h"
#include "sweep.h"
#include "utils/builtins.h"
#include "wakeup.h"

PG_FUNCTION_INFO_V1(acr_supersede_run);

/* Before a step is repeated, unless something happens. */
#define RETRY_PAUSE_MS	100

/* How often to repeat a step after a serialization failure, or a deadlock. */
#define MAX_CONFLICTS	100

typedef struct Supersession
{
	AcrProcedure proc;
	AcrRunKey	target;
	AcrNewRun	new_run;
	bool		force;
	AcrWait		wait;

	bool		was_active;		/* the target, when we came */
	bool		told;			/* and it was told to stop */
	bool		target_over;	/* terminal, or gone */
	bool		again;			/* the last step failed, and is to be repeated */
	int			conflicts;
	AcrBeginOutcome begun;

	const char *outcome;
	bool		has_run_id;
	pg_uuid_t	run_id;
} Supersession;

static void
set_outcome(Supersession *s, const char *outcome, const pg_uuid_t *run_id)
{
	s->outcome = outcome;
	s->has_run_id = run_id != NULL;
	if (run_id != NULL)
		s->run_id = *run_id;
}

/*
 * Looks at the target.  What was deferred for it is applied first, if that can
 * be now.
 *
 * Errors: 22023 if it is a run of another chat.
 */
static void
look_at_target(Supersession *s)
{
	ErrorData  *failure;
	AcrRun		run;
	bool		found = acr_table_find(&s->target, &run);

	if (found && memcmp(&run.chat_id, &s->new_run.chat_id, UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("run %s is not a run of chat %s",
						acr_uuid_string(&s->target.id),
						acr_uuid_string(&s->new_run.chat_id))));
	s->target_over = !found || run.is_terminal;
	if (!s->target_over && acr_table_find_deferred(&s->target) != NULL &&
		acr_deferral_settle(&s->target, false, &failure) == ACR_SETTLED)
		s->target_over = true;
}

static void
begin_body(void *arg)
{
	Supersession *s = arg;
	AcrActiveRun active;

	acr_run_id_new(&s->new_run.key.id);
	s->begun = acr_begin(&s->new_run, false, true, &active);
	if (s->begun == ACR_BUSY)
		s->run_id = active.id;
}

/*
 * Is this the fault of others who were there at the same time, so that another
 * transaction may succeed?  Any other failure goes up.
 */
static void
require_contention(const ErrorData *failure)
{
	if (failure->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		failure->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED &&
		failure->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE)
		ReThrowError((ErrorData *) failure);
}

/* Goes round again; not for ever where that may cost no time. */
static void
try_again(Supersession *s, const ErrorData *failure)
{
	if (failure->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		++s->conflicts > MAX_CONFLICTS)
		ReThrowError((ErrorData *) failure);
	s->again = true;
}

/* Begins the new run.  Waits for a rival, but not beyond our time. */
static void
begin_new(Supersession *s)
{
	int64		ms = acr_wait_time_left(&s->wait);
	ErrorData  *failure = acr_attempt_within(begin_body, s, (int) Min(ms, INT_MAX));

	if (failure != NULL)
	{
		require_contention(failure);
		if (ms > 0)
			try_again(s, failure);
		else
			set_outcome(s, "timeout", NULL);
	}
	else if (s->begun == ACR_BEGAN)
		set_outcome(s, s->was_active ? "superseded" : "began", &s->new_run.key.id);
	else
		set_outcome(s, "mismatch", s->begun == ACR_BUSY ? &s->run_id : NULL);
}

/* Aborts the target and begins the new run, or neither. */
static void
force_body(void *arg)
{
	Supersession *s = arg;

	if (acr_deferral_finish_undecided(&s->target, ACR_RUN_ABORTED,
									  cstring_to_text(ACR_SUPERSEDED_TEXT)))
		acr_count_at_commit(ACR_FINALIZED_ABORTED, 1);
	else
		look_at_target(s);
	begin_body(arg);
}

/* The time is over, and the target is active. */
static void
give_up(Supersession *s)
{
	ErrorData  *failure;

	if (!s->force)
	{
		set_outcome(s, "timeout", NULL);
		return;
	}

	failure = acr_attempt(force_body, s);
	if (failure != NULL)
		require_contention(failure);
	if (failure != NULL && failure->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		try_again(s, failure);
	else if (failure != NULL)
	{
		char	   *cause = acr_attempt_cause(failure);

		ereport(WARNING,
				(errcode(failure->sqlerrcode),
				 errmsg("could not abort run %s: %s",
						acr_uuid_string(&s->target.id), cause)));
		set_outcome(s, "timeout", NULL);
	}
	else if (s->begun == ACR_BEGAN)
		set_outcome(s, "superseded", &s->new_run.key.id);
	else if (s->begun == ACR_BUSY &&
			 memcmp(&s->run_id, &s->target.id, UUID_LEN) != 0)
		set_outcome(s, "mismatch", &s->run_id);
	else
		set_outcome(s, "timeout", NULL);
}

static void
tell_body(void *arg)
{
	Supersession *s = arg;

	(void) acr_request_stop_of(&s->target);
}

/* Tells the target to stop. */
static void
tell_target(Supersession *s)
{
	ErrorData  *failure = acr_attempt_unbounded(tell_body, s);

	if (failure == NULL)
	{
		s->told = true;
		return;
	}
	require_contention(failure);
	if (acr_wait_time_left(&s->wait) > 0)
		try_again(s, failure);
	else
		give_up(s);
}

/*
 * Another run than the target holds the slot: that is a mismatch, unless its end
 * was but deferred.
 */
static void
face_rival(Supersession *s, const AcrActiveRun *active)
{
	AcrRunKey	key = {.id = active->id,.workspace_id = s->target.workspace_id};
	ErrorData  *failure;

	if (acr_deferral_make_way(&key, false, &failure))
		begin_new(s);
	else if (failure != NULL && acr_attempt_is_futile(failure))
		try_again(s, failure);
	else
		set_outcome(s, "mismatch", &active->id);
}

/* Step 2, and step 3 if it is the target who is active. */
static void
look_and_tell(Supersession *s)
{
	AcrActiveRun active;

	if (!acr_table_find_active(&s->new_run.chat_id,
							   &s->new_run.key.workspace_id, &active))
		begin_new(s);
	else if (memcmp(&active.id, &s->target.id, UUID_LEN) == 0)
	{
		s->was_active = true;
		tell_target(s);
	}
	else
		face_rival(s, &active);
}

/* A step: sets the outcome, or asks to be tried again, or leaves us waiting. */
static void
take_step(Supersession *s)
{
	acr_procedure_enter(&s->proc);
	look_at_target(s);
	if (!s->told)
		look_and_tell(s);
	else if (s->target_over)
		begin_new(s);
	else if (acr_wait_time_left(&s->wait) <= 0)
		give_up(s);
	acr_procedure_commit(&s->proc);
}

/* Step 1.  False if the time is over. */
static bool
claim_chat(Supersession *s)
{
	while (!acr_claims_take(&s->new_run.chat_id, &s->target))
	{
		acr_procedure_let_go(&s->proc);
		if (!acr_wait_sleep(&s->wait))
			return false;
		acr_wait_before_look(&s->wait);
	}
	return true;
}

/* Steps 2 to 5. */
static void
supersede_claimed(Supersession *s, uint32 wait_event)
{
	acr_wait_watch(&s->wait, acr_wakeup_of_uuid(&s->target.id), wait_event);
	while (s->outcome == NULL)
	{
		CHECK_FOR_INTERRUPTS();
		s->again = false;
		acr_wait_before_look(&s->wait);
		take_step(s);
		if (s->outcome == NULL)
			(void) acr_wait_sleep_for(&s->wait, s->again ? RETRY_PAUSE_MS : PG_INT64_MAX);

		/* The new run shall not be older than what we have slept through. */
		acr_procedure_let_go(&s->proc);
	}
}

static void
supersede(Supersession *s)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AiChatRunSupersede");

	acr_wait_watch(&s->wait, acr_wakeup_of_uuid(&s->new_run.chat_id), wait_event);
	if (!claim_chat(s))
	{
		set_outcome(s, "timeout", NULL);
		return;
	}
	PG_TRY();
	{
		supersede_claimed(s, wait_event);
	}
	PG_FINALLY();
	{
		acr_claims_release();
	}
	PG_END_TRY();
}

static void
get_arguments(Supersession *s, FunctionCallInfo fcinfo)
{
	AcrNewRun  *run = &s->new_run;

	run->chat_id = *acr_require_uuid(fcinfo, 0, "chat_id");
	s->target.id = *acr_require_uuid(fcinfo, 1, "target_run_id");
	run->key.workspace_id = *acr_require_uuid(fcinfo, 2, "workspace_id");
	s->target.workspace_id = run->key.workspace_id;
	run->created_by = acr_optional_uuid(fcinfo, 3);
	run->trigger = acr_optional_text(fcinfo, 4);
	if (run->trigger == NULL)
		run->trigger = cstring_to_text("user");
	run->runner = acr_begin_runner(NULL);
	acr_wait_init(&s->wait, acr_wakeup_of_uuid(&run->chat_id),
				  acr_require_timeout(fcinfo, 5), 0);
	s->force = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6);
}

/*
 * supersede_run(chat_id uuid, target_run_id uuid, workspace_id uuid,
 *				 created_by uuid default null, trigger text default 'user',
 *				 timeout interval default '10 s', force boolean default false,
 *				 inout outcome text, inout run_id uuid)
 *
 * Stops the target, waits until it is terminal, and begins a new run in its
 * place, which nobody else can take meanwhile.  Outcomes:
 *
 *	 superseded	run_id is the new run
 *	 began		no run was active: run_id is the new run
 *	 mismatch	another run is active: run_id; nothing was changed
 *	 timeout	the target is still running, and nothing was begun
 *
 * With force, at the timeout the target is aborted and the new run begun in one
 * transaction.
 *
 * Errors: 22023 for a target of another chat; otherwise as await_run and
 * begin_run.
 */
Datum
acr_supersede_run(PG_FUNCTION_ARGS)
{
	Supersession s = {0};
	Datum		values[2];
	bool		nulls[2];

	acr_procedure_begin(&s.proc, fcinfo, "supersede_run()");
	PreventCommandIfReadOnly("supersede_run()");
	get_arguments(&s, fcinfo);

	/* Where a commit is not possible, that shall show before anybody is told. */
	acr_procedure_let_go(&s.proc);
	acr_count_now(ACR_WAITS);
	supersede(&s);
	acr_procedure_end(&s.proc);

	values[0] = CStringGetTextDatum(s.outcome);
	nulls[0] = false;
	values[1] = UUIDPGetDatum(&s.run_id);
	nulls[1] = !s.has_run_id;
	return acr_procedure_result(&s.proc, values, nulls);
}
