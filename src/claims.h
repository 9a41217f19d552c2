/*
 * Claims on chats: a superseder's word that the next run is his.
 */
#ifndef ACR_CLAIMS_H
#define ACR_CLAIMS_H

#include "run_table.h"

extern Size acr_claims_shmem_size(void);
extern void acr_claims_shmem_init(void);

extern bool acr_claims_take(const pg_uuid_t *chat_id, const AcrRunKey *target);
extern void acr_claims_release(void);
extern bool acr_claims_has_other(const pg_uuid_t *chat_id, AcrRunKey *target);

#endif							/* ACR_CLAIMS_H */
