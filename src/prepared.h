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
extern void acr_prepared_put_back(const char *gid);

extern bool acr_prepared_old_ones(void);
extern void acr_prepared_no_old_ones(void);

#endif							/* ACR_PREPARED_H */
