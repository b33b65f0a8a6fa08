"""An enriched record: rows, rejects and state changes of one source range, all or none.

The value is three Arrow IPC streams (lz4), one after the other: rows, states, rejects.  A reader
that knows only Arrow opens the value and gets the rows.  The header ``streamapp`` is a JSON object
(:class:`Cover`) that says which source range the record covers, so that a position can be found
without reading values.  Zero rows are fine: a range whose events were all rejected, a snapshot of
the partition's state, or a range that the source log lost.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import ipc

from streamapp.core.batch import EVENT_SCHEMA, Rejected
from streamapp.core.errors import Halt
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Headers, RecordLike
from streamapp.core.state import StateEntry

HEADER = "streamapp"
CONTENT_TYPE = ("content-type", b"application/vnd.apache.arrow.stream")
#: Raised when the value's layout changes; a reader refuses what it does not know.
FORMAT = 1

STATE_SCHEMA = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("value", pa.binary(), nullable=False),  # msgpack
    ]
)
REJECT_SCHEMA = pa.schema(
    [
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # Unix ms, as on the source log
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.binary(), nullable=False),  # msgpack list of [name, bytes]
        pa.field("stage", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
#: Below, handing work over to Arrow's threads takes longer than doing it.
_THREADS_FROM_ROWS = 1024
_WRITE = [ipc.IpcWriteOptions(compression="lz4", use_threads=threads) for threads in (False, True)]
_READ = [ipc.IpcReadOptions(use_threads=threads) for threads in (False, True)]
#: Arrow writes many pieces of a few bytes.
_BUFFER_BYTES = 64 * 1024
#: Schemas are few, but one changes with every version of a stage.
_OPTIONS_MAX = 64
_options: dict[tuple[bytes, frozenset[str]], ipc.IpcReadOptions] = {}
_NOTHING = pa.RecordBatch.from_arrays([], names=[])
#: Kafka has null headers, whatever its clients' types say.
_headers: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]])


class Cover(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The header: which source range this record answers for.

    ``lost`` counts offsets of the range that the source log dropped before we read them.
    ``snapshot`` is the offset, in this enriched partition, of the newest record with a full state
    snapshot; ``is_snapshot`` marks one.
    """

    topic: str
    partition: int
    first: int
    next: int
    rows: int = 0
    lost: int = 0
    snapshot: int | None = None
    is_snapshot: bool = False
    format: int = FORMAT

    @property
    def range(self) -> OffsetRange:
        """The covered source range."""
        return OffsetRange(self.topic, self.partition, self.first, self.next)


@dataclass(frozen=True, slots=True)
class Enriched:
    """The decoded record.  ``rows`` has at least the columns of EVENT_SCHEMA."""

    cover: Cover
    rows: pa.RecordBatch
    states: tuple[StateEntry, ...] = ()
    rejects: tuple[Rejected, ...] = ()
    provenance: str = "[]"


def no_rows() -> pa.RecordBatch:
    """Zero events."""
    return pa.RecordBatch.from_pylist([], schema=EVENT_SCHEMA)


def encode(record: Enriched) -> tuple[bytes, Headers]:
    """Value and headers of the log record."""
    rows = record.rows.replace_schema_metadata({"streamapp.provenance": record.provenance})
    sink = io.BytesIO()
    out = pa.output_stream(sink, buffer_size=_BUFFER_BYTES)
    _write(out, rows)
    if record.states:
        _write(out, _states(record.states))
    else:
        out.write(_NO_STATES)
    if record.rejects:
        _write(out, _rejects(record.rejects))
    else:
        out.write(_NO_REJECTS)
    out.flush()
    return sink.getvalue(), [(HEADER, msgspec.json.encode(record.cover)), CONTENT_TYPE]


def cover_of(record: RecordLike) -> Cover:
    """The header alone.

    Raises:
        Halt: the record was not written by us, or by a newer format.
    """
    for name, value in record.headers:
        if name == HEADER:
            try:
                cover = msgspec.json.decode(value, type=Cover)
            except msgspec.DecodeError as error:
                raise _foreign(record, str(error)) from None
            if cover.format != FORMAT:
                raise _foreign(record, f"format {cover.format}, this version reads {FORMAT}")
            return cover
    raise _foreign(record, f"no {HEADER!r} header")


def decode(record: RecordLike) -> Enriched:
    """The whole record.

    Raises:
        Halt: as ``cover_of``; or the value is not what ``encode`` wrote.
    """
    cover = cover_of(record)
    value = record.value or b""
    states: tuple[StateEntry, ...] = ()
    rejects: tuple[Rejected, ...] = ()
    try:
        source = pa.BufferReader(value)
        rows = _read(source, cover.rows)
        if not _skip(source, value, _NO_STATES):
            states = tuple(_state_entries(_read(source)))
        if not _skip(source, value, _NO_REJECTS):
            rejects = tuple(_reject_entries(_read(source)))
    except (pa.ArrowInvalid, OSError) as error:
        raise _foreign(record, str(error)) from None
    metadata = rows.schema.metadata or {}
    provenance = metadata.get(b"streamapp.provenance", b"[]").decode()
    return Enriched(cover, rows.replace_schema_metadata(None), states, rejects, provenance)


