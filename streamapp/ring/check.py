"""Is this file a ring that we can map?  Answered from a copy of its first page, not by mapping."""

import re
from itertools import pairwise
from math import prod

import numpy as np

from streamapp.core.errors import Refuse
from streamapp.ring.layout import (
    BYTE_ORDER,
    CAPACITY_MAX,
    DESC_MAX,
    DESC_OFF,
    DESCRIPTOR_DTYPE,
    DTYPE_CODES,
    HEADER_BYTES,
    HEADER_DTYPE,
    LAYOUT_VERSION,
    MAGIC,
    PAGE_BYTES,
    RECORD_OFF,
    RECORD_STRIDE,
    SEQ_MAX,
    SOURCES_MAX,
    SOURCES_OFF,
    Array,
    Column,
    DescFlag,
    Geometry,
    RingSpec,
    describe,
    schema_hash,
    shape_fault,
)

_WORDS = (
    "capacity",
    "file_bytes",
    "record_stride",
    "n_columns",
    "schema_hash",
    "desc_off",
    "desc_len",
    "record_off",
    "sources_off",
    "sources_max",
    "base",
    "claim",
    "head",
)
_DTYPE = re.compile(rb"[<|][fiu]([1248])")
_FOREIGN = int.from_bytes(BYTE_ORDER.to_bytes(4, "little"), "big")


def geometry_of(page: bytes, file_bytes: int, name: str) -> Geometry:
    """Where the ring whose first page this is has what, every offset in it checked.

    Args:
        page: the first 4096 bytes (fewer when the file is shorter).
        file_bytes: size of the file.
        name: the file's name for messages.

    Raises:
        Refuse: code ``ring.layout``, with the first thing that is wrong.
    """
    wrong = _wrong_start(page, file_bytes) or _wrong_header(page, file_bytes)
    if not wrong:
        header = np.frombuffer(page, HEADER_DTYPE, 1)[0]
        table = np.frombuffer(page, DESCRIPTOR_DTYPE, int(header["n_columns"]), DESC_OFF)
        wrong = (
            _wrong_bounds(table, header)
            or _wrong_record(table)
            or _wrong_overlap(table, header)
            or _wrong_columns(table, header)
        )
    if wrong:
        raise Refuse(
            "ring.layout",
            f"{name} is not a ring of layout {LAYOUT_VERSION}: {wrong}",
            "remove the file or choose another path; the mirror builds a ring anew",
        )
    tensors = _tensors(table)
    semantic, *extra = map(_column, tensors)
    spec = RingSpec(semantic.dim, int(header["capacity"]), semantic.dtype, tuple(extra))
    size, hash_ = int(header["file_bytes"]), int(header["schema_hash"])
    return Geometry(spec, tuple(int(row["offset"]) for row in tensors), size, hash_)


def _wrong_start(page: bytes, file_bytes: int) -> str:
    if file_bytes < HEADER_BYTES or len(page) < HEADER_BYTES:
        return f"its {file_bytes} bytes are too short for a header"
    if page[:8] != MAGIC:
        return "it has another magic number"
    header = np.frombuffer(page, HEADER_DTYPE, 1)[0]
    if header["byte_order"] == _FOREIGN:
        return "it was written on a machine of the other byte order"
    if header["byte_order"] != BYTE_ORDER:
        return "its byte order mark is damaged"
    if header["layout_version"] != LAYOUT_VERSION:
        return f"its layout is {header['layout_version']}"
    return ""


def _wrong_header(page: bytes, file_bytes: int) -> str:
    header = np.frombuffer(page, HEADER_DTYPE, 1)[0]
    word = {name: int(header[name]) for name in _WORDS}
    capacity, start, length = word["capacity"], word["desc_off"], word["desc_len"]
    hash_ = schema_hash(page[start : start + length])
    checks = (
        (
            not 1 <= capacity <= CAPACITY_MAX or capacity & (capacity - 1),
            f"its capacity {capacity} is not a power of two from 1 to {CAPACITY_MAX}",
        ),
        (
            word["file_bytes"] > file_bytes,
            f"it has {file_bytes} bytes and says {word['file_bytes']}",
        ),
        (
            (word["record_off"], word["record_stride"]) != (RECORD_OFF, RECORD_STRIDE),
            f"its records are not {RECORD_STRIDE} bytes each from {RECORD_OFF}",
        ),
        (
            (word["sources_off"], word["sources_max"]) != (SOURCES_OFF, SOURCES_MAX),
            f"its sources page is not at {SOURCES_OFF}",
        ),
        (
            not 1 <= word["n_columns"] <= DESC_MAX
            or (start, length) != (DESC_OFF, word["n_columns"] * DESCRIPTOR_DTYPE.itemsize),
            "its descriptors do not fit the header page",
        ),
        (word["schema_hash"] != hash_, "its descriptors do not match their hash"),
        (max(word["base"], word["head"], word["claim"]) >= SEQ_MAX, "its counters are damaged"),
    )
    return next((reason for wrong, reason in checks if wrong), "")


