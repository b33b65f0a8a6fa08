"""``streamapp tail``: rows as they are stored."""

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import command
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import console, harmless
from streamapp.cli.query import ended_by_ctrl_c, values_of
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse, Retry

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.text import Text

    from streamapp.flight import Client

#: Shown on a terminal, those of them that the store has; the text comes last.
_SHOWN = ("time", "conversation", "actor", "type", "intent", "sentiment", "text")
_ADDRESS = ("source_topic", "source_partition", "source_offset")
_STYLES = {"time": "dim", "conversation": "cyan", "actor": "blue", "type": "dim", "text": ""}
#: Intents get the same colour every time.
_INTENT_STYLES = ("green", "magenta", "yellow", "bright_blue", "bright_red", "bright_cyan")
_WAIT_S_FIRST, _WAIT_S_MAX = 0.2, 5.0
_SENTIMENT_STRONG = 0.3
_VECTOR = re.compile(r"\[\d+\]$")
_COLUMNS_SQL = "SELECT column_name, column_type FROM (DESCRIBE events)"


@command(
    examples=[
        "streamapp tail",
        "streamapp tail --where \"intent = 'cancel' AND sentiment < 0\"",
        "streamapp tail --from beginning --columns id,text,intent --json | jq .intent",
        "streamapp tail --from events.raw-0=1200,events.raw-1=0 -n 100",
    ],
)
@click.option("--where", default="", help="Only rows of which this SQL condition is true.")
@click.option("--columns", default="", metavar="NAME,...", help="These columns (default: a few).")
@click.option(
    "--from",
    "start",
    default="now",
    metavar="START",
    help="now, beginning, or TOPIC-PARTITION=OFFSET,... (default: now)",
)
@click.option("-n", "count", type=click.IntRange(min=1), help="End after so many rows.")
@json_option
@settings_options("token", "flight_host", "flight_port", "flight_ca_file")
def tail(
    settings: Settings, where: str, columns: str, start: str, count: int | None, as_json: bool
) -> None:
    """Print rows as they are stored, until Ctrl-C.

    Every row comes once, those of one partition in order.  When the store restarts, tail waits for
    it and goes on where it was.  --json prints one object a line, of every column but the vectors
    unless --columns names others.
    """
    from streamapp.flight import Client

    client = Client.of(settings)
    with ended_by_ctrl_c():
        wanted = _columns(client, columns, as_json=as_json)
        batches = _followed(client, _start(start), where, wanted)
        for row in _rows(batches, count):
            if as_json:
                _print_json(row)
            else:
                console().print(_line(row, wanted), soft_wrap=True)
            sys.stdout.flush()


def _columns(client: "Client", given: str, *, as_json: bool) -> list[str]:
    """What is asked of the store."""
    if given:
        names = [name.strip() for name in given.split(",") if name.strip()]
        if not names:
            fix = "write them as id,text; without --columns a few are shown"
            raise Refuse("tail.columns", f"--columns {given!r} names no column", fix)
        return names
    stored = client.query(_COLUMNS_SQL).to_pylist()
    kinds = {row["column_name"]: row["column_type"] for row in stored}
    if as_json:
        return [name for name, kind in kinds.items() if not _VECTOR.search(kind)]
    return [name for name in _SHOWN if name in kinds]


def _start(given: str) -> str | dict[str, int]:
    """``--from`` as the client takes it."""
    if given in {"now", "beginning"}:
        return given
    places = {}
    for item in given.split(","):
        name, _, offset = item.strip().rpartition("=")
        if not name or not (offset.isascii() and offset.isdigit()):
            raise Refuse(
                "tail.from",
                f"--from {given!r} is no place to start",
                "write now, beginning, or events.raw-0=1200,events.raw-1=0",
            )
        places[name] = int(offset)
    return places


def _followed(
    client: "Client", start: str | Mapping[str, int], where: str, columns: Sequence[str]
) -> Iterator["pa.RecordBatch"]:
    """Batches for ever; a store that was there once is waited for."""
    place, was_there, wait_s = start, False, _WAIT_S_FIRST
    while True:
        try:
            for batch, after in client.follow(place, where=where, columns=columns):
                if not was_there:
                    _tell(client.where, "follows")
                place, was_there, wait_s = after, True, _WAIT_S_FIRST
                if batch.num_rows:
                    yield batch
        except Retry as error:
            if not was_there:
                raise
            if wait_s == _WAIT_S_FIRST:
                _tell(error.message, "waits")
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_S_MAX)


def _tell(what: str, does: str) -> None:
    screen = console(stderr=True)
    if screen.is_terminal:
        screen.print(f"tail {does}: {harmless(what)}", style="dim")


def _rows(batches: Iterator["pa.RecordBatch"], count: int | None) -> Iterator[dict[str, Any]]:
    left = count
    for batch in batches:
        names = batch.schema.names
        columns = [values_of(name, batch.column(n)) for n, name in enumerate(names)]
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))
            if left is not None:
                left -= 1
                if not left:
                    return


def _print_json(row: dict[str, Any]) -> None:
    import msgspec

    click.echo(msgspec.json.encode(row))


def _line(row: Mapping[str, Any], wanted: Sequence[str]) -> "Text":
    """One row on one line; what is null is left out."""
    from rich.text import Text

    from streamapp.cli.query import cell

    line = Text()
    for name in (*(n for n in _ADDRESS if n in wanted), *(n for n in wanted if n not in _ADDRESS)):
        value = row.get(name)
        if value is None:
            continue
        shown = Text(f"{value:%H:%M:%S.%f}"[:12]) if name == "time" else cell(value)
        shown = Text(shown.plain.replace("\n", " "))
        shown.stylize(_style(name, value))
        line.append_text(shown).append("  ")
    line.rstrip()
    return line


def _style(name: str, value: Any) -> str:
    if name == "intent":
        return _INTENT_STYLES[sum(str(value).encode()) % len(_INTENT_STYLES)]
    if name == "sentiment" and isinstance(value, float) and abs(value) >= _SENTIMENT_STRONG:
        return "green" if value > 0 else "red"
    return _STYLES.get(name, "")
