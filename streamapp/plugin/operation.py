"""Operation, the contract: named work on tables, as a stage is named work on batches of events.

An operation turns tables into one table.  It runs where a workflow's file names it, and the same
declaration serves files, databases and topics: what an operation says of itself (``scope``) is what
lets the engine cut its input into chunks, spread them over cores, or run it on a topic.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.plugin.stage import Models

#: What a row of the result depends on.
#:
#: ``row``: on one row of the first input and on what ``open`` read.  The engine may call ``run`` on
#: any cut of the input, in order, and join the results; so they run live on a topic.
#: ``window``: on rows of the same window of event time; live they keep state (``LiveOperation``).
#: ``table``: on all rows of all inputs; on topics it runs when these have ended.
Scope = Literal["row", "window", "table"]

#: Where chunks of an operation of scope ``row`` may run beside each other.  ``processes``: it holds
#: the interpreter's lock; each process opens it anew.  ``threads``: it releases the lock, and
#: ``run`` may be called by several threads at once.  ``none``: one call after the other.
Parallel = Literal["processes", "threads", "none"]


#: An event time before all others, in microseconds: nothing is known of how far time is.
BEFORE_ALL_US = -(1 << 62)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of an operation's ``config`` in a workflow's file; a struct of msgspec."""


class Source(Protocol):
    """Rows that are declared elsewhere: ``[sources.NAME]`` in ``streamapp.toml``."""

    @property
    def name(self) -> str: ...
    def schema(self) -> pa.Schema:
        """Its columns, without reading all of it.

        Raises:
            Refuse: it cannot be read as declared.
            Retry: it does not answer now.
        """
        ...

    def read(self) -> pa.RecordBatchReader:
        """All of its rows.

        Raises:
            Refuse: as ``schema``.
            Retry: it does not answer, or died while it was read; what was yielded is void.
        """
        ...


class Sources(Protocol):
    """The declared sources, by name."""

    def source(self, name: str) -> Source:
        """Raises Refuse for a name that is not declared, with those that are."""
        ...


class Work(Sources, Protocol):
    """What the engine offers an operation while it runs."""

    @property
    def models(self) -> Models: ...
    @property
    def folder(self) -> Path:
        """Of the workflow's file: where its relative paths begin."""
        ...

    @property
    def threads(self) -> int:
        """How many this operation may keep busy, itself included."""
        ...

    @property
    def memory_bytes_max(self) -> int:
        """What this operation may hold beside its inputs and its result."""
        ...

    def advance(self, rows: int) -> None:
        """Report that so many more input rows are done.

        Raises:
            Cancelled: the run is to stop; let it pass.
        """
        ...

    def quarantine(self, rows: pa.Table, reason: str) -> None:
        """Set bad rows aside: they are counted, kept beside the outputs, and not in the result.

        Args:
            rows: as they came in; any columns.
            reason: one line, the same for the same fault, so that it can be counted.
        """
        ...


class Cancelled(Exception):  # not an error: somebody asked for it
    """The run is to stop; raised out of ``Work.advance`` and caught by the engine alone."""


class Operation(Protocol):
    """One operation of a service; a class in the entry points ``streamapp.operations``.

    The entry point's name is ``service.operation``, like ``text.analyze``.  The engine calls
    ``schema`` when it plans (models are not loaded for that), then, in the process that works,
    ``open``, ``run`` once or more, and ``close``.  An instance is made of a ``config`` that msgspec
    has validated; an error about a value in it names the key as ``config.KEY``.
    """

    Config: ClassVar[type[Config]]
    version: ClassVar[int]
    scope: ClassVar[Scope]
    parallel: ClassVar[Parallel]
    #: How many inputs it takes, least and most (None: any number).
    inputs: ClassVar[tuple[int, int | None]]

    def __init__(self, config: Any) -> None: ...
    def schema(self, inputs: Mapping[str, pa.Schema], sources: Sources) -> pa.Schema:
        """What ``run`` will return, from what it is given: types are checked before anything runs.

        Args:
            inputs: by the name of the stage or input that they come from, in declared order.
            sources: what else is declared, by name.

        Raises:
            Refuse: a column is missing or of a type that it cannot take; the message names the
                column, its type, and where it comes from.
        """
        ...

    def open(self, work: Work) -> None:
        """Load what rows are worked on with.  Raises Refuse or Retry."""
        ...

    def run(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The result, of exactly the schema that ``schema`` said.

        Raises:
            Refuse: what only the rows could show (the engine fails the stage at once).
            Retry: the outside does not answer (the engine's retry policy decides).
        """
        ...

    def close(self) -> None: ...


class BaseOperation:
    """What most operations share: they open nothing, keep nothing and run in one thread."""

    Config: ClassVar[type[Config]] = Config
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = "table"
    parallel: ClassVar[Parallel] = "none"
    inputs: ClassVar[tuple[int, int | None]] = (1, 1)

    def __init__(self, config: Any) -> None:
        self.config = config

    def open(self, work: Work) -> None:
        self.work = work

    def close(self) -> None:
        """Nothing is held."""


class LiveOperation(Operation, Protocol):
    """An operation of scope ``window`` that also runs on a topic: it keeps state between batches.

    What ``feed`` and ``flush`` return, in order, equals ``run`` on all rows at once, late rows
    (those behind ``grace``) apart, which both count alike when they see rows in the same order.
    """

    def feed(self, rows: pa.Table) -> pa.Table:
        """Take rows in order of their source; return the windows that they closed."""
        ...

    def flush(self) -> pa.Table:
        """Return the windows that are still open, and forget them."""
        ...

    def state(self) -> bytes:
        """All that ``feed`` depends on beside its rows; small enough for a record of the log."""
        ...

    def restore(self, state: bytes) -> None:
        """Go on as the one whose ``state`` this is."""
        ...


class Keyed(NamedTuple):
    """How rows may be parted, so that the windows of each part are whole: by columns, at a time.

    Without columns all rows are one part.
    """

    by: tuple[str, ...]
    time: str


class KeyedOperation(LiveOperation, Protocol):
    """A live operation that also runs on several partitions, each with the rows of its keys.

    Its rows then come from several places, some of which are behind.  How far time is everywhere it
    is told; for ``feed`` that is the greatest time of the rows before.
    """

    @property
    def keyed(self) -> Keyed: ...

    def feed_at(self, rows: pa.Table, before_us: npt.NDArray[np.int64], until_us: int) -> pa.Table:
        """Take rows, perhaps none; return the windows that are closed by then.

        Args:
            rows: as for ``feed``.
            before_us: for each row, the event time that was reached everywhere before it came.
            until_us: the event time that is reached with them.
        """
        ...


def column(schema: pa.Schema, name: str, origin: str, key: str = "") -> pa.Field:
    """The field of that name, or a Refuse that says which columns there are.

    Args:
        schema: of an input.
        name: of the column.
        origin: the stage or input that the schema belongs to.
        key: the key of ``config`` that names the column.
    """
    index = schema.get_field_index(name)
    if index >= 0:
        return schema.field(index)
    twice = schema.names.count(name) > 1
    raise Refuse(
        "operation.column",
        f"{key + ': ' if key else ''}{origin!r} has {'two' if twice else 'no'} {name!r} column",
        f"it has {', '.join(schema.names[:20]) or 'none'}",
    )
