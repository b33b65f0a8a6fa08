"""``streamapp up``: all processes, restarted when they die, stopped in order."""

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from streamapp.cli.framework import command
from streamapp.cli.options import settings_options
from streamapp.cli.output import Lines, console
from streamapp.cli.prepare import make_home, prepare
from streamapp.cli.stopping import stop_by_signal
from streamapp.core.config import Settings, gateway_url, to_environment
from streamapp.core.errors import Refuse
from streamapp.core.exports import has_exports
from streamapp.core.tls import client_context

if TYPE_CHECKING:
    import aiohttp
    from rich.console import Console, ConsoleDimensions, RenderableType
    from rich.live import Live

    from streamapp.screen.supervisor import Child, Printer, Supervisor

#: Stopped in this order: each drains into the next.
PROCESSES = ("gateway", "worker", "store", "terminal")
PORTS = ("gateway_port", "flight_port", "worker_port", "store_port", "terminal_port")
#: Run beside them where the project asks for it; stopped last, for they read what those made.
EXTRAS = ("export", "ask")
REFRESH_S = 1.0


@command(
    examples=[
        "streamapp up",
        "streamapp up --db-path :memory: --token env:SHOP_TOKEN",
        "streamapp up --no-tui",
        "streamapp up --embedding-model bge-m3.onnx --tokenizer-model tokenizer.json",
    ],
)
@click.option("--no-tui", is_flag=True, help="Print the processes' lines instead of the summary.")
@settings_options(
    "store",
    "db_path",
    "parquet_url",
    "token",
    "embedding_model",
    "tokenizer_model",
    "broker",
    "gateway_host",
    "flight_host",
    *PORTS,
    *(f"{name}_port" for name in EXTRAS),
    "llm_base_url",
    "llm_model",
    "ring_path",
    "ring",
    "threads",
)
def up(settings: Settings, *, no_tui: bool) -> None:
    """Run gateway, worker, store and terminal on this machine, and what the project asks for.

    That is the exporter where streamapp.toml declares exports, and the asking process where
    LLM_BASE_URL names a language model and the workflow has ask_below.

    Creates the topics and fetches the models that the workflow names when they are missing.  A
    process that dies is started again; Ctrl-C or SIGTERM stops all of them in order, so that what
    was accepted is finished.  So does a terminal that is closed, or a reader of the lines that has
    seen enough (| head): the exit code is 1 then.
    """
    extras = wanted(settings)
    make_home(settings.home)
    with alone(settings.home):
        check_ports(settings, extras)
        prepare(settings)
        live = is_live(console()) and not no_tui
        if not asyncio.run(_run(settings, extras, live=live)):
            raise click.exceptions.Exit(1)


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold a home that is there: a second set of processes would fight for its store and ring.

    Raises:
        Refuse: ``up.running``: another process holds it.
    """
    with (home / "up.lock").open("a+") as file:
        if _is_held(file):
            file.seek(0)
            raise Refuse(
                "up.running",
                f"process {file.read().strip() or 'of another host'} runs streamapp up on {home}",
                "stop that one, or give another home with --home",
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _is_held(file: TextIO) -> bool:
    """Hold it; True where another does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: the store's file and the ring have their own
        return False
    return False


def is_live(screen: "Console") -> bool:
    """Can the summary be drawn there again and again?"""
    return screen.is_terminal and not screen.is_dumb_terminal


def wanted(settings: Settings) -> tuple[str, ...]:
    """Which of ``EXTRAS`` the project asks for."""
    from streamapp.compose import workflow

    asks = bool(settings.llm_base_url) and workflow(settings).asks
    return tuple(name for name, runs in zip(EXTRAS, (has_exports(), asks), strict=True) if runs)


