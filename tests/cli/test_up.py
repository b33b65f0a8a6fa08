"""``streamapp up``: who runs beside whom."""

import errno
import os
import socket
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console, ConsoleDimensions
from rich.live import Live

from streamapp.cli.app import main
from streamapp.cli.up import (
    PORTS,
    PROCESSES,
    alone,
    check_ports,
    is_live,
    processes,
    supervisor,
    unfinished,
    update,
)
from streamapp.compose import mirror_app
from streamapp.core.config import load
from streamapp.core.errors import Refuse
from streamapp.screen.summary import addresses
from streamapp.screen.supervisor import Child

CLEAR = "\x1b[2J"


@pytest.mark.parametrize("ring", ["c", "twin"])
def test_a_terminal_writes_the_ring(clean, ring):
    settings = replace(load()[0], ring=ring)
    assert processes(settings) == PROCESSES
    assert tuple(addresses(settings)) == PROCESSES


def test_a_worker_that_writes_the_ring_is_its_own_terminal(clean):
    settings = replace(load()[0], ring="direct")
    assert processes(settings) == ("gateway", "worker", "store")
    assert tuple(supervisor(settings).children) == processes(settings)
    assert tuple(addresses(settings)) == processes(settings)
    with pytest.raises(Refuse, match="the worker of this host writes") as caught:
        mirror_app(settings)
    assert "no terminal" in caught.value.fix


def test_a_token_reaches_the_processes_by_their_environment_alone(clean):
    """A command line is for everybody to see."""
    for child in supervisor(replace(load()[0], token="s3cret")).children.values():
        assert child.env["STREAMAPP_TOKEN"] == "s3cret"
        assert "s3cret" not in " ".join(child.argv)


def test_the_exporter_runs_where_exports_are_declared(clean):
    settings = load()[0]
    assert processes(settings, ("export",)) == (*PROCESSES, "export")
    assert tuple(supervisor(settings, extras=("export",)).children) == (*PROCESSES, "export")
    assert tuple(addresses(settings, ("export",))) == (*PROCESSES, "export")


def test_a_port_that_nobody_of_us_will_listen_on_may_be_taken(clean):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ports = dict.fromkeys(PORTS, 0) | {"terminal_port": other.getsockname()[1]}
        settings = replace(load()[0], **ports)
        with pytest.raises(Refuse, match="terminal_port"):
            check_ports(settings)
        check_ports(replace(settings, ring="direct"))


def test_a_second_up_in_one_home_is_refused_before_anything_starts(clean, tmp_path, capsys):
    home = tmp_path / "home"
    home.mkdir()
    with alone(home):
        assert main(["up", "--home", str(home), "--no-tui"]) == 2
    said = capsys.readouterr().err
    assert f"process {os.getpid()} runs streamapp up on {home}" in said
    assert "--home" in said
    assert not (home / "logs").exists()
    with alone(home):  # let go
        pass


def test_a_home_on_a_file_system_without_locks_can_be_used(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with alone(tmp_path):
        assert (tmp_path / "up.lock").read_text() == f"{os.getpid()}\n"


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch):
    screen = Console(force_terminal=True, file=StringIO())
    monkeypatch.setenv("TERM", "xterm")
    assert is_live(screen)
    monkeypatch.setenv("TERM", "dumb")
    assert not is_live(screen)
    assert not is_live(Console(file=StringIO()))


def test_a_terminal_that_was_resized_shows_no_remains():
    out = StringIO()
    screen = Console(force_terminal=True, file=out, width=80, height=24)
    with Live(console=screen, auto_refresh=False) as live:
        size = update(live, "one", screen.size)
        assert CLEAR not in out.getvalue()
        screen.size = ConsoleDimensions(40, 12)
        assert update(live, "two", size) == screen.size
        assert out.getvalue().count(CLEAR) == 1


def test_who_did_not_end_well_is_named_with_its_last_words():
    ended = {"gateway": (0, ""), "worker": (75, "did not finish within 20 s"), "store": (-9, "")}
    children = [
        Child(name, (), {}, error=error, process=SimpleNamespace(returncode=code))
        for name, (code, error) in ended.items()
    ]
    told = dict(unfinished([*children, Child("terminal", (), {})]))
    assert told["worker"] == "did not finish within 20 s"
    assert "-9" in told["store"]
    assert set(told) == {"worker", "store"}


DRAINING = """
import signal, sys, time
def end(*_):
    with open({log!r}, "a") as log:
        print("stopping", {name!r}, file=log, flush=True)
        time.sleep(0.2)  # it drains
        print("stopped", {name!r}, file=log)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    print("a line", flush=True)
    time.sleep(0.01)
"""
UP = """
import sys
from pathlib import Path
from streamapp.cli import main, up
from streamapp.screen.supervisor import Child, Supervisor
def supervisor(_settings, printer, _extras):
    children = [Child(name, (sys.executable, "-c", code), {{}}) for name, code in {codes!r}.items()]
    return Supervisor(children, Path({logs!r}), drain_s=10, printer=printer)
up.supervisor = supervisor
up.prepare = lambda _: None
sys.exit(main(["up", "--no-tui", *{ports!r}]))
"""


def test_a_reader_that_has_seen_enough_stops_all_in_order(clean, tmp_path):
    """``streamapp up | head -1``."""
    log = tmp_path / "log"
    codes = {name: DRAINING.format(log=str(log), name=name) for name in ("first", "second")}
    ports = [f"--{name.replace('_', '-')}=0" for name in PORTS]
    code = UP.format(codes=codes, logs=str(tmp_path / "logs"), ports=ports)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        speaking: set[str] = set()
        while not speaking >= set(codes):  # each can be told to stop
            speaking.add(process.stdout.readline().split()[0])
        process.stdout.close()
        assert process.wait(60) == 1
        assert not process.stderr.read()
    order = [f"{what} {name}" for name in codes for what in ("stopping", "stopped")]
    assert log.read_text().splitlines() == order
