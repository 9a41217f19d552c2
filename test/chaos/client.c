/*
 * client: one of those who use a chat service while somebody breaks it.
 *
 *	 client NUMBER SEED CHATS DIRECTORY
 *
 * Begins turns in chats chosen at random, executes them and ends them, or
 * meddles with the turn that it finds there, until it is told to end (SIGTERM):
 * then it waits for the answer that it is waiting for, and exits.  When the
 * connection is lost it connects again.  What it does follows from NUMBER and
 * SEED, and from what it is told.
 *
 * Every third client may wait for others without a bound; the others see to it
 * that there is always somebody who is not waiting.
 */
#include "session.h"

#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Nothing that ends by itself. */
#define FOR_EVER		"1 hour"

#define MAX_RIVALS		8

static volatile sig_atomic_t told_to_end;
static int	number;
static int	n_chats;
static uint64_t random_state;
static char runner[32];
static char incarnation[UUID_TEXT_SIZE];

static void
handle_sigterm(int signo)
{
	(void) signo;
	told_to_end = 1;
}

/* xorshift64* */
static uint64_t
random_bits(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(0x2545F4914F6CDD1D);
}

static bool
chance(int percent)
{
	return (int) ((random_bits() >> 33) % 100) < percent;
}

static int
below(int n)
{
	return (int) ((random_bits() >> 33) % (uint64_t) n);
}

static void
random_uuid(char *text)
{
	uint64_t	high = random_bits();
	uint64_t	low = random_bits();

	snprintf(text, UUID_TEXT_SIZE,
			 "%08" PRIx64 "-%04" PRIx64 "-4%03" PRIx64 "-8%03" PRIx64 "-%012" PRIx64,
			 high >> 32, (high >> 16) & 0xFFFF, high & 0xFFF,
			 low >> 52, low & UINT64_C(0xFFFFFFFFFFFF));
}

static Wrapping
some_wrapping(void)
{
	if (chance(80))
		return ALONE;
	return chance(60) ? IN_BLOCK : UNDONE;
}

/* Between two tries to connect. */
static void
pause_briefly(void)
{
	struct timespec pause = {0, 5 * 1000 * 1000};

	nanosleep(&pause, NULL);
}

static void
attach(void)
{
	Call		call = {ATTACH_RUNNER, ALONE, NULL, NULL, runner,
	{runner, incarnation}};
	Answer		answer;

	make_call(&call, &answer);
}

/* True with an open session; false if we are told to end. */
static bool
have_session(void)
{
	char		name[32];

	snprintf(name, sizeof(name), "chaos client %d", number);
	while (!told_to_end)
	{
		if (session_is_open())
			return true;
		open_session(name, number % 2 == 0);
		if (!session_is_open())
			pause_briefly();
		else if (number % 4 == 0)
			attach();
	}
	return false;
}

/* A call about a run. */
static void
call_run(CallId id, const char *run, const char *argument, Wrapping wrapping,
		 Answer *answer)
{
	Call		call = {id, wrapping, NULL, run, argument, {run, WORKSPACE, argument}};

	make_call(&call, answer);
}

/*
 * Begins a run; with an id of ours again and again until there is an answer, for
 * that is what it can be given for.
 */
static bool
begin(const char *chat, Answer *answer)
{
	char		given[UUID_TEXT_SIZE];
	bool		is_given = chance(30);
	Call		call = {chance(50) ? BEGIN_RUN : TRY_BEGIN_RUN, ALONE, chat, NULL,
	NULL, {chat, WORKSPACE, NULL, runner}};

	call.wrapping = some_wrapping();
	if (is_given)
	{
		random_uuid(given);
		call.run = given;
		call.argument = "given";
		call.params[2] = given;
		if (call.wrapping == UNDONE)
			call.wrapping = IN_BLOCK;
	}
	make_call(&call, answer);
	while (is_given && answer->end == UNKNOWN && have_session())
		make_call(&call, answer);
	return answer->end == COMMITTED &&
		(strcmp(answer->outcome, "began") == 0 || strcmp(answer->outcome, "resumed") == 0);
}

static void
finalize(const char *run, const char *turn_status)
{
	Wrapping	wrapping = some_wrapping();
	Answer		answer;

	call_run(FINALIZE_RUN, run, turn_status, wrapping, &answer);

	/* What was not to be, or may not have been: as a service does it. */
	while (answer.end != COMMITTED && have_session())
		call_run(FINALIZE_RUN, run, turn_status, ALONE, &answer);
}

