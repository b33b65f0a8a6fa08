"""Repeats of a partition's last events, dropped before the stages.

A producer that got no answer sends again with the same id.  The store keeps the repeat out of its
table anyway, but it would already have moved its conversation's kinetics and become a frame.  So
each partition remembers its last events; only those that went through count, so that a repaired
dead letter may come again.

What went through is in the rows of the enriched records, so nothing is published for it but, in a
snapshot, the whole window as one entry.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

import pyarrow as pa

from streamapp.core.batch import Batch
from streamapp.core.state import StateEntry

STAGE = "repeats"
KIND = "window"
#: Before there was a window each event was an entry of this kind, its identity in hex the key.
KIND_BEFORE = "id"
IDENTITY_BYTES = 8


class Repeats:
    """The identities of the last ``cap`` events of one partition, oldest first."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._order: deque[bytes] = deque()
        self._known: set[bytes] = set()

    def without(self, batch: Batch) -> tuple[Batch, list[bytes]]:
        """The batch without its repeats, and the identities of the rows that are left."""
        found = identities(batch.rows)
        if len(set(found)) == len(found) and self._known.isdisjoint(found):
            return batch, found
        window = self.copy()  # as it would be after each row, however batches are cut
        keep = [window.add(identity) for identity in found]
        rows = batch.rows.filter(pa.array(keep))
        kept = [identity for identity, is_kept in zip(found, keep, strict=True) if is_kept]
        return Batch(rows, batch.range, batch.rejects), kept

    def refused(self, events: Batch, made: Batch) -> list[int]:
        """Row numbers of events that :meth:`without` took for repeats of ones that then failed.

        Args:
            events: with their repeats.
            made: what went through of those without.
        """
        through = set(identities(made.rows)) | self._known
        seen: set[bytes] = set()
        late = []
        for row, identity in enumerate(identities(events.rows)):
            if identity in seen:
                late.append(row)
            elif identity not in through:
                seen.add(identity)
        return late

    def copy(self) -> "Repeats":
        """The same window, to be changed on its own."""
        window = Repeats(self._cap)
        window.remember(self._order)
        return window

    def replace(self, window: "Repeats") -> None:
        """Become another window, which is given up for it."""
        self._order, self._known = window._order, window._known  # noqa: SLF001  # our own kind

    def remember(self, found: Collection[bytes]) -> None:
        """Note rows that went through, in offset order."""
        if len(set(found)) < len(found) or not self._known.isdisjoint(found):
            for identity in found:
                self.add(identity)
            return
        self._order.extend(found)
        self._known.update(found)
        excess = len(self._order) - self._cap
        self._known.difference_update([self._order.popleft() for _ in range(excess)])

    def add(self, identity: bytes) -> bool:
        """Note one; False when it is there."""
        if identity in self._known:
            return False
        self._order.append(identity)
        self._known.add(identity)
        if len(self._order) > self._cap:
            self._known.discard(self._order.popleft())
        return True

    def entry(self, source_offset: int) -> StateEntry:
        """The window after ``source_offset``, for a snapshot."""
        return StateEntry(STAGE, KIND, "", source_offset, b"".join(self._order))

    def restore(self, entries: Iterable[StateEntry]) -> None:
        """Replace the window by a snapshot's; entries of other stages are left alone."""
        self._order.clear()
        self._known.clear()
        for entry in entries:
            if entry.stage == STAGE and entry.kind == KIND:
                window: bytes = entry.value
                ends = range(IDENTITY_BYTES, len(window) + 1, IDENTITY_BYTES)
                self.remember([window[end - IDENTITY_BYTES : end] for end in ends])
            elif entry.stage == STAGE and entry.kind == KIND_BEFORE:
                self.remember([bytes.fromhex(entry.key)])


def identities(rows: pa.RecordBatch) -> list[bytes]:
    """What makes each row the same event as another: its source and id, hashed."""
    pairs = zip(rows.column("source").to_pylist(), rows.column("id").to_pylist(), strict=True)
    return [
        blake2b(f"{source}\0{id_}".encode(), digest_size=IDENTITY_BYTES).digest()
        for source, id_ in pairs
    ]


def of_the_stages(entries: Sequence[StateEntry]) -> list[StateEntry]:
    """Entries without ours."""
    return [entry for entry in entries if entry.stage != STAGE]
