"""Contenders in one process, one after the other in turns: what a write and a read cost by themselves."""

import statistics
import time
from typing import Any

from ring.measured import main
from ring.peers import PEERS, connect
from ring.rows import Shape, batch_of

#: Rows that are written before they are read, in batches or one by one: every queue holds them.
BURST_ROWS = 2048
_SINGLES = 512
_WAIT_S = 1.0


class Subject:
    """One contender with its writer and its reader."""

    def __init__(self, name: str, shape: Shape, *, number: int) -> None:
        opens_writer, opens_reader = PEERS[name]
        place = f"bench-ring-{time.monotonic_ns()}-{number}"
        self._shape, self._rows = shape, batch_of(shape)
        self.writer = opens_writer(place, shape, wake=False)
        self.reader = opens_reader(place, shape)
        self._calls = _SINGLES if shape.batch == 1 else BURST_ROWS // shape.batch
        connect(lambda: self.writer.write(*self._rows), self.reader)

    def burst(self) -> tuple[float, float]:
        """ns a row of writing, and of reading all of it."""
        write, (records, vectors) = self.writer.write, self._rows
        started = time.perf_counter_ns()
        for _ in range(self._calls):
            write(records, vectors)
        written = time.perf_counter_ns()
        read, rows, missing = self.reader.read, self.reader.rows, self._calls * self._shape.batch
        while missing > 0:
            found = read()
            missing -= rows(found) or rows(self.reader.next(_WAIT_S))
        rows, ended = self._calls * self._shape.batch, time.perf_counter_ns()
        return (written - started) / rows, (ended - written) / rows

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


def measure(task: Any) -> dict[str, dict[str, float]]:
    """Of each contender, ns a row written and read, and their sum's ratio to ours; medians of rounds."""
    shape = Shape(*task["shape"])
    subjects = {
        name: Subject(name, shape, number=number) for number, name in enumerate(task["names"])
    }
    for subject in subjects.values():
        subject.burst()
    rounds = [
        {name: subject.burst() for name, subject in subjects.items()} for _ in range(task["rounds"])
    ]
    for subject in subjects.values():
        subject.close()
    return {
        name: {
            "write": statistics.median(each[name][0] for each in rounds),
            "read": statistics.median(each[name][1] for each in rounds),
            "to ours": statistics.median(sum(each[name]) / sum(each["ours"]) for each in rounds),
        }
        for name in subjects
    }


if __name__ == "__main__":
    main(measure)
