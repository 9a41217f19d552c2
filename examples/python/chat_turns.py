#!/usr/bin/env python3
"""Turns of an AI chat with psycopg 3: begin, steps, a stop that is seen, the end, and who waits for it.

Run by itself, it shows two turns on the server that the usual variables name (PGHOST, PGDATABASE, ...), or DATABASE_URL.
The extension has to be there, and the library be preloaded: await_run needs it.
"""

import os
import sys
import threading
import uuid

import psycopg


class RunAlreadyActive(Exception):
    """The chat has an active run: answer 409, before any call to the model."""


def connect(name):
    # Each call is a transaction of its own: others see a run when its begin is committed.
    return psycopg.connect(os.environ.get("DATABASE_URL", ""), autocommit=True, application_name=name)


def begin_run(conn, chat_id, workspace_id, runner):
    try:
        return conn.execute(
            "SELECT ai_chat_run.begin_run(%s::uuid, %s::uuid, runner => %s)", (chat_id, workspace_id, runner)
        ).fetchone()[0]
    except psycopg.Error as error:
        if error.sqlstate == "RN409":
            raise RunAlreadyActive(error.diag.message_primary) from error
        raise


def record_step(conn, run_id, workspace_id, steps):
    """continue, stop, finalized or not_found; None if the step could not be written, which ends no turn."""
    return conn.execute(
        "SELECT ai_chat_run.record_step(%s::uuid, %s::uuid, %s)", (run_id, workspace_id, steps)
    ).fetchone()[0]


def finalize_run(conn, run_id, workspace_id, turn_status, error=None):
    return conn.execute(
        "SELECT ai_chat_run.finalize_run(%s::uuid, %s::uuid, %s, %s)", (run_id, workspace_id, turn_status, error)
    ).fetchone()[0]


def request_stop(conn, run_id, workspace_id):
    return conn.execute("SELECT ai_chat_run.request_stop(%s::uuid, %s::uuid)", (run_id, workspace_id)).fetchone()[0]


def await_run(conn, run_id, workspace_id, timeout="30 s"):
    """The run's status and error when it has ended; (None, None) when the time is over."""
    return conn.execute(
        "CALL ai_chat_run.await_run(%s::uuid, %s::uuid, %s::interval, NULL, NULL)", (run_id, workspace_id, timeout)
    ).fetchone()


def execute_turn(conn, run_id, workspace_id, words):
    """Says the words of a model until they end or a stop is requested. However it ends, the end is written."""
    said = []
    try:
        for word in words:
            said.append(word)
            if record_step(conn, run_id, workspace_id, len(said)) not in ("continue", None):
                finalize_run(conn, run_id, workspace_id, "aborted")
                return said
        finalize_run(conn, run_id, workspace_id, "completed")
    except Exception as error:
        # In the hands of a lost connection this fails, too. Then the server's worker settles the run, as silent: a
        # process that lives on does better to connect again and to repeat it.
        finalize_run(conn, run_id, workspace_id, "error", str(error))
        raise
    return said


def main():
    workspace_id, chat_id = uuid.uuid4(), uuid.uuid4()
    runner, user = connect("runner"), connect("user")

    run_id = begin_run(runner, chat_id, workspace_id, "python-1")
    try:
        begin_run(user, chat_id, workspace_id, "python-2")
    except RunAlreadyActive as busy:
        print(f"409: {busy}")
    execute_turn(runner, run_id, workspace_id, "That was a short answer .".split())
    print("the first turn:", *await_run(user, run_id, workspace_id))

    # A model that never ends; the pause between its words is the user's to stop it.
    run_id = begin_run(runner, chat_id, workspace_id, "python-1")
    pause = threading.Event()

    def endless_words():
        while True:
            yield "and"
            pause.wait(0.1)

    turn = threading.Thread(target=execute_turn, args=(runner, run_id, workspace_id, endless_words()))
    turn.start()
    request_stop(user, run_id, workspace_id)
    print("the second turn:", *await_run(user, run_id, workspace_id))
    turn.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
