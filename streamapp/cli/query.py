"""``streamapp query``: ask the store in SQL, over Arrow Flight."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import command
from streamapp.cli.options import PlaceParam, json_option, settings_options
from streamapp.cli.output import console, harmless
from streamapp.core.clock import monotonic_s
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.text import Text

#: Values of a vector that are shown before its length.
VECTOR_SHOWN = 3
VECTOR_LENGTH_MIN = 8
#: A column wants this many characters at most before rows are shown upright.
CELL_CHARS = 20
#: Bytes of a value (the original of a dead letter) that are shown before its length.
BYTES_SHOWN = 40


@command(
    examples=[
        'streamapp query "select count(*), count(distinct id) from events"',
        'streamapp query "select text, intent from events limit 20" --json | jq .intent',
        'streamapp query "select * from events" --arrow events.arrow',
        "streamapp query - < report.sql --csv > report.csv",
    ],
)
@click.argument("sql")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print csv; nested values as JSON.")
@click.option("--arrow", "arrow_file", type=PlaceParam(), help="Write an Arrow file.")
@settings_options("token", "flight_host", "flight_port", "flight_ca_file")
def query(
    settings: Settings, sql: str, as_json: bool, as_csv: bool, arrow_file: Path | None
) -> None:
    """Run one SELECT on the store and print the rows; - reads the SQL from standard input.

    A terminal gets a table, in which a vector shows its first values and its length; rows too wide
    for it stand upright.  --json prints one object a line; --arrow writes an Arrow IPC file that
    pyarrow, polars, pandas and duckdb read without a copy.
    """
    if as_json + as_csv + (arrow_file is not None) > 1:
        raise click.UsageError(
            "choose one of --json, --csv and --arrow", click.get_current_context()
        )
    text = sys.stdin.read() if sql == "-" else sql
    if not text.strip():
        raise Refuse("query.empty", "there is no SQL", 'write: streamapp query "select ..."')
    started_s = monotonic_s()
    with ended_by_ctrl_c():
        table = fetch(settings, text)
    seconds = monotonic_s() - started_s
    if as_json:
        print_lines(table)
    elif as_csv:
        _print_csv(table)
    elif arrow_file is not None:
        _write_arrow(table, arrow_file)
    else:
        print_rows(table)
    screen = console(stderr=True)
    if screen.is_terminal:
        screen.print(f"{counted(table.num_rows, 'row')} in {seconds * 1000:,.1f} ms", style="dim")


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Python would hear of Ctrl-C when gRPC returns, so the system ends us; the store notices."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def fetch(settings: Settings, sql: str) -> "pa.Table":
    """The rows of a statement, from the store's Flight server."""
    from streamapp.flight import Client

    return Client.of(settings).query(sql)


def print_lines(table: "pa.Table") -> None:
    """One JSON object a row."""
    import msgspec

    names = table.column_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Refuse(
            "query.columns",
            f"several columns are called {', '.join(twice)}, which a JSON object cannot hold",
            f"name them: select ... as {twice[0]}_2",
        )
    for batch in table.to_batches():
        columns = [values_of(name, batch.column(n)) for n, name in enumerate(names)]
        for row in zip(*columns, strict=True):
            click.echo(msgspec.json.encode(dict(zip(names, row, strict=True))))


def _print_csv(table: "pa.Table") -> None:
    import pyarrow as pa
    from pyarrow import csv, types

    for number, field in enumerate(table.schema):
        column = table.column(number)
        if types.is_nested(field.type) or types.is_binary(field.type) or _is_interval(field.type):
            texts = _as_json(values_of(field.name, column))
            table = table.set_column(number, field.name, texts)
        elif types.is_temporal(field.type) and not _has_room(column):
            texts = pa.array(_texts(field.name, column), pa.string())
            table = table.set_column(number, field.name, texts)
    csv.write_csv(table, click.get_binary_stream("stdout"))


def _as_json(values: list[Any]) -> "pa.Array":
    """Values that csv cannot hold, as JSON text; bytes as base64."""
    import msgspec
    import pyarrow as pa

    texts = [None if v is None else msgspec.json.encode(v).decode().strip('"') for v in values]
    return pa.array(texts, pa.string())


