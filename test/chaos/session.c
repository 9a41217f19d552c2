#include "session.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct
{
	const char *name;
	const char *sql;			/* outcome, or outcome and run */
	int			n_params;
}			calls[N_CALLS] = {
	[BEGIN_RUN] = {"begin_run",
		"SELECT 'began', ai_chat_run.begin_run($1, $2, run_id => $3, runner => $4)", 4},
	[TRY_BEGIN_RUN] = {"try_begin_run",
		"SELECT outcome, run_id FROM ai_chat_run.try_begin_run($1, $2, run_id => $3, runner => $4)", 4},
	[RECORD_STEP] = {"record_step", "SELECT ai_chat_run.record_step($1, $2, $3)", 3},
	[HEARTBEAT] = {"heartbeat", "SELECT ai_chat_run.heartbeat($1, $2)", 2},
	[REQUEST_STOP] = {"request_stop",
		"SELECT CASE WHEN ai_chat_run.request_stop($1, $2) THEN 'true' ELSE 'false' END", 2},
	[REQUEST_STOP_FOR_CHAT] = {"request_stop_for_chat",
		"SELECT coalesce(id::text, 'null'), id"
		" FROM ai_chat_run.request_stop_for_chat($1, $2) id", 2},
	[FINALIZE_RUN] = {"finalize_run", "SELECT ai_chat_run.finalize_run($1, $2, $3)", 3},
	[SUPERSEDE_RUN] = {"supersede_run",
		"CALL ai_chat_run.supersede_run($1, $2, $3, timeout => $4, force => $5)", 5},
	[AWAIT_RUN] = {"await_run", "CALL ai_chat_run.await_run($1, $2, $3)", 3},
	[AWAIT_STOP] = {"await_stop", "CALL ai_chat_run.await_stop($1, $2, $3)", 3},
	[AWAIT_STOPS] = {"await_stops", "CALL ai_chat_run.await_stops($1, timeout => $2)", 2},
	[GET_ACTIVE_FOR_CHAT] = {"get_active_for_chat",
		"SELECT status, id FROM ai_chat_run.get_active_for_chat($1, $2)", 2},
	[GET_RUN] = {"get_run", "SELECT status, id FROM ai_chat_run.get_run($1, $2)", 2},
	[ATTACH_RUNNER] = {"attach_runner", "SELECT ai_chat_run.attach_runner($1, $2)", 2},
};

static PGconn *conn;
static bool prepared;
static int	history;
static int	drivers_history;
static long serial;

/* Of the call under way. */
static char deferred[16];

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static int
open_file(const char *directory, const char *name)
{
	char		path[1024];
	int			fd;

	snprintf(path, sizeof(path), "%s/%s.history", directory, name);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (fd < 0)
		die(path);
	return fd;
}

/* Ours, and the driver's, for what is not a call of ours. */
void
open_history(const char *directory, int client)
{
	char		name[32];

	snprintf(name, sizeof(name), "client-%d", client);
	history = open_file(directory, name);
	drivers_history = open_file(directory, "driver");
}

/* Writes a line at once, so that whoever kills us finds it whole. */
__attribute__((format(printf, 2, 3)))
static void
write_line(int fd, const char *format,...)
{
	char		line[512];
	va_list		args;
	int			length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (length < 0 || (size_t) length >= sizeof(line) ||
		write(fd, line, (size_t) length) != length)
		die("history");
}

/* A chat has more than one active run. */
void
tell_driver(const char *chat, int rivals)
{
	write_line(drivers_history, "O\t%lld\t%s\t%d\n", clock_us(), chat, rivals);
}

long long
clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

bool
session_is_open(void)
{
	return conn != NULL && PQstatus(conn) == CONNECTION_OK;
}

/* Keeps what a finalization that is given up says of the status. */
static void
receive_notice(void *arg, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *status;

	(void) arg;
	if (sqlstate == NULL || strcmp(sqlstate, "RN500") != 0 || message == NULL)
		return;
	status = strrchr(message, ';');
	if (status != NULL)
		sscanf(status, "; '%15[a-z]' is deferred", deferred);
}

static bool
prepare_calls(void)
{
	for (int i = 0; i < N_CALLS; i++)
	{
		PGresult   *result = PQprepare(conn, calls[i].name, calls[i].sql, 0, NULL);
		bool		done = PQresultStatus(result) == PGRES_COMMAND_OK;

		PQclear(result);
		if (!done)
			return false;
	}
	return true;
}

/* Tries to connect; the environment says where. */
void
open_session(const char *name, bool prepare)
{
	const char *keywords[] = {"dbname", "application_name", NULL};
	const char *values[] = {"postgres", name, NULL};

	if (conn != NULL)
		PQfinish(conn);
	conn = PQconnectdbParams(keywords, values, 0);
	PQsetNoticeReceiver(conn, receive_notice, NULL);
	prepared = prepare;
	if (PQstatus(conn) == CONNECTION_OK && prepare && !prepare_calls())
	{
		PQfinish(conn);
		conn = NULL;
	}
}

