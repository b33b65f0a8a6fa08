"""The one writer of a ring: start, recovery, commits, and the positions a mirror goes on from."""

import os
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Named
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from weakref import WeakSet, finalize, ref

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Halt, Refuse
from streamapp.core.ranges import Ledger, OffsetRange
from streamapp.ring import files
from streamapp.ring.engine import EngineName, Mapping, Operations
from streamapp.ring.layout import SOURCE_USED, SOURCES_MAX, Array, RingSpec
from streamapp.ring.origin import positions_of, sources_of
from streamapp.ring.records import SourcePosition, new_records
from streamapp.ring.reservation import Reservation
from streamapp.ring.rows import fit_columns, fit_records
from streamapp.ring.start import add_runs, start, valid_offsets

#: A forked child must not keep them: the next writer would wait for it.
_writers: WeakSet["RingWriter"] = WeakSet()


def _let_go() -> None:
    for writer in _writers:
        writer.let_go()


os.register_at_fork(after_in_child=_let_go)

_NO_EXTRA: Named[str, npt.ArrayLike] = MappingProxyType({})


class RingWriter:
    """Writes frames; holds the ring's lock until closed or killed.  Use it from one thread."""

    def __init__(self, path: Path, lock: int, mapping: Mapping) -> None:
        self.path = path
        self.spec = mapping.spec
        self._columns = mapping.spec.columns
        self._map = mapping
        self._reservation: Reservation | None = None
        self._index = sources_of(mapping)
        # For most calls the engine's own function, which costs no frame of Python's.
        self.write = mapping.ops.writer(_instead(ref(self), path))  # type: ignore[method-assign]
        self._unlock = finalize(self, _give_up, lock, mapping.ops)  # last: until then the caller's
        self._unlock.atexit = False
        _writers.add(self)

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
            return cls(path, lock, start(path, spec, engine))
        except BaseException:
            os.close(lock)
            raise

    def write(
        self,
        records: Array,
        semantic: npt.ArrayLike,
        *,
        extra: Named[str, npt.ArrayLike] = _NO_EXTRA,
        positions: Sequence[SourcePosition] = (),
    ) -> int:
        """Publish n rows in order, then how far their sources have got; returns the first frame id.

        Rows of more than half the capacity go out as several commits; positions go with the last
        one.  With zero rows only the positions are stored.

        Args:
            records: (n,) of RECORD_DTYPE (:func:`new_records`); stamp, frame_id and epoch are
                filled in here.
            semantic: (n, dim); numbers of another type than the column's are rounded to it.
            extra: by name, (n, dim) of every other column of the ring.
            positions: new positions of any of the sources; they never go back.

        Raises:
            Refuse: shapes or values do not fit the ring (``ring.rows``), rows are reserved
                (``ring.reserved``), or a source has no place in it (``ring.sources``).
            Halt: a position goes back (``ring.position``), or this is not the process that
                opened the ring (``ring.closed``).
        """
        self._check_free()
        columns = {**extra, "semantic": semantic}
        n, limit, ops = len(records), self.spec.commit_rows_max, self._map.ops
        rows = fit_columns(self.path, self._columns, columns, n)
        records = fit_records(self.path, records, n)
        places = self._places(positions)
        first = self.next_frame_id
        for at in range(0, n - limit, limit):
            piece = slice(at, at + limit)
            ops.write(records[piece], tuple(array[piece] for array in rows), places[:0])
        rest = slice((n - 1) // limit * limit if n else 0, n)
        ops.write(records[rest], tuple(array[rest] for array in rows), places)
        return first

    def reserve(self, n: int) -> Reservation:
        """Claim ``n`` rows to be filled in place, at most half the capacity; one at a time.

        For a model that writes its output itself.  Everybody else writes with :meth:`write`: a copy
        costs less than rows that readers lose while a model runs.

        Raises:
            Refuse: n does not fit (``ring.rows``), or rows are reserved (``ring.reserved``).
            Halt: this is not the process that opened the ring (``ring.closed``).
        """
        self._check_free()
        if not 1 <= n <= self.spec.commit_rows_max:
            raise Refuse(
                "ring.rows",
                f"{n} rows cannot be reserved in {self.path}",
                f"reserve 1 to {self.spec.commit_rows_max} rows, or make the ring larger",
            )
        self._reservation = Reservation(self.path, self._map, n, self._places)
        return self._reservation

    def _check_open(self) -> None:
        if not self._unlock.alive:
            raise Halt(
                "ring.closed", f"the writer of {self.path} was closed or belongs to another process"
            )

    def _check_free(self) -> None:
        self._check_open()
        if self._reservation is not None and self._reservation.is_open:
            raise Refuse(
                "ring.reserved",
                f"{len(self._reservation)} rows of {self.path} are reserved",
                "commit or abandon them first",
            )

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
            Refuse: 64 sources are named already, or the topic's name is longer than 40 bytes
                (``ring.sources``).
            Halt: it is new and this writer was closed (``ring.closed``).
        """
        index = self._index.get((topic, partition))
        if index is not None:
            return index
        self._check_open()
        name = topic.encode(errors="replace")
        if not 0 < len(name) <= 40 or not topic.isprintable():
            raise Refuse(
                "ring.sources",
                f"topic {topic!r} has no printable name of 1 to 40 bytes, the ring's limit",
            )
        if not 0 <= partition < 1 << 32:
            raise Refuse("ring.sources", f"topic {topic!r} can have no partition {partition}")
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
        for index, offsets in valid_offsets(self._map, first, head).items():
            if index in named:
                add_runs(ledger.of(*named[index]), offsets)
        return ledger

    def heartbeat(self) -> None:
        """Say that the writer lives though nothing comes in."""
        self._check_open()
        columns = fit_columns(self.path, self._columns, {}, 0)
        self._map.ops.write(new_records(0), columns, self._places(()))

    def close(self) -> None:
        """Give the ring up to another writer; what is in it stays for readers."""
        if self._unlock.alive:
            if self._reservation is not None and self._reservation.is_open:
                self._reservation.abandon()
            self.let_go()

    def let_go(self) -> None:
        """Write no more, and change nothing in the ring: in a forked child it is the parent's."""
        self._unlock()
        if self._reservation is not None:
            self._reservation.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _instead(found: "ref[RingWriter]", path: Path) -> Callable[..., int]:
    """``RingWriter.write`` of a writer that may be dropped meanwhile, and its lock with it."""

    def write(*args: Any, **options: Any) -> int:
        if (writer := found()) is None:
            raise Halt("ring.closed", f"the writer of {path} is gone")
        return RingWriter.write(writer, *args, **options)

    return write


def _give_up(lock: int, ops: Operations) -> None:
    ops.seal()  # before another takes the lock: a caller may have kept ``writer.write``
    os.close(lock)
