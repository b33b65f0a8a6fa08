"""``streamapp sql`` on a pseudo terminal and in scripts, against a real store over Flight."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import numpy as np
import pyarrow as pa
import pytest
from machine import wait_for
from sinks import event, record

from streamapp.core.batch import vector_column
from streamapp.flight import FlightServer
from streamapp.sink import Store
from streamapp.sink.search import Search

ENDLESS = "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = 1;"
_ESCAPES = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]|\x1b[=>]|\r|\x07")


def _record(rows):
    events = [event(n, conversation=f"c{n % 3}", actor="ann", duration_ms=0) for n in range(rows)]
    turns = np.arange(rows) / 10
    vectors = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)
    return record(0, rows, events, stages=False, extra={"embedding": vector_column(vectors)}, at=1)


@pytest.fixture(scope="module")
def server():
    search = Search(lambda texts: np.array([[1, 0]] * len(texts), np.float32))
    columns = {"embedding": pa.list_(pa.float32(), 2)}
    with Store.open(":memory:", columns=columns, search=search) as store:
        store.write([_record(30)])
        with FlightServer(store.reader, port=0) as running:
            yield running


@pytest.fixture
def start(clean, server):
    """``start(*arguments)``: the command line and the environment of ``streamapp sql``."""

    def command(*arguments):
        port = str(server.port)
        return [sys.executable, "-m", "streamapp.cli", "sql", "--flight-port", port, *arguments]

    return command


@pytest.fixture
def script(start):
    """``script("-c", "select 1")``: the finished process."""

    def run(*arguments, stdin=""):
        return subprocess.run(
            start(*arguments), input=stdin, capture_output=True, text=True, timeout=100, check=False
        )

    return run


def _hear_ctrl_c():
    """Of who is in the background, SIGINT is ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _take_terminal():
    _hear_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A program on a pseudo terminal; ``until`` waits for what it prints."""

    def __init__(self, command, columns):
        self._at, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509  # Ctrl-C needs it
            env={name: value for name, value in os.environ.items() if name != "COLUMNS"}
            | {"TERM": "xterm", "NO_COLOR": "1"},
        )
        os.close(theirs)
        self._text = ""

    def type(self, text):
        os.write(self._at, text.encode())

    def until(self, pattern, seconds=60):
        """What came up to a match of the pattern, which is taken too."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self._text)):
            ready, _, _ = select.select([self._at], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} within {seconds} s in:\n{self._text}"
            try:
                part = os.read(self._at, 65536)
            except OSError:
                part = b""
            assert part, f"it ended without {pattern!r}:\n{self._text}"
            self._text = _ESCAPES.sub("", self._text + part.decode(errors="replace"))
        before, self._text = self._text[: found.end()], self._text[found.end() :]
        return before

    def interrupt(self, pattern):
        """Type Ctrl-C until the pattern comes: Python misses one between prompt and select."""
        for _ in range(20):
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                return self.until(pattern, 3)
        return self.until(pattern)

    def ask(self, text):
        """Type a line; what is said until the next prompt."""
        self.type(text + "\n")
        self.until(re.escape(text[-20:]) + r"\s*\n")
        return self.until("streamapp> ")

    def end(self):
        self.process.wait(30)
        os.close(self._at)
        return self.process.returncode


@pytest.fixture
def terminal(start):
    opened = []

    def run(*arguments, columns=100):
        opened.append(Terminal(start(*arguments), columns))
        opened[-1].until("streamapp> ")
        return opened[-1]

    yield run
    for one in opened:
        if one.process.poll() is None:
            one.process.kill()
            one.end()


# ---- at the prompt ----


def test_a_statement_of_many_lines(terminal):
    at_prompt = terminal()
    at_prompt.type("select count(*) as n,\n")
    at_prompt.until(r"\.\.> ")
    said = at_prompt.ask("';' as semicolon from events; -- done")
    assert re.search(r"n\s+semicolon\s*\n\s*30\s+;", said), said
    assert re.search(r"1 row in [\d,.]+ ms", said)


def test_two_statements_in_a_line(terminal):
    said = terminal().ask("select 11 as a; select 22 as b;")
    assert said.index("11") < said.index("22")


def test_an_error_is_said_and_the_prompt_comes_back(terminal):
    at_prompt = terminal()
    said = at_prompt.ask("select nothing from events;")
    assert "error: " in said
    assert "nothing" in said
    assert "Traceback" not in said
    assert "7" in at_prompt.ask("select 7 as seven;")


def test_what_there_is(terminal):
    at_prompt = terminal()
    said = at_prompt.ask("\\d")
    for name in ("events", "dead", "latest", "conversations", "similar", "near"):
        assert re.search(rf"^{name}\s+(table|view|macro)", said, re.MULTILINE), (name, said)
    assert re.search(r"events\s+table\s+30 rows", said)
    said = at_prompt.ask("\\d conversations")
    assert re.search(r"last_time\s+TIMESTAMP WITH TIME ZONE", said)
    said = at_prompt.ask("\\d near")
    assert "near(event_id, k)" in said
    assert re.search(r"cosine\s+FLOAT", said)
    assert "there is no table nobody" in at_prompt.ask("\\d nobody")


