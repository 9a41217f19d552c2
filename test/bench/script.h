/*
 * The scripts that load runs.  One is text, a statement a line:
 *
 *	 [once:] [NAME <-] STATEMENT [=> ANSWER | ANSWER ...]
 *	 in DATABASE
 *
 * "once" is before everything.	 NAME <- keeps the first column for later lines,
 * which have it as $NAME.	Each iteration has $chat and $new, fresh uuids; $turn,
 * a uuid that all clients share; $i, which counts from 1; and $ws, the
 * workspace.  An ANSWER is the first column, or the number of rows of a command
 * that returns none, or the SQLSTATE behind a "!", or "*" for anything but an
 * error.  Any other answer ends the program.  How often each one came is printed
 * as answer_LINE_ANSWER, both counted from 1.
 */
#ifndef BENCH_SCRIPT_H
#define BENCH_SCRIPT_H

#include <stdbool.h>

#define MAX_LINES		8
#define MAX_NAMES		16
#define MAX_ANSWERS		4

/* The names that each script has; those that it keeps follow. */
enum
{
	NAME_CHAT, NAME_NEW, NAME_TURN, NAME_I, NAME_WS, N_BUILTIN_NAMES
};

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

typedef struct Script
{
	const char *dbname;
	Line		lines[MAX_LINES];
	int			n_lines;
	char		names[MAX_NAMES][32];
	int			n_names;
} Script;

extern void parse_script(Script *script, char *text, const char *dbname);

#endif
