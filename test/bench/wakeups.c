/*
 * wakeups: how soon waiting sessions learn that something has happened, and how
 * soon a deferred finalization is applied.  Prints one line of name=value.
 *
 *	 wakeups [option...] KIND
 *	   -d DATABASE
 *	   -c WAITERS		sessions that wait								(1)
 *	   -n COUNT			how many times something happens				(10)
 *	   -a				each time it concerns all waiters; otherwise one of them
 *	   -i				also tell what the waiters use of the CPU in a second's wait
 *
 * KIND is what they wait in:
 *
 *	 await_run		CALL await_run(); a finalize_run() ends it
 *	 await_stops	CALL await_stops(), each or all for a runner; a request_stop() ends it
 *	 listen			LISTEN; a plain UPDATE that notifies in its transaction ends it
 *	 poll			a query for the status each 100 ms; a plain UPDATE ends it
 *	 deferred		nobody waits: a client has locked WAITERS runs, their finalizations
 *					are deferred, and it lets go after up to a second
 *
 * Times are those from just before the request was sent until the answer had come
 * (since_call), and from the commit as the server noted it (since_commit), by one
 * clock.  The stop is told before it commits, so there is no second one.  For
 * "deferred" they are from the release of the lock to the commit that applies.
 */
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WAITERS		128
#define POLL_EVERY_US	100e3
#define GIVE_UP_US		60e6

#define PLAIN_END \
	"UPDATE bench.plain SET status = 'succeeded', finished_at = now(), updated_at = now()" \
	" WHERE id = $1 AND workspace_id = $2 AND status NOT IN ('succeeded', 'failed', 'aborted')"
#define PLAIN_BEGIN \
	"INSERT INTO bench.plain (chat_id, workspace_id, status, started_at, runner)" \
	" VALUES ($1, $2, 'running', now(), $3) RETURNING id"
#define OUR_BEGIN		"SELECT ai_chat_run.begin_run($1, $2, runner => $3)"

/* What differs between the kinds.	All statements take the run and the workspace. */
typedef struct Kind
{
	const char *name;
	const char *begin;			/* chat, workspace, runner: returns the run */
	const char *wait;			/* what a waiter sends, if anything */
	const char *end;			/* what it waits for */
	const char *clean_up;		/* to be done before the next wait */
	const char *table;			/* whose row tells when the end was committed */
} Kind;

static const Kind kinds[] = {
	{
		"await_run", OUR_BEGIN,
		"CALL ai_chat_run.await_run($1, $2, '1 min')",
		"SELECT ai_chat_run.finalize_run($1, $2, 'completed')",
		NULL, "ai_chat_run.ai_chat_runs"
	},
	{
		/* the runner's name is that of its group, see group_name() */
		"await_stops", OUR_BEGIN,
		"CALL ai_chat_run.await_stops($1, '{}', '1 min', NULL)",
		"SELECT ai_chat_run.request_stop($1, $2)",
		"SELECT ai_chat_run.finalize_run($1, $2, 'aborted')", NULL
	},
	{
		"listen", PLAIN_BEGIN, NULL,
		"WITH ended AS (" PLAIN_END " RETURNING runner)"
		" SELECT pg_notify(runner, '') FROM ended",
		NULL, "bench.plain"
	},
	{
		"poll", PLAIN_BEGIN,
		"SELECT status <> 'running' FROM bench.plain WHERE id = $1 AND workspace_id = $2",
		PLAIN_END, NULL, "bench.plain"
	},
	{
		"deferred", OUR_BEGIN, NULL,
		"SELECT ai_chat_run.finalize_run($1, $2, 'completed')",
		NULL, "ai_chat_run.ai_chat_runs"
	},
};

typedef struct Waiter
{
	PGconn	   *conn;
	bool		asked;			/* its statement is under way */
	bool		told;			/* it has learned of the end */
	double		told_at;
	double		next_ask;
} Waiter;

/* All waiters of a group wait for the same run. */
typedef struct Group
{
	char		run[UUID_TEXT_SIZE];
	bool		running;
} Group;

static struct
{
	const char *dbname;
	long		waiters;
	long		count;
	bool		all;
	bool		idle;
} opt = {.waiters = 1,.count = 10};

