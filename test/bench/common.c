/*
 * What the clients of the benchmark share.
 */
#include "common.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static uint64_t random_state;

void
die(const char *format,...)
{
	va_list		args;

	fprintf(stderr, "bench: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(1);
}

long
number(const char *text)
{
	char	   *end;
	long		value = strtol(text, &end, 10);

	if (*text == '\0' || *end != '\0' || value < 0)
		die("\"%s\" is no number", text);
	return value;
}

static void
ignore_notice(void *arg, const PGresult *result)
{
	(void) arg;
	(void) result;
}

/* The host and the port come from the environment. */
PGconn *
connect_as(const char *role, const char *dbname)
{
	const char *keywords[] = {"user", "dbname", NULL};
	const char *values[] = {role, dbname, NULL};
	PGconn	   *conn = PQconnectdbParams(keywords, values, 0);

	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
	PQsetNoticeReceiver(conn, ignore_notice, NULL);
	return conn;
}

void
succeed(PGconn *conn, PGresult *result, const char *what)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		die("%s: %s", what, PQerrorMessage(conn));
}

PGresult *
query(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	succeed(conn, result, sql);
	return result;
}

PGresult *
query_with(PGconn *conn, const char *sql, int n_params,
		   const char *const *params)
{
	PGresult   *result = PQexecParams(conn, sql, n_params, NULL, params, NULL,
									  NULL, 0);

	succeed(conn, result, sql);
	return result;
}

/* Copies the first column of the first row, and frees the result. */
void
take_value(PGresult *result, char *value, size_t size)
{
	if (PQntuples(result) < 1 || PQnfields(result) < 1)
		die("a statement returned no row");
	snprintf(value, size, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
}

bool
query_says(PGconn *conn, const char *sql, const char *expected)
{
	char		value[64];

	take_value(query(conn, sql), value, sizeof(value));
	return strcmp(value, expected) == 0;
}

void
seed_random(void)
{
	random_state = ((uint64_t) wall_us() << 20) ^ ((uint64_t) getpid() << 1) ^ 1;
}

/* xorshift64*: quick, and good enough for keys. */
static uint64_t
random_bits(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(0x2545F4914F6CDD1D);
}

double
random_fraction(void)
{
	return (double) (random_bits() >> 11) / (double) (UINT64_C(1) << 53);
}

/* A version 7 uuid, time-ordered to the microsecond, or a version 4 one. */
void
make_uuid(char *text, bool ordered)
{
	uint64_t	high = random_bits();
	uint64_t	low = random_bits();

	if (ordered)
	{
		uint64_t	us = (uint64_t) wall_us();

		high = (us / 1000) << 16 | 0x7000 | (us % 1000) << 2 | (high & 3);
	}
	else
		high = (high & ~UINT64_C(0xF000)) | 0x4000;
	low = (low >> 2) | UINT64_C(0x8000000000000000);
	snprintf(text, UUID_TEXT_SIZE,
			 "%08" PRIx64 "-%04" PRIx64 "-%04" PRIx64 "-%04" PRIx64 "-%012" PRIx64,
			 high >> 32, (high >> 16) & 0xFFFF, high & 0xFFFF,
			 low >> 48, low & UINT64_C(0xFFFFFFFFFFFF));
}

/* Wall clock, to be compared with the server's timestamps. */
double
wall_us(void)
{
	struct timeval now;

	gettimeofday(&now, NULL);
	return (double) now.tv_sec * 1e6 + (double) now.tv_usec;
}

void
pause_us(double us)
{
	struct timespec pause = {(time_t) (us / 1e6), (long) us % 1000000 * 1000};

	nanosleep(&pause, NULL);
}

/*
 * The numbers that a file of /proc begins with, or holds behind the process's
 * name; false if it cannot be read.
 */
static bool
read_proc(int pid, const char *file_name, const char *format,...)
{
	char		path[64];
	FILE	   *file;
	va_list		args;
	bool		found;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file_name);
	file = fopen(path, "r");
	if (file == NULL)
		return false;
	va_start(args, format);
	found = vfscanf(file, format, args) > 0;
	va_end(args);
	fclose(file);
	return found;
}

/*
 * What a backend has used of the CPU: the scheduler's own count in nanoseconds,
 * or, in a kernel without it, clock ticks of a hundredth of a second.  The count
 * is up to date when the backend sleeps, which it does soon after its answer.
 */
long long
backend_cpu_ns(int pid)
{
	char		state = '\0';
	long long	ns = 0;
	long long	user = 0;
	long long	sys = 0;

	for (int i = 0; i < 1000 && state != 'S'; i++)
	{
		if (!read_proc(pid, "stat", "%*d (%*[^)]) %c %*d %*d %*d %*d %*d %*d %*d %*d %*d %*d %lld %lld",
					   &state, &user, &sys))
			die("could not read the CPU time of process %d", pid);
	}
	if (read_proc(pid, "schedstat", "%lld", &ns) && ns > 0)
		return ns;
	return (user + sys) * (1000000000LL / sysconf(_SC_CLK_TCK));
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

/* Sorts the values. */
void
print_percentiles(const char *name, double *values, size_t n)
{
	if (n == 0)
		return;
	qsort(values, n, sizeof(double), compare_doubles);
	printf(" %s_p50=%.1f %s_p99=%.1f %s_max=%.1f", name, values[(n - 1) / 2],
		   name, values[(size_t) ((double) (n - 1) * 0.99)], name, values[n - 1]);
}
