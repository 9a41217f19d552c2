/*
 * load: runs a script of SQL statements over and over in several sessions, and
 * prints what that took, as one line of name=value.
 *
 *	 load [option...] SCRIPT
 *	   -d DATABASE
 *	   -c CLIENTS		each a process with a session of its own	(1)
 *	   -n COUNT			iterations of each client that are measured	(1000)
 *	   -w COUNT			iterations of each client before that		(100)
 *	   -x				unprepared in the extended protocol; otherwise prepared
 *	   -r				fresh uuids are random; otherwise time-ordered
 *	   -s				all clients begin each iteration at the same moment
 *	   -b SQL			the administrator runs this between warm-up and measuring
 *	   -q SQL			a row of counters; printed is what they have grown by
 *	   -u SQL			the clients end as soon as this says f
 *
 * SCRIPT is the text itself, a statement a line:
 *
 *	 [once:] [NAME <-] STATEMENT [=> ANSWER | ANSWER ...]
 *
 * "once" is before everything.	 NAME <- keeps the first column for later lines,
 * which have it as $NAME.	Each iteration has $chat and $new, fresh uuids; $turn,
 * a uuid that all clients share; $i, which counts from 1; and $ws, the
 * workspace.  An ANSWER is the first column, or the number of rows of a command
 * that returns none, or the SQLSTATE behind a "!", or "*" for anything but an
 * error.  Any other answer ends the program.  How often each one came is printed
 * as answer_STATEMENT_ANSWER, both counted from 1.
 *
 * CPU time is that of the sessions' backends, from /proc, between their first and
 * last measured statement.
 */
#include "common.h"

#include <ctype.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_LINES		16
#define MAX_NAMES		16
#define MAX_ANSWERS		4
#define MAX_CLIENTS		256
#define VALUE_SIZE		64

/* Otherwise a session reports its counters once a second at most. */
#define FLUSH_COUNTERS	"SELECT pg_stat_force_next_flush()"

typedef struct Line
{
	bool		once;
	int			keep;			/* index of the name, or -1 */
	char		sql[1024];		/* with $1, $2, ... */
	char		statement[16];	/* its name, when prepared */
	int			n_params;
	int			params[MAX_NAMES];	/* indexes of names */
	int			n_answers;
	char	   *answers[MAX_ANSWERS];
} Line;

/* What a client tells the parent. */
typedef struct Report
{
	long long	cpu_ns;
	double		start;
	double		end;
	long		iterations;
	long		answers[MAX_LINES][MAX_ANSWERS];
} Report;

/* Shared between the processes. */
typedef struct Shared
{
	pthread_barrier_t phase;	/* of the clients and the parent */
	pthread_barrier_t step;		/* of the clients, with -s */
	volatile bool stop;
	Report		reports[MAX_CLIENTS];
	double		latencies[];	/* count for each client */
} Shared;

/* The names that each script has; those that it keeps follow. */
enum
{
	NAME_CHAT, NAME_NEW, NAME_TURN, NAME_I, NAME_WS, N_BUILTIN_NAMES
};

static struct
{
	const char *dbname;
	long		clients;
	long		count;
	long		warmup;
	bool		unprepared;
	bool		random_ids;
	bool		in_step;
	const char *before;
	const char *counters;
	const char *until;
} opt = {.clients = 1,.count = 1000,.warmup = 100};

static Line lines[MAX_LINES];
static int	n_lines;
static char names[MAX_NAMES][32] = {"chat", "new", "turn", "i", "ws"};
static char values[MAX_NAMES][VALUE_SIZE];
static int	n_names = N_BUILTIN_NAMES;

static Shared *shared;
static pid_t pids[MAX_CLIENTS];

/* ---- the script ---- */

static int
find_name(const char *name, size_t length)
{
	for (int i = 0; i < n_names; i++)
	{
		if (strlen(names[i]) == length && strncmp(names[i], name, length) == 0)
			return i;
	}
	return -1;
}

static int
add_name(const char *name, size_t length)
{
	int			found = find_name(name, length);

	if (found >= 0)
		return found;
	if (n_names == MAX_NAMES || length >= sizeof(names[0]))
		die("too many names, or too long a name");
	memcpy(names[n_names], name, length);
	return n_names++;
}

