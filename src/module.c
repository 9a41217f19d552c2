/*
 * The module: what is set up when the library is loaded.
 */
#include "postgres.h"

#include "compat.h"
#include "commit_news.h"
#include "fmgr.h"
#include "launcher.h"
#include "miscadmin.h"
#include "planning.h"
#include "runners.h"
#include "settings.h"
#include "shared_state.h"
#include "watched_commands.h"

PG_MODULE_MAGIC_EXT(.name = "ai_chat_run");

void		_PG_init(void);

/*
 * Without preloading there are the functions alone; shared memory and the
 * launcher can only be had while the postmaster starts.  In a binary upgrade
 * nothing may write to the new cluster.
 */
void
_PG_init(void)
{
	acr_settings_define();
	acr_planning_init();
	acr_commit_news_init();

	if (!process_shared_preload_libraries_in_progress)
		return;
	acr_shared_request();
	acr_runners_init();
	acr_watch_commands();
	if (!IsBinaryUpgrade)
		acr_launcher_register();
}
