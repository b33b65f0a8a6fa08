"""A workflow on a terminal: bars while it runs, tables before and after."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from streamapp.cli.output import console, harmless, print_table
from streamapp.core.counted import counted
from streamapp.workflow.run.events import (
    Advance,
    Event,
    Observer,
    PartEnded,
    PartStarted,
    Waiting,
)
from streamapp.workflow.run.report import Report, StageReport

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from streamapp.workflow.run.preview import Planned

_STYLE = {
    "failed": "red", "skipped": "yellow", "left out": "yellow", "cached": "dim", "cancelled": "red",
}  # fmt: skip
_WILL = {"use": "dim", "maybe run": "yellow", "run": "green", "read": "green"}


@contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Observer]:
    """An observer that draws bars with rates and time left; without a terminal a line per part.

    Args:
        quiet: show nothing.
    """
    if quiet:
        yield lambda _event: None
        return
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield _say
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(finished_text="[green]•"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=screen) as bars:
        yield _Bars(bars)


class _Bars:
    """A bar for each part."""

    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case PartStarted():
                self._start(event.kind, event.name, event.rows, event.why)
            case Advance():
                task = self._tasks[event.kind, event.name]
                self._bars.advance(task, event.rows)
                self._bars.update(task, rate=self._rate(task))
            case Waiting():
                note = f"try {event.attempt} failed, again in {event.delay_s:.1f} s: {event.error}"
                for kind in ("stage", "input", "source"):
                    if (kind, event.name) in self._tasks:
                        self._bars.update(self._tasks[kind, event.name], note=harmless(note))
            case PartEnded():
                self._end(event.report)

    def _start(self, kind: str, name: str, rows: int | None, why: str) -> None:
        self._tasks[kind, name] = self._bars.add_task(name, total=rows, note=why, rate="")

    def _end(self, report: StageReport) -> None:
        key = (report.kind, report.name)
        if key not in self._tasks:
            self._start(report.kind, report.name, max(report.rows_out, 1), "")
        rows = max(report.rows_in, report.rows_out, 1)
        style = _STYLE.get(report.state)
        name = f"[{style}]{report.name}[/]" if style else report.name
        note = report.state if report.state != "ran" else ""
        self._bars.update(self._tasks[key], total=rows, completed=rows, note=note, description=name)

    def _rate(self, task: "TaskID") -> str:
        speed = next(known for known in self._bars.tasks if known.id == task).speed
        return f"{speed:,.0f} rows/s" if speed else ""


def _say(event: Event) -> None:
    match event:
        case Waiting():
            click.echo(
                f"{event.name}: try {event.attempt} failed, again in {event.delay_s:.1f} s: "
                f"{harmless(event.error)}",
                err=True,
            )
        case PartEnded(report=report):
            rate = report.rows_in / report.seconds if report.seconds and report.rows_in else 0
            speed = f", {rate:,.0f} rows/s" if rate >= 1 and report.state == "ran" else ""
            aside = f", {report.rejected} set aside" if report.rejected else ""
            click.echo(
                f"{report.name}: {report.state}, {counted(report.rows_out, 'row')} in "
                f"{report.seconds:.2f} s{speed}{aside}",
                err=True,
            )


def print_report(report: Report) -> None:
    """What came of a run, as a table, with the files that it wrote."""
    rows = [
        (
            part.name,
            part.operation,
            part.state,
            part.rows_in or None,
            part.rows_out,
            part.rejected or None,
            f"{part.seconds:.2f}",
            f"{part.memory_mb:.0f}" if part.memory_mb else None,
            part.why,
        )
        for part in report.parts
    ]
    numbers = ("rows in", "rows out", "aside", "seconds", "MB")
    print_table(
        ("part", "operation", "state", *numbers, "why"),
        rows,
        right=numbers,
        style=lambda row: _STYLE.get(str(row[2]), ""),
    )
    for written in (*report.outputs, *report.quarantine):
        click.echo(f"{written.path}: {counted(written.rows, 'row')}")
    for note in report.notes:
        click.secho(note, fg="yellow", err=True)


def print_plan(plan: Sequence["Planned"]) -> None:
    """What a run would do, as a table."""
    rows = [
        (
            part.name,
            part.operation,
            part.will,
            part.rows,
            part.workers,
            part.calls,
            part.memory_mb,
            f"{part.seconds:.1f}" if part.seconds is not None else None,
            part.why,
        )
        for part in plan
    ]
    numbers = ("rows", "workers", "calls", "MB", "seconds")
    print_table(
        ("part", "operation", "will", *numbers, "why"),
        rows,
        right=numbers,
        style=lambda row: _WILL.get(str(row[2]), ""),
    )
