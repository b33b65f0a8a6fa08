"""A record between groups: rows as an Arrow IPC stream, and what range of the source they are of.

The value is that stream, then the group's state after it, then a stream for each reason for which
rows were set aside.  A reader that knows only Arrow opens the value and gets the rows.  A record
without our header is somebody else's: a JSON object, or an array of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import pyarrow as pa

from streamapp.core.errors import Halt
from streamapp.core.slice import RecordLike
from streamapp.transport.clients import Outgoing

HEADER = "streamapp-flow"
#: Beside the value: headers, and what the log adds to a record.
OVERHEAD_BYTES = 65_536
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class AsideMark(msgspec.Struct, frozen=True):
    """Rows that a stage set aside; ``size`` in bytes."""

    stage: str
    reason: str
    size: int


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a record stands for.

    Args:
        first: of the source's offsets, or of the rows that were fed.
        next: one past the last.
        run: which feeding it belongs to; 0: rows that others sent.
        end: it is the last of its run.
        size: of the rows, in bytes.
        state: of the group's state, in bytes.
        asides: rows set aside.
        digest: of all that was fed up to here; of rows that were fed only.
        source: the partition that the rows were in before they were parted by a key.
        latest_us: the greatest event time of all rows of the range, in whatever partition they are.
        is_idle: nothing came of the source for a while, and it holds no rows.
        at: where its rows come among all of their run; None: nobody knows, or ``first`` says it.
        reached: the greatest ``place`` of the source's records up to ``next``; what comes later and
            ends there or before is a repeat.
    """

    first: int
    next: int
    run: int = 0
    end: bool = False
    size: int = 0
    state: int = 0
    asides: tuple[AsideMark, ...] = ()
    digest: str = ""
    source: int = 0
    latest_us: int | None = None
    is_idle: bool = False
    at: int | None = None
    reached: tuple[int, int] = (0, 0)

    @property
    def rank(self) -> int | None:
        """Where its rows come among all of their run, in whatever partition they are."""
        return self.first if self.digest else self.at

    @property
    def begin(self) -> tuple[int, int]:
        """Where it begins: rows that are fed are counted anew in each run, offsets are not."""
        return (self.run if self.digest else 0), self.first

    @property
    def place(self) -> tuple[int, int]:
        """Where it ends; of two records the later one has the larger."""
        return self.begin[0], self.next


class Aside(NamedTuple):
    """Rows that a stage set aside, as they came in."""

    stage: str
    reason: str
    rows: pa.Table


class Part(NamedTuple):
    """A record, decoded."""

    mark: Mark
    rows: pa.Table
    state: bytes
    asides: tuple[Aside, ...]


_mark = msgspec.json.Decoder(Mark)
_encode = msgspec.json.Encoder().encode


def encode(
    mark: Mark,
    rows: pa.Table,
    state: bytes = b"",
    asides: Sequence[Aside] = (),
    partition: int = 0,
) -> Outgoing:
    """A record of the log."""
    body = _stream(rows)
    others = [_stream(aside.rows) for aside in asides]
    marks = tuple(
        AsideMark(aside.stage, aside.reason, len(other))
        for aside, other in zip(asides, others, strict=True)
    )
    mark = msgspec.structs.replace(mark, size=len(body), state=len(state), asides=marks)
    value = b"".join((body, state, *others))
    return Outgoing(value, headers=((HEADER, _encode(mark)),), partition=partition)


def mark_of(record: RecordLike) -> Mark | None:
    """What a record stands for; None for somebody else's.

    Raises:
        Halt: it has our header, and that cannot be read.
    """
    header = next((value for name, value in record.headers if name == HEADER), None)
    if header is None:
        return None
    try:
        return _mark.decode(header)
    except msgspec.DecodeError as error:
        raise Halt(
            "flow.record", f"offset {record.offset}: {HEADER}: {error}", "empty the topic"
        ) from None


def decode(record: RecordLike) -> Part:
    """A record of ours.

    Raises:
        Halt: it is not, or cannot be read.
    """
    mark = mark_of(record)
    if mark is None or record.value is None:
        raise Halt("flow.record", f"offset {record.offset} is none of ours", "empty the topic")
    value, at = memoryview(record.value), mark.size + mark.state
    asides = []
    for aside in mark.asides:
        asides.append(Aside(aside.stage, aside.reason, _table(value[at : at + aside.size])))
        at += aside.size
    state = bytes(value[mark.size : mark.size + mark.state])
    return Part(mark, _table(value[: mark.size]), state, tuple(asides))


def check_schema(rows: pa.Table, schema: pa.Schema, topic: str) -> None:
    """Raises Halt for rows of a topic that have other columns than the workflow says."""
    if not rows.schema.equals(schema):
        found, wanted = (
            ", ".join(f"{field.name} {field.type}" for field in each)
            for each in (rows.schema, schema)
        )
        raise Halt(
            "flow.schema",
            f"{topic} has rows of {found}, not {wanted}",
            "the workflow has changed: give it another name, or empty its topics",
        )


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as out:
        out.write_table(table)
    return bytes(sink.getvalue())


def _table(body: memoryview) -> pa.Table:
    try:
        return pa.ipc.open_stream(pa.py_buffer(body)).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise Halt("flow.record", f"a record's rows: {error}", "empty the topic") from None
