/*
 * Attached runners: application processes that hold a session open.
 */
#ifndef ACR_RUNNERS_H
#define ACR_RUNNERS_H

#include "ai_chat_run.h"
#include "utils/array.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* one life of an application process */
typedef struct AcrIncarnation
{
	pg_uuid_t	id;
	TimestampTz since;			/* when it attached first */
	TimestampTz attached_in;	/* the beginning of that transaction */
} AcrIncarnation;

extern Size acr_runners_shmem_size(void);
extern void acr_runners_shmem_init(void);
extern void acr_runners_init(void);

extern void acr_runners_attach(const char *runner);
extern void acr_runners_depart(void);
extern ArrayType *acr_runners_list(void);
extern int	acr_runners_count_attached(void);
extern bool acr_runners_is_attached(const char *name);
extern void acr_runners_set_incarnation(const char *name,
										const AcrIncarnation *incarnation);
extern bool acr_runners_looks_after(const char *runner, TimestampTz begun_at);

/* for the worker and the launcher */
extern TimestampTz acr_runners_next_departure(Oid dboid);
extern int	acr_runners_list_due(TimestampTz now, char ***names);
extern bool acr_runners_begin_reaping(const char *runner, TimestampTz now);
extern void acr_runners_end_reaping(bool done);
extern void acr_runners_forget_database(Oid dboid);

#endif							/* ACR_RUNNERS_H */
