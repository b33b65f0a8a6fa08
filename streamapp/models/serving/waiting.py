"""Requests that wait for a call, and when a batch of them is ready to go.

Who comes to an idle model waits for nobody.  While a call runs, requests gather; when it ends,
those that it answered often come again at once, so the next batch waits for as many rows as the
last one had, but never longer than ``wait_ms_max``.  One caller after the other therefore never
waits, and many at once are soon in step.
"""

from collections import deque
from collections.abc import Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf

from streamapp.models.serving.policy import Policy
from streamapp.models.session import Array

#: A part has at least so many rows: with fewer, reading weights costs more than multiplying.
PART_ROWS_MIN = 32


@dataclass(frozen=True, slots=True)
class Request:
    """One caller's inputs, and where the outputs go."""

    feeds: Mapping[str, Array]
    outputs: tuple[str, ...] | None
    rows: int
    key: Hashable
    at_s: float
    answer: "Future[dict[str, Array]]" = field(default_factory=Future)


@dataclass(slots=True)
class _Bucket:
    """Requests that may share a call, in order of arrival."""

    requests: deque[Request] = field(default_factory=deque)
    rows: int = 0

    @property
    def since_s(self) -> float:
        return self.requests[0].at_s


class Waiting:
    """What waits, in order of arrival, apart by what may share a call.  Not locked by itself."""

    def __init__(self, policy: Policy) -> None:
        self.rows = 0
        self._policy = policy
        self._buckets: dict[Hashable, _Bucket] = {}
        self._ended_s = -inf
        self._ended: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return sum(len(bucket.requests) for bucket in self._buckets.values())

    def put(self, request: Request) -> None:
        bucket = self._buckets.get(request.key)
        if bucket is None:
            bucket = self._buckets[request.key] = _Bucket()
        bucket.requests.append(request)
        bucket.rows += request.rows
        self.rows += request.rows

    def oldest_s(self) -> float:
        """When the request that has waited longest came; infinite when none waits."""
        return min((bucket.since_s for bucket in self._buckets.values()), default=inf)

    def ended(self, key: Hashable, rows: int, now_s: float) -> None:
        """A call of so many rows ended: those it answered may come again at once."""
        if now_s - self._ended_s > self._policy.wait_ms_max / 1000:
            self._ended.clear()
        self._ended_s = now_s
        self._ended[key] = rows

    def take(self, now_s: float, idle: int = 1) -> list[Request]:
        """The batch that is ready and has waited longest; empty when none is.

        ``idle`` replicas, who asks included, divide its rows.
        """
        ready = [key for key in self._buckets if self._ready_s(key) <= now_s]
        if not ready:
            return []
        key = min(ready, key=lambda key: self._buckets[key].since_s)
        rows = self._buckets[key].rows
        part = max(PART_ROWS_MIN, -(-rows // idle))
        batch = self._pop(key, min(part, self._policy.batch_rows_max))
        if idle > 1 and (rest := self._buckets.get(key)) is not None:
            self._ended[key] = min(self._ended.get(key, 0), rest.rows)  # it waits for no more
        return batch

    def ready_s(self) -> float:
        """When the first batch will be ready though nobody comes; infinite when none waits."""
        return min((self._ready_s(key) for key in self._buckets), default=inf)

    def late(self, now_s: float) -> list[Request]:
        """Take out what waited too long."""
        before_s = now_s - self._policy.queue_s_max
        found = []
        for bucket in list(self._buckets.values()):
            while bucket.requests and bucket.since_s < before_s:
                found.append(self._popped(bucket))
        return found

    def _ready_s(self, key: Hashable) -> float:
        bucket = self._buckets[key]
        wait_s = self._policy.wait_ms_max / 1000
        first_s = bucket.since_s
        if first_s - self._ended_s > wait_s:  # nobody was answered just now
            return first_s
        wanted = min(self._ended.get(key, 0), self._policy.batch_rows_max)
        return first_s if bucket.rows >= wanted else first_s + wait_s

    def _pop(self, key: Hashable, rows_max: int) -> list[Request]:
        bucket = self._buckets[key]
        batch = [self._popped(bucket)]
        rows = batch[0].rows
        while bucket.requests and rows + bucket.requests[0].rows <= rows_max:
            rows += bucket.requests[0].rows
            batch.append(self._popped(bucket))
        return batch

    def _popped(self, bucket: _Bucket) -> Request:
        request = bucket.requests.popleft()
        bucket.rows -= request.rows
        self.rows -= request.rows
        if not bucket.requests:
            del self._buckets[request.key]
        return request
