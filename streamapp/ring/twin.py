"""The ring's protocol in NumPy: the oracle of the C engine, step by step the same as _protocol.c.

Right where stores become visible in program order (x86); on other CPUs use the C engine.  It cannot
wake readers: they see its commits within a slice of their wait (0.1 s).  Writing is by one thread.
"""

from time import sleep

import numpy as np

from streamapp.core import clock
from streamapp.ring.layout import SOURCES_MAX, Array, State

_POLL_S = 0.000_5


class Twin:
    """:class:`streamapp.ring.engine.Operations` on four views of a mapping."""

    def __init__(self, header: Array, sources: Array, records: Array, semantic: Array) -> None:
        self._header = header
        self._sources = sources
        self._records = records
        self._stamps = records["stamp"]
        self._semantic = semantic
        self._capacity = len(records)

    def _word(self, name: str) -> int:
        return int(self._header[name])

    def _slots(self, first: int, n: int) -> tuple[Array, Array]:
        seqs = np.arange(first, first + n, dtype=np.uint64)
        return seqs, seqs & np.uint64(self._capacity - 1)

    def _oldest(self, claim: int) -> int:
        return max(claim - self._capacity, self._word("base"), 0)

    def write(self, records: Array, rows: Array, positions: Array, /) -> int:
        if not self._semantic.flags.writeable:
            raise PermissionError("this mapping of the ring is read-only")
        n, limit = len(records), max(1, self._capacity // 2)
        if n > limit or rows.shape != (n, self._semantic.shape[1]):
            raise ValueError("a commit is at most half the capacity, with one row for each record")
        if len(positions) and positions[:, 0].max() >= SOURCES_MAX:
            raise ValueError("a position names a source beyond the sources page")
        header, first = self._header, self._word("head")
        if n:
            self._store_rows(first, records, rows)
        for source, next_source, next_enriched in positions:
            self._sources["next_source_offset"][source] = next_source
            self._sources["next_enriched_offset"][source] = next_enriched
        header["heartbeat_mono_ns"] = int(clock.monotonic_s() * 1e9)
        if n:
            header["frames"] = first + n - self._word("base") - self._word("void_frames")
            header["last_commit_unix_us"] = clock.now_us()
            header["head"] = first + n
            self._wake()
        return first

    def _store_rows(self, first: int, records: Array, rows: Array) -> None:
        seqs, slots = self._slots(first, len(records))
        writing = 2 * seqs + 1
        self._header["claim"] = first + len(records)
        self._stamps[slots] = writing
        whole = records.copy()
        whole["stamp"] = writing  # the record's copy leaves the stamp as it is
        whole["frame_id"] = seqs
        whole["epoch"] = self._word("epoch") & 0xFFFFFFFF
        self._records[slots] = whole
        self._semantic[slots] = rows
        self._stamps[slots] = writing + 1

    def _wake(self) -> None:
        self._header["wake"] = (self._word("wake") + 1) & 0xFFFFFFFF

    def read(self, want: int, records: Array, rows: Array, /) -> tuple[int, int, int, int]:
        head = self._word("head")
        low = max(want, min(self._oldest(self._word("claim")), head))
        n = min(len(records), max(0, head - low), self._capacity)
        seqs, slots = self._slots(low, n)
        stamps = self._stamps[slots]
        records[:n] = self._records[slots]
        rows[:n] = self._semantic[slots]
        records["stamp"][:n] = stamps  # those of before the copy
        skip = min(max(0, self._oldest(self._word("claim")) - low), n)
        good = np.flatnonzero(stamps == 2 * seqs + 2)
        good = good[good >= skip]
        kept = len(good)
        records[:kept] = records[good]
        rows[:kept] = rows[good]
        return kept, low + n, low - want + skip, n - skip - kept

    def wait(self, want: int, spin_ns: int, timeout_ns: int, /) -> int:
        del spin_ns  # polling is all the twin does
        end_s = clock.monotonic_s() + timeout_ns / 1e9
        while self._word("head") <= want and self._word("state") != State.RETIRED:
            left_s = end_s - clock.monotonic_s()
            if left_s <= 0:
                break
            sleep(min(left_s, _POLL_S))
        return self._word("head")

    def salvage(self) -> int:
        header, head = self._header, self._word("head")
        header["state"] = State.RECOVERING
        header["epoch"] = self._word("epoch") + 1
        seqs, slots = self._slots(head, self._word("claim") - head)
        bad = self._stamps[slots] != 2 * seqs + 2
        self._stamps[slots[bad]] = 2 * seqs[bad] + 1
        return int(bad.sum())

    def go_live(self, voids: int, /) -> None:
        header, claim = self._header, self._word("claim")
        header["recoveries"] = self._word("recoveries") + (claim != self._word("head"))
        header["void_frames"] = self._word("void_frames") + voids
        header["frames"] = claim - self._word("base") - self._word("void_frames")
        header["heartbeat_mono_ns"] = int(clock.monotonic_s() * 1e9)
        header["head"] = claim
        header["state"] = State.LIVE
        self._wake()

    def retire(self) -> None:
        self._header["state"] = State.RETIRED
        self._wake()
