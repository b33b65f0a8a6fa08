"""Printing: JSON for programs, tables and progress for people."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

#: A table that goes into a pipe or a file is not folded to a terminal's width.
_PIPE_COLUMNS = 4096
#: Control characters but for tab and newline (Unicode's C0 and C1, and DEL).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Text of strangers for a terminal: what would move its cursor or set its title is escaped."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def print_json(value: Any) -> None:
    """One JSON document on stdout; paths and other objects as text."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_error(message: str, fix: str) -> None:
    """What was wrong and the way out, on stderr."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(harmless(message), err=True)
    if fix:
        click.secho("fix: ", fg="green", bold=True, nl=False, err=True)
        click.echo(harmless(fix), err=True)


class Lines:
    """Prints ``NAME | LINE`` until its reader has gone away, which is a wish to stop.

    Args:
        width: of the names.
        gone: called once, when nobody reads any more; what comes then is dropped.
        err: on standard error.
    """

    def __init__(self, width: int, gone: Callable[[], None], *, err: bool = False) -> None:
        self._width, self._gone, self._err = width, gone, err
        self.is_read = True

    def __call__(self, name: str, line: str) -> None:
        if not self.is_read:
            return
        try:
            click.echo(f"{name:{self._width}} | {line}", err=self._err)
        except OSError:  # a pipe into head has ended, or the terminal was closed
            self.is_read = False
            to_nobody(sys.stderr if self._err else sys.stdout)
            self._gone()


def to_nobody(stream: TextIO) -> None:
    """What is still written there is dropped; its reader has gone away."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def terminal_columns() -> int | None:
    """How wide the terminal on stdout is; None where it is a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def console(*, stderr: bool = False) -> "Console":
    """A rich console: colour only on a terminal and without NO_COLOR."""
    from rich.console import Console

    plain = Console(stderr=stderr, highlight=False)
    if plain.is_terminal:
        return plain
    return Console(stderr=stderr, highlight=False, width=_PIPE_COLUMNS, color_system=None)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    style: Callable[[Sequence[object]], str] | None = None,
) -> None:
    """A borderless table on stdout.

    Args:
        columns: headings.
        rows: cells; written with ``str``, None as nothing.
        right: headings of columns that hold numbers.
        style: a rich style for a row.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name in set(right) else "left", overflow="fold")
    for row in rows:
        cells = [Text("" if cell is None else str(cell)) for cell in row]
        table.add_row(*cells, style=style(row) if style else None)
    console().print(table)


def bytes_text(count: float) -> str:
    """``1536`` as ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
