/*
 * A look at a run's row that shared memory learns from.
 *
 * So a run comes to be tracked again that was begun before server start, or by
 * a direct INSERT, or in a prepared transaction, or that did not fit before.
 */
#include "postgres.h"

#include "arguments.h"
#include "attempt.h"
#include "commit_news.h"
#include "run_batch.h"
#include "shared_state.h"
#include "tracking.h"

typedef struct VisibilityLook
{
	const AcrRunKey *key;
	bool		found;
} VisibilityLook;

void
acr_track_fill(AcrLiveRun *live, const pg_uuid_t *workspace_id,
			   const pg_uuid_t *chat_id, const char *runner)
{
	memset(live, 0, sizeof(*live));
	live->workspace_id = *workspace_id;
	live->chat_id = *chat_id;
	acr_copy_runner_name(live->runner, runner);
}

/*
 * A transaction that has changed runs may see its own changes, which others must
 * not learn of yet.
 */
static bool
find_only(const AcrRunKey *key, AcrRun *run, bool *tracked)
{
	AcrLiveLook look;

	if (!acr_table_find(key, run))
		return false;
	acr_live_look(&key->id, &look);
	*tracked = look.known && !run->is_terminal;
	return true;
}

/*
 * Looks the run up as of now, like acr_table_find().  *tracked tells whether
 * it is active and shared memory knows of it, too; "heard", that it is its
 * runner who calls.
 */
bool
acr_track(const AcrRunKey *key, bool heard, AcrRun *run, bool *tracked)
{
	AcrLiveKey	live_key;
	AcrLiveTicket ticket;
	AcrLiveRun	live;

	*tracked = false;
	if (!acr_shared_exists())
		return acr_table_find(key, run);
	if (acr_news_of_runs_pending())
		return find_only(key, run, tracked);

	acr_live_key(&live_key, &key->id);
	acr_live_expect(&ticket, &live_key);
	if (!acr_table_find(key, run))
	{
		/* It may be there in another workspace. */
		acr_live_give_up(&ticket);
		return false;
	}
	if (run->is_terminal)
	{
		acr_live_forget_expected(&ticket);
		return true;
	}

	acr_track_fill(&live, &key->workspace_id, &run->chat_id, run->runner);
	acr_live_confirm(&ticket, &live, run->stop_requested, heard);
	*tracked = ticket.number != 0;
	if (!*tracked)
		acr_count_now(ACR_UNTRACKED);
	return true;
}

static void
look_body(void *arg)
{
	VisibilityLook *look = arg;
	AcrRun		run;

	look->found = acr_table_find(look->key, &run);
}

/*
 * May the caller go by what shared memory knows of the run?  Where policies
 * decide what he sees, only if a look finds the run: one that they hide from
 * him is not there.  One that fails finds nothing; the row will tell him why.
 */
bool
acr_track_is_visible(const AcrRunKey *key)
{
	VisibilityLook look = {.key = key};

	if (!acr_table_has_policies())
		return true;
	return acr_attempt(look_body, &look) == NULL && look.found;
}

static int
compare_uuids(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

/*
 * Compares some of what is tracked with the rows, where nobody has for long,
 * nor since "before".  Returns how many were compared; 0 means all of them.
 */
int
acr_track_check_some(TimestampTz before)
{
	AcrLiveTicket *tickets;
	pg_uuid_t  *active;
	pg_uuid_t  *ids;
	int			n = acr_live_list_doubtful(before, 1000, &tickets);
	int			n_active;

	if (n == 0)
		return 0;

	ids = palloc(n * sizeof(pg_uuid_t));
	for (int i = 0; i < n; i++)
		ids[i] = tickets[i].key.run_id;
	n_active = acr_table_which_active(ids, n, &active);
	if (n_active > 1)
		qsort(active, n_active, sizeof(pg_uuid_t), compare_uuids);

	for (int i = 0; i < n; i++)
	{
		if (tickets[i].key.relid == acr_table_oid() && n_active > 0 &&
			bsearch(&tickets[i].key.run_id, active, n_active, sizeof(pg_uuid_t),
					compare_uuids) != NULL)
			acr_live_trust(&tickets[i]);
		else
			acr_live_forget_unchanged(&tickets[i]);
	}
	return n;
}
