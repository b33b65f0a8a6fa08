"""When what a fetch returned becomes a Slice: at once, or with what comes a moment later.

A partition that nothing is in work for gets its records at once: latency counts.  While the agent
is busy with an earlier Slice, a small one would only wait in its queue, so it may grow here,
until it is full, the agent is idle, or ``batch_wait_ms_max`` has passed.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from streamapp.core.slice import RecordLike

Partition = TypeVar("Partition", bound=Hashable)


class Fetched(NamedTuple):
    """Records of one partition, read at ``position``; the log goes on at ``next``.

    ``next`` is after the last record and after what the log skips behind it.  ``size_bytes`` counts
    keys and values.
    """

    position: int
    records: Sequence[RecordLike]
    next: int
    size_bytes: int


@dataclass(slots=True)
class _Growing:
    fetched: Fetched
    since_s: float


@dataclass
class Gathering(Generic[Partition]):
    """Records of some partitions that are not delivered yet.

    Args:
        events_max: records of a full Slice.
        bytes_max: bytes of a full Slice.
        wait_s_max: how long records wait at most.
        busy: whether earlier Slices of a partition are in work.
        may_go: false for a partition that is paused: its records stay here.
    """

    events_max: int
    bytes_max: int
    wait_s_max: float
    busy: Callable[[Partition], bool]
    may_go: Callable[[Partition], bool]
    _growing: dict[Partition, _Growing] = field(default_factory=dict)

    def __contains__(self, partition: Partition) -> bool:
        return partition in self._growing

    def room(self, partition: Partition) -> tuple[int, int]:
        """Records and bytes that the partition's Slice has room for."""
        growing = self._growing.get(partition)
        if growing is None:
            return self.events_max, self.bytes_max
        fetched = growing.fetched
        return self.events_max - len(fetched.records), self.bytes_max - fetched.size_bytes

    def add(self, partition: Partition, fetched: Fetched, now_s: float) -> None:
        """Take in what a fetch returned; it :meth:`continues` what is here."""
        growing = self._growing.get(partition)
        if growing is None:
            self._growing[partition] = _Growing(fetched, now_s)
            return
        before = growing.fetched
        records: Any = before.records  # of one log all are lists, or all are Packed
        growing.fetched = Fetched(
            before.position,
            records + fetched.records,
            fetched.next,
            before.size_bytes + fetched.size_bytes,
        )

    def ready(self, now_s: float) -> dict[Partition, Fetched]:
        """Take out what need not wait any longer."""
        due = [p for p, growing in self._growing.items() if self._is_due(p, growing, now_s)]
        return {partition: self._growing.pop(partition).fetched for partition in due}

    def wait_s(self, now_s: float) -> float | None:
        """Until the first is due at the latest; None when nothing is here that may go."""
        since = [growing.since_s for p, growing in self._growing.items() if self.may_go(p)]
        return max(min(since) + self.wait_s_max - now_s, 0.0) if since else None

    def drop(self, partition: Partition) -> None:
        """Forget a partition's records: they will be read again."""
        self._growing.pop(partition, None)

    def continues(self, partition: Partition, position: int) -> bool:
        """Whether records read at ``position`` follow on what is here, if anything is."""
        growing = self._growing.get(partition)
        return growing is None or growing.fetched.next == position

    def all(self) -> dict[Partition, Fetched]:
        """What is here of each partition."""
        return {partition: growing.fetched for partition, growing in self._growing.items()}

    def _is_due(self, partition: Partition, growing: _Growing, now_s: float) -> bool:
        fetched = growing.fetched
        return self.may_go(partition) and (
            len(fetched.records) >= self.events_max
            or fetched.size_bytes >= self.bytes_max
            or not self.busy(partition)
            or now_s - growing.since_s >= self.wait_s_max
        )
