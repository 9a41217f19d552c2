/*
 * is_locally_active: has this server heard from the run's runner?
 */
#include "postgres.h"

#include "access/xlog.h"
#include "arguments.h"
#include "commit_news.h"
#include "live_runs.h"
#include "run_row.h"
#include "runners.h"
#include "shared_state.h"

PG_FUNCTION_INFO_V1(acr_is_locally_active);

/*
 * is_locally_active(run_id uuid) returns boolean
 *
 * Is the run active, and has this server heard from its runner since server
 * start: has it begun the run, called record_step or heartbeat, or is it
 * attached?
 *
 * Errors: 55000 without preloading, 22004 for a null.
 */
Datum
acr_is_locally_active(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *run_id;
	AcrLiveLook look;
	bool		written_since;
	char		runner[ACR_RUNNER_MAXLEN + 1];

	acr_shared_require("is_locally_active()");
	run_id = acr_require_uuid(fcinfo, 0, "run_id");
	if (RecoveryInProgress())
		PG_RETURN_BOOL(false);	/* nobody can have called a standby */

	acr_live_look(run_id, &look);
	if (look.current && look.heard_at != 0 && !acr_news_of_runs_pending() &&
		!acr_table_has_policies())
		PG_RETURN_BOOL(true);

	acr_shared_note_start();
	if (!acr_table_is_active(run_id, acr_shared_open_time(), &written_since, runner))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(look.heard_at != 0 || written_since ||
				   acr_runners_is_attached(runner));
}
