/*
 * One unit of a background worker's work: a transaction with a snapshot,
 * visible in pg_stat_activity, its statistics flushed.  An error ends the unit
 * and is handed back; the worker lives on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "run_table.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "worker_unit.h"

/*
 * Settings that a database may have for its sessions, and that would change what
 * our statements do or how long they may take.  Its search_path stays: our own
 * statements do not care, and somebody's trigger may.
 */
static const struct
{
	const char *name;
	const char *value;
}			pinned_settings[] = {
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"session_replication_role", "origin"},
	{"row_security", "off"},	/* an error rather than a row overlooked */
	{"statement_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"transaction_timeout", "0"},	/* there is one since 17 */

	/* a unit that meets a locked table comes again later */
	{"lock_timeout", "200ms"},
};

/* Called once, after connecting. */
void
acr_unit_pin_session(const char *application_name)
{
	for (size_t i = 0; i < lengthof(pinned_settings); i++)
	{
		if (GetConfigOption(pinned_settings[i].name, true, false) != NULL)
			SetConfigOption(pinned_settings[i].name, pinned_settings[i].value,
							PGC_SUSET, PGC_S_OVERRIDE);
	}
	SetConfigOption("application_name", application_name, PGC_USERSET,
					PGC_S_OVERRIDE);
}

/*
 * Takes on the rights of the table's owner.  A trigger that he put on his table
 * must not run with ours, which are those of the bootstrap superuser.
 */
static void
become_table_owner(void)
{
	Oid			owner;
	Oid			user;
	int			sec_context;

	if (!acr_table_exists(&owner))
		return;
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

/*
 * Runs body(arg) as one transaction.  Returns NULL if it was committed, or else
 * the error, in the caller's memory context.
 */
ErrorData *
acr_unit_run(const char *activity, AcrUnitBody body, void *arg)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	Oid			user;
	int			sec_context;

	GetUserIdAndSecContext(&user, &sec_context);
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, activity);

	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		become_table_owner();

		body(arg);

		PopActiveSnapshot();

		/* his deferred triggers run at commit: still not with our rights */
		CommitTransactionCommand();
		SetUserIdAndSecContext(user, sec_context);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(caller_context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller_context);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	return error;
}
