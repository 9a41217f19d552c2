/*
 * Plans for the extension's own statements that do not depend on statistics.
 */
#ifndef ACR_PLANNING_H
#define ACR_PLANNING_H

extern void acr_planning_init(void);

#endif							/* ACR_PLANNING_H */
