/*
 * One unit of a background worker's work.
 */
#ifndef ACR_WORKER_UNIT_H
#define ACR_WORKER_UNIT_H

#include "utils/elog.h"

typedef void (*AcrUnitBody) (void *arg);

extern void acr_unit_pin_session(const char *application_name);
extern ErrorData *acr_unit_run(const char *activity, AcrUnitBody body,
							   void *arg);

#endif							/* ACR_WORKER_UNIT_H */
