/*
 * What shared memory learns from a transaction when it commits.
 */
#ifndef ACR_COMMIT_NEWS_H
#define ACR_COMMIT_NEWS_H

#include "counters.h"
#include "live_runs.h"

extern void acr_commit_news_init(void);

extern void acr_count_now(AcrCounter counter);
extern void acr_count_at_commit(AcrCounter counter, uint64 n);
extern AcrCounter acr_counter_of_status(const char *status);

extern void acr_news_at_commit(uint32 news);
extern void acr_news_run_active(const pg_uuid_t *run_id, const AcrLiveRun *run,
								bool stop_requested);
extern void acr_news_run_moved(const pg_uuid_t *run_id, const AcrLiveRun *run);
extern void acr_news_run_settled(const pg_uuid_t *run_id);
extern void acr_news_run_stopped(const pg_uuid_t *run_id, const char *runner);
extern void acr_news_all_gone(void);
extern bool acr_news_of_runs_pending(void);

extern void acr_news_prepared_committing(void);
extern void acr_news_prepared_committed(void);

#endif							/* ACR_COMMIT_NEWS_H */
