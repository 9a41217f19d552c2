/*
 * One attempt of a write: in a subtransaction, with bounded lock waiting.
 */
#ifndef ACR_ATTEMPT_H
#define ACR_ATTEMPT_H

#include "utils/elog.h"

typedef void (*AcrAttemptBody) (void *arg);

extern ErrorData *acr_attempt(AcrAttemptBody body, void *arg);
extern ErrorData *acr_attempt_within(AcrAttemptBody body, void *arg,
									 int bound_ms);
extern ErrorData *acr_attempt_unbounded(AcrAttemptBody body, void *arg);
extern bool acr_attempt_is_futile(const ErrorData *error);
extern char *acr_attempt_cause(const ErrorData *failure);
extern void acr_attempt_pause(long ms);

#endif							/* ACR_ATTEMPT_H */
