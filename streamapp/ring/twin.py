"""The ring's protocol in NumPy: the oracle of the C engine, step by step the same as _protocol.c.

Right where stores become visible in program order (x86); on other CPUs use the C engine.  It cannot
wake readers: they see its commits within a slice of their wait (0.1 s).  Writing is by one thread.
"""

from collections.abc import Callable
from time import sleep
from typing import Any

import numpy as np

from streamapp.core import clock
from streamapp.ring.layout import SOURCES_MAX, Array, State

_POLL_S = 0.000_5


class Twin:
    """:class:`streamapp.ring.engine.Operations` on the views of a mapping."""

    def __init__(
        self, header: Array, sources: Array, records: Array, columns: tuple[Array, ...]
    ) -> None:
        self._header = header
        self._sources = sources
        self._records = records
        self._stamps = records["stamp"]
        self._columns = columns
        self._capacity = len(records)

    def _word(self, name: str) -> int:
        return int(self._header[name])

    def _slots(self, first: int, n: int) -> tuple[Array, Array]:
        seqs = np.arange(first, first + n, dtype=np.uint64)
        return seqs, seqs & np.uint64(self._capacity - 1)

    def _oldest(self, claim: int) -> int:
        return max(claim - self._capacity, self._word("base"), 0)

    # ---- what the extension checks too ----

    def _check_writable(self) -> None:
        if not self._records.flags.writeable:
            raise PermissionError("this mapping of the ring is read-only")

    def _check_reserved(self, *, wanted: bool) -> None:
        if (self._word("claim") != self._word("head")) != wanted:
            raise RuntimeError(
                "no rows are reserved" if wanted else "rows are reserved: commit or abandon them"
            )

    def _check_rows(self, n: int) -> None:
        if n > max(1, self._capacity // 2):
            raise ValueError("a commit is at most half the capacity")

    def _check_columns(self, n: int, columns: tuple[Array, ...]) -> None:
        if len(columns) != len(self._columns):
            raise ValueError(f"columns must be a tuple of {len(self._columns)} arrays")
        for index, (ours, theirs) in enumerate(zip(self._columns, columns, strict=True)):
            if theirs.nbytes != n * ours[:1].nbytes:
                raise ValueError(f"column {index} must have one row for each record")

    def _check_positions(self, positions: Array) -> None:
        if len(positions) and positions[:, 0].max() >= SOURCES_MAX:
            raise ValueError("a position names a source beyond the sources page")

    # ---- writer ----

    def write(self, records: Array, columns: tuple[Array, ...], positions: Array, /) -> int:
        self._check_writable()
        self._check_rows(len(records))
        if len(records):
            self._check_reserved(wanted=False)
        self._check_columns(len(records), columns)
        self._check_positions(positions)
        first, n = self._word("head"), len(records)
        if n:
            keep = np.ones(n, bool)
            slots = self._claim_rows(first, n)
            self._store_records(records, keep)
            for ours, theirs in zip(self._columns, columns, strict=True):
                ours[slots] = theirs
            self._finish_rows(first, keep)
        self._store_positions(positions)
        self._publish(first + n, 0)
        return first

    def writer(self, instead: Callable[..., int], /) -> Callable[..., int]:
        return instead  # what is fast is not the twin's business

    def reserve(self, n: int, /) -> int:
        self._check_writable()
        self._check_reserved(wanted=False)
        self._check_rows(n)
        if n < 1:
            raise ValueError("a reservation has at least one row")
        first = self._word("head")
        self._claim_rows(first, n)
        return first

    def commit(self, records: Array, keep: Array | None, positions: Array, /) -> int:
        self._check_writable()
        self._check_reserved(wanted=True)
        self._check_positions(positions)
        first = self._word("head")
        n = self._word("claim") - first
        if len(records) != n or (keep is not None and len(keep) != n):
            raise ValueError("a commit has one record, and one byte of keep, for each reserved row")
        kept = np.ones(n, bool) if keep is None else keep.view(np.uint8) != 0
        self._store_records(records, kept)
        self._finish_rows(first, kept)
        self._store_positions(positions)
        self._publish(first + n, n - int(kept.sum()))
        return first

    def abandon(self) -> int:
        self._check_writable()
        self._check_reserved(wanted=True)
        first, claim = self._word("head"), self._word("claim")
        self._publish(claim, claim - first)
        return first

    def _claim_rows(self, first: int, n: int) -> Array:
        seqs, slots = self._slots(first, n)
        self._header["claim"] = first + n
        self._stamps[slots] = 2 * seqs + 1
        return slots

    def _store_records(self, records: Array, keep: Array) -> None:
        seqs, slots = self._slots(self._word("head"), len(records))
        whole = records.copy()
        whole["stamp"] = 2 * seqs + 1  # the record's copy leaves the stamp as it is
        whole["frame_id"] = seqs
        whole["epoch"] = self._word("epoch") & 0xFFFFFFFF
        self._records[slots[keep]] = whole[keep]

    def _finish_rows(self, first: int, keep: Array) -> None:
        seqs, slots = self._slots(first, len(keep))
        self._stamps[slots[keep]] = 2 * seqs[keep] + 2

    def _store_positions(self, positions: Array) -> None:
        for source, next_source, next_enriched in positions:
            self._sources["next_source_offset"][source] = next_source
            self._sources["next_enriched_offset"][source] = next_enriched

    def _publish(self, end: int, voids: int) -> None:
        header = self._header
        header["heartbeat_mono_ns"] = int(clock.monotonic_s() * 1e9)
        if end == self._word("head"):
            return
        header["void_frames"] = self._word("void_frames") + voids
        header["frames"] = end - self._word("base") - self._word("void_frames")
        header["last_commit_unix_us"] = clock.now_us()
        header["head"] = end
        self._wake()

    def _wake(self) -> None:
        self._header["wake"] = (self._word("wake") + 1) & 0xFFFFFFFF

    # ---- reader ----

    def spare(self, kept: list[Any], n: int, /) -> bool:
        del kept, n  # as above
        return False

    def head(self) -> int:
        return self._word("head")

    def claim(self) -> int:
        return self._word("claim")

    def read(
        self, want: int, records: Array, columns: tuple[Array, ...], /
    ) -> tuple[int, int, int, int]:
        self._check_columns(len(records), columns)
        head = self._word("head")
        low = max(want, min(self._oldest(self._word("claim")), head))
        n = min(len(records), max(0, head - low), self._capacity)
        seqs, slots = self._slots(low, n)
        stamps = self._stamps[slots]
        records[:n] = self._records[slots]
        for ours, theirs in zip(self._columns, columns, strict=True):
            theirs[:n] = ours[slots]
        records["stamp"][:n] = stamps  # those of before the copy
        skip = min(max(0, self._oldest(self._word("claim")) - low), n)
        good = np.flatnonzero(stamps == 2 * seqs + 2)
        good = good[good >= skip]
        kept = len(good)
        for array in (records, *columns):
            array[:kept] = array[good]
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

    def seal(self) -> None:
        self._header.flags.writeable = False
