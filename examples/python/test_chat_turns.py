"""Tests of the example, on the server that PGHOST and the like name. Prints TAP."""

import contextlib
import io
import re
import uuid

try:
    import psycopg
except ImportError:
    print("1..0 # SKIP psycopg 3 is not installed (Debian: python3-psycopg)")
    raise SystemExit

import chat_turns as turns

WORKSPACE = uuid.uuid4()
results = []


def check(ok, what):
    results.append(bool(ok))
    print(f"{'ok' if ok else 'not ok'} {len(results)} - {what}")


def status_of(run_id):
    return user.execute("SELECT status, step_count, error FROM ai_chat_run.get_run(%s, %s)", (run_id, WORKSPACE)).fetchone()


runner, user = turns.connect("runner"), turns.connect("user")

chat = uuid.uuid4()
run = turns.begin_run(runner, chat, WORKSPACE, "tests")
try:
    turns.begin_run(user, chat, WORKSPACE, "others")
    check(False, "a busy chat")
except turns.RunAlreadyActive as busy:
    check(str(busy) == f"an agent run is already in progress for chat {chat}", "a busy chat")
check(turns.await_run(user, run, WORKSPACE, "0 s") == (None, None), "it has not ended")
check(turns.execute_turn(runner, run, WORKSPACE, ["a", "b"]) == ["a", "b"], "a turn says all its words")
check(turns.await_run(user, run, WORKSPACE) == ("succeeded", None), "and has succeeded")
check(status_of(run) == ("succeeded", 2, None), "in two steps")
check(turns.finalize_run(runner, run, WORKSPACE, "error", "late") == "already_finalized", "which is final")

run = turns.begin_run(runner, chat, WORKSPACE, "tests")


def stopped_after_two():
    yield "a"
    check(turns.request_stop(user, run, WORKSPACE), "there is something to stop")
    yield "b"
    yield "c"


check(turns.execute_turn(runner, run, WORKSPACE, stopped_after_two()) == ["a", "b"], "the next step sees the stop")
check(status_of(run) == ("aborted", 2, None), "and the run is aborted")

run = turns.begin_run(runner, chat, WORKSPACE, "tests")


def broken():
    yield "a"
    raise ValueError("no model")


try:
    turns.execute_turn(runner, run, WORKSPACE, broken())
    check(False, "a model that fails")
except ValueError:
    check(status_of(run) == ("failed", 1, "no model"), "a model that fails")

try:
    turns.begin_run(runner, None, WORKSPACE, "tests")
    check(False, "another error stays what it is")
except psycopg.Error as error:
    check(error.sqlstate == "22004", "another error stays what it is")

out = io.StringIO()
with contextlib.redirect_stdout(out):
    turns.main()
check(
    re.fullmatch(
        r"409: an agent run is already in progress .*\nthe first turn: succeeded None\nthe second turn: aborted None\n",
        out.getvalue(),
    ),
    "what it shows by itself",
)
print(f"1..{len(results)}")