/* The number of the parameter that stands for this name in the line. */
static int
param_of(Line *line, int name)
{
	for (int i = 0; i < line->n_params; i++)
	{
		if (line->params[i] == name)
			return i + 1;
	}
	line->params[line->n_params++] = name;
	return line->n_params;
}

static char *
trim(char *text)
{
	char	   *end = text + strlen(text);

	while (end > text && isspace((unsigned char) end[-1]))
		*--end = '\0';
	return text + strspn(text, " \t");
}

/* $name becomes $1, $2, ... */
static void
set_sql(Line *line, const char *text)
{
	size_t		length = 0;

	while (*text != '\0' && length < sizeof(line->sql) - 16)
	{
		if (text[0] == '$' && isalpha((unsigned char) text[1]))
		{
			size_t		name_length = strspn(text + 1, "abcdefghijklmnopqrstuvwxyz_");
			int			name = find_name(text + 1, name_length);

			if (name < 0)
				die("unknown name in \"%s\"", text);
			length += (size_t) sprintf(line->sql + length, "$%d", param_of(line, name));
			text += 1 + name_length;
		}
		else
			line->sql[length++] = *text++;
	}
	if (*text != '\0')
		die("a line of the script is too long");
}

static void
parse_line(char *text)
{
	Line	   *line = &lines[n_lines];
	char	   *arrow;

	if (n_lines == MAX_LINES)
		die("the script is too long");
	if (strncmp(text, "once:", 5) == 0)
	{
		line->once = true;
		text += 5;
	}
	arrow = strstr(text, "=>");
	if (arrow != NULL)
	{
		*arrow = '\0';
		for (char *word = strtok(arrow + 2, "|"); word != NULL; word = strtok(NULL, "|"))
		{
			if (line->n_answers == MAX_ANSWERS)
				die("too many answers");
			line->answers[line->n_answers++] = trim(word);
		}
	}
	line->keep = -1;
	arrow = strstr(text, "<-");
	if (arrow != NULL)
	{
		*arrow = '\0';
		text = trim(text);
		line->keep = add_name(text, strlen(text));
		text = arrow + 2;
	}
	set_sql(line, trim(text));
	snprintf(line->statement, sizeof(line->statement), "line_%d", n_lines);
	n_lines++;
}

static void
parse_script(char *script)
{
	while (script != NULL)
	{
		char	   *end = strchr(script, '\n');

		if (end != NULL)
			*end++ = '\0';
		if (*trim(script) != '\0')
			parse_line(trim(script));
		script = end;
	}
}

/* ---- a client ---- */

static bool
is_answer(const char *answer, PGresult *result, bool failed)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (answer[0] == '!')
		return failed && sqlstate != NULL && strcmp(sqlstate, answer + 1) == 0;
	if (failed)
		return false;
	if (answer[0] == '*')
		return true;
	if (PQresultStatus(result) == PGRES_COMMAND_OK || PQntuples(result) == 0)
		return strcmp(PQcmdTuples(result), answer) == 0;
	return strcmp(PQgetvalue(result, 0, 0), answer) == 0;
}

/* Which of the answers is it?  Without any, only a failure is wrong. */
static int
find_answer(PGconn *conn, const Line *line, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);
	bool		failed = status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;

	for (int i = 0; i < line->n_answers; i++)
	{
		if (is_answer(line->answers[i], result, failed))
			return i;
	}
	if (failed)
		die("%s: %s", line->sql, PQerrorMessage(conn));
	if (line->n_answers > 0)
		die("%s: unexpected answer", line->sql);
	return -1;
}

