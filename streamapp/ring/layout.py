"""The bytes of a ring file, layout 2: the truth in Python, equal to ``include/streamapp_ring.h``.

Everything is little-endian.  A file is a header page with descriptors from 1024, a sources page at
4096, ``capacity`` records of 128 bytes from 8192, and one page-aligned tensor of shape
``(capacity, dim)`` for each column, ``semantic`` first.  Row ``seq`` lives in slot
``seq & (capacity - 1)``; it is valid when its stamp is ``2 * seq + 2`` and
``seq + capacity >= claim`` after the copy.

What the record's 128 bytes cost: two cache lines that the CPU fetches as a pair.
``attractor_pull`` took the four bytes that an opt-in checksum had; a ring with checksums carries
them as a column ``crc32c`` and sets header flag 1.  The alternative, 192 bytes, costs a third line
on every write and 64 bytes a row (4 % of a row of 384 floats). The twelve floats are contiguous, so
that all of them are one ``(n, 12)`` view without a copy.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse

MAGIC = b"EVRING\0\2"
LAYOUT_VERSION = 2
BYTE_ORDER = 0x01020304
HEADER_BYTES = PAGE_BYTES = 4096
DESC_OFF = 1024
DESC_MAX = 48
SOURCES_OFF = 4096
SOURCES_MAX = 64
RECORD_OFF = 8192
RECORD_STRIDE = 128
SOURCE_NONE = 0xFFFF
OFFSET_BITS = 48
SOURCE_USED = 1

#: Tensor columns of one file, ``semantic`` included.
COLUMNS_MAX = 8
#: In a dense stream a reader watches the wake word for so long before it sleeps on it
#: (include/streamapp_ring.h).
WATCH_NS = 10_000
CAPACITY_MAX = 1 << 24
DIM_MAX = 0xFFFF
SEQ_MAX = 1 << 62  # stamps are 2 * seq + 2 in 64 bits
FILE_BYTES_MAX = 1 << 36

Array = npt.NDArray[Any]


class State(IntEnum):
    """Header word ``state``; a reader of a retired file opens the path again."""

    INIT = 0
    LIVE = 1
    RECOVERING = 2
    RETIRED = 3


class HeaderFlag(IntFlag):
    """Header word ``flags``; none changes where bytes are."""

    CRC = 1
    HUGE = 2
    MIRRORABLE = 4


class DescFlag(IntFlag):
    """Descriptor word ``flags``."""

    RECORD = 1
    COLUMN = 2
    ENUM = 4


class RowFlag(IntFlag):
    """Record byte ``flags``: what is known about the row's vector."""

    EMBEDDED = 1
    FAILED = 2
    TRUNCATED = 4


def _packed(size: int, **fields: tuple[int, object]) -> np.dtype[np.void]:
    names = list(fields)
    offsets = [offset for offset, _ in fields.values()]
    formats = [format_ for _, format_ in fields.values()]
    return np.dtype({"names": names, "offsets": offsets, "formats": formats, "itemsize": size})


HEADER_DTYPE = _packed(
    HEADER_BYTES,
    magic=(0, "V8"),
    layout_version=(8, "<u4"),
    byte_order=(12, "<u4"),
    capacity=(16, "<u8"),
    file_bytes=(24, "<u8"),
    record_stride=(32, "<u4"),
    n_columns=(36, "<u4"),
    schema_hash=(40, "<u8"),
    desc_off=(48, "<u4"),
    desc_len=(52, "<u4"),
    flags=(56, "<u4"),
    record_off=(60, "<u4"),
    ring_uuid=(64, "V16"),
    boot_id=(80, "V16"),
    created_unix_ns=(96, "<i8"),
    clock_offset_ns=(104, "<i8"),
    sources_off=(112, "<u4"),
    sources_max=(116, "<u4"),
    base=(120, "<u8"),
    epoch=(128, "<u8"),
    state=(136, "<u4"),
    writer_pid=(140, "<u4"),
    writer_start_unix_ns=(144, "<i8"),
    claim=(256, "<u8"),
    head=(384, "<u8"),
    wake=(392, "<u4"),
    watch_ns=(396, "<u4"),
    heartbeat_mono_ns=(512, "<u8"),
    frames=(520, "<u8"),
    void_frames=(528, "<u8"),
    recoveries=(536, "<u8"),
    last_commit_unix_us=(544, "<i8"),
)