static PGresult *
send_call(const Call *call)
{
	const char *name = calls[call->id].name;
	int			n = calls[call->id].n_params;

	if (prepared)
		return PQexecPrepared(conn, name, n, call->params, NULL, NULL, 0);
	return PQexecParams(conn, calls[call->id].sql, n, NULL, call->params,
						NULL, NULL, 0);
}

static void
read_row(const PGresult *result, Answer *answer)
{
	const char *outcome = "none";

	if (PQntuples(result) > 0)
		outcome = PQgetisnull(result, 0, 0) ? "null" : PQgetvalue(result, 0, 0);
	snprintf(answer->outcome, sizeof(answer->outcome), "%s", outcome);
	if (PQntuples(result) > 0 && PQnfields(result) > 1 &&
		strlen(PQgetvalue(result, 0, 1)) == UUID_TEXT_SIZE - 1)
		snprintf(answer->run, sizeof(answer->run), "%s", PQgetvalue(result, 0, 1));
}

static void
read_answer(const PGresult *result, Answer *answer)
{
	ExecStatusType status = PQresultStatus(result);
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (!session_is_open())
	{
		answer->end = UNKNOWN;
		snprintf(answer->outcome, sizeof(answer->outcome), "lost");
	}
	else if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
	{
		answer->end = COMMITTED;
		read_row(result, answer);
	}
	else
	{
		answer->end = ROLLED_BACK;
		snprintf(answer->outcome, sizeof(answer->outcome), "%s",
				 sqlstate != NULL ? sqlstate : "lost");
	}
	snprintf(answer->deferred, sizeof(answer->deferred), "%s", deferred);
}

/* BEGIN, COMMIT or ROLLBACK; false if it was not done. */
static bool
control(const char *command)
{
	PGresult   *result = PQexec(conn, command);
	bool		done = PQresultStatus(result) == PGRES_COMMAND_OK &&
		strcmp(PQcmdStatus(result), command) == 0;

	PQclear(result);
	return done;
}

/* How a transaction block ends that the call has not aborted. */
static void
end_block(const Call *call, Answer *answer)
{
	if (call->wrapping == UNDONE)
	{
		(void) control("ROLLBACK");
		answer->end = ROLLED_BACK;
	}
	else if (!control("COMMIT"))
	{
		answer->end = session_is_open() ? ROLLED_BACK : UNKNOWN;
		snprintf(answer->outcome, sizeof(answer->outcome), "lost");
	}
}

static const char *
or_dash(const char *text)
{
	return text != NULL && text[0] != '\0' ? text : "-";
}

static void
record_answer(const Answer *answer)
{
	static const char *const ends[] = {"committed", "rolled_back", "unknown"};

	write_line(history, "R\t%lld\t%ld\t%s\t%s\t%s\t%s\n", clock_us(), serial,
				  ends[answer->end], answer->outcome, or_dash(answer->run),
				  or_dash(answer->deferred));
}

/* Makes a call in the open session, and keeps it and its answer. */
void
make_call(const Call *call, Answer *answer)
{
	PGresult   *result;

	memset(answer, 0, sizeof(*answer));
	deferred[0] = '\0';
	write_line(history, "C\t%lld\t%ld\t%s\t%s\t%s\t%s\n", clock_us(), ++serial,
				  calls[call->id].name, or_dash(call->chat), or_dash(call->run),
				  or_dash(call->argument));
	if (call->wrapping != ALONE && !control("BEGIN"))
	{
		/* Nothing was called. */
		answer->end = session_is_open() ? ROLLED_BACK : UNKNOWN;
		snprintf(answer->outcome, sizeof(answer->outcome), "lost");
		record_answer(answer);
		return;
	}
	result = send_call(call);
	read_answer(result, answer);
	PQclear(result);
	if (call->wrapping != ALONE && answer->end == COMMITTED)
		end_block(call, answer);
	else if (call->wrapping != ALONE && answer->end == ROLLED_BACK)
		(void) control("ROLLBACK");
	record_answer(answer);
}

/*
 * The chats with more than one active run, seen without any index; there must be
 * none.
 */
int
count_rivals(char chats[][UUID_TEXT_SIZE], int *counts, int max)
{
	PGresult   *result = PQexec(conn,
								"BEGIN;"
								"SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off;"
								"SET LOCAL enable_indexonlyscan = off;"
								"SELECT chat_id, count(*) FROM ai_chat_run.ai_chat_runs"
								" WHERE status IN ('pending', 'running') GROUP BY 1 HAVING count(*) > 1");
	int			n = 0;

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		for (; n < PQntuples(result) && n < max; n++)
		{
			snprintf(chats[n], UUID_TEXT_SIZE, "%s", PQgetvalue(result, n, 0));
			counts[n] = atoi(PQgetvalue(result, n, 1));
		}
	PQclear(result);
	(void) control("ROLLBACK");
	return n;
}
