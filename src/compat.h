/*
 * The only file that may look at PG_VERSION_NUM.
 *
 * An older server gets the newer server's name for a thing here, so that the
 * rest of the source reads like current PostgreSQL.
 */
#ifndef ACR_COMPAT_H
#define ACR_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "ai_chat_run needs PostgreSQL 15 or newer"
#endif

#include "utils/wait_event.h"

/* Since 16 the macros of variable-length values have a header of their own. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/*
 * Extensions name their own wait events since 17.  Before, every wait of an
 * extension shows as "Extension".
 */
#if PG_VERSION_NUM < 170000
#define WaitEventExtensionNew(name)		((uint32) PG_WAIT_EXTENSION)
#endif

/* 18 lets a module state its name and version beside the magic block. */
#if PG_VERSION_NUM < 180000
#define PG_MODULE_MAGIC_EXT(...)		PG_MODULE_MAGIC
#endif

/*
 * What the server keeps to wait for its client, as libpq/libpq.h declares it
 * since 14.  That header cannot be included: it asks for those of GSSAPI, which
 * a server's development package does not bring along.
 */
extern PGDLLIMPORT struct WaitEventSet *FeBeWaitSet;

#ifndef FeBeWaitSetSocketPos
#define FeBeWaitSetSocketPos	0
#define FeBeWaitSetNEvents		3
#endif

#endif							/* ACR_COMPAT_H */
