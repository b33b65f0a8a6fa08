"""What verbs that look through a log share: a bar while it lasts, and times as people say them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from streamapp.cli.output import console
from streamapp.core.clock import now_ms
from streamapp.core.errors import Reject
from streamapp.core.event import parse_time

_AGO = re.compile(r"([0-9]{1,6})\s*([smhdw])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


class WhenParam(click.ParamType):
    """A moment as Unix milliseconds: so long ago (``2h``), or a date or time as in RFC 3339."""

    name = "when"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """See :class:`click.ParamType`."""
        if isinstance(value, int):
            return value
        if ago := _AGO.fullmatch(value.strip()):
            return now_ms() - int(ago[1]) * _UNIT_MS[ago[2]]
        try:
            time_us = parse_time(value.strip())
        except Reject:
            time_us = None
        if time_us is None:
            self.fail(f"{value!r} is neither like 2h, 7d nor like 2026-11-22T09:30Z", param, ctx)
        return time_us // 1000


@contextmanager
def watched(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; what it gives is called with each step's size."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _steps: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    with Progress(*columns, console=screen, transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda steps: bars.advance(task, steps)