DESCRIPTOR_DTYPE = _packed(
    64,
    name=(0, "S24"),
    dtype=(24, "S8"),
    ndim=(32, "<u4"),
    shape=(36, ("<u4", (2,))),
    flags=(44, "<u4"),
    offset=(48, "<u8"),
    stride=(56, "<u8"),
)

SOURCE_DTYPE = _packed(
    64,
    topic=(0, "S40"),
    partition=(40, "<u4"),
    flags=(44, "<u4"),
    next_source_offset=(48, "<u8"),
    next_enriched_offset=(56, "<u8"),
)

RECORD_DTYPE = _packed(
    RECORD_STRIDE,
    stamp=(0, "<u8"),
    frame_id=(8, "<u8"),
    timestamp_us=(16, "<i8"),
    conversation_hash=(24, "<u8"),
    ingest_us=(32, "<i8"),
    source_offset=(40, "<u8"),
    delta_time=(48, "<f4"),
    duration_ms=(52, "<f4"),
    velocity=(56, "<f4"),
    interrupt=(60, "<f4"),
    fill_rate=(64, "<f4"),
    sentiment=(68, "<f4"),
    confidence=(72, "<f4"),
    spin=(76, ("<f4", (4,))),
    attractor_pull=(92, "<f4"),
    workflow_node=(96, "<i4"),
    case_status=(100, "<i4"),
    lead_status=(104, "<i4"),
    actor_type=(108, "<i4"),
    intent_id=(112, "<i4"),
    dim_used=(116, "<u2"),
    dtype_code=(118, "|u1"),
    flags=(119, "|u1"),
    presence=(120, "<u4"),
    epoch=(124, "<u4"),
)

