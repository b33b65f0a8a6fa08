"""From a write to the row in the hands of a reader that slept: one row at a steady rate.

This module is the reader's program; :func:`measure` is the writer's, which starts the reader.
"""

import resource
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from ring.copies import compiled
from ring.measured import main, program, ready, ready_while, result, say
from ring.peers import PEERS, connect
from ring.rows import Shape, batch_of, stamp

#: Sent before, not counted: everything is in memory and was used once.
WARM = 50
_SETTLE_S = 0.2


def measure(task: Any) -> dict[str, float]:
    """Microseconds, and the share of a core that the reader took."""
    shape, place = Shape(*task["shape"]), f"bench-ring-{time.monotonic_ns()}"
    records, vectors = batch_of(shape)
    told = {"read": task["name"], "place": place, "shape": shape, "count": task["count"]}
    opens = PEERS[task["name"]][0]

    def write() -> None:
        stamp(records, time.monotonic_ns())
        writer.write(records, vectors)

    with closing(opens(place, shape)) as writer, program("wake", told) as reader:
        ready(reader, "the reader")
        ready_while(reader, write, "the reader")
        time.sleep(_SETTLE_S)
        started = time.monotonic()
        for number in range(WARM + task["count"]):
            if (ahead_s := started + number / task["rate"] - time.monotonic()) > 0:
                time.sleep(ahead_s)
            write()
        found: dict[str, float] = result(reader, "the reader")
    return found


def follow(task: Any) -> dict[str, float]:
    """A reader: how old each row was when it came."""
    reader = PEERS[task["read"]][1](task["place"], Shape(*task["shape"]))
    say("ready")
    connect(lambda: None, reader)
    say("ready")
    ages: list[int] = []
    started_s = cpu_s = 0.0
    while len(ages) < WARM + task["count"]:
        found = reader.next(1.0)
        if not reader.rows(found):
            continue
        ages.append(time.monotonic_ns() - reader.sent_ns(found))
        if len(ages) == WARM:
            started_s, cpu_s = time.monotonic(), _cpu_s()
    spent = (_cpu_s() - cpu_s) / (time.monotonic() - started_s)
    return _summary(ages, spent)


def in_c(what: str, rate: int, count: int, *apart: str) -> dict[str, float]:
    """The same from process to process in C, of a row of the ring, or of a word alone."""
    with compiled("sleeper") as binary:
        command = [str(binary), what, str(WARM + count), str(rate), *apart]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return _summary([int(age) for age in said[:-1]], float(said[-1]))


def _summary(ages_ns: Sequence[int], cpu: float) -> dict[str, float]:
    cuts = statistics.quantiles(ages_ns[WARM:], n=100, method="inclusive")
    return {"p50_us": cuts[49] / 1000, "p99_us": cuts[98] / 1000, "cpu": cpu}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(lambda task: follow(task) if "read" in task else measure(task))
