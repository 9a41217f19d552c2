/*
 * The settings, as the README lists them.
 */
#ifndef ACR_SETTINGS_H
#define ACR_SETTINGS_H

#include "c.h"

typedef enum AcrBootSweep
{
	ACR_BOOT_SWEEP_OFF,
	ACR_BOOT_SWEEP_GRACE,
	ACR_BOOT_SWEEP_ON
} AcrBootSweep;

extern int	acr_boot_sweep;
extern int	acr_boot_grace;		/* ms */
extern int	acr_stale_after;	/* ms; 0 is off */
extern int	acr_reconcile_interval; /* ms */
extern int	acr_runner_grace;	/* ms */
extern int	acr_retention;		/* s; 0 keeps all */
extern int	acr_finalize_max_attempts;
extern int	acr_finalize_retry_base;	/* ms */
extern int	acr_lock_timeout;	/* ms */
extern int	acr_sweep_batch_size;
extern int	acr_max_active_runs;
extern char *acr_runner;

extern void acr_settings_define(void);

#endif							/* ACR_SETTINGS_H */
