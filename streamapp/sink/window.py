"""The dedup window: which (source, id) were stored lately.

It holds the last ``events_max`` stored ids whose ingest time is at most ``span_s`` older than the
newest one stored.  Both limits are taken from the rows and never from a wall clock, so the window
that a restart reads back from the table says the same as the one that was in memory.
"""

from collections.abc import Iterable
from hashlib import blake2b


def key_of(source: str, id_: str) -> bytes:
    """Sixteen bytes that stand for (source, id), however long those are."""
    return blake2b(f"{len(source)} {source}{id_}".encode(), digest_size=16).digest()


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
        for key, at_us in entries:
            self._seen.pop(key, None)  # a dict keeps insertion order: move it to the end
            self._seen[key] = at_us
            self._newest_us = max(self._newest_us, at_us)
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

    __slots__ = ("_newest_us", "_window", "added")

    def __init__(self, window: DedupWindow) -> None:
        self._window = window
        self._newest_us = window._newest_us  # noqa: SLF001  # one class in two halves
        self.added: dict[bytes, int] = {}

    def take(self, source: str, id_: str, at_us: int) -> bool:
        """True, and remembered, when (source, id) is not in the window; False for a duplicate."""
        window = self._window
        if not window.enabled:
            return True
        key = key_of(source, id_)
        newest_us = max(self._newest_us, at_us)
        then_us = self.added.get(key, window._seen.get(key))  # noqa: SLF001
        if then_us is not None and then_us >= newest_us - window._span_us:  # noqa: SLF001
            return False
        self._newest_us = newest_us
        self.added.pop(key, None)
        self.added[key] = at_us
        return True