static const Kind *kind;
static Waiter waiters[MAX_WAITERS];
static Group groups[MAX_WAITERS];
static PGconn *actor;
static PGconn *admin;

/* Latencies, of all times that something happened. */
static double *since_call;
static double *since_commit;
static size_t n_latencies;
static size_t n_commits;

static bool
is(const char *name)
{
	return strcmp(kind->name, name) == 0;
}

static int
group_of(int waiter)
{
	return opt.all ? 0 : waiter;
}

/* The name of a group's runner, and of its channel. */
static const char *
group_name(int group)
{
	static char name[32];

	snprintf(name, sizeof(name), "bench_%d", group);
	return name;
}

/* ---- the waiters' statements ---- */

static void
ask(int waiter)
{
	int			group = group_of(waiter);
	const char *params[] = {groups[group].run, WORKSPACE};
	int			n_params = 2;

	if (is("await_stops"))
	{
		params[0] = group_name(group);
		n_params = 1;
	}
	if (!PQsendQueryPrepared(waiters[waiter].conn, "wait", n_params, params, NULL,
							 NULL, 0))
		die("%s", PQerrorMessage(waiters[waiter].conn));
	waiters[waiter].asked = true;
}

/* The end of a statement of the waiter's; is it what he waits for? */
static bool
take_answer(Waiter *waiter)
{
	bool		answered = false;
	PGresult   *result;

	while ((result = PQgetResult(waiter->conn)) != NULL)
	{
		succeed(waiter->conn, result, kind->wait);
		answered = PQntuples(result) > 0 && !PQgetisnull(result, 0, 0) &&
			strcmp(PQgetvalue(result, 0, 0), "f") != 0;
		PQclear(result);
	}
	waiter->asked = false;
	return answered;
}

static bool
take_notification(Waiter *waiter)
{
	PGnotify   *notify = PQnotifies(waiter->conn);
	bool		found = notify != NULL;

	PQfreemem(notify);
	return found;
}

/* Something has come for this waiter. */
static void
read_waiter(Waiter *waiter)
{
	bool		told;

	if (!PQconsumeInput(waiter->conn))
		die("%s", PQerrorMessage(waiter->conn));
	if (waiter->asked)
		told = !PQisBusy(waiter->conn) && take_answer(waiter);
	else
		told = take_notification(waiter);
	if (told)
	{
		waiter->told = true;
		waiter->told_at = wall_us();
	}
}

/* Those who poll ask again when their time has come. */
static void
ask_again(void)
{
	double		now = wall_us();

	for (int i = 0; i < opt.waiters; i++)
	{
		if (waiters[i].told || waiters[i].asked || now < waiters[i].next_ask)
			continue;
		ask(i);
		waiters[i].next_ask += POLL_EVERY_US;
	}
}

/* Reads what comes for waiters, for at most a millisecond. */
static void
turn(void)
{
	struct pollfd fds[MAX_WAITERS];

	if (is("poll"))
		ask_again();
	for (int i = 0; i < opt.waiters; i++)
	{
		fds[i].fd = PQsocket(waiters[i].conn);
		fds[i].events = POLLIN;
	}
	if (poll(fds, (nfds_t) opt.waiters, 1) < 0 && errno != EINTR)
		die("could not wait for the server");
	for (int i = 0; i < opt.waiters; i++)
	{
		if (fds[i].revents != 0)
			read_waiter(&waiters[i]);
	}
}

static void
turn_for(double us)
{
	double		until = wall_us() + us;

	while (wall_us() < until)
		turn();
}

/* ---- a round ---- */

static void
begin_run(int group)
{
	char		chat[UUID_TEXT_SIZE];
	const char *params[] = {chat, WORKSPACE, group_name(group)};

	make_uuid(chat, true);
	take_value(query_with(actor, kind->begin, 3, params), groups[group].run,
			   sizeof(groups[group].run));
	groups[group].running = true;
}

static void
start_waiter(int waiter)
{
	waiters[waiter].told = false;

	/* Those who poll do it out of step, as they do in life. */
	waiters[waiter].next_ask = wall_us() + random_fraction() * POLL_EVERY_US;
	if (kind->wait != NULL && !is("poll"))
		ask(waiter);
}

