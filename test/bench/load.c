/*
 * load: runs scripts of SQL statements over and over, and prints what each took,
 * as a line of name=value.
 *
 *	 load [option...] SCRIPT...
 *	   -d DATABASE
 *	   -c CLIENTS		of each script, each a process with a session of its own  (1)
 *	   -n COUNT			iterations of each client that are measured		(1000)
 *	   -k COUNT			slices that they come in						(1)
 *	   -w COUNT			iterations of each client before, to warm up	(100)
 *	   -x				unprepared in the extended protocol; otherwise prepared
 *	   -r				fresh uuids are random; otherwise time-ordered
 *	   -s				a script's clients begin each iteration at the same moment
 *	   -b SQL			the administrator runs this before the warm-up
 *	   -q SQL			a row of counters; printed is what they have grown by
 *	   -u SQL			the clients end as soon as this says f; for one script
 *
 * Several scripts take turns, a slice each, A B C, C B A, ..., so that what else
 * goes on in the machine hits all alike.
 *
 * What a script looks like is told in script.h.
 *
 * CPU time is that of the sessions' backends, from /proc.  Of an iteration's, what
 * is printed is the mean and the median of the slices, which leaves out those that
 * something else in the machine has fallen upon.
 */
#include "common.h"
#include "script.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_SCRIPTS		16
#define MAX_COUNTERS	8
#define MAX_CLIENTS		512
#define VALUE_SIZE		64

/* Otherwise a session reports its counters once a second at most. */
#define FLUSH_COUNTERS	"SELECT pg_stat_force_next_flush()"

/* A script, and what it took. */
typedef struct Job
{
	Script		script;
	PGconn	   *admin;
	double		growth[MAX_COUNTERS];
	double		seconds;
	double	   *cpu_ns;			/* of an iteration, in each slice */
} Job;

/* What a client tells the parent. */
typedef struct Report
{
	long long	cpu_ns;
	double		start;			/* of the last slice */
	double		end;
	long		iterations;
	long		answers[MAX_LINES][MAX_ANSWERS];
} Report;

/* Shared between the processes; clients of a script stand together. */
typedef struct Shared
{
	pthread_barrier_t phase[MAX_SCRIPTS];	/* of its clients and the parent */
	pthread_barrier_t step[MAX_SCRIPTS];	/* of its clients, with -s */
	volatile bool stop;
	Report		reports[MAX_CLIENTS];
	double		latencies[];	/* count for each client */
} Shared;

static struct
{
	const char *dbname;
	long		clients;
	long		count;
	long		slices;
	long		warmup;
	bool		unprepared;
	bool		random_ids;
	bool		in_step;
	const char *before;
	const char *counters;
	const char *until;
} opt = {.clients = 1,.count = 1000,.slices = 1,.warmup = 100};

static Job	jobs[MAX_SCRIPTS];
static int	n_jobs;
static Shared *shared;
static pid_t pids[MAX_CLIENTS];

/* A client's values of its script's names. */
static char values[MAX_NAMES][VALUE_SIZE];

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
run_iteration(PGconn *conn, const Script *script, long i, Report *report)
{
	make_uuid(values[NAME_CHAT], !opt.random_ids);
	make_uuid(values[NAME_NEW], !opt.random_ids);
	snprintf(values[NAME_I], VALUE_SIZE, "%ld", i);
	snprintf(values[NAME_TURN] + 24, VALUE_SIZE - 24, "%012lx", i);
	for (int n = 0; n < script->n_lines; n++)
	{
		int			answer;

		if (script->lines[n].once)
			continue;
		answer = run_line(conn, &script->lines[n]);
		if (answer >= 0)
			report->answers[n][answer]++;
	}
}

