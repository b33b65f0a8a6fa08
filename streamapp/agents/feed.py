"""Enriched records into a ring: each row once, what comes together as one commit.

What the ring has is known from the ring itself: its positions, and the source offsets of its rows.
So a writer that was killed at any moment goes on without a gap and without a frame twice.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamapp.agents.frames import EMBEDDING, SCALARS, copy_vectors, embedded, picked, records_of
from streamapp.agents.pull import AttractorPull
from streamapp.core.clock import now_us
from streamapp.core.metrics import Metrics
from streamapp.core.slice import RecordLike
from streamapp.ring import RECORD_DTYPE, RingWriter, SourcePosition
from streamapp.ring.layout import Array
from streamapp.topics.enriched import decode_rows

#: A commit has no more rows, so that the vectors in hand stay few in a large ring, too.
COMMIT_ROWS_MAX = 4096


class Piece(NamedTuple):
    """Rows of one source that are new to the ring, and where their source stands with them in."""

    rows: pa.RecordBatch
    position: SourcePosition


class Feed:
    """Puts enriched records into a ring, in the order given.  Use it from one thread.

    Args:
        ring: just opened; it is ours from now on.
        metrics: of this process.

    Attributes:
        ledger: the source offsets that need no frame any more.
        pull: of this host's attractors.
    """

    def __init__(self, ring: RingWriter, metrics: Metrics) -> None:
        self.ring = ring
        self.ledger = ring.covered()
        self.pull = AttractorPull(ring.path, ring.spec.dim, metrics)
        self._metrics = metrics
        self._file = _file_at(ring.path)
        self._picked = picked(ring.spec)
        self._rows_max = min(ring.spec.commit_rows_max, COMMIT_ROWS_MAX)
        self._enriched = {(s.topic, s.partition): s.next_enriched_offset for s in ring.sources()}

    def positions(self) -> dict[int, int]:
        """Of each enriched partition that the ring knows, the offset where to go on reading."""
        found: dict[int, int] = {}
        for source in self.ring.sources():
            at = source.next_enriched_offset
            found[source.partition] = max(found.get(source.partition, 0), at)
        return found

    def start(self, positions: Sequence[SourcePosition]) -> None:
        """Say that of these sources nothing below their position is wanted."""
        self._write_positions(positions)
        for topic, partition, source, enriched in positions:
            self.ledger.of(topic, partition).add(0, source)
            self._enriched[topic, partition] = enriched

    def put(self, records: Sequence[RecordLike]) -> None:
        """Write the rows of these enriched records that are new, and how far their sources are.

        Raises:
            Halt: a record is not ours, or the ring is beyond it.
        """
        group: list[Piece] = []
        count = 0
        for record in records:
            for piece in self._pieces(record):
                if count + piece.rows.num_rows > self._rows_max:
                    self._commit(group, count)
                    group, count = [], 0
                group.append(piece)
                count += piece.rows.num_rows
        if group:
            self._commit(group, count)

    def write(self, rows: pa.RecordBatch, position: SourcePosition) -> None:
        """Write rows of one source, which the ledger did not have, and how far it is with them."""
        limit = self._rows_max
        last = (max(rows.num_rows, 1) - 1) // limit * limit
        for at in range(0, last, limit):
            part = rows.slice(at, limit)
            end = part.column("source_offset")[-1].as_py() + 1
            so_far = position._replace(next_source_offset=min(end, position.next_source_offset))
            self._commit([Piece(part, so_far)], limit)
        self._commit([Piece(rows.slice(last), position)], rows.num_rows - last)

    def beat(self) -> bool:
        """Say that the writer lives and look for attractors; False when the file is not there.

        Call it every second or so.
        """
        self.ring.heartbeat()
        self.pull.look()
        return self._file is not None and self._file == _file_at(self.ring.path)

    def close(self) -> None:
        """Give the ring up."""
        self.pull.close()
        self.ring.close()

    def count(self, records: Array) -> None:
        """Count rows that were committed; they may be none."""
        if len(records):
            self._metrics.frames.inc(len(records))
            age_us = now_us() - int(records["ingest_us"][-1])
            self._metrics.event_age_seconds.labels("mirrored").observe(max(age_us, 0) / 1e6)

    def _pieces(self, record: RecordLike) -> Iterator[Piece]:
        """The record's new rows, cut where a commit would be too large."""
        cover, rows = decode_rows(record, self._picked)
        source = cover.topic, cover.partition
        done = self.ledger.of(*source)
        enriched = self._enriched.get(source, record.offset)
        if not len(done):
            done.add(0, cover.first)  # this ring's history of the source starts here
        elif record.offset > enriched and cover.first > (end := done.prefix_end(0)):
            # The log dropped enriched records before we read them: that gap is never filled.
            self._metrics.lost.inc(cover.first - end)
            done.add(end, cover.first)
        if rows.num_rows and cover.first < done.end:
            fresh = ~done.mask(rows.column("source_offset").to_numpy())
            rows = rows.filter(pa.array(fresh))
        for at in range(self._rows_max, rows.num_rows, self._rows_max):
            part = rows.slice(at - self._rows_max, self._rows_max)
            done.add(cover.first, part.column("source_offset")[-1].as_py() + 1)
            yield Piece(part, SourcePosition(*source, done.prefix_end(0), enriched))
        done.add(cover.first, cover.next)
        # After a seek back, records come again that the ring has; its positions never go back.
        enriched = self._enriched[source] = max(record.offset + 1, enriched)
        last = rows.slice((max(rows.num_rows, 1) - 1) // self._rows_max * self._rows_max)
        yield Piece(last, SourcePosition(*source, done.prefix_end(0), enriched))

    def _commit(self, group: Sequence[Piece], count: int) -> None:
        """One commit of ``count`` rows; vectors go from Arrow's buffers straight into the ring."""
        positions = list({piece.position[:2]: piece.position for piece in group}.values())
        if not count:
            self._write_positions(positions)
            return
        spec = self.ring.spec
        pieces = [piece for piece in group if piece.rows.num_rows]
        known = np.concatenate([embedded(piece.rows, spec.dim) for piece in pieces])
        records = self._records(pieces, known)
        with self.ring.reserve(count) as place:
            for name, column in place.columns.items():
                _copy(pieces, name, column)
            self.pull.into(records, place.semantic, known)
            place.commit(records, positions=positions)
        self.count(records)

    def _records(self, pieces: Sequence[Piece], known: Array) -> Array:
        """Their records, made at once for all neighbours of one source and one schema."""
        made: list[Array] = []
        run: list[pa.RecordBatch] = []
        at = 0
        for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
            run.append(piece.rows.select([n for n in piece.rows.schema.names if n in SCALARS]))
            if following is None or not _alike(piece, following):
                rows = pa.concat_batches(run) if len(run) > 1 else run[0]
                index = self.ring.source_index(*piece.position[:2])
                end = at + rows.num_rows
                semantic = self.ring.spec.columns[0]
                made.append(records_of(rows, index, semantic, known[at:end]))
                run, at = [], end
        return np.concatenate(made) if len(made) > 1 else made[0]

    def _write_positions(self, positions: Sequence[SourcePosition]) -> None:
        none = np.empty((0, self.ring.spec.dim), self.ring.spec.dtype)
        extra = {c.name: np.empty((0, c.dim), c.dtype) for c in self.ring.spec.extra}
        self.ring.write(np.empty(0, RECORD_DTYPE), none, extra=extra, positions=positions)


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is at the path; None when there is none, or it is out of our sight."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _alike(one: Piece, other: Piece) -> bool:
    """May their rows be joined?"""
    return one.position[:2] == other.position[:2] and one.rows.schema == other.rows.schema


def _copy(pieces: Sequence[Piece], name: str, out: Array) -> None:
    """The vectors of all pieces into one column; what has none is 0 in ``semantic``, else NaN."""
    semantic = name == "semantic"
    at = 0
    for piece in pieces:
        end = at + piece.rows.num_rows
        column = EMBEDDING if semantic else name
        copy_vectors(piece.rows, column, out[at:end], 0.0 if semantic else np.nan)
        at = end
