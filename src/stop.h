/*
 * Requesting a run to stop.
 */
#ifndef ACR_STOP_H
#define ACR_STOP_H

#include "run_row.h"

extern bool acr_request_stop_of(const AcrRunKey *key);

#endif							/* ACR_STOP_H */