def _wrong_bounds(table: Array, header: np.void) -> str:
    """Every descriptor, also of a column unknown to this version, must stay inside the file."""
    end, last = int(header["file_bytes"]), int(header["capacity"]) - 1
    for row in table:
        name = row["name"].decode("ascii", "replace")
        item = _DTYPE.fullmatch(row["dtype"])
        if item is None:
            return f"descriptor {name!r} has no dtype that is known"
        if row["ndim"] > 2:
            return f"descriptor {name!r} has more than two dimensions"
        if int(row["offset"]) + last * int(row["stride"]) + _width(row) > end:
            return f"descriptor {name!r} points past the end of the file"
        if row["offset"] % int(item[1]) or row["stride"] % int(item[1]):
            return f"descriptor {name!r} is not aligned to its dtype"
    return ""


def _width(row: np.void) -> int:
    """Bytes that a descriptor's field has in one row."""
    item = int(row["dtype"].decode("ascii")[2:])
    return item * prod(int(size) for size in row["shape"][: row["ndim"]])


def _wrong_record(table: Array) -> str:
    ours = {bytes(row["name"]): row for row in describe(RingSpec()) if _in_record(row)}
    theirs = {bytes(row["name"]): row for row in table if _in_record(row)}
    for name, row in ours.items():
        if name not in theirs or theirs[name].tobytes() != row.tobytes():
            return f"record field {name.decode()!r} is missing or elsewhere"
    for name, row in theirs.items():
        at = int(row["offset"]) - RECORD_OFF
        if row["stride"] != RECORD_STRIDE or not 0 <= at <= RECORD_STRIDE - _width(row):
            return f"record field {name.decode('ascii', 'replace')!r} is not in the record"
    return ""


def _in_record(row: np.void) -> bool:
    return bool(row["flags"] & DescFlag.RECORD)


def _wrong_overlap(table: Array, header: np.void) -> str:
    """What is not in the record has bytes of its own, behind the records."""
    capacity = int(header["capacity"])
    names = [bytes(row["name"]) for row in table]
    taken = [(0, RECORD_OFF + capacity * RECORD_STRIDE, "the records")]
    for row in table:
        name = row["name"].decode("ascii", "replace")
        if names.count(bytes(row["name"])) > 1:
            return f"descriptor {name!r} is there twice"
        if not _in_record(row):
            start = int(row["offset"])
            end = start + (capacity - 1) * int(row["stride"]) + _width(row)
            taken.append((start, end, repr(name)))
    taken.sort()
    for (_, end, one), (start, _, other) in pairwise(taken):
        if start < end:
            return f"column {other} overlaps {one}"
    return ""


def _tensors(table: Array) -> list[np.void]:
    """Descriptors of the columns that this version knows: rows of ``dim`` floats or halves."""
    return [
        row
        for row in table
        if row["flags"] & DescFlag.COLUMN
        and row["ndim"] == 1
        and row["dtype"].decode("ascii") in DTYPE_CODES
    ]


def _column(row: np.void) -> Column:
    name, dtype = (row[field].decode("ascii", "replace") for field in ("name", "dtype"))
    return Column(name, int(row["shape"][0]), dtype)


def _wrong_columns(table: Array, header: np.void) -> str:
    tensors = _tensors(table)
    columns = [_column(row) for row in tensors]
    if not columns or columns[0].name != "semantic":
        return "its first tensor is no column 'semantic' of floats"
    for column, row in zip(columns, tensors, strict=True):
        if row["stride"] != column.row_bytes:
            return f"its column {column.name!r} is not one tensor (rows, dim)"
        if row["offset"] % PAGE_BYTES:
            return f"its column {column.name!r} does not start on a page"
    starts = [int(row["offset"]) for row in tensors]
    if starts != sorted(starts):
        return "its columns are not in the order of their descriptors"
    return shape_fault(int(header["capacity"]), columns)
