/*
 * Noticing that a prepared transaction is committed.
 */
#ifndef ACR_TWO_PHASE_H
#define ACR_TWO_PHASE_H

extern void acr_two_phase_init(void);

#endif							/* ACR_TWO_PHASE_H */
