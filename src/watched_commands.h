/*
 * Commands of the server's own that change what shared memory knows.
 */
#ifndef ACR_WATCHED_COMMANDS_H
#define ACR_WATCHED_COMMANDS_H

extern void acr_watch_commands(void);

#endif							/* ACR_WATCHED_COMMANDS_H */
