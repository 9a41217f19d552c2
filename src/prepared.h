/*
 * Prepared transactions that have changed runs.
 */
#ifndef ACR_PREPARED_H
#define ACR_PREPARED_H

#include "c.h"

extern Size acr_prepared_shmem_size(void);
extern void acr_prepared_shmem_init(void);

extern void acr_prepared_expect(const char *gid);
extern void acr_prepared_add(void);
extern bool acr_prepared_take(const char *gid);
extern void acr_prepared_end_take(bool done);

extern bool acr_prepared_unknown_ones(void);
extern bool acr_prepared_doubtful(void);
extern void acr_prepared_none_is_old(void);

#endif							/* ACR_PREPARED_H */