def processes(settings: Settings, extras: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of what runs; a worker that writes the ring itself needs no terminal."""
    named = (*PROCESSES, *extras)
    return tuple(name for name in named if name != "terminal" or settings.ring != "direct")


def supervisor(
    settings: Settings, printer: "Printer | None" = None, extras: Sequence[str] = ()
) -> "Supervisor":
    """The processes with these settings, not yet started."""
    from streamapp.screen.supervisor import Child, Supervisor

    env = {**os.environ, **to_environment(settings)}  # noqa: TID251  # children inherit ours
    children = [
        Child(name, (sys.executable, "-P", "-m", "streamapp.cli", name), env)
        for name in processes(settings, extras)
    ]
    return Supervisor(children, settings.home / "logs", drain_s=settings.drain_s, printer=printer)


def check_ports(settings: Settings, extras: Sequence[str] = ()) -> None:
    """Refuse a port that something else listens on, naming the setting to change."""
    idle = {f"{name}_port" for name in PROCESSES} - {f"{name}_port" for name in processes(settings)}
    hosts = {"gateway_port": settings.gateway_host, "flight_port": settings.flight_host}
    for name in (*PORTS, *(f"{extra}_port" for extra in extras)):
        if name in idle:
            continue
        port = getattr(settings, name)
        host = hosts.get(name, "127.0.0.1")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise Refuse(
                    "port.taken",
                    f"{name} {port} on {host}: {error.strerror}",
                    f"stop what listens there, or give --{name.replace('_', '-')}",
                ) from None


def refuse_if_refused(watched: "Supervisor", settings: Settings) -> None:
    """Raise when a process will not start; its own words are in its log."""
    child = watched.refused()
    if child is not None:
        log = settings.home / "logs" / f"{child.name}.log"
        error, fix = _last_words(log)
        raise Refuse(
            "up.refused", f"{child.name} will not start: {error}", f"{fix}; the whole log is {log}"
        )


async def _run(settings: Settings, extras: Sequence[str], *, live: bool) -> bool:
    """Until told to stop; True when all ended cleanly and was heard."""
    stop = asyncio.Event()
    stop_by_signal(stop.set)
    say = Lines(8, stop.set)
    watched = supervisor(settings, None if live else say, extras)
    await watched.start()
    try:
        if live:
            await _show(watched, settings, stop, extras)
        else:
            await _wait(watched, settings, stop, extras, say)
    finally:
        say("up", "stopping: each process finishes what it has taken")
        clean = await watched.stop()
    if not clean:
        for name, why in unfinished(watched.children.values()):
            say(name, why)
    return clean and say.is_read


def unfinished(children: "Iterable[Child]") -> Iterator[tuple[str, str]]:
    """Who did not end well when told to stop, and what it said of that."""
    for child in children:
        code = child.process.returncode if child.process else 0
        if code not in {0, None, -signal.SIGTERM}:
            yield child.name, child.error or f"ended with {code}, see its log"


async def _wait(
    watched: "Supervisor",
    settings: Settings,
    stop: asyncio.Event,
    extras: Sequence[str],
    say: "Printer",
) -> None:
    import aiohttp

    from streamapp.screen.summary import read_numbers

    told = False
    async with aiohttp.ClientSession(connector=_connector(settings)) as session:
        while not stop.is_set():
            refuse_if_refused(watched, settings)
            if not told and all((await read_numbers(session, settings, extras)).ready.values()):
                told = True
                say("up", f"ready: POST {gateway_url(settings)}/ingest")
            await _pause(stop)


async def _show(
    watched: "Supervisor", settings: Settings, stop: asyncio.Event, extras: Sequence[str]
) -> None:
    import aiohttp
    from rich.live import Live

    from streamapp.screen.summary import read_numbers, render

    async with aiohttp.ClientSession(connector=_connector(settings)) as session:
        before = await read_numbers(session, settings, extras)
        with Live(console=console(), auto_refresh=False) as screen:
            size = screen.console.size
            while not stop.is_set():
                refuse_if_refused(watched, settings)
                now = await read_numbers(session, settings, extras)
                table = render(watched.children, before, now, settings, screen.console.size)
                size = update(screen, table, size)
                before = now
                await _pause(stop)


def update(live: "Live", shown: "RenderableType", size: "ConsoleDimensions") -> "ConsoleDimensions":
    """Draw anew; returns the terminal's size, to be given next time.

    A terminal that is resized folds its lines, and nobody can say where the last table stands.
    """
    if live.console.size != size:
        live.console.clear()
    live.update(shown, refresh=True)
    return live.console.size


def _connector(settings: Settings) -> "aiohttp.TCPConnector":
    """Connections that trust our own gateway."""
    import aiohttp

    return aiohttp.TCPConnector(ssl=client_context(settings) or True)


async def _pause(stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(REFRESH_S):
            await stop.wait()
    except TimeoutError:
        return


def _last_words(log: Path) -> tuple[str, str]:
    """What a process said last of why it ended, and of the way out."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    said = {}
    for line in lines:
        word, _, text = line.partition(": ")
        if word in {"error", "fix"}:
            said[word] = text
    return said.get("error", "it did not say why"), said.get("fix", "mend that and start again")