/* Those who sleep in a call have to be asleep. */
static void
wait_until_asleep(void)
{
	char		count[16];
	double		give_up = wall_us() + GIVE_UP_US;

	if (is("poll"))
		turn_for(random_fraction() * POLL_EVERY_US + POLL_EVERY_US);
	if (is("poll") || is("listen"))
		return;
	snprintf(count, sizeof(count), "%ld", opt.waiters);
	while (!query_says(admin, "SELECT count(*) FROM pg_stat_activity"
					   " WHERE application_name = 'waiter' AND wait_event_type = 'Extension'",
					   count))
	{
		if (wall_us() > give_up)
			die("not all waiters fall asleep");
		turn();
	}
}

/* When the end of the run was committed, by the server's clock. */
static double
committed_at(const char *run)
{
	char		sql[256];
	char		value[64];
	const char *params[] = {run, WORKSPACE};
	PGresult   *result;

	snprintf(sql, sizeof(sql), "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1e6"
			 " FROM %s WHERE id = $1 AND workspace_id = $2 AND status = 'succeeded'",
			 kind->table);
	result = query_with(admin, sql, 2, params);
	if (PQntuples(result) == 0)
	{
		PQclear(result);
		return 0;
	}
	take_value(result, value, sizeof(value));
	return strtod(value, NULL);
}

static bool
all_told(int group)
{
	for (int i = 0; i < opt.waiters; i++)
	{
		if (group_of(i) == group && !waiters[i].told)
			return false;
	}
	return true;
}

static void
note_latencies(int group, double called)
{
	double		committed = kind->table == NULL ? 0 : committed_at(groups[group].run);

	for (int i = 0; i < opt.waiters; i++)
	{
		if (group_of(i) != group)
			continue;
		since_call[n_latencies++] = waiters[i].told_at - called;
		if (committed > 0)
			since_commit[n_commits++] = waiters[i].told_at - committed;
	}
}

/* Ends the run of one group, and waits until all who wait for it know. */
static void
end_run(int group)
{
	const char *params[] = {groups[group].run, WORKSPACE};
	PGresult   *result;
	double		called = wall_us();

	if (!PQsendQueryPrepared(actor, "end", 2, params, NULL, NULL, 0))
		die("%s", PQerrorMessage(actor));
	while (!all_told(group))
	{
		if (wall_us() - called > GIVE_UP_US)
			die("not all waiters are told");
		turn();
	}
	while ((result = PQgetResult(actor)) != NULL)
	{
		succeed(actor, result, kind->end);
		PQclear(result);
	}
	note_latencies(group, called);
	if (kind->clean_up != NULL)
		PQclear(query_with(actor, kind->clean_up, 2, params));
	groups[group].running = false;
}

static void
start_all(void)
{
	for (int i = 0; i < opt.waiters; i++)
	{
		if (!groups[group_of(i)].running)
			begin_run(group_of(i));
	}
	for (int i = 0; i < opt.waiters; i++)
	{
		if (waiters[i].told)
			start_waiter(i);
	}
	wait_until_asleep();
}

static long long
cpu_of_waiters(void)
{
	long long	ns = 0;

	for (int i = 0; i < opt.waiters; i++)
		ns += backend_cpu_ns(PQbackendPID(waiters[i].conn));
	return ns;
}

/* What waiting costs: microseconds of CPU for a waiter's second. */
static double
idle_cpu(void)
{
	double		start = wall_us();
	long long	ns = -cpu_of_waiters();

	turn_for(1e6);
	ns += cpu_of_waiters();
	return (double) ns / 1e3 / (double) opt.waiters / ((wall_us() - start) / 1e6);
}

static void
prepare(PGconn *conn, const char *name, const char *sql)
{
	PGresult   *result = PQprepare(conn, name, sql, 0, NULL);

	succeed(conn, result, sql);
	PQclear(result);
}

static void
connect_waiters(void)
{
	for (int i = 0; i < opt.waiters; i++)
	{
		char		sql[64];

		waiters[i].conn = connect_as(APP_ROLE, opt.dbname);
		waiters[i].told = true; /* so that it is started */
		PQclear(query(waiters[i].conn, "SET application_name = 'waiter'"));
		if (kind->wait != NULL)
			prepare(waiters[i].conn, "wait", kind->wait);
		snprintf(sql, sizeof(sql), "LISTEN %s", group_name(group_of(i)));
		if (is("listen"))
			PQclear(query(waiters[i].conn, sql));
	}
}

