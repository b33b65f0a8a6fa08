"""``streamapp demo``: real messages through all processes, then what came out."""

import asyncio
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import command
from streamapp.cli.options import settings_options
from streamapp.cli.output import console
from streamapp.cli.prepare import prepare
from streamapp.cli.up import PORTS, processes, refuse_if_refused, supervisor
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Halt, Refuse

if TYPE_CHECKING:
    from streamapp.cli.measure import Sent
    from streamapp.screen.supervisor import Supervisor

READY_S_MAX = 90.0

SHOWN_SQL = """\
select m.text, m.language, m.intent, round(m.sentiment::double, 2) as sentiment,
       arg_max(p.text, array_inner_product(m.embedding, p.embedding)) as nearest_past_message
from events m left join events p on p.ingest_time < m.ingest_time
group by m.ingest_time, m.id, m.text, m.language, m.intent, m.sentiment
order by m.ingest_time"""


@command(
    examples=["streamapp demo", "streamapp demo --file my-messages.csv", "streamapp demo --keep"],
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with a column message, and type and conversation_id if you like.",
)
@click.option("--keep", is_flag=True, help="Leave the temporary home and say where it is.")
@settings_options("models_cache", "embedding_model", "tokenizer_model", "threads")
def demo(settings: Settings, file: Path | None, *, keep: bool) -> None:
    """Send messages through a temporary project and show what came out.

    Starts gateway, worker, store and terminal on free ports and the embedded log, posts every
    message to POST /ingest, and shows the enriched rows by SQL over Arrow Flight, the frames in
    shared memory, and how long both took.
    """
    from streamapp.topics.catalogue import defaults

    messages = _read_messages(file or defaults("examples") / "messages.csv")
    with stopped_as_by_ctrl_c(), temporary_home(settings, keep=keep) as own:
        prepare(own)
        asyncio.run(_run(own, messages))


async def _run(settings: Settings, messages: list[dict[str, str]]) -> None:
    from streamapp.screen.summary import wait_ready

    screen = console()
    watched = supervisor(settings)
    await watched.start()
    try:
        with screen.status(f"starting {', '.join(processes(settings))}"):
            missing = await wait_ready(settings, set(processes(settings)), READY_S_MAX)
        refuse_if_refused(watched, settings)
        if missing:
            raise _not_ready(missing, watched)
        from streamapp.cli.measure import send_and_watch

        with screen.status(f"sending {counted(len(messages), 'message')} to POST /ingest"):
            sent = await send_and_watch(settings, messages)
        await asyncio.to_thread(_show, settings, sent)
    finally:
        clean = await watched.stop()
    if not clean:
        raise Halt("demo.stop", "a process did not stop cleanly", f"see {settings.home / 'logs'}")
    screen.print("[bold green]done[/]: all processes drained and stopped")


def _show(settings: Settings, sent: "list[Sent]") -> None:
    from streamapp.cli.measure import latencies
    from streamapp.cli.output import print_table
    from streamapp.flight import Client

    screen = console()
    rows = Client.of(settings).query(SHOWN_SQL)
    screen.print("\n[bold]rows by SQL over Arrow Flight[/]")
    screen.print(SHOWN_SQL, style="dim")
    print_table(
        rows.column_names, zip(*rows.to_pydict().values(), strict=True), right=["sentiment"]
    )
    screen.print("\n[bold]frames in shared memory, the newest five[/]")
    _show_frames(settings)
    screen.print("\n[bold]from POST to row and to frame, as a client sees it[/]")
    table = latencies(sent)
    print_table(table[0], table[1], right=table[0][1:])


def _show_frames(settings: Settings) -> None:
    from streamapp.cli.output import print_table
    from streamapp.ring import RingReader

    with RingReader.open(settings.ring_file) as reader:
        stat = reader.stat()
        frames = reader.latest(5)
        names = ("frame_id", "intent_id", "sentiment", "velocity", "delta_time", "semantic[:3]")
        print_table(names, [_frame_row(frame) for frame in frames], right=names)
        console().print(
            f"{stat['head'] - stat['base']} frames written, {frames.lost} lost, "
            f"dim {stat['dim']}, capacity {stat['capacity']}",
            style="dim",
        )


def _frame_row(frame: Any) -> tuple[object, ...]:
    vector = " ".join(f"{value:+.3f}" for value in frame.semantic[:3])
    numbers = (getattr(frame, name) for name in ("sentiment", "velocity", "delta_time"))
    known = ("-" if isnan(number) else f"{number:.2f}" for number in numbers)
    return (frame.frame_id, frame.intent_id, *known, vector)


def _read_messages(path: Path) -> list[dict[str, str]]:
    import csv

    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if "message" not in (reader.fieldnames or ()):
                raise Refuse(
                    "demo.file",
                    f"{path}: no column 'message', there are: {', '.join(reader.fieldnames or ())}",
                    "name the column with the text 'message'",
                )
            messages = [{k: v for k, v in row.items() if k and v} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refuse("demo.file", f"{path} is not CSV in UTF-8: {error}", "save it so") from None
    if not messages:
        raise Refuse("demo.file", f"{path} has no row below its heading", "add messages")
    return messages


@contextmanager
def stopped_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM and a closed terminal clean up, too: they would end us where we stand."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:  # nohup streamapp demo
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def temporary_home(settings: Settings, *, keep: bool) -> Iterator[Settings]:
    """These settings on a home, ring, ports and token of their own; gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="streamapp-demo-"))
    # Not in the folder of the usual rings: that may be another user's.
    shared = Path("/dev/shm")  # noqa: S108
    memory = Path(
        tempfile.mkdtemp(prefix="streamapp-demo-", dir=shared if shared.is_dir() else None)
    )
    ports: dict[str, Any] = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    own = replace(
        settings,
        home=home,
        broker="",
        db_path="",
        parquet_url="",
        ring_path=memory / "events.ring",
        token=secrets.token_urlsafe(16),
        **ports,
    )
    try:
        yield own
    finally:
        shutil.rmtree(memory, ignore_errors=True)
        if keep:
            console().print(f"kept: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on now; all are held at once so that they differ."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _not_ready(missing: set[str], watched: "Supervisor") -> Halt:
    states = ", ".join(f"{name} is {watched.children[name].state}" for name in sorted(missing))
    return Halt(
        "demo.ready",
        f"not ready after {READY_S_MAX:g} s: {states}",
        "run it again with --keep, which leaves the processes' logs",
    )
