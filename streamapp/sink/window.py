"""The dedup window: which (source, id) were stored lately.

It holds the last ``events_max`` stored ids whose ingest time is at most ``span_s`` older than the
newest one stored.  Both limits are taken from the rows and never from a wall clock, so the window
that a restart reads back from the table says the same as the one that was in memory.
"""

import os
from collections.abc import Iterable, Sequence

import pyarrow as pa

from streamapp.sink._keys import siphash

#: Of this process: keys are never stored, and nobody outside can choose ids whose keys collide.
_SECRET = os.urandom(16)


def keys_of(sources: pa.StringArray, ids: pa.StringArray) -> list[bytes]:
    """Sixteen bytes for each (source, id), however long those are; another process has others.

    Args:
        sources: n strings, none of them null.
        ids: as many.
    """
    _, source_offsets, source_bytes = sources.buffers()
    _, id_offsets, id_bytes = ids.buffers()
    if len(sources) == 0:
        return []
    return siphash(
        source_offsets,
        source_bytes or b"",
        sources.offset,
        id_offsets,
        id_bytes or b"",
        ids.offset,
        len(sources),
        _SECRET,
    )


class DedupWindow:
    """Ids in the order they were stored, with their ingest time.  About 150 bytes each.

    Args:
        span_s: how much older than the newest a remembered id may be; 0 turns the window off.
        events_max: how many ids are remembered; 0 turns the window off.
    """

    __slots__ = ("_events_max", "_newest_us", "_seen", "_span_us")

    def __init__(self, span_s: int, events_max: int) -> None:
        self._span_us = span_s * 1_000_000
        self._events_max = events_max
        self._seen: dict[bytes, int] = {}
        self._newest_us = 0

    @property
    def enabled(self) -> bool:
        """False when either limit is 0: then nothing is ever a duplicate."""
        return self._span_us > 0 and self._events_max > 0

    def draft(self) -> "Draft":
        """What a transaction would add; nothing here changes before ``apply``."""
        return Draft(self)

    def apply(self, entries: Iterable[tuple[bytes, int]]) -> None:
        """Remember (key, ingest time in Unix us) pairs, oldest first, and forget what fell out."""
        seen, newest_us = self._seen, self._newest_us
        for key, at_us in entries:
            seen.pop(key, None)  # a dict keeps insertion order: move it to the end
            seen[key] = at_us
            newest_us = max(newest_us, at_us)
        self._newest_us = newest_us
        self._forget()

    def adopt(self, draft: "Draft") -> None:
        """As ``apply`` of what the draft added, whose transaction has committed.

        The draft must be the last one made of this window.
        """
        if draft.is_all_new:
            self._seen.update(draft.added)
            self._newest_us = draft.newest_us
            self._forget()
        else:
            self.apply(draft.added.items())

    def _forget(self) -> None:
        horizon_us = self._newest_us - self._span_us
        for key in list(self._expired(horizon_us)):
            del self._seen[key]

    def _expired(self, horizon_us: int) -> Iterable[bytes]:
        excess = len(self._seen) - self._events_max
        for index, (key, at_us) in enumerate(self._seen.items()):
            if index >= excess and at_us >= horizon_us:
                return
            yield key

    def __len__(self) -> int:
        return len(self._seen)


class Draft:
    """A window as it will be when the running transaction has committed."""

    __slots__ = ("_window", "added", "is_all_new", "newest_us")

    def __init__(self, window: DedupWindow) -> None:
        self._window = window
        self.newest_us = window._newest_us  # noqa: SLF001  # one class in two halves
        self.added: dict[bytes, int] = {}
        #: Whether the window has none of what was added.
        self.is_all_new = True

    @property
    def enabled(self) -> bool:
        """As the window's."""
        return self._window.enabled

    def take_all(self, keys: Sequence[bytes], times_us: Sequence[int]) -> list[int]:
        """Remember events in their order; the indexes of those that are duplicates and are not."""
        if not (self.enabled and keys):
            return []
        seen = self._window._seen  # noqa: SLF001
        # Nearly always all are new, which is told of many at once faster than one by one.
        offered = dict(zip(keys, times_us, strict=True))
        if (
            len(offered) == len(keys)
            and seen.keys().isdisjoint(offered)
            and self.added.keys().isdisjoint(offered)
        ):
            self.added |= offered
            self.newest_us = max(self.newest_us, *times_us)
            return []
        events = enumerate(zip(keys, times_us, strict=True))
        return [index for index, (key, at_us) in events if not self._take(key, at_us)]

    def _take(self, key: bytes, at_us: int) -> bool:
        window = self._window
        newest_us = max(self.newest_us, at_us)
        then_us = self.added.get(key, window._seen.get(key))  # noqa: SLF001
        if then_us is not None and then_us >= newest_us - window._span_us:  # noqa: SLF001
            return False
        self.newest_us = newest_us
        self.is_all_new = self.is_all_new and key not in window._seen  # noqa: SLF001
        self.added.pop(key, None)
        self.added[key] = at_us
        return True
