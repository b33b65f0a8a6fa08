"""How a writer begins: recover the ring that is there, or build it, and go live."""

import os
from pathlib import Path
from uuid import uuid4

import numpy as np

from streamapp.core import clock
from streamapp.core.errors import Refuse
from streamapp.core.ranges import RangeSet
from streamapp.ring import files
from streamapp.ring.engine import EngineName, Mapping
from streamapp.ring.layout import (
    HEADER_DTYPE,
    SOURCES_MAX,
    Array,
    Geometry,
    RingSpec,
    describe,
    new_header,
    schema_hash,
)
from streamapp.ring.records import unpack_source

_NO_SOURCES = bytes(4096)


def start(path: Path, spec: RingSpec, engine: EngineName) -> Mapping:
    """Map the ring at ``path`` for writing, recovered or made anew; the caller holds its lock."""
    if not os.path.lexists(path):
        return _build(path, spec, engine)
    fd, geometry, page = files.open_checked(path, writable=True)
    try:
        header = np.frombuffer(page, HEADER_DTYPE, 1)[0]
        if bytes(header["boot_id"]) != files.boot_id():
            # Pages went to disk in any order before the machine did: only the ids are of use.
            return _build(path, spec, engine, header)
        old = Mapping(fd, geometry, writable=True, engine=engine)
    finally:
        os.close(fd)
    _recover(path, old)
    if geometry.spec == spec and geometry.schema_hash == schema_hash(describe(spec).tobytes()):
        return old
    new = _build(path, spec, engine, old.header, old.sources.tobytes())
    old.ops.retire()
    return new


def _build(
    path: Path,
    spec: RingSpec,
    engine: EngineName,
    before: Array | np.void | None = None,
    sources: bytes = _NO_SOURCES,
) -> Mapping:
    """A new file at ``path``; with the header of the one before, the same ring goes on in it."""
    header = new_header(
        spec,
        base=0 if before is None else int(before["claim"]),
        ring_uuid=uuid4().bytes if before is None else bytes(before["ring_uuid"]),
        boot_id=files.boot_id(),
        created_unix_ns=clock.now_us() * 1000,
    )
    hash_ = schema_hash(describe(spec).tobytes())
    fd = files.create(path, header, sources, spec.file_bytes)
    try:
        geometry = Geometry(spec, spec.offsets, spec.file_bytes, hash_)
        mapping = Mapping(fd, geometry, writable=True, engine=engine)
    finally:
        os.close(fd)
    _recover(path, mapping)
    return mapping


def _recover(path: Path, mapping: Mapping) -> None:
    """Go live with everything that the writer before finished; the caller holds the lock."""
    base, head, claim = (mapping.word(name) for name in ("base", "head", "claim"))
    if not base <= head <= claim <= head + mapping.spec.commit_rows_max:
        raise Refuse(
            "ring.layout",
            f"{path} is damaged: base {base}, head {head}, claim {claim}",
            "remove the file; the mirror builds a ring anew",
        )
    now_us = clock.now_us()
    mapping.header["writer_pid"] = os.getpid()
    mapping.header["writer_start_unix_ns"] = now_us * 1000
    mapping.header["clock_offset_ns"] = now_us * 1000 - int(clock.monotonic_s() * 1e9)
    voids = mapping.ops.salvage()
    _advance(mapping, head, claim)
    mapping.ops.go_live(voids)


def _advance(mapping: Mapping, first: int, end: int) -> None:
    """Take into the positions what the unpublished rows [first, end) hold without a gap.

    Beyond a gap a position must not go: the rows of the gap may still come.
    """
    for index, offsets in valid_offsets(mapping, first, end).items():
        if index >= SOURCES_MAX:
            continue
        done = RangeSet()
        add_runs(done, offsets)
        source = mapping.sources[index : index + 1]
        source["next_source_offset"] = done.prefix_end(int(source["next_source_offset"][0]))


def valid_offsets(mapping: Mapping, first: int, end: int) -> dict[int, Array]:
    """Source offsets, sorted, of the valid rows [first, end), by source index."""
    seqs = np.arange(first, end, dtype=np.uint64)
    records = mapping.records[seqs & np.uint64(mapping.spec.capacity - 1)]
    indexes, offsets = unpack_source(records["source_offset"][records["stamp"] == 2 * seqs + 2])
    return {int(i): np.unique(offsets[indexes == i]) for i in np.unique(indexes)}


def add_runs(done: RangeSet, offsets: Array) -> None:
    """Add sorted unique offsets, one call for each run without a gap."""
    breaks = np.flatnonzero(np.diff(offsets) != 1) + 1
    for run in np.split(offsets, breaks):
        done.add(int(run[0]), int(run[-1]) + 1)
