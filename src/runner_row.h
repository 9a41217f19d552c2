/*
 * Runners that have attached: their rows, typed.
 */
#ifndef ACR_RUNNER_ROW_H
#define ACR_RUNNER_ROW_H

#include "c.h"
#include "run_table.h"
#include "runners.h"
#include "utils/array.h"

extern bool acr_table_find_runner(text *runner, AcrIncarnation *incarnation);
extern void acr_table_attach_runner(text *runner,
									const AcrIncarnation *incarnation);
extern void acr_table_see_runner(text *runner);
extern void acr_table_forget_runners(ArrayType *present,
									 TimestampTz seen_before);
extern int	acr_table_active_of_runner(text *runner, AcrRunKey **keys);

#endif							/* ACR_RUNNER_ROW_H */
