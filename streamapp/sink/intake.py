"""What one transaction will insert: enriched records against the ledger and the dedup window.

Nothing here touches the database, and nothing it is given changes: an :class:`Intake` is first
built, then inserted, and only after the commit adopted by the store.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.core.batch import TIME, Rejected
from streamapp.core.errors import Halt
from streamapp.core.ranges import Ledger, OffsetRange, RangeSet
from streamapp.sink import schema
from streamapp.sink.layout import Layout, Origin, check_columns, check_filled
from streamapp.sink.window import DedupWindow, Draft, keys_of
from streamapp.topics.enriched import Cover, Enriched

#: Dead letters whose reason only the database could find.
STAGE = "store"
#: Why an event cannot be stored, by source address.
Unfit = Mapping[tuple[str, int, int], str]


class StoredRecord(NamedTuple):
    """A decoded enriched record, its enriched topic and partition, and the offset after it.

    ``keys`` are those of its rows in the dedup window: :func:`keyed` makes them, and nobody else.
    """

    enriched: Enriched
    topic: str
    partition: int
    next: int
    keys: Sequence[bytes] | None = None


def keyed(record: StoredRecord) -> StoredRecord:
    """The record with its keys: work for a thread that need not hold the writer up.

    Raises:
        Halt: its rows are no events.
    """
    check_columns(record.enriched)
    check_filled(record.enriched)
    return record._replace(keys=_keys_of(record.enriched.rows))


def _keys_of(rows: pa.RecordBatch) -> list[bytes]:
    return keys_of(rows.column("source"), rows.column("id"))


class Covered(NamedTuple):
    """Rows of one record that the ledger had already: what must be found at those offsets."""

    topic: str
    partition: int
    rows: pa.RecordBatch


class Part(NamedTuple):
    """A newly covered range, as the ledger keeps it."""

    range: OffsetRange
    lost: int
    rows: int


@dataclass(slots=True)
class Intake:
    """Everything one transaction inserts, and what it leaves out with the reason."""

    ids: Draft
    rows: list[pa.RecordBatch] = field(default_factory=list)
    dead: list[tuple[Cover, Rejected]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    provenance: dict[int, str] = field(default_factory=dict)
    covered: list[Covered] = field(default_factory=list)
    duplicates_by_range: int = 0
    duplicates_by_id: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def row_count(self) -> int:
        """Rows to insert."""
        return sum(rows.num_rows for rows in self.rows)


class Reader:
    """Builds one Intake, record by record, in the order they are given.

    Args:
        layout: of table ``events``.
        ledger: what is stored.
        window: ids that were stored lately.
        positions: where each enriched partition is.
        unfit: events to send to ``dead`` instead, with the reason.
    """

    def __init__(
        self,
        layout: Layout,
        ledger: Ledger,
        window: DedupWindow,
        positions: Mapping[tuple[str, int], int],
        unfit: Unfit,
    ) -> None:
        self._layout = layout
        self._ledger = ledger
        self._draft = window.draft()
        self._positions = positions
        self._unfit = unfit
        self._done: dict[tuple[str, int], RangeSet] = {}
        self._taken: list[tuple[Origin, pa.RecordBatch]] = []
        self._intake = Intake(self._draft)

    def read(self, records: Sequence[StoredRecord]) -> Intake:
        """The Intake of all records.

        Raises:
            Halt: a record's rows are no events, not in its range, or not in offset order.
        """
        for record in records:
            self._read(record)
            key = (record.topic, record.partition)
            known = max(self._positions.get(key, 0), self._intake.positions.get(key, 0))
            if record.next > known:
                self._intake.positions[key] = record.next
        self._intake.rows.extend(self._aligned())
        return self._intake

    def _read(self, record: StoredRecord) -> None:
        enriched, intake = record.enriched, self._intake
        cover = enriched.cover
        if record.keys is None:
            self._layout.check(enriched)
        done = self._done_of(cover)
        offsets = _checked_offsets(enriched)
        keep = ~done.mask(offsets)
        if not keep.all():
            self._note_covered(enriched, ~keep)
        self._drop_unfit(enriched, offsets, keep)
        self._drop_repeated(record, keep)
        if keep.any():
            self._take_rows(enriched, keep)
        for reject in enriched.rejects:
            if reject.source_offset not in done:
                intake.dead.append((cover, reject))
        kept_offsets = offsets[keep]
        lost = cover.lost
        for first, next_ in done.missing(cover.first, cover.next):
            part_lost = min(lost, next_ - first)
            lost -= part_lost
            low, high = np.searchsorted(kept_offsets, (first, next_))
            range_ = OffsetRange(cover.topic, cover.partition, first, next_)
            intake.parts.append(Part(range_, part_lost, int(high - low)))
        done.add(cover.first, cover.next)

    def _done_of(self, cover: Cover) -> RangeSet:
        key = (cover.topic, cover.partition)
        if key not in self._done:
            self._done[key] = RangeSet(self._ledger.of(*key))
        return self._done[key]

    def _note_covered(self, enriched: Enriched, old: npt.NDArray[np.bool_]) -> None:
        self._intake.duplicates_by_range += int(old.sum())
        columns = enriched.rows.select(["source_offset", "id", "ingest_time"])
        rows = columns.filter(pa.array(old))
        self._intake.covered.append(Covered(enriched.cover.topic, enriched.cover.partition, rows))

    def _drop_repeated(self, record: StoredRecord, keep: npt.NDArray[np.bool_]) -> None:
        """Take from ``keep`` what was stored lately under another address."""
        rows, kept = record.enriched.rows, np.flatnonzero(keep)
        if not (self._draft.enabled and len(kept)):
            return
        keys = _keys_of(rows) if record.keys is None else record.keys
        times_us = rows.column("ingest_time").view(pa.int64()).to_numpy()
        if len(kept) < len(keep):
            keys, times_us = [keys[index] for index in kept.tolist()], times_us[kept]
        repeated = self._draft.take_all(keys, times_us.tolist())
        if repeated:
            keep[kept[repeated]] = False
            self._intake.duplicates_by_id += len(repeated)

    def _drop_unfit(
        self, enriched: Enriched, offsets: npt.NDArray[np.int64], keep: npt.NDArray[np.bool_]
    ) -> None:
        """Take from ``keep`` what the database could not have, which goes to ``dead``."""
        if not self._unfit:
            return
        cover = enriched.cover
        for index in np.flatnonzero(keep).tolist():
            reason = self._unfit.get((cover.topic, cover.partition, int(offsets[index])))
            if reason is not None:
                keep[index] = False
                self._intake.dead.append((cover, _unfit_event(enriched.rows, index, reason)))

    def _take_rows(self, enriched: Enriched, keep: npt.NDArray[np.bool_]) -> None:
        rows = enriched.rows if keep.all() else enriched.rows.filter(pa.array(keep))
        identity = provenance_id(enriched.provenance)
        self._intake.provenance[identity] = enriched.provenance
        origin = Origin(enriched.cover.topic, enriched.cover.partition, identity)
        self._taken.append((origin, rows))

    def _aligned(self) -> Iterator[pa.RecordBatch]:
        """All rows taken, in order; neighbours of one origin and schema are one batch."""
        for (origin, _), pieces in groupby(self._taken, lambda taken: (taken[0], taken[1].schema)):
            rows = [piece for _, piece in pieces]
            whole = rows[0] if len(rows) == 1 else pa.concat_batches(rows)
            yield self._layout.align(origin, whole, self._intake.left_out)


def provenance_id(detail: str) -> int:
    """The key of table ``provenance``: the first 8 bytes of BLAKE2b, big endian."""
    return int.from_bytes(blake2b(detail.encode(), digest_size=8).digest(), "big")


def dead_table(intake: Intake, now_us: int) -> pa.Table:
    """The intake's rejects as rows of table ``dead``."""
    rows = [
        {
            "source_topic": cover.topic,
            "source_partition": cover.partition,
            "source_offset": reject.source_offset,
            "timestamp": reject.timestamp * 1000,
            "key": reject.key,
            "value": reject.value,
            "headers": [{"name": name, "value": value} for name, value in reject.headers],
            "stage": reject.stage,
            "code": reject.code,
            "reason": reject.reason,
            "stored_at": now_us,
        }
        for cover, reject in intake.dead
    ]
    return pa.Table.from_pylist(rows, schema=schema.DEAD)


