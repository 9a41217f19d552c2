/*
 * Active runs, tracked in shared memory.
 */
#ifndef ACR_LIVE_RUNS_H
#define ACR_LIVE_RUNS_H

#include "ai_chat_run.h"
#include "run_table.h"

/* which run of which table; without padding, to be hashed as it is */
typedef struct AcrLiveKey
{
	Oid			dboid;
	Oid			relid;
	pg_uuid_t	run_id;
} AcrLiveKey;

/* what there is to know of an active run */
typedef struct AcrLiveRun
{
	pg_uuid_t	workspace_id;
	pg_uuid_t	chat_id;
	char		runner[ACR_RUNNER_MAXLEN + 1];	/* or empty */
} AcrLiveRun;

/* stands for the entry as it was before a look at the row */
typedef struct AcrLiveTicket
{
	AcrLiveKey	key;
	uint64		number;			/* 0: the run does not fit */
	uint32		epoch;
	TimestampTz looked_at;		/* at the row, as of then */
} AcrLiveTicket;

/* what is told of a run without a look at its row */
typedef struct AcrLiveLook
{
	bool		known;			/* the run is surely active, or was */
	bool		current;		/* and is */
	pg_uuid_t	workspace_id;
	TimestampTz heard_at;		/* of its runner; 0: never */
	bool		stop_requested;
} AcrLiveLook;

extern Size acr_live_shmem_size(void);
extern void acr_live_shmem_init(void);

extern void acr_live_key(AcrLiveKey *key, const pg_uuid_t *run_id);

/* by what the row says */
extern void acr_live_expect(AcrLiveTicket *ticket, const AcrLiveKey *key);
extern void acr_live_confirm(const AcrLiveTicket *ticket,
							 const AcrLiveRun *run, bool stop_requested,
							 bool heard);
extern void acr_live_trust(const AcrLiveTicket *ticket);
extern void acr_live_forget_unchanged(const AcrLiveTicket *ticket);
extern void acr_live_forget_expected(const AcrLiveTicket *ticket);
extern void acr_live_give_up(const AcrLiveTicket *ticket);

/* by what is about to be committed, and was */
extern void acr_live_begin_settling(const AcrLiveKey *key);
extern void acr_live_end_settling(const AcrLiveKey *key);
extern void acr_live_forget(const AcrLiveKey *key);
extern void acr_live_note_stop(const AcrLiveKey *key);
extern void acr_live_begin_distrust(void);
extern void acr_live_end_distrust(void);

/* by what is called */
extern bool acr_live_hear(const AcrRunKey *run, bool *stop_requested);
extern bool acr_live_request_stop(const AcrRunKey *run, AcrLiveRun *stopped);
extern void acr_live_look(const pg_uuid_t *run_id, AcrLiveLook *look);
extern int	acr_live_list_stops(const char *runner, pg_uuid_t **run_ids,
								bool *all_current);

/* upkeep */
extern int	acr_live_list_doubtful(TimestampTz before, int limit,
								   AcrLiveTicket **tickets);
extern void acr_live_forget_database(Oid dboid);

#endif							/* ACR_LIVE_RUNS_H */
