"""Does a reader that is stopped hold up the writer?  The same writes without it and with it, in turns."""

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ring.measured import main, program, ready, say
from ring.peers import OursReader, OursWriter
from ring.rows import Shape, batch_of

_STOPPED_S_MAX = 10.0


def measure(task: Any) -> dict[str, list[float]]:
    """p50 of one write, ns, by round: with no reader, with one that is stopped."""
    shape, place = Shape(*task["shape"]), f"bench-ring-{time.monotonic_ns()}"
    records, vectors = batch_of(shape)
    found: dict[str, list[float]] = {"nobody": [], "stopped": []}
    with contextlib.closing(OursWriter(place, shape)) as writer:
        for number in range(task["rounds"] + 1):
            alone = _p50_ns(writer.write, records, vectors, task["writes"])
            with _stopped_reader(place, shape):
                beside = _p50_ns(writer.write, records, vectors, task["writes"])
            if number:
                found["nobody"].append(alone)
                found["stopped"].append(beside)
    return found


def _p50_ns(write: Any, records: Any, vectors: Any, count: int) -> float:
    clock, spent = time.perf_counter_ns, []
    for _ in range(count):
        started = clock()
        write(records, vectors)
        spent.append(clock() - started)
    return statistics.median(spent)


@contextlib.contextmanager
def _stopped_reader(place: str, shape: Shape) -> Iterator[None]:
    """A reader that has read and is then stopped, as by ctrl-Z or a debugger."""
    with program("stopped", {"place": place, "shape": shape}) as reader:
        ready(reader, "the reader")
        os.kill(reader.pid, signal.SIGSTOP)
        end_s = time.monotonic() + _STOPPED_S_MAX
        while Path(f"/proc/{reader.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            if time.monotonic() > end_s:
                raise TimeoutError("the reader does not stop")
        yield


def follow(task: Any) -> None:
    reader = OursReader(task["place"], Shape(*task["shape"]))
    reader.next(0.01)
    say("ready")
    while True:
        reader.next(1.0)


if __name__ == "__main__":
    main(lambda task: measure(task) if "rounds" in task else follow(task))