def ledger_table(intake: Intake, now_us: int) -> pa.Table:
    """The newly covered ranges, neighbours as one, as rows of table ``ledger``."""
    rows = [(*part.range, part.lost, part.rows, now_us) for part in joined(intake.parts)]
    return _table(rows, schema.LEDGER)


def position_table(positions: Mapping[tuple[str, int], int], now_us: int) -> pa.Table:
    """The positions that moved, as rows of table ``position``."""
    rows = [(*key, next_, now_us) for key, next_ in positions.items()]
    return _table(rows, schema.POSITION)


def _table(rows: Sequence[Sequence[str | int]], kinds: pa.Schema) -> pa.Table:
    whole = pa.array(rows, pa.struct(kinds))  # one conversion takes a third of one for each column
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(whole)])


def provenance_table(new: Mapping[int, str], now_us: int) -> pa.Table:
    """Provenance not seen before, as rows of table ``provenance``."""
    arrays = [list(new), list(new.values()), pa.array([now_us] * len(new), TIME)]
    return pa.table(arrays, schema=schema.PROVENANCE)


def joined(parts: Sequence[Part]) -> list[Part]:
    """Ranges that touch as one."""
    whole: list[Part] = []
    for part in sorted(parts):
        topic, partition, first, next_ = part.range
        if whole and whole[-1].range[:2] == (topic, partition):
            before = whole[-1]
            if before.range.next == first:
                range_ = OffsetRange(topic, partition, before.range.first, next_)
                whole[-1] = Part(range_, before.lost + part.lost, before.rows + part.rows)
                continue
        whole.append(part)
    return whole


def _checked_offsets(enriched: Enriched) -> npt.NDArray[np.int64]:
    """The rows' source offsets, strictly rising and inside the covered range."""
    cover = enriched.cover
    offsets: npt.NDArray[np.int64] = enriched.rows.column("source_offset").to_numpy()
    inside = len(offsets) == 0 or (offsets[0] >= cover.first and offsets[-1] < cover.next)
    if inside and bool((offsets[1:] > offsets[:-1]).all()):
        return offsets
    raise Halt(
        "store.record",
        f"an enriched record says it covers {cover.range} but has rows of offsets "
        f"{offsets.min()} to {offsets.max()}, or not in order",
        "this is a bug of what wrote it; the store has kept nothing of it",
    )


def _unfit_event(rows: pa.RecordBatch, index: int, reason: str) -> Rejected:
    event = rows.slice(index, 1)
    timestamp_us = event.column("ingest_time").cast(pa.int64())[0].as_py()
    value = pc.fill_null(event.column("payload"), "")[0].as_py()
    offset = event.column("source_offset")[0].as_py()
    return Rejected(
        offset, timestamp_us // 1000, None, value.encode(), (), STAGE, "store.json", reason
    )