/* Returns the answer's index, or -1 where the line names none. */
static int
run_line(PGconn *conn, const Line *line)
{
	const char *params[MAX_NAMES];
	PGresult   *result;
	int			answer;

	for (int i = 0; i < line->n_params; i++)
		params[i] = values[line->params[i]];
	if (opt.unprepared)
		result = PQexecParams(conn, line->sql, line->n_params, NULL, params, NULL,
							  NULL, 0);
	else
		result = PQexecPrepared(conn, line->statement, line->n_params, params,
								NULL, NULL, 0);
	answer = find_answer(conn, line, result);
	if (line->keep >= 0 && PQntuples(result) > 0)
		snprintf(values[line->keep], VALUE_SIZE, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	return answer;
}

static void
run_iteration(PGconn *conn, long i, Report *report)
{
	make_uuid(values[NAME_CHAT], !opt.random_ids);
	make_uuid(values[NAME_NEW], !opt.random_ids);
	snprintf(values[NAME_I], VALUE_SIZE, "%ld", i);
	snprintf(values[NAME_TURN] + 24, VALUE_SIZE - 24, "%012lx", i);
	for (int n = 0; n < n_lines; n++)
	{
		int			answer;

		if (lines[n].once)
			continue;
		answer = run_line(conn, &lines[n]);
		if (answer >= 0)
			report->answers[n][answer]++;
	}
}

static void
prepare_lines(PGconn *conn)
{
	for (int n = 0; n < n_lines; n++)
	{
		PGresult   *result;

		if (opt.unprepared)
			continue;
		result = PQprepare(conn, lines[n].statement, lines[n].sql, 0, NULL);
		succeed(conn, result, lines[n].sql);
		PQclear(result);
	}
}

static void
wait_for_all(pthread_barrier_t *barrier)
{
	int			status = pthread_barrier_wait(barrier);

	if (status != 0 && status != PTHREAD_BARRIER_SERIAL_THREAD)
		die("could not wait for the other clients");
}

static void
measure(PGconn *conn, Report *report, double *latencies)
{
	int			pid = PQbackendPID(conn);

	memset(report, 0, sizeof(*report));
	report->cpu_ns = -backend_cpu_ns(pid);
	report->start = wall_us();
	for (long i = 0; i < opt.count && !shared->stop; i++)
	{
		double		start;

		if (opt.in_step)
			wait_for_all(&shared->step);
		start = wall_us();
		run_iteration(conn, opt.warmup + i + 1, report);
		report->end = wall_us();
		latencies[i] = report->end - start;
		report->iterations++;
	}
	report->cpu_ns += backend_cpu_ns(pid);
}

static void
be_client(int client)
{
	PGconn	   *conn = connect_as(APP_ROLE, opt.dbname);
	Report	   *report = &shared->reports[client];

	seed_random();
	snprintf(values[NAME_WS], VALUE_SIZE, "%s", WORKSPACE);
	prepare_lines(conn);
	make_uuid(values[NAME_CHAT], !opt.random_ids);
	make_uuid(values[NAME_NEW], !opt.random_ids);
	for (int n = 0; n < n_lines; n++)
	{
		if (lines[n].once)
			(void) run_line(conn, &lines[n]);
	}
	for (long i = 0; i < opt.warmup; i++)
		run_iteration(conn, i + 1, report);

	PQclear(query(conn, FLUSH_COUNTERS));
	wait_for_all(&shared->phase);	/* all are ready */
	wait_for_all(&shared->phase);	/* the parent has read the counters */
	measure(conn, report, shared->latencies + client * opt.count);
	PQclear(query(conn, FLUSH_COUNTERS));
	wait_for_all(&shared->phase);	/* all are done */
	PQfinish(conn);
}

/* ---- the parent ---- */

/* A client that has failed leaves the others waiting for ever. */
static void
client_ended(int signal_number)
{
	int			status;
	pid_t		pid;

	(void) signal_number;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
	{
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			continue;
		for (long i = 0; i < opt.clients; i++)
		{
			if (pids[i] > 0)
				kill(pids[i], SIGKILL);
		}
		_exit(1);
	}
}

static void
start_clients(void)
{
	pthread_barrierattr_t attr;
	size_t		n = (size_t) (opt.clients * opt.count);

	shared = mmap(NULL, sizeof(Shared) + n * sizeof(double), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("out of memory");
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&shared->phase, &attr, (unsigned) opt.clients + 1);
	pthread_barrier_init(&shared->step, &attr, (unsigned) opt.clients);

	signal(SIGCHLD, client_ended);
	make_uuid(values[NAME_TURN], true);
	fflush(stdout);
	for (int client = 0; client < opt.clients; client++)
	{
		pid_t		pid = fork();

		if (pid < 0)
			die("could not start a client");
		if (pid == 0)
		{
			signal(SIGCHLD, SIG_DFL);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			be_client(client);
			exit(0);
		}
		pids[client] = pid;
	}
}

/* Like "numeric", a double is exact for what WAL and transactions come to. */
static PGresult *
read_counters(PGconn *admin)
{
	return opt.counters == NULL ? NULL : query(admin, opt.counters);
}

static void
print_growth(PGresult *before, PGresult *after)
{
	if (before == NULL)
		return;
	for (int i = 0; i < PQnfields(after); i++)
		printf(" %s=%.0f", PQfname(after, i), strtod(PQgetvalue(after, 0, i), NULL) -
			   strtod(PQgetvalue(before, 0, i), NULL));
	PQclear(before);
	PQclear(after);
}

static void
print_reports(void)
{
	double		start = shared->reports[0].start;
	double		end = shared->reports[0].end;
	double	   *latencies = shared->latencies;
	long long	cpu_ns = 0;
	size_t		iterations = 0;

	for (int client = 0; client < opt.clients; client++)
	{
		const Report *report = &shared->reports[client];

		start = report->start < start ? report->start : start;
		end = report->end > end ? report->end : end;
		cpu_ns += report->cpu_ns;

		/* Clients that were stopped early leave a gap. */
		memmove(latencies + iterations, latencies + client * opt.count,
				(size_t) report->iterations * sizeof(double));
		iterations += (size_t) report->iterations;
	}
	printf("iterations=%zu seconds=%.6f cpu_ns=%lld", iterations, (end - start) / 1e6,
		   cpu_ns);
	print_percentiles("latency_us", latencies, iterations);
	for (int n = 0; n < n_lines; n++)
	{
		for (int a = 0; !lines[n].once && a < lines[n].n_answers; a++)
		{
			long		times = 0;

			for (int client = 0; client < opt.clients; client++)
				times += shared->reports[client].answers[n][a];
			printf(" answer_%d_%d=%ld", n + 1, a + 1, times);
		}
	}
}

static void
parse_options(int argc, char **argv)
{
	int			c;

	while ((c = getopt(argc, argv, "d:c:n:w:xrsb:q:u:")) != -1)
	{
		switch (c)
		{
			case 'd':
				opt.dbname = optarg;
				break;
			case 'c':
				opt.clients = number(optarg);
				break;
			case 'n':
				opt.count = number(optarg);
				break;
			case 'w':
				opt.warmup = number(optarg);
				break;
			case 'x':
				opt.unprepared = true;
				break;
			case 'r':
				opt.random_ids = true;
				break;
			case 's':
				opt.in_step = true;
				break;
			case 'b':
				opt.before = optarg;
				break;
			case 'q':
				opt.counters = optarg;
				break;
			case 'u':
				opt.until = optarg;
				break;
			default:
				exit(2);
		}
	}
	if (optind != argc - 1 || opt.dbname == NULL || opt.clients < 1 ||
		opt.clients > MAX_CLIENTS || opt.count < 1)
		die("usage: load -d DATABASE [option...] SCRIPT; see load.c");
}

int
main(int argc, char **argv)
{
	PGconn	   *admin;
	PGresult   *before;

	parse_options(argc, argv);
	seed_random();
	parse_script(argv[optind]);
	start_clients();
	admin = connect_as(ADMIN_ROLE, opt.dbname);

	wait_for_all(&shared->phase);
	if (opt.before != NULL)
		PQclear(query(admin, opt.before));
	before = read_counters(admin);
	wait_for_all(&shared->phase);
	if (opt.until != NULL)
	{
		while (query_says(admin, opt.until, "t"))
			pause_us(20000);
		shared->stop = true;
	}
	wait_for_all(&shared->phase);

	print_reports();
	print_growth(before, read_counters(admin));
	printf("\n");
	PQfinish(admin);
	return 0;
}
