/*
 * The settings: names, units, limits, and the checks that refuse nonsense when
 * it is set and not when it is used.
 *
 * What a session may choose for its own calls is USERSET; what the background
 * worker goes by is SIGHUP; what decides the size of shared memory is
 * POSTMASTER, and does not exist without preloading.
 */
#include "postgres.h"

#include <limits.h>

#include "ai_chat_run.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/guc.h"

int			acr_boot_sweep = ACR_BOOT_SWEEP_ON;
int			acr_boot_grace = 30 * 1000;
int			acr_stale_after = 15 * 60 * 1000;
int			acr_reconcile_interval = 60 * 1000;
int			acr_runner_grace = 10 * 1000;
int			acr_retention = 0;
int			acr_finalize_max_attempts = 3;
int			acr_finalize_retry_base = 50;
int			acr_lock_timeout = 1000;
int			acr_sweep_batch_size = 1000;
int			acr_max_active_runs = 10000;
char	   *acr_runner = NULL;

static const struct config_enum_entry boot_sweep_options[] = {
	{"on", ACR_BOOT_SWEEP_ON, false},
	{"grace", ACR_BOOT_SWEEP_GRACE, false},
	{"off", ACR_BOOT_SWEEP_OFF, false},
	{"true", ACR_BOOT_SWEEP_ON, true},
	{"false", ACR_BOOT_SWEEP_OFF, true},
	{"yes", ACR_BOOT_SWEEP_ON, true},
	{"no", ACR_BOOT_SWEEP_OFF, true},
	{"1", ACR_BOOT_SWEEP_ON, true},
	{"0", ACR_BOOT_SWEEP_OFF, true},
	{NULL, 0, false}
};

static bool
check_runner(char **newval, void **extra, GucSource source)
{
	if (*newval == NULL || strlen(*newval) <= ACR_RUNNER_MAXLEN)
		return true;
	GUC_check_errdetail("A runner name has at most %d bytes.", ACR_RUNNER_MAXLEN);
	return false;
}

static void
define_worker_settings(void)
{
	DefineCustomEnumVariable("ai_chat_run.boot_sweep",
							 "Whether runs left active by the previous life of the server are aborted at server start.",
							 "\"on\" aborts all of them, \"grace\" waits ai_chat_run.boot_grace and keeps those whose runner has called or attached since, \"off\" leaves them.",
							 &acr_boot_sweep,
							 ACR_BOOT_SWEEP_ON,
							 boot_sweep_options,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("ai_chat_run.boot_grace",
							"How long after server start the boot sweep waits for runners to call, where ai_chat_run.boot_sweep is \"grace\".",
							"It should be longer than runners take to reconnect. 0 does not wait.",
							&acr_boot_grace,
							30 * 1000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ai_chat_run.stale_after",
							"Active runs silent for this long are aborted by the background worker.",
							"Those of attached runners are left alone. 0 turns this off.",
							&acr_stale_after,
							15 * 60 * 1000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ai_chat_run.reconcile_interval",
							"Time between two looks of the background worker at a database that has active runs.",
							"Departed runners and deferred finalizations do not wait for it.",
							&acr_reconcile_interval,
							60 * 1000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ai_chat_run.runner_grace",
							"Time that an attached runner has to come back after its session has ended, before its runs are aborted.",
							"0 gives it none.",
							&acr_runner_grace,
							10 * 1000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ai_chat_run.retention",
							"Terminal runs older than this are deleted by the background worker.",
							"0 keeps them.",
							&acr_retention,
							0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ai_chat_run.sweep_batch_size",
							"Number of runs that a sweep settles, or deletes, in one step.",
							"The background worker commits after each step; sweep_runs() and purge_runs() do not commit.",
							&acr_sweep_batch_size,
							1000, 1, 100000,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
}

/* The server takes these while it starts, and refuses them later. */
static void
define_startup_settings(void)
{
	DefineCustomIntVariable("ai_chat_run.max_active_runs",
							"Number of active runs that are tracked in shared memory.",
							"Each takes about 300 bytes. More still work; they are looked after by their rows.",
							&acr_max_active_runs,
							10000, 1, 1000000,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
}

static void
define_session_settings(void)
{
	DefineCustomIntVariable("ai_chat_run.finalize_max_attempts",
							"How often finalize_run() tries the terminal write before it defers it.",
							"1 means that it is tried once.",
							&acr_finalize_max_attempts,
							3, 1, 100,
							PGC_USERSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ai_chat_run.finalize_retry_base",
							"Pause after the first failed attempt of finalize_run(); after the n-th it is n times as long.",
							"0 tries again at once.",
							&acr_finalize_retry_base,
							50, 0, 60 * 1000,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ai_chat_run.lock_timeout",
							"How long one attempt of a write may wait for a lock.",
							"A shorter lock_timeout of the session wins.",
							&acr_lock_timeout,
							1000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomStringVariable("ai_chat_run.runner",
							   "Name of the application process that executes the runs begun in this session.",
							   "Used where begin_run() gets no runner, and by supersede_run(). At most 127 bytes; empty for none.",
							   &acr_runner,
							   "",
							   PGC_USERSET, 0,
							   check_runner, NULL, NULL);
}

void
acr_settings_define(void)
{
	define_worker_settings();
	define_session_settings();
	if (process_shared_preload_libraries_in_progress)
		define_startup_settings();
	MarkGUCPrefixReserved("ai_chat_run");
}
