"""An Arrow IPC stream in memory, measured before anything of it is decompressed.

https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
A compressed buffer says in its first eight bytes how much memory it wants; Arrow's reader believes
it.  So the messages are walked first, and only what fits is read.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.ipc

from streamapp.gateway.problem import ProblemError

COLUMNS_MAX = 1_000
#: Schema, dictionaries and record batches of one body, beside one batch for every event.
MESSAGES_MAX = 1_000
#: Columns times batches: each costs some 10 us, however few rows it has.
ARRAYS_MAX = 100_000
#: It reads types nested 64 deep at most, which is what an event's JSON may be.
_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)
#: What pyarrow raises on bytes that are not what they should be: KeyError for a type it knows no
#: class for, ArithmeticError for numbers that Python has no room for.
BROKEN = (
    pa.ArrowException, ValueError, TypeError, KeyError, ArithmeticError, OSError, struct.error,
)  # fmt: skip


class Size(NamedTuple):
    """What a stream holds: ``nbytes`` of buffers, decompressed; ``arrays`` of all its batches."""

    rows: int
    nbytes: int
    arrays: int


def measure(body: bytes, *, events_max: int, bytes_max: int) -> Size:
    """Rows and decompressed bytes of a stream; nothing is decompressed.

    Raises:
        ProblemError: 413 too many or too much, 400 no Arrow IPC stream.
    """
    rows = nbytes = arrays = 0
    source = pa.BufferReader(body)
    try:
        for count, message in enumerate(pa.ipc.MessageReader.open_stream(source)):
            if count > events_max + MESSAGES_MAX:
                raise too_large("more messages than events may be", "send larger record batches")
            if message.type not in {"record batch", "dictionary batch"}:
                continue
            more = _message_size(message)
            nbytes += more.nbytes
            arrays += more.arrays
            rows += more.rows if message.type == "record batch" else 0
            if rows > events_max:
                raise too_large(f"more than {events_max:,} rows", "send them in several requests")
            if arrays > ARRAYS_MAX:
                raise too_large(
                    f"more than {ARRAYS_MAX:,} columns of batches", "send larger record batches"
                )
            if nbytes > bytes_max:
                raise too_large(
                    f"more than {bytes_max:,} bytes once decompressed", "send it in parts"
                )
        if source.tell() < len(body):
            raise ValueError("bytes follow the end of the stream")
    except BROKEN as error:
        raise broken(error) from None
    return Size(rows, nbytes, arrays)


def batches(body: bytes) -> Iterator[pa.RecordBatch]:
    """The record batches of a measured stream, validated down to their UTF-8.

    Raises:
        ProblemError: 400 broken, 413 too many columns.
    """
    try:
        with pa.ipc.open_stream(pa.py_buffer(body), options=_OPTIONS) as reader:
            if len(reader.schema.names) > COLUMNS_MAX:  # names that are no text are told here
                raise too_large(f"more than {COLUMNS_MAX:,} columns", "nest them in a struct")
            for batch in reader:
                batch.validate(full=True)
                yield batch
    except BROKEN as error:
        raise broken(error) from None


def broken(error: Exception) -> ProblemError:
    """400 that says what is wrong with a stream."""
    said = str(error).partition("\n")[0][:200]
    return ProblemError(
        400,
        "event.arrow",
        f"the body is not an Arrow IPC stream that can be read: {said}",
        "write it with pyarrow.ipc.new_stream or its like, and send all of it",
    )


def too_large(what: str, fix: str) -> ProblemError:
    """413 for a stream with too much of something."""
    return ProblemError(413, "request.too_large", f"the Arrow stream has {what}", fix)


def _message_size(message: Any) -> Size:
    """Of a record batch, or of the one that holds a dictionary.

    Tables and their fields: https://github.com/apache/arrow/blob/main/format/Message.fbs
    """
    metadata, body = memoryview(message.metadata), memoryview(message.body or b"")
    header = _child(metadata, _uint32(metadata, 0), 2)
    if message.type == "dictionary batch":
        header = _child(metadata, header, 1)
    at = _field(metadata, header, 0)
    rows = _int64(metadata, at) if at else 0
    vector = _child(metadata, header, 2)
    is_compressed = bool(_field(metadata, header, 3))
    nbytes = 0
    for index in range(_uint32(metadata, vector) if vector else 0):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * index)
        if is_compressed and length:
            wanted = _int64(body, offset)  # -1: this one is not compressed
            length = length if wanted == -1 else wanted  # what memory it takes
        if length < 0 or offset < 0:
            raise ValueError("a buffer of negative size")
        nbytes += length
    if rows < 0:
        raise ValueError("a batch of negative length")
    arrays = _child(metadata, header, 1)
    return Size(rows, nbytes, _uint32(metadata, arrays) if arrays else 0)


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a flatbuffers table keeps a field; 0 when it has none."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, vtable)[0]
    place = 4 + 2 * number
    if place >= size:
        return 0
    offset: int = struct.unpack_from("<H", data, vtable + place)[0]
    return table + offset if offset else 0


def _child(data: memoryview, table: int, number: int) -> int:
    """Where the table or vector begins that a field refers to; 0 when there is none."""
    at = _field(data, table, number)
    return at + _uint32(data, at) if at else 0


def _uint32(data: memoryview, at: int) -> int:
    value: int = struct.unpack_from("<I", data, at)[0]
    return value


def _int64(data: memoryview, at: int) -> int:
    value: int = struct.unpack_from("<q", data, at)[0]
    return value