static void
measure_waiters(void)
{
	connect_waiters();
	start_all();
	if (opt.idle)
		printf("idle_cpu_us=%.3f ", idle_cpu());
	for (long i = 0; i < opt.count; i++)
	{
		end_run(opt.all ? 0 : (int) (i % opt.waiters));
		start_all();
	}
}

/* ---- deferred finalizations ---- */

static void
defer_end(int group)
{
	const char *params[] = {groups[group].run, WORKSPACE};
	char		outcome[32];

	take_value(query_with(actor, kind->end, 2, params), outcome, sizeof(outcome));
	if (strcmp(outcome, "deferred") != 0)
		die("a finalization was not deferred but %s", outcome);
}

static void
measure_deferred_once(PGconn *locker)
{
	double		released;

	for (int i = 0; i < opt.waiters; i++)
		begin_run(i);
	PQclear(query(locker, "BEGIN"));
	for (int i = 0; i < opt.waiters; i++)
	{
		const char *params[] = {groups[i].run};

		PQclear(query_with(locker, "SELECT FROM ai_chat_run.ai_chat_runs WHERE id = $1"
						   " FOR UPDATE", 1, params));
	}
	for (int i = 0; i < opt.waiters; i++)
		defer_end(i);

	/* At whatever point between two tries of the worker's. */
	pause_us(random_fraction() * 1e6);
	released = wall_us();
	PQclear(query(locker, "COMMIT"));
	for (int i = 0; i < opt.waiters; i++)
	{
		double		committed;

		while ((committed = committed_at(groups[i].run)) == 0)
		{
			if (wall_us() - released > GIVE_UP_US)
				die("a deferred finalization is not applied");
			pause_us(2000);
		}
		since_commit[n_commits++] = committed - released;
	}
}

static void
measure_deferred(void)
{
	PGconn	   *locker = connect_as(ADMIN_ROLE, opt.dbname);

	PQclear(query(actor, "SET ai_chat_run.finalize_max_attempts = 1"));
	PQclear(query(actor, "SET ai_chat_run.lock_timeout = '10ms'"));
	for (long i = 0; i < opt.count; i++)
		measure_deferred_once(locker);
	PQfinish(locker);
}

static void
parse_options(int argc, char **argv)
{
	int			c;

	while ((c = getopt(argc, argv, "d:c:n:ai")) != -1)
	{
		switch (c)
		{
			case 'd':
				opt.dbname = optarg;
				break;
			case 'c':
				opt.waiters = number(optarg);
				break;
			case 'n':
				opt.count = number(optarg);
				break;
			case 'a':
				opt.all = true;
				break;
			case 'i':
				opt.idle = true;
				break;
			default:
				exit(2);
		}
	}
	for (size_t i = 0; optind == argc - 1 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		if (strcmp(kinds[i].name, argv[optind]) == 0)
			kind = &kinds[i];
	}
	if (kind == NULL || opt.dbname == NULL || opt.waiters < 1 ||
		opt.waiters > MAX_WAITERS || opt.count < 1)
		die("usage: wakeups -d DATABASE [option...] KIND; see wakeups.c");
}

int
main(int argc, char **argv)
{
	size_t		n;

	parse_options(argc, argv);
	seed_random();
	n = (size_t) (opt.waiters * opt.count);
	since_call = calloc(n, sizeof(double));
	since_commit = calloc(n, sizeof(double));
	if (since_call == NULL || since_commit == NULL)
		die("out of memory");

	actor = connect_as(APP_ROLE, opt.dbname);
	admin = connect_as(ADMIN_ROLE, opt.dbname);
	prepare(actor, "end", kind->end);
	if (is("deferred"))
		measure_deferred();
	else
		measure_waiters();

	printf("ended=%ld", opt.count);
	print_percentiles("since_call_us", since_call, n_latencies);
	print_percentiles("since_commit_us", since_commit, n_commits);
	printf("\n");

	/* The sessions end with the process, asleep or not. */
	return 0;
}
