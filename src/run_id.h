/*
 * Run ids: version 7 UUIDs, in the order in which they were made.
 */
#ifndef ACR_RUN_ID_H
#define ACR_RUN_ID_H

#include "utils/uuid.h"

extern void acr_run_id_new(pg_uuid_t *id);

#endif							/* ACR_RUN_ID_H */
