"""The one writer of a ring: start, recovery, commits, and the positions a mirror goes on from."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self
from uuid import uuid4

import numpy as np

from streamapp.core import clock
from streamapp.core.errors import Halt, Refuse
from streamapp.core.ranges import Ledger, OffsetRange, RangeSet
from streamapp.ring import files
from streamapp.ring.engine import EngineName, Mapping
from streamapp.ring.layout import (
    HEADER_DTYPE,
    RECORD_DTYPE,
    SOURCE_USED,
    SOURCES_MAX,
    Array,
    Geometry,
    RingSpec,
    describe,
    new_header,
    schema_hash,
)
from streamapp.ring.records import SourcePosition, unpack_source

_NO_SOURCES = bytes(4096)


class RingWriter:
    """Writes frames; holds the ring's lock until closed or killed.  Use it from one thread."""

    def __init__(self, path: Path, lock: int, mapping: Mapping) -> None:
        self.path = path
        self.spec = mapping.spec
        self._lock: int | None = lock
        self._pid = os.getpid()
        self._map = mapping
        self._index = {
            (source["topic"].decode("utf-8", "replace"), int(source["partition"])): index
            for index, source in enumerate(mapping.sources)
            if source["flags"] & SOURCE_USED
        }

    @classmethod
    def open(
        cls, path: Path | str, spec: RingSpec | None = None, *, engine: EngineName = "c"
    ) -> Self:
        """Become the writer of ``path``.

        A ring of the same shape is recovered: what a killed writer finished stays, the rest is
        void, frame ids go on.  A ring of another shape, or one from before a reboot, is replaced by
        a new file; readers follow.

        Raises:
            Refuse: another process writes it (``ring.locked``), the file is not a ring or not ours
                (``ring.layout``, ``ring.file``), or the C engine is not built (``ring.not_built``).
        """
        path, spec = Path(path), spec or RingSpec()
        lock = files.take_lock(path)
        try:
            return cls(path, lock, _start(path, spec, engine))
        except BaseException:
            os.close(lock)
            raise

    def write(
        self, records: Array, semantic: Array, *, positions: Sequence[SourcePosition] = ()
    ) -> int:
        """Publish n rows in order, then how far their sources have got; returns the first frame id.

        Rows of more than half the capacity go out as several commits; positions go with the last
        one.  With zero rows only the positions are stored.

        Args:
            records: (n,) of RECORD_DTYPE (:func:`new_records`); stamp, frame_id and epoch are
                filled in here.
            semantic: (n, dim) floats.
            positions: new positions of any of the sources; they never go back.

        Raises:
            Refuse: shapes do not fit the ring, or a source has no place in it (``ring.sources``).
            Halt: a position goes back (``ring.position``), or this is not the process that
                opened the ring (``ring.closed``).
        """
        if self._lock is None or os.getpid() != self._pid:
            raise Halt(
                "ring.closed", f"the writer of {self.path} was closed or belongs to another process"
            )
        semantic = np.ascontiguousarray(semantic, self.spec.dtype)
        n, limit, ops = len(records), self.spec.commit_rows_max, self._map.ops
        if records.dtype != RECORD_DTYPE or semantic.shape != (n, self.spec.dim):
            raise Refuse(
                "ring.rows",
                f"the ring {self.path} takes {n} records with a ({n}, {self.spec.dim}) array,"
                f" not {semantic.shape}",
                "make records with new_records(n) and one row of semantic for each",
            )
        places = self._places(positions)
        records = np.ascontiguousarray(records)
        first = self.next_frame_id
        for start in range(0, n - limit, limit):
            piece = slice(start, start + limit)
            ops.write(records[piece], semantic[piece], places[:0])
        rest = slice((n - 1) // limit * limit if n else 0, n)
        ops.write(records[rest], semantic[rest], places)
        return first

    def _places(self, positions: Sequence[SourcePosition]) -> Array:
        places = np.empty((len(positions), 3), np.uint64)
        for place, position in zip(places, positions, strict=True):
            index = self.source_index(position.topic, position.partition)
            *_, next_source, next_enriched = self._map.sources[index].item()
            if position[2] < next_source or position[3] < next_enriched:
                raise Halt(
                    "ring.position",
                    f"{self.path} is beyond {position}: the topic was made anew",
                    f"remove {self.path} to mirror the topic from its beginning",
                )
            place[:] = index, *position[2:]
        return places

    @property
    def next_frame_id(self) -> int:
        """The id that the next row gets; ids go on over restarts and changes of shape."""
        return self._map.word("head")

    def source_index(self, topic: str, partition: int) -> int:
        """The index that stands for a source partition in records; it is registered when it is new.

        Raises:
            Refuse: 64 sources are named already, or the topic's name is longer than 40 bytes.
        """
        index = self._index.get((topic, partition))
        if index is not None:
            return index
        name = topic.encode()
        if not 0 < len(name) <= 40:
            raise Refuse(
                "ring.sources", f"topic {topic!r} has no name of 1 to 40 bytes, the ring's limit"
            )
        if len(self._index) == SOURCES_MAX:
            raise Refuse(
                "ring.sources",
                f"{self.path} has {SOURCES_MAX} sources already: no place for {topic}-{partition}",
                "give this host fewer partitions",
            )
        index = len(self._index)
        source = self._map.sources[index : index + 1]
        source[["topic", "partition", "next_source_offset", "next_enriched_offset"]] = (
            name,
            partition,
            0,
            0,
        )
        source["flags"] = SOURCE_USED  # last: a source that is half written is no source
        self._index[topic, partition] = index
        return index

    def sources(self) -> list[SourcePosition]:
        """How far the ring has got in each source, in order of index."""
        return positions_of(self._map)

    def covered(self) -> Ledger:
        """What needs no mirroring: all below each position, and the source offsets of the rows.

        The rows are those beyond a position that a killed writer published without coming to store
        it.
        """
        ledger = Ledger(
            OffsetRange(s.topic, s.partition, 0, s.next_source_offset) for s in self.sources()
        )
        head = self._map.word("head")
        first = max(head - self.spec.capacity, self._map.word("base"))
        named = {index: source for source, index in self._index.items()}
        for index, offsets in _valid_offsets(self._map, first, head).items():
            if index in named:
                _add(ledger.of(*named[index]), offsets)
        return ledger

    def heartbeat(self) -> None:
        """Say that the writer lives though nothing comes in."""
        self.write(np.empty(0, RECORD_DTYPE), np.empty((0, self.spec.dim), np.float32))

    def close(self) -> None:
        """Give the ring up to another writer; what is in it stays for readers."""
        if self._lock is not None:
            with suppress(OSError):
                os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def positions_of(mapping: Mapping) -> list[SourcePosition]:
    """The used entries of the sources page, in order of index."""
    return [
        SourcePosition(
            source["topic"].decode("utf-8", "replace"),
            int(source["partition"]),
            int(source["next_source_offset"]),
            int(source["next_enriched_offset"]),
        )
        for source in mapping.sources
        if source["flags"] & SOURCE_USED
    ]


def _start(path: Path, spec: RingSpec, engine: EngineName) -> Mapping:
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
        geometry = Geometry(spec, spec.column_off, spec.file_bytes, hash_)
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
    for index, offsets in _valid_offsets(mapping, first, end).items():
        if index >= SOURCES_MAX:
            continue
        done = RangeSet()
        _add(done, offsets)
        source = mapping.sources[index : index + 1]
        source["next_source_offset"] = done.prefix_end(int(source["next_source_offset"][0]))


def _valid_offsets(mapping: Mapping, first: int, end: int) -> dict[int, Array]:
    """Source offsets, sorted, of the valid rows [first, end), by source index."""
    seqs = np.arange(first, end, dtype=np.uint64)
    records = mapping.records[seqs & np.uint64(mapping.spec.capacity - 1)]
    indexes, offsets = unpack_source(records["source_offset"][records["stamp"] == 2 * seqs + 2])
    return {int(i): np.unique(offsets[indexes == i]) for i in np.unique(indexes)}


def _add(done: RangeSet, offsets: Array) -> None:
    """Add sorted unique offsets, one call for each run without a gap."""
    breaks = np.flatnonzero(np.diff(offsets) != 1) + 1
    for run in np.split(offsets, breaks):
        done.add(int(run[0]), int(run[-1]) + 1)
