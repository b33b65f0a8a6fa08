"""What a run tells while it runs: progress on a screen and lineage are made of it."""

from collections.abc import Callable
from typing import Literal

import msgspec
import pyarrow as pa

from streamapp.workflow.run.report import Report, StageReport

#: Kind of a part: an input, a declared source, a stage or an output.
Kind = Literal["input", "source", "stage", "output"]


class RunStarted(msgspec.Struct, frozen=True, tag=True):
    """A run began.

    Args:
        run: its id.
        schemas: columns of what inputs, sources and stages give, by name.
    """

    run: str
    workflow: str
    at_us: int
    schemas: dict[str, pa.Schema] = {}


class PartStarted(msgspec.Struct, frozen=True, tag=True):
    """A part of a run began.

    Args:
        rows: that it has to go through; None: that is not known.
        workers: processes or threads.
    """

    kind: Kind
    name: str
    rows: int | None
    workers: int
    why: str
    at_us: int


class Advance(msgspec.Struct, frozen=True, tag=True):
    """So many more rows of a part are done."""

    kind: Kind
    name: str
    rows: int


class Waiting(msgspec.Struct, frozen=True, tag=True):
    """A stage failed and is tried again."""

    name: str
    attempt: int
    delay_s: float
    error: str


class PartEnded(msgspec.Struct, frozen=True, tag=True):
    """A part of a run ended, one way or the other."""

    kind: Kind
    report: StageReport
    at_us: int


class RunEnded(msgspec.Struct, frozen=True, tag=True):
    """A run ended."""

    report: Report
    at_us: int


Event = RunStarted | PartStarted | Advance | Waiting | PartEnded | RunEnded
#: Called in the engine's thread, in order; it must not take long.
Observer = Callable[[Event], None]


def nobody(event: Event) -> None:
    """Does not look."""
