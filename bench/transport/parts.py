"""What each part of the worker's path costs an event, in this process and without a broker."""

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from transport.meter import EVENT_BYTES_MAX
from transport.published import Mark
from transport.records import events

from streamapp import compose
from streamapp.agents.publish import Standpoint, enriched_records
from streamapp.core.config import Settings
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import ByOffset, Slice
from streamapp.topics.wire import decode_slice
from streamapp.transport.kafka.arrived import Arrived
from streamapp.workflow import PartitionState, Plan, Workflow
from streamapp.workflow.repeats import Repeats

T = TypeVar("T")
ROUNDS = 12
RECORD_BYTES_MAX = 16 << 20


def parts(events_per_slice: int) -> dict[str, float]:
    """CPU microseconds per event, by part; the median of some Slices after a first one."""
    settings = Settings()
    plan = Plan(
        Workflow(path="bench", stages=("mark",), options={}),
        compose.registry(settings),
        {"mark": Mark},
    )
    plan.open()
    path = _Path(plan, settings.conversations_max)
    figures: dict[str, list[float]] = {}
    for slice_ in _slices(events_per_slice):
        for name, cpu_us in path.walk(slice_).items():
            figures.setdefault(name, []).append(cpu_us)
    return {name: statistics.median(found[1:]) for name, found in figures.items()}


class _Path:
    """One partition's way from a Slice to the enriched records."""

    def __init__(self, plan: Plan, conversations_max: int) -> None:
        self._plan = plan
        self._state = PartitionState(conversations_max)
        self._repeats = Repeats(conversations_max)

    def walk(self, slice_: Slice) -> dict[str, float]:
        """CPU microseconds per event, by part."""
        timer, plan, repeats = _Timer(len(slice_)), self._plan, self._repeats
        raw = ByOffset(slice_.records)
        decoded = timer("decode", lambda: decode_slice(slice_, event_bytes_max=EVENT_BYTES_MAX))
        fresh, identities = timer("repeats", lambda: repeats.without(decoded))
        batch, states = timer("no-op stage", lambda: plan.run(fresh, self._state, raw))
        timer("repeats", lambda: repeats.remember(identities))
        standpoint = Standpoint(None, plan.provenance())
        timer(
            "encode",
            lambda: enriched_records(batch, states, standpoint, raw, RECORD_BYTES_MAX),
        )
        return timer.cpu_us


class _Timer:
    """Adds up what the calls of one Slice take."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.cpu_us: dict[str, float] = {}

    def __call__(self, name: str, call: Callable[[], T]) -> T:
        started_s = time.process_time()
        answer = call()
        spent_us = (time.process_time() - started_s) / self._count * 1e6
        self.cpu_us[name] = self.cpu_us.get(name, 0.0) + spent_us
        return answer


def _slices(size: int) -> list[Slice]:
    made = list(events(size * ROUNDS))
    return [_fetched(first, made[first : first + size]) for first in range(0, len(made), size)]


def _fetched(first: int, records: list[tuple[bytes, bytes]]) -> Slice:
    """A Slice as a fetch of one record batch brings it."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for n, (key, value) in enumerate(records):
        builder.append(n, 1_760_000_000_000 + first + n, key, value, [])
    batch = bytearray(builder.build())
    batch[:8] = first.to_bytes(8, "big")  # its base offset, which no checksum covers
    fetched = Arrived(batch, first, check_crcs=True).take(len(records), 1 << 30)
    return Slice(OffsetRange("raw", 0, first, fetched.next), fetched.records)
