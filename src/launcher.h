/*
 * The launcher and its workers.
 */
#ifndef ACR_LAUNCHER_H
#define ACR_LAUNCHER_H

#include "postgres.h"

extern void acr_launcher_register(void);
extern PGDLLEXPORT void acr_launcher_main(Datum main_arg);
extern PGDLLEXPORT void acr_worker_main(Datum main_arg);

#endif							/* ACR_LAUNCHER_H */