/* Executes our run. */
static void
execute_turn(const char *run)
{
	const char *turn_status = chance(70) ? "completed" : "error";
	int			n_steps = below(6);
	Answer		answer;

	for (int step = 1; step <= n_steps && have_session(); step++)
	{
		char		count[16];

		snprintf(count, sizeof(count), "%d", step);
		if (chance(50))
			call_run(RECORD_STEP, run, count, some_wrapping(), &answer);
		else
			call_run(HEARTBEAT, run, NULL, ALONE, &answer);
		if (strcmp(answer.outcome, "finalized") == 0)
			return;
		if (strcmp(answer.outcome, "stop") == 0)
		{
			turn_status = "aborted";
			break;
		}
	}
	if (chance(5))
		return;					/* nobody's run any more */
	if (have_session())
		finalize(run, turn_status);
}

static bool
supersede(const char *chat, const char *target, Answer *answer)
{
	bool		force = chance(30);
	Call		call = {SUPERSEDE_RUN, ALONE, chat, target, force ? "force" : NULL,
	{chat, target, WORKSPACE, force ? "100 ms" : "500 ms", force ? "t" : "f"}};

	make_call(&call, answer);
	return answer->end == COMMITTED &&
		(strcmp(answer->outcome, "superseded") == 0 || strcmp(answer->outcome, "began") == 0);
}

static void
stop(const char *chat, const char *run)
{
	Call		call = {REQUEST_STOP_FOR_CHAT, ALONE, chat, NULL, NULL, {chat, WORKSPACE}};
	Answer		answer;

	if (chance(50))
		call_run(REQUEST_STOP, run, NULL, some_wrapping(), &answer);
	else
		make_call(&call, &answer);
	if (have_session())
		call_run(HEARTBEAT, run, NULL, ALONE, &answer);
}

static void
wait_for(const char *run)
{
	Call		call = {AWAIT_STOPS, ALONE, NULL, NULL, runner, {runner, "100 ms"}};
	Answer		answer;

	if (chance(20))
		make_call(&call, &answer);
	else if (chance(75))
		call_run(AWAIT_RUN, run, FOR_EVER, ALONE, &answer);
	else
		call_run(AWAIT_STOP, run, FOR_EVER, ALONE, &answer);
	if (have_session())
		call_run(HEARTBEAT, run, NULL, ALONE, &answer);
}

/* Somebody's run is there. */
static void
meddle(const char *chat, const char *run)
{
	int			dice = below(100);
	Answer		answer;

	if (dice < 25)
		stop(chat, run);
	else if (dice < 45)
	{
		if (supersede(chat, run, &answer))
			execute_turn(answer.run);
	}
	else if (dice < 60)
		finalize(run, "error");
	else if (dice < 75)
		call_run(GET_RUN, run, NULL, ALONE, &answer);
	else if (number % 3 == 0)
		wait_for(run);
}

static void
look_for_rivals(void)
{
	char		chats[MAX_RIVALS][UUID_TEXT_SIZE];
	int			counts[MAX_RIVALS];
	int			n = count_rivals(chats, counts, MAX_RIVALS);

	for (int i = 0; i < n; i++)
		tell_driver(chats[i], counts[i]);
}

static void
take_turn(void)
{
	char		chat[UUID_TEXT_SIZE];
	Call		look = {GET_ACTIVE_FOR_CHAT, ALONE, chat, NULL, NULL, {chat, WORKSPACE}};
	Answer		answer;

	snprintf(chat, sizeof(chat), "00000000-0000-4000-8000-%012d", 1 + below(n_chats));
	if (begin(chat, &answer))
	{
		execute_turn(answer.run);
		return;
	}
	if (answer.run[0] == '\0' && have_session())
		make_call(&look, &answer);
	if (answer.run[0] != '\0' && have_session())
		meddle(chat, answer.run);
	if (chance(5) && have_session())
		look_for_rivals();
}

int
main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = handle_sigterm,.sa_flags = SA_RESTART};

	if (argc != 5)
	{
		fprintf(stderr, "usage: client NUMBER SEED CHATS DIRECTORY\n");
		return 2;
	}
	number = atoi(argv[1]);
	random_state = strtoull(argv[2], NULL, 10) * UINT64_C(0x9E3779B97F4A7C15) + (uint64_t) number;
	n_chats = atoi(argv[3]);
	open_history(argv[4], number);
	snprintf(runner, sizeof(runner), "runner %d", number);
	random_uuid(incarnation);
	sigaction(SIGTERM, &action, NULL);

	while (have_session())
		take_turn();
	return 0;
}
