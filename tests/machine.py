"""A whole machine: `streamapp up` with real processes on a home of its own."""

import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest

from streamapp.flight.client import query
from streamapp.ring import RingReader, unpack_source

PROCESSES = ("gateway", "worker", "store", "terminal")


def pause(began):
    """Between two looks: at most a fifth of the time goes into looking.

    What is looked at is at work on the same cores, and each look is work for it as well.
    """
    time.sleep(min(max(0.02, 4 * (time.monotonic() - began)), 0.5))


def wait_for(condition, what="it", wait_s=90.0):
    """Poll until the condition's value is true; the watchdog is generous, the poll is not."""
    deadline = time.monotonic() + wait_s
    while True:
        began = time.monotonic()
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"waited {wait_s} s in vain for {what}"
        pause(began)


def wait_to_reach(state, end, what, still_s=90.0):
    """Poll until the state is the end; however long it takes, it must not stand still."""
    seen, deadline = None, 0.0
    while True:
        began = time.monotonic()
        if (now := state()) == end:
            return
        if now != seen:
            seen, deadline = now, time.monotonic() + still_s
        assert time.monotonic() < deadline, f"{what}: at {now} for {still_s} s, not at {end}"
        pause(began)


class Machine:
    """Starts `streamapp up`, kills what is told, sends, queries, follows the ring."""

    PROCESSES = PROCESSES
    wait_for = staticmethod(wait_for)

    def __init__(self, home, **settings):
        self.home = Path(home)
        ports = free_ports(5)
        names = ("GATEWAY", "FLIGHT", "WORKER", "STORE", "TERMINAL")
        self.ports = dict(zip((n.lower() for n in names), ports, strict=True))
        self.ring = Path(f"/dev/shm/streamapp-test-{os.getpid()}/{self.ports['gateway']}.ring")
        self.env = {
            **os.environ,
            "STREAMAPP_HOME": str(self.home),
            "STREAMAPP_RING_PATH": str(self.ring),
            **{f"STREAMAPP_{n}_PORT": str(p) for n, p in zip(names, ports, strict=True)},
            **{f"STREAMAPP_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.process = None

    def start(self, python=sys.executable, folder=None):
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "up.out").open("ab") as output:
            self.process = subprocess.Popen(
                [python, "-P", "-m", "streamapp.cli", "up", "--no-tui"],
                env=self.env, cwd=folder or self.home, stdout=output, stderr=output,
            )  # fmt: skip
        wait_for(lambda: self.died() or all(map(self.ready, self.running)), "all to be ready")
        assert not self.died(), self.output()
        return self

    @property
    def running(self):
        """What `up` starts: no terminal where the worker writes the ring."""
        direct = self.env.get("STREAMAPP_RING") == "direct"
        return tuple(name for name in PROCESSES if name != "terminal" or not direct)

    def died(self):
        return self.process.poll() is not None

    def output(self):
        return (self.home / "up.out").read_text(errors="replace")

    def ready(self, name):
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.ports[name]}/readyz", timeout=2
            ) as a:
                return a.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def pids(self):
        """Name to pid of the living children."""
        found = {}
        for pid in children_of(self.process.pid):
            argv = command_of(pid).decode().split("\0")
            flag = "streamapp.cli" if "streamapp.cli" in argv else "-A"
            if flag in argv:
                found[argv[argv.index(flag) + 1].removeprefix("streamapp.")] = pid
        return found

    def kill(self, *names):
        """SIGKILL; the supervisor starts them again."""
        pids = self.pids()
        for name in names:
            if name in pids:
                kill(pids[name])

    def post(self, event, timeout=5):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['gateway']}/ingest",
            json.dumps(event).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    def post_until_taken(self, event, wait_s=90):
        """As a careful client does: the same event with the same id until it is answered."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return self.post(event)
            except (OSError, urllib.error.URLError, json.JSONDecodeError) as error:
                assert time.monotonic() < deadline, f"never taken: {error}"
                time.sleep(0.05)

    def query(self, sql):
        return query("127.0.0.1", self.ports["flight"], sql)

    def rows(self, sql):
        """As any other program reads the store: by ADBC, not by code of ours."""
        token = self.env.get("STREAMAPP_TOKEN")
        options = {"adbc.flight.sql.authorization_header": f"Bearer {token}"} if token else {}
        uri = f"grpc://127.0.0.1:{self.ports['flight']}"
        with (
            flightsql.connect(uri, db_kwargs=options, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return cursor.fetch_arrow_table().to_pylist()

    def wait_rows(self, count, wait_s=120.0):
        def enough():
            try:
                return self.rows("select count(*) as n from events")[0]["n"] >= count
            except Exception as error:  # noqa: BLE001  # the store may be starting again
                self.last_error = error
                return False

        wait_for(enough, f"{count} rows; {getattr(self, 'last_error', '')}", wait_s)

    def frames(self):
        """(partition, source offset) of every frame in the ring, in order, and what was lost."""
        with RingReader.open(self.ring) as reader:
            partitions = [source.partition for source in reader.stat()["sources"]]
            addresses, lost = [], 0
            while True:
                frames = reader.read(4096)
                lost += frames.lost
                if not len(frames):
                    if reader.lag == 0:
                        return addresses, lost
                    continue
                for index, offset in zip(*unpack_source(frames.source_offset), strict=True):
                    addresses.append((partitions[index], int(offset)))

    def stop(self, *, keep_ring=False):
        """SIGTERM and the exit code."""
        if self.process is None:
            return 0
        if not self.died():
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(90)
        finally:
            self.process.kill()
            if not keep_ring:
                self.ring.unlink(missing_ok=True)


def stop(pid):
    """SIGSTOP to a child, until all its threads stand still: they go on for a moment after it."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def freeze(process, log):
    """SIGSTOP, between the process's transactions on the embedded log in this folder.

    SQLite's lock cannot be taken from a process that is stopped while it has it.
    """
    while True:
        stop(process.pid)
        with suppress(sqlite3.OperationalError):
            for path in Path(log).rglob("*.db"):
                with closing(sqlite3.connect(path, timeout=1)) as database:
                    database.execute("BEGIN IMMEDIATE")
            return
        process.send_signal(signal.SIGCONT)


@pytest.fixture
def file_bytes_max():
    """``limit(n)``: this process cannot make a file longer than n bytes; ``limit(None)``: it can."""

    def limit(size):
        size = resource.RLIM_INFINITY if size is None else size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    yield limit
    limit(None)


def kill(pid):
    """SIGKILL; harmless when it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def command_of(pid):
    """A process's arguments, with zeros between them; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descendants(pid):
    """Children, and theirs."""
    own = children_of(pid)
    return own + [below for each in own for below in descendants(each)]


def children_of(pid):
    """Processes that any thread of it started; none when it is gone."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def free_ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def machines(tmp_path):
    """A maker of machines; all are stopped at the end."""
    made = []

    def make(name="home", **settings):
        made.append(Machine(tmp_path / name, **settings))
        return made[-1]

    yield make
    for machine in made:
        machine.stop()
    for machine in made:
        shutil.rmtree(machine.ring.parent, ignore_errors=True)


@pytest.fixture
def machine(machines):
    return machines().start()