def _has_nanoseconds(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")


def _has_room(column: "pa.ChunkedArray") -> bool:
    """Whether Python, and Arrow's csv, can write all of its times."""
    if _has_nanoseconds(column.type):
        return False
    try:
        column.to_pylist()
    except (ValueError, OverflowError):
        return False
    return True


def _is_interval(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(kind == pa.month_day_nano_interval())


def _is_time(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_time(kind))


def values_of(name: str, column: "pa.Array | pa.ChunkedArray") -> list[Any]:
    """Python values, maps as dicts; times that Python's have no room for as DuckDB writes them.

    Those are nanoseconds, intervals, 24:00:00, years beyond 9999, and infinity.
    """
    if _has_nanoseconds(column.type):  # pandas, where it is there, would make objects of its own
        return _texts(name, column)
    if _is_interval(column.type) or _is_time(column.type):
        return _texts(name, column)
    try:
        values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    except (ValueError, OverflowError):
        texts = _texts(name, column)
        values = [_value(item, text) for item, text in zip(column, texts, strict=True)]
    return values


def _value(item: "pa.Scalar", text: Any) -> Any:
    try:
        return item.as_py(maps_as_pydicts="strict")
    except (ValueError, OverflowError):
        return text


def _texts(name: str, column: "pa.Array | pa.ChunkedArray") -> list[Any]:
    """Values as DuckDB's text; of nested ones what is in them.

    Raises:
        Refuse: DuckDB has no text for one.
    """
    import duckdb
    import pyarrow as pa

    is_nested = pa.types.is_nested(column.type)
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'").fetchall()
        values = connection.from_arrow(pa.table({"v": column}))
        try:
            texts = values.project("to_json(v)" if is_nested else "v::VARCHAR").fetchall()
            return [json.loads(t) if is_nested and t else t for (t,) in texts]
        except duckdb.Error:
            raise Refuse(
                "query.value",
                f"column {name!r} holds a value that cannot be shown",
                "cast it to varchar in the SQL, or use --arrow",
            ) from None


def _write_arrow(table: "pa.Table", path: Path) -> None:
    import pyarrow as pa

    try:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    except OSError as error:
        raise Refuse("query.file", f"cannot write {path}: {error}", "check the path") from None
    click.echo(
        f"{path}: {counted(table.num_rows, 'row')}, {counted(table.num_columns, 'column')}",
        err=True,
    )


def print_rows(table: "pa.Table", *, upright: bool | None = None) -> None:
    """A table on stdout.

    Args:
        table: whose rows.
        upright: a line for each value; None: where the rows are too wide for the terminal.
    """
    if upright or (upright is None and not _fits(table)):
        _print_upright(table)
        return
    from pyarrow import types
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for field in table.schema:
        number = types.is_integer(field.type) or types.is_floating(field.type)
        shown.add_column(field.name, justify="right" if number else "left", overflow="fold")
    for batch in table.to_batches():
        columns = [values_of(name, batch.column(n)) for n, name in enumerate(table.column_names)]
        for row in zip(*columns, strict=True):
            shown.add_row(*map(cell, row))
    console().print(shown)


def _fits(table: "pa.Table") -> bool:
    """Whether every column has room for its name and for what is usual in it."""
    screen = console()
    if not screen.is_terminal or table.num_columns == 0:
        return True
    head = table.slice(0, 50)
    wanted = 0
    for number, name in enumerate(table.column_names):
        cells = [len(cell(value)) for value in values_of(name, head.column(number))]
        wanted += max(len(name), min(CELL_CHARS, max(cells, default=0))) + 2
    return wanted - 2 <= screen.width


def _print_upright(table: "pa.Table") -> None:
    from rich.table import Table

    names = table.column_names
    columns = [values_of(name, table.column(number)) for number, name in enumerate(names)]
    screen = console()
    for number, row in enumerate(zip(*columns, strict=True), 1):
        screen.print(f"row {number:,}", style="bold")
        shown = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        shown.add_column(style="dim", no_wrap=True)
        shown.add_column(overflow="fold")
        for name, value in zip(names, row, strict=True):
            shown.add_row(name, cell(value))
        screen.print(shown)


def cell(value: Any) -> "Text":
    """A value as a table shows it."""
    from rich.text import Text

    if value is None:
        return Text("null", style="dim")
    if isinstance(value, float):
        return Text(f"{value:.6g}")
    if isinstance(value, list) and len(value) >= VECTOR_LENGTH_MIN:
        head = ", ".join(_short(item) for item in value[:VECTOR_SHOWN])
        return Text(f"[{head}, … {len(value)}]", style="dim")
    if isinstance(value, list):
        return Text(f"[{', '.join(_short(item) for item in value)}]")
    if isinstance(value, bytes) and len(value) > BYTES_SHOWN:
        return Text(f"{value[:BYTES_SHOWN]!r} … {len(value):,} bytes")
    return Text(harmless(str(value)))


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else harmless(str(value))
