/*
 * The scripts that load runs: from text to statements with parameters.
 */
#include "script.h"

#include "common.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *const builtin_names[] = {"chat", "new", "turn", "i", "ws"};

static int
find_name(const Script *script, const char *name, size_t length)
{
	for (int i = 0; i < script->n_names; i++)
	{
		if (strlen(script->names[i]) == length &&
			strncmp(script->names[i], name, length) == 0)
			return i;
	}
	return -1;
}

static int
add_name(Script *script, const char *name)
{
	int			found = find_name(script, name, strlen(name));

	if (found >= 0)
		return found;
	if (script->n_names == MAX_NAMES || strlen(name) >= sizeof(script->names[0]))
		die("too many names, or too long a name");
	snprintf(script->names[script->n_names], sizeof(script->names[0]), "%s", name);
	return script->n_names++;
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
set_sql(const Script *script, Line *line, const char *text)
{
	size_t		length = 0;

	while (*text != '\0' && length < sizeof(line->sql) - 16)
	{
		if (text[0] == '$' && isalpha((unsigned char) text[1]))
		{
			size_t		name_length = strspn(text + 1, "abcdefghijklmnopqrstuvwxyz_");
			int			name = find_name(script, text + 1, name_length);

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

/* Takes the answers off the end of a line. */
static void
parse_answers(Line *line, char *text)
{
	char	   *arrow = strstr(text, "=>");
	char	   *rest;

	if (arrow == NULL)
		return;
	*arrow = '\0';
	for (char *word = strtok_r(arrow + 2, "|", &rest); word != NULL;
		 word = strtok_r(NULL, "|", &rest))
	{
		if (line->n_answers == MAX_ANSWERS)
			die("too many answers");
		line->answers[line->n_answers++] = trim(word);
	}
}

static void
parse_line(Script *script, char *text)
{
	Line	   *line = &script->lines[script->n_lines];
	char	   *arrow;

	if (strncmp(text, "in ", 3) == 0)
	{
		script->dbname = trim(text + 3);
		return;
	}
	if (script->n_lines == MAX_LINES)
		die("a script is too long");
	if (strncmp(text, "once:", 5) == 0)
	{
		line->once = true;
		text += 5;
	}
	parse_answers(line, text);
	line->keep = -1;
	arrow = strstr(text, "<-");
	if (arrow != NULL)
	{
		*arrow = '\0';
		line->keep = add_name(script, trim(text));
		text = arrow + 2;
	}
	set_sql(script, line, trim(text));
	snprintf(line->statement, sizeof(line->statement), "line_%d", script->n_lines);
	script->n_lines++;
}

/* Takes the text apart.	The database is that given, unless the script says. */
void
parse_script(Script *script, char *text, const char *dbname)
{
	char	   *rest;

	script->dbname = dbname;
	for (int i = 0; i < N_BUILTIN_NAMES; i++)
		(void) add_name(script, builtin_names[i]);
	for (char *line = strtok_r(text, "\n", &rest); line != NULL;
		 line = strtok_r(NULL, "\n", &rest))
	{
		if (*trim(line) != '\0')
			parse_line(script, trim(line));
	}
	if (script->dbname == NULL)
		die("which database?");
}
