/*
 * attach_runner: an application process tells that it is there.
 *
 * The name is bound to the session (runners.c); when that ends, everybody knows
 * at once that the process is gone, however it died.  An incarnation is one
 * life of the process.  The one that attached last is kept in a table, so that
 * after a lost connection, or a restart of the server, a process that comes
 * back is told from one that was started anew.
 */
#include "postgres.h"

#include "access/xact.h"
#include "arguments.h"
#include "commit_news.h"
#include "databases.h"
#include "miscadmin.h"
#include "run_id.h"
#include "runner_row.h"
#include "runners.h"
#include "settings.h"
#include "shared_state.h"
#include "sweep.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(acr_attach_runner);

/* Aborts those of the runner's runs that no client has locked. */
static int64
abort_free_runs(text *runner)
{
	AcrSweepFilter filter = {.silent_since = DT_NOEND,.runner = runner};
	AcrCursor	cursor = {.more = true};
	int64		aborted = 0;

	while (cursor.more)
		aborted += acr_sweep_step(&filter, ACR_REPLACED_TEXT,
								  acr_sweep_batch_size, &cursor);
	return aborted;
}

/*
 * The others are deferred: nobody would come for them later, since from now on
 * they look as if they were ours.  If somebody else decides on one at this
 * moment, that holds.
 */
static int64
abort_earlier_runs(text *runner)
{
	int64		aborted = abort_free_runs(runner);
	bool		all_decided;

	acr_count_at_commit(ACR_SWEPT_DEPARTED, aborted);
	return aborted + acr_sweep_defer_locked(runner, ACR_REPLACED_TEXT,
											&all_decided);
}

/* Several processes, and a server that takes them all for dead when it starts. */
static void
warn_of_restart(void)
{
	int			n = acr_runners_count_attached();

	if (acr_boot_sweep == ACR_BOOT_SWEEP_ON && n > 1 && acr_databases_warn_once())
		ereport(WARNING,
				(errmsg("a restart of the server would abort the runs of all attached runners"),
				 errdetail("%d runners are attached, and ai_chat_run.boot_sweep is \"on\".", n),
				 errhint("Set ai_chat_run.boot_sweep to \"grace\" to keep the runs of runners that live on.")));
}

/*
 * attach_runner(runner text, incarnation uuid default null) returns bigint
 *
 * Binds the runner's name to this session.  Active runs that an earlier
 * incarnation of that name left are aborted; those of the same one are kept.
 * Without an incarnation it is a new one.  Returns the number of runs aborted,
 * among them those that will be when a client has unlocked their rows.
 *
 * Messages: a WARNING, once, if several runners are attached and a restart of
 * the server would abort their runs.
 *
 * Errors: 55000 without preloading, 22004 for a null, 22023 for a name that is
 * empty or too long, 55006 if another live session has the name, 53400 if too
 * many are attached, 25006 in a read-only transaction or on a standby.  The
 * transaction cannot be prepared for two-phase commit (0A000).
 */
Datum
acr_attach_runner(PG_FUNCTION_ARGS)
{
	text	   *runner;
	char	   *name;
	AcrIncarnation incarnation;
	AcrIncarnation stored;
	int64		aborted = 0;

	acr_shared_require("attach_runner()");
	acr_require_not_null(fcinfo, 0, "runner");
	runner = PG_GETARG_TEXT_PP(0);
	name = text_to_cstring(runner);
	acr_check_runner_name(name);
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("runner must not be empty")));
	PreventCommandIfReadOnly("attach_runner()");
	if (PG_ARGISNULL(1))
		acr_run_id_new(&incarnation.id);
	else
		incarnation.id = *PG_GETARG_UUID_P(1);

	acr_shared_note_start();
	acr_runners_attach(name);
	if (acr_table_find_runner(runner, &stored) &&
		memcmp(&stored.id, &incarnation.id, UUID_LEN) == 0)
		incarnation = stored;
	else
	{
		incarnation.since = GetCurrentTimestamp();
		incarnation.attached_in = GetCurrentTransactionStartTimestamp();
		aborted = abort_earlier_runs(runner);
	}
	acr_table_attach_runner(runner, &incarnation);
	acr_runners_set_incarnation(name, &incarnation);
	warn_of_restart();

	PG_RETURN_INT64(aborted);
}