def test_commands(terminal):
    at_prompt = terminal()
    assert "stops the statement that runs" in at_prompt.ask("\\?")
    assert "timing: off" in at_prompt.ask("\\timing")
    assert "row in" not in at_prompt.ask("select 1 as one;")
    assert "rows as JSON: on" in at_prompt.ask("\\json")
    assert '{"one":1}' in at_prompt.ask("select 1 as one;")
    at_prompt.ask("\\json")
    assert "rows upright: always" in at_prompt.ask("\\x")
    assert re.search(r"row 1\n\s*one\s+1", at_prompt.ask("select 1 as one;"))
    assert "there is no command \\nothing" in at_prompt.ask("\\nothing")
    at_prompt.type("\\q\n")
    assert at_prompt.end() == 0


def test_wide_rows_stand_upright_where_the_terminal_is_narrow(terminal):
    narrow, wide = terminal(columns=60), terminal(columns=2000)
    ask = "select * from latest limit 1;"
    assert re.search(r"row 1\n\s*source_topic\s+events.raw", narrow.ask(ask))
    assert re.search(r"source_topic\s+source_partition", wide.ask(ask))


def test_not_more_rows_than_somebody_reads(terminal):
    said = terminal().ask("select range as n from range(5000);")
    assert "... and more than these 1,000 rows" in said
    assert not re.search(r"^\s*1000\s*$", said, re.MULTILINE)


def test_ctrl_c_stops_the_statement_in_the_store(terminal, server):
    at_prompt = terminal()
    at_prompt.type(ENDLESS + "\n")
    wait_for(lambda: server.running == 1)
    at_prompt.interrupt("stopped\\s+streamapp> ")
    wait_for(lambda: server.running == 0)
    assert "5" in at_prompt.ask("select 5 as five;")


def test_ctrl_c_drops_what_was_typed(terminal):
    at_prompt = terminal()
    at_prompt.type("select broken\n")
    at_prompt.until(r"\.\.> ")
    at_prompt.interrupt("streamapp> ")
    assert "error" not in at_prompt.ask("select 1 as one;")


def test_ctrl_d_leaves(terminal):
    at_prompt = terminal()
    at_prompt.type("\x04")
    assert at_prompt.end() == 0


def test_tab_completes(terminal):
    at_prompt = terminal()
    at_prompt.type("select last_te\t")
    at_prompt.until("select last_text")
    at_prompt.type(" from conversa\t")
    at_prompt.until("conversations")
    at_prompt.type(" limit 1;\n")
    at_prompt.until("text 2")


def test_the_history_is_kept(terminal, clean):
    first = terminal()
    first.ask("select 'remember me' as text;")
    first.type("\x04")
    assert first.end() == 0
    history = clean.parent / "home" / "sql.history"
    assert history.stat().st_mode & 0o777 == 0o600
    again = terminal()
    again.type("\x1b[A\n")
    assert "remember me" in again.until(r"1 row in")


def test_a_history_that_cannot_be_kept_is_said_once(terminal, clean):
    (clean.parent / "home").write_text("a file")
    at_prompt = terminal()
    assert "2" in at_prompt.ask("select 2 as two;")


def test_nobody_answers(clean, run):
    result = run("sql", "-c", "select 1", "--flight-port", "1")
    assert (result.code, "nothing answers at 127.0.0.1:1" in result.err) == (75, True)


# ---- scripts ----


def test_a_script_from_standard_input(script):
    done = script("--json", stdin="-- one\nselect 1 as a;\nselect 2 as a,\n'x;y' as b")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"a": 1}, {"a": 2, "b": "x;y"},
    ]  # fmt: skip


def test_a_command_line(script):
    done = script("-c", "select id, round(cosine, 3) as c from similar('east', 2); select 3 as z")
    assert done.stdout.split() == ["id", "c", "id-0", "1", "id-1", "0.995", "z", "3"], done.stderr
    assert done.stderr == ""


def test_the_first_error_ends_a_script(script):
    done = script("-c", "select 1 as a; select nothing; select 2 as a")
    assert done.returncode == 2
    assert done.stdout.split() == ["a", "1"]
    assert done.stderr.startswith("error: ")


def test_every_row_of_a_script_comes(script):
    done = script("--json", "-c", "from range(5000)")
    assert len(done.stdout.splitlines()) == 5000


def test_a_script_that_is_killed_stops_its_statement(start, server):
    with subprocess.Popen(
        start("-c", ENDLESS),
        stderr=subprocess.PIPE,
        preexec_fn=_hear_ctrl_c,  # noqa: PLW1509
    ) as process:
        wait_for(lambda: server.running == 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        assert process.stderr.read() == b""
    wait_for(lambda: server.running == 0)