def decode_rows(record: RecordLike, columns: frozenset[str]) -> tuple[Cover, pa.RecordBatch]:
    """The header and the rows, of these columns those that the record has.

    Nothing else is decompressed: for who takes few columns it is a third of :func:`decode`'s work.

    Raises:
        Halt: as ``decode``.
    """
    cover = cover_of(record)
    if not cover.rows:
        return cover, _NOTHING
    value = record.value or b""
    try:
        with ipc.open_stream(pa.BufferReader(value), options=_picking(value, columns)) as reader:
            batches = list(reader)
        rows = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    except (pa.ArrowInvalid, OSError) as error:
        raise _foreign(record, str(error)) from None
    if columns.isdisjoint(rows.schema.names):
        rows = rows.select([])  # to Arrow no included fields are all of them
    return cover, rows.replace_schema_metadata(None)


def _picking(value: bytes, columns: frozenset[str]) -> ipc.IpcReadOptions:
    """How to read a stream of these columns only; one look at a schema serves all its records."""
    schema_end = 8 + int.from_bytes(value[4:8], "little")  # behind the marker: Arrow's IPC format
    key = value[:schema_end], columns
    options = _options.get(key)
    if options is None:
        names = ipc.read_schema(pa.BufferReader(value)).names
        places = [place for place, name in enumerate(names) if name in columns]
        options = ipc.IpcReadOptions(use_threads=False, included_fields=places)
        if len(_options) >= _OPTIONS_MAX:
            _options.clear()
        _options[key] = options
    return options


def _foreign(record: RecordLike, why: str) -> Halt:
    return Halt(
        "enriched.foreign",
        f"the record at offset {record.offset} of the enriched topic is not ours: {why}",
        "only streamapp may produce to that topic; point it at a topic of its own",
    )


def _write(out: pa.NativeFile, batch: pa.RecordBatch) -> None:
    options = _WRITE[batch.num_rows >= _THREADS_FROM_ROWS]
    with ipc.new_stream(out, batch.schema, options=options) as writer:
        if batch.num_rows:
            writer.write_batch(batch)


def _read(source: pa.NativeFile, rows: int = 0) -> pa.RecordBatch:
    options = _READ[rows >= _THREADS_FROM_ROWS]
    with ipc.open_stream(source, options=options) as reader:
        batches = list(reader)
        schema = reader.schema
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=schema)
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _skip(source: pa.NativeFile, value: bytes, stream: bytes) -> bool:
    """Is it this stream that comes next?  If so, it is behind us then."""
    start = source.tell()
    if not value.startswith(stream, start):
        return False
    source.seek(start + len(stream))
    return True


def _states(entries: Sequence[StateEntry]) -> pa.RecordBatch:
    values = [msgspec.msgpack.encode(entry.value) for entry in entries]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([entry.stage for entry in entries], pa.string()),
            pa.array([entry.kind for entry in entries], pa.string()),
            pa.array([entry.key for entry in entries], pa.string()),
            pa.array([entry.source_offset for entry in entries], pa.int64()),
            pa.array(values, pa.binary()),
        ],
        schema=STATE_SCHEMA,
    )


def _state_entries(batch: pa.RecordBatch) -> Iterable[StateEntry]:
    columns: list[list[Any]] = [column.to_pylist() for column in batch.columns]
    for stage, kind, key, source_offset, value in zip(*columns, strict=True):
        yield StateEntry(stage, kind, key, source_offset, msgspec.msgpack.decode(value))


def _rejects(rejects: Sequence[Rejected]) -> pa.RecordBatch:
    rows = [
        (
            reject.source_offset,
            reject.timestamp,
            reject.key,
            reject.value,
            msgspec.msgpack.encode([list(header) for header in reject.headers]),
            reject.stage,
            reject.code,
            reject.reason,
        )
        for reject in rejects
    ]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(REJECT_SCHEMA)
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, REJECT_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=REJECT_SCHEMA)


def _reject_entries(batch: pa.RecordBatch) -> Iterable[Rejected]:
    columns: list[list[Any]] = [column.to_pylist() for column in batch.columns]
    for offset, timestamp, key, value, headers, stage, code, reason in zip(*columns, strict=True):
        decoded = tuple(_headers.decode(headers))
        yield Rejected(offset, timestamp, key, value, decoded, stage, code, reason)


def _empty(schema: pa.Schema) -> bytes:
    with pa.BufferOutputStream() as out:
        _write(out, pa.RecordBatch.from_pylist([], schema=schema))
        return bytes(out.getvalue())


#: Most records have neither, and what says so never changes.
_NO_STATES, _NO_REJECTS = _empty(STATE_SCHEMA), _empty(REJECT_SCHEMA)
