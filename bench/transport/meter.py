"""What a contender measures of itself, and how it is told what to do.

A contender is a process of its own: ``python -m transport.MODULE NAME JSON``.  It reads from the
beginning, and ends with one line of JSON on stdout.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from streamapp.core.batch import Batch
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import RecordLike, Slice
from streamapp.topics.wire import decode_slice

EVENT_BYTES_MAX = 1 << 20


class Task(NamedTuple):
    """What to read, how much of it, and where to publish."""

    bootstrap: str
    topic: str
    partitions: int
    events: int
    out: str = ""
    batch_events_max: int = 4096
    decode: bool = True

    @property
    def batch_bytes_max(self) -> int:
        """Room for as many events as a batch may have."""
        return max(8 << 20, self.batch_events_max * 2048)


class Meter:
    """Counts events until there are enough, then prints what they took and ends the process.

    The clock starts when the first delivery is done, so that neither start-up nor its own events
    count; CPU is that of all threads of the process.
    """

    def __init__(self, events: int) -> None:
        self._events = events
        self._done = self._first = 0
        self._started_s = self._started_cpu_s = 0.0

    def add(self, count: int) -> None:
        self._done += count
        if not self._first:
            self._first = self._done
            self._started_s, self._started_cpu_s = time.perf_counter(), _cpu_s()
        elif self._done >= self._events:
            self.finish()

    def finish(self) -> None:
        """Say it and end, without a shutdown that nobody measures."""
        seconds, cpu_s = time.perf_counter() - self._started_s, _cpu_s() - self._started_cpu_s
        counted = self._done - self._first
        said = {"events": counted, "seconds": seconds, "cpu_s": cpu_s}
        os.write(1, f"{json.dumps(said)}\n".encode())
        os._exit(0)


def decode(topic: str, partition: int, records: list[RecordLike]) -> Batch:
    """The same work for all: known fields into Arrow columns, the other members kept as text."""
    range_ = OffsetRange(topic, partition, records[0].offset, records[-1].offset + 1)
    return decode_slice(Slice(range_, records), event_bytes_max=EVENT_BYTES_MAX)


def run(contenders: Mapping[str, Callable[[Task], Any]]) -> None:
    """Be the contender that the command line names."""
    name, task = sys.argv[1:3]
    contenders[name](Task(**json.loads(task)))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