static void
prepare_lines(PGconn *conn, const Script *script)
{
	for (int n = 0; n < script->n_lines; n++)
	{
		const Line *line = &script->lines[n];
		PGresult   *result;

		if (opt.unprepared)
			continue;
		result = PQprepare(conn, line->statement, line->sql, 0, NULL);
		succeed(conn, result, line->sql);
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

/* Iterations from one to before another; all told. */
static void
run_slice(PGconn *conn, int n, long from, long to, Report *report,
		  double *latencies)
{
	int			pid = PQbackendPID(conn);

	report->cpu_ns -= backend_cpu_ns(pid);
	report->start = wall_us();
	for (long i = from; i < to && !shared->stop; i++)
	{
		double		start;

		if (opt.in_step)
			wait_for_all(&shared->step[n]);
		start = wall_us();
		run_iteration(conn, &jobs[n].script, opt.warmup + i + 1, report);
		report->end = wall_us();
		latencies[report->iterations++] = report->end - start;
	}
	report->cpu_ns += backend_cpu_ns(pid);
}

static void
run_once(PGconn *conn, const Script *script)
{
	make_uuid(values[NAME_CHAT], !opt.random_ids);
	make_uuid(values[NAME_NEW], !opt.random_ids);
	for (int n = 0; n < script->n_lines; n++)
	{
		if (script->lines[n].once)
			(void) run_line(conn, &script->lines[n]);
	}
}

static void
be_client(int n, long client)
{
	const Script *script = &jobs[n].script;
	PGconn	   *conn = connect_as(APP_ROLE, script->dbname);
	Report	   *report = &shared->reports[client];
	double	   *latencies = shared->latencies + client * opt.count;

	seed_random();
	snprintf(values[NAME_WS], VALUE_SIZE, "%s", WORKSPACE);
	prepare_lines(conn, script);
	run_once(conn, script);
	wait_for_all(&shared->phase[n]);

	wait_for_all(&shared->phase[n]);
	for (long i = 0; i < opt.warmup; i++)
		run_iteration(conn, script, i + 1, report);
	memset(report, 0, sizeof(*report));
	PQclear(query(conn, FLUSH_COUNTERS));
	wait_for_all(&shared->phase[n]);

	for (long slice = 0; slice < opt.slices; slice++)
	{
		wait_for_all(&shared->phase[n]);
		run_slice(conn, n, opt.count * slice / opt.slices,
				  opt.count * (slice + 1) / opt.slices, report, latencies);
		PQclear(query(conn, FLUSH_COUNTERS));
		wait_for_all(&shared->phase[n]);
	}
	PQfinish(conn);
}

/* ---- the parent ---- */

/* A client that has failed leaves the others waiting for ever. */
static void
client_ended(int signal_number)
{
	int			status;

	(void) signal_number;
	while (waitpid(-1, &status, WNOHANG) > 0)
	{
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			continue;
		for (int i = 0; i < MAX_CLIENTS; i++)
		{
			if (pids[i] > 0)
				kill(pids[i], SIGKILL);
		}
		_exit(1);
	}
}

static void
make_shared(void)
{
	pthread_barrierattr_t attr;
	size_t		n = (size_t) (n_jobs * opt.clients * opt.count);

	shared = mmap(NULL, sizeof(Shared) + n * sizeof(double), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("out of memory");
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	for (int i = 0; i < n_jobs; i++)
	{
		pthread_barrier_init(&shared->phase[i], &attr, (unsigned) opt.clients + 1);
		pthread_barrier_init(&shared->step[i], &attr, (unsigned) opt.clients);
	}
}

static void
start_clients(int n)
{
	make_uuid(values[NAME_TURN], true);
	for (long i = 0; i < opt.clients; i++)
	{
		long		client = n * opt.clients + i;
		pid_t		pid = fork();

		if (pid < 0)
			die("could not start a client");
		if (pid == 0)
		{
			signal(SIGCHLD, SIG_DFL);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			be_client(n, client);
			exit(0);
		}
		pids[client] = pid;
	}
}

/* Adds what the counters have grown by, or takes off where they start. */
static void
add_counters(Job *job, double sign)
{
	PGresult   *result;

	if (opt.counters == NULL)
		return;
	result = query(job->admin, opt.counters);
	for (int i = 0; i < PQnfields(result) && i < MAX_COUNTERS; i++)
		job->growth[i] += sign * strtod(PQgetvalue(result, 0, i), NULL);
	PQclear(result);
}

static long
iterations_of(const Report *reports)
{
	long		iterations = 0;

	for (long i = 0; i < opt.clients; i++)
		iterations += reports[i].iterations;
	return iterations;
}

static long long
cpu_of(const Report *reports)
{
	long long	cpu_ns = 0;

	for (long i = 0; i < opt.clients; i++)
		cpu_ns += reports[i].cpu_ns;
	return cpu_ns;
}

static void
let_run(int n, long slice)
{
	Job		   *job = &jobs[n];
	const Report *reports = &shared->reports[n * opt.clients];
	long		iterations = iterations_of(reports);
	long long	cpu_ns = cpu_of(reports);
	double		start;
	double		end;

	add_counters(job, -1);
	wait_for_all(&shared->phase[n]);
	if (opt.until != NULL)
	{
		while (query_says(job->admin, opt.until, "t"))
			pause_us(20000);
		shared->stop = true;
	}
	wait_for_all(&shared->phase[n]);
	add_counters(job, 1);
	job->cpu_ns[slice] = (double) (cpu_of(reports) - cpu_ns) /
		(double) (iterations_of(reports) - iterations);

	start = reports[0].start;
	end = reports[0].end;
	for (long i = 1; i < opt.clients; i++)
	{
		start = reports[i].start < start ? reports[i].start : start;
		end = reports[i].end > end ? reports[i].end : end;
	}
	job->seconds += (end - start) / 1e6;
}

static void
print_answers(const Script *script, const Report *reports)
{
	for (int n = 0; n < script->n_lines; n++)
	{
		for (int a = 0; !script->lines[n].once && a < script->lines[n].n_answers; a++)
		{
			long		times = 0;

			for (long i = 0; i < opt.clients; i++)
				times += reports[i].answers[n][a];
			printf(" answer_%d_%d=%ld", n + 1, a + 1, times);
		}
	}
}

static void
print_counters(const Job *job)
{
	PGresult   *result;

	if (opt.counters == NULL)
		return;
	result = query(job->admin, opt.counters);
	for (int i = 0; i < PQnfields(result) && i < MAX_COUNTERS; i++)
		printf(" %s=%.0f", PQfname(result, i), job->growth[i]);
	PQclear(result);
}

static void
print_job(int n)
{
	const Report *reports = &shared->reports[n * opt.clients];
	double	   *latencies = shared->latencies + n * opt.clients * opt.count;
	size_t		iterations = 0;

	/* Clients that were stopped early leave a gap. */
	for (long i = 0; i < opt.clients; i++)
	{
		memmove(latencies + iterations, latencies + i * opt.count,
				(size_t) reports[i].iterations * sizeof(double));
		iterations += (size_t) reports[i].iterations;
	}
	printf("iterations=%zu seconds=%.6f cpu_ns_mean=%.0f", iterations, jobs[n].seconds,
		   (double) cpu_of(reports) / (double) iterations);
	print_percentiles("cpu_ns", jobs[n].cpu_ns, (size_t) opt.slices);
	print_percentiles("latency_us", latencies, iterations);
	print_answers(&jobs[n].script, reports);
	print_counters(&jobs[n]);
	printf("\n");
}

static void
parse_options(int argc, char **argv)
{
	int			c;

	while ((c = getopt(argc, argv, "d:c:n:k:w:xrsb:q:u:")) != -1)
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
			case 'k':
				opt.slices = number(optarg);
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
	n_jobs = argc - optind;
	if (n_jobs < 1 || n_jobs > MAX_SCRIPTS || opt.clients < 1 ||
		n_jobs * opt.clients > MAX_CLIENTS || opt.count < 1 || opt.slices < 1)
		die("usage: load [option...] SCRIPT...; see load.c");
}

int
main(int argc, char **argv)
{
	parse_options(argc, argv);
	seed_random();
	for (int i = 0; i < n_jobs; i++)
		parse_script(&jobs[i].script, argv[optind + i], opt.dbname);
	make_shared();
	signal(SIGCHLD, client_ended);
	for (int i = 0; i < n_jobs; i++)
		start_clients(i);
	for (int i = 0; i < n_jobs; i++)
	{
		jobs[i].admin = connect_as(ADMIN_ROLE, jobs[i].script.dbname);
		jobs[i].cpu_ns = calloc((size_t) opt.slices, sizeof(double));
		if (jobs[i].cpu_ns == NULL)
			die("out of memory");
		wait_for_all(&shared->phase[i]);
	}
	if (opt.before != NULL)
		PQclear(query(jobs[0].admin, opt.before));
	for (int i = 0; i < n_jobs; i++)
	{
		wait_for_all(&shared->phase[i]);
		wait_for_all(&shared->phase[i]);
	}

	for (long slice = 0; slice < opt.slices; slice++)
	{
		for (int i = 0; i < n_jobs; i++)
			let_run(slice % 2 == 0 ? i : n_jobs - 1 - i, slice);
	}
	for (int i = 0; i < n_jobs; i++)
		print_job(i);
	return 0;
}
