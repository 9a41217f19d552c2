/*
 * An entry of the attached runners, for the rooms that know it: runners.c,
 * which keeps them, runner_attachment.c and runner_reaping.c.
 */
#ifndef ACR_RUNNER_ENTRY_H
#define ACR_RUNNER_ENTRY_H

#include "runners.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"

#define ACR_MAX_RUNNERS		(2 * MaxBackends + 64)

typedef enum AcrRunnerState
{
	ACR_RUNNER_ATTACHED,
	ACR_RUNNER_DEPARTED,
	ACR_RUNNER_REAPING
} AcrRunnerState;

typedef struct AcrRunnerKey
{
	Oid			dboid;
	char		name[ACR_RUNNER_MAXLEN + 1];	/* padded with zeroes */
} AcrRunnerKey;

typedef struct AcrRunner
{
	AcrRunnerKey key;			/* hash key */
	AcrRunnerState state;
	int			pid;			/* of the session, or of the worker */
	AcrIncarnation incarnation;
	TimestampTz departed_at;
} AcrRunner;

extern LWLock *acr_runners_lock(void);
extern ConditionVariable *acr_runners_reaped(void);
extern void acr_runner_key(AcrRunnerKey *key, const char *name);
extern TimestampTz acr_runner_grace_end(const AcrRunner *runner);

/* Who walks the table, or searches it, holds the lock. */
extern HTAB *acr_runners_table(void);

#endif							/* ACR_RUNNER_ENTRY_H */