#: The same record as one block of floats, ``delta_time`` to ``attractor_pull``.
FLOATS_DTYPE = _packed(RECORD_STRIDE, floats=(48, ("<f4", (12,))))
ENUMS = frozenset({"case_status", "lead_status", "actor_type"})
#: Values of ``dtype_code`` for the vector types a ring may hold; 0 says that the row has no vector.
DTYPE_CODES = {"<f4": 1, "<f2": 2}
#: Names that no column may have: a column is an attribute of what readers get.
RESERVED = frozenset(RECORD_DTYPE.names or ()) | {
    *("arrays", "columns", "first", "floats", "lost", "records", "upto", "valid", "void"),
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")


@dataclass(frozen=True, slots=True)
class Column:
    """A tensor with one row of ``dim`` values for each frame; ``dtype`` is ``<f4`` or ``<f2``."""

    name: str
    dim: int
    dtype: str = "<f4"

    @property
    def row_bytes(self) -> int:
        """Bytes of one frame's row."""
        return self.dim * int(self.dtype[2:])


@dataclass(frozen=True, slots=True)
class RingSpec:
    """The shape of a ring: ``capacity`` rows (a power of two), each a vector of ``dim`` values.

    ``extra`` are more tensor columns beside ``semantic``, for instance the probabilities of a
    classifier.  The default is 13.6 MB: it fits Docker's 64 MB of /dev/shm and a shared cache.
    """

    dim: int = 384
    capacity: int = 8192
    dtype: str = "<f4"
    extra: tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        reason = shape_fault(self.capacity, self.columns)
        if not reason and self.file_bytes > FILE_BYTES_MAX:
            reason = f"its {self.file_bytes} bytes are more than {FILE_BYTES_MAX}"
        if reason:
            raise Refuse("ring.spec", f"ring: {reason}", "choose another shape for the ring")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every tensor column, ``semantic`` first."""
        return Column("semantic", self.dim, self.dtype), *self.extra

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each column of a new file starts: on the first page after what is before it."""
        ends = [RECORD_OFF + self.capacity * RECORD_STRIDE]
        for column in self.columns:
            ends.append(_page_up(ends[-1]) + self.capacity * column.row_bytes)
        return tuple(map(_page_up, ends[:-1]))

    @property
    def file_bytes(self) -> int:
        """Bytes of a new file."""
        return self.offsets[-1] + self.capacity * self.columns[-1].row_bytes

    @property
    def commit_rows_max(self) -> int:
        """The most rows that one commit may have: readers keep at least the other half."""
        return max(1, self.capacity // 2)


def shape_fault(capacity: int, columns: Sequence[Column]) -> str:
    """What is wrong with a ring of these rows and columns; empty when nothing is."""
    if not 1 <= capacity <= CAPACITY_MAX or capacity & (capacity - 1):
        return f"capacity {capacity} is not a power of two from 1 to {CAPACITY_MAX}"
    if len(columns) > COLUMNS_MAX:
        return f"{len(columns)} columns are more than {COLUMNS_MAX}"
    names = [column.name for column in columns]
    if twice := {name for name in names if names.count(name) > 1}:
        return f"column {min(twice)!r} is there twice"
    return next((reason for column in columns if (reason := _column_fault(column))), "")


def _column_fault(column: Column) -> str:
    checks = (
        (not _NAME.fullmatch(column.name), "a name is 1 to 24 of a-z, 0-9 and _, a letter first"),
        (column.name in RESERVED, "its name means something else to readers"),
        (not 1 <= column.dim <= DIM_MAX, f"dim {column.dim} is not from 1 to {DIM_MAX}"),
        (column.dtype not in DTYPE_CODES, f"dtype {column.dtype!r} is not <f4 or <f2"),
    )
    wrong = next((reason for wrong, reason in checks if wrong), "")
    return wrong and f"column {column.name!r}: {wrong}"


def _page_up(at: int) -> int:
    return -(-at // PAGE_BYTES) * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a file has what: its spec, the offsets of its columns, and the bytes to map."""

    spec: RingSpec
    offsets: tuple[int, ...]
    file_bytes: int
    schema_hash: int


def describe(spec: RingSpec) -> Array:
    """Descriptors of every record field, then of every column; shape (fields + columns,)."""
    fields: Mapping[str, Any] = RECORD_DTYPE.fields or {}
    table = np.zeros(len(fields) + len(spec.columns), DESCRIPTOR_DTYPE)
    for row, (name, (dtype, offset)) in enumerate(fields.items()):
        flags = DescFlag.RECORD | (DescFlag.ENUM if name in ENUMS else 0)
        shape = (*dtype.shape, 0, 0)[:2]
        kind = dtype.base.str.encode()
        at = RECORD_OFF + offset
        table[row] = (name.encode(), kind, dtype.ndim, shape, flags, at, RECORD_STRIDE)
    for row, column in enumerate(spec.columns, len(fields)):
        kind, shape = column.dtype.encode(), (column.dim, 0)
        at = spec.offsets[row - len(fields)]
        table[row] = (column.name.encode(), kind, 1, shape, DescFlag.COLUMN, at, column.row_bytes)
    return table


def mirrorable(capacity: int, column: Column) -> bool:
    """Can the column be mapped twice back to back, so that a window over the wrap is one piece?"""
    return capacity * column.row_bytes % PAGE_BYTES == 0


def schema_hash(descriptors: bytes) -> int:
    """First 8 bytes of BLAKE2b-64, little-endian, of the descriptors' bytes."""
    return int.from_bytes(blake2b(descriptors, digest_size=8).digest(), "little")


def new_header(
    spec: RingSpec, *, base: int, ring_uuid: bytes, boot_id: bytes, created_unix_ns: int
) -> bytes:
    """The header page of a ring from seq ``base`` on, without the magic, which comes last."""
    descriptors = describe(spec).tobytes()
    page = np.zeros((), HEADER_DTYPE)
    values = {
        "layout_version": LAYOUT_VERSION,
        "byte_order": BYTE_ORDER,
        "capacity": spec.capacity,
        "file_bytes": spec.file_bytes,
        "record_stride": RECORD_STRIDE,
        "n_columns": len(descriptors) // DESCRIPTOR_DTYPE.itemsize,
        "schema_hash": schema_hash(descriptors),
        "desc_off": DESC_OFF,
        "desc_len": len(descriptors),
        "flags": HeaderFlag.MIRRORABLE
        if all(mirrorable(spec.capacity, column) for column in spec.columns)
        else 0,
        "record_off": RECORD_OFF,
        "ring_uuid": np.void(ring_uuid),
        "boot_id": np.void(boot_id),
        "created_unix_ns": created_unix_ns,
        "sources_off": SOURCES_OFF,
        "sources_max": SOURCES_MAX,
        "base": base,
        "claim": base,
        "head": base,
    }
    for name, value in values.items():
        page[name] = value
    raw = bytearray(page.tobytes())
    raw[DESC_OFF : DESC_OFF + len(descriptors)] = descriptors
    return bytes(raw)
