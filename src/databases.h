/*
 * What the launcher and its workers know of each database, and the counters.
 */
#ifndef ACR_DATABASES_H
#define ACR_DATABASES_H

#include "c.h"
#include "counters.h"

/* what a session tells the launcher of its database */
#define ACR_NEWS_ACTIVE		0x01	/* there may be an active run */
#define ACR_NEWS_DEFERRED	0x02	/* a finalization was deferred */
#define ACR_NEWS_DEPARTED	0x04	/* a runner's session has ended */

#define ACR_MAX_DATABASES	4096

extern Size acr_databases_shmem_size(void);
extern void acr_databases_shmem_init(void);

extern void acr_databases_prepare(void);
extern void acr_databases_raise(uint32 news);
extern void acr_databases_raise_quietly(uint32 news);
extern bool acr_databases_warn_once(void);
extern void acr_databases_count(AcrCounter counter, uint64 n);

extern bool acr_databases_begin_scan(void);
extern bool acr_databases_see(Oid dboid, bool connectable, bool at_start);
extern void acr_databases_end_scan(void);

#endif							/* ACR_DATABASES_H */
