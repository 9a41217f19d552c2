/*
 * A client's session with a server that may go away at any moment, and the
 * history of what the client was told.
 */
#ifndef CHAOS_SESSION_H
#define CHAOS_SESSION_H

#include <libpq-fe.h>
#include <stdbool.h>

#define UUID_TEXT_SIZE	37

/* The workspace of all runs. */
#define WORKSPACE		"00000000-0000-4000-9000-000000000001"

typedef enum CallId
{
	BEGIN_RUN,
	TRY_BEGIN_RUN,
	RECORD_STEP,
	HEARTBEAT,
	REQUEST_STOP,
	REQUEST_STOP_FOR_CHAT,
	FINALIZE_RUN,
	SUPERSEDE_RUN,
	AWAIT_RUN,
	AWAIT_STOP,
	AWAIT_STOPS,
	GET_ACTIVE_FOR_CHAT,
	GET_RUN,
	ATTACH_RUNNER,
	N_CALLS
} CallId;

/* How the transaction of a call ended. */
typedef enum End
{
	COMMITTED,					/* and we were told so */
	ROLLED_BACK,				/* by us, or the call raised an error */
	UNKNOWN						/* the connection was lost */
} End;

/* Where the transaction of a call is to end. */
typedef enum Wrapping
{
	ALONE,						/* the call is a transaction of its own */
	IN_BLOCK,					/* BEGIN, the call, COMMIT */
	UNDONE						/* BEGIN, the call, ROLLBACK */
} Wrapping;

/* What a call is about; all of it goes into the history. */
typedef struct Call
{
	CallId		id;
	Wrapping	wrapping;
	const char *chat;			/* or NULL, as the next ones */
	const char *run;
	const char *argument;
	const char *params[5];		/* of its statement */
} Call;

typedef struct Answer
{
	End			end;
	char		outcome[64];	/* what it returned, or a SQLSTATE, or lost */
	char		run[UUID_TEXT_SIZE];	/* that it returned, or empty */
	char		deferred[16];	/* the status that a warning said is deferred */
} Answer;

extern void open_history(const char *directory, int client);
extern void tell_driver(const char *chat, int rivals);
extern long long clock_us(void);
extern bool session_is_open(void);
extern void open_session(const char *name, bool prepare);
extern void make_call(const Call *call, Answer *answer);
extern int	count_rivals(char chats[][UUID_TEXT_SIZE], int *counts, int max);

#endif							/* CHAOS_SESSION_H */
