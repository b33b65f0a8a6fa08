"""One writer as fast as it can, and readers in processes of their own that wait as theirs do.

This module is the reader's program; :func:`measure` is the writer's, which starts the readers.
"""

import contextlib
import time
from functools import partial
from typing import Any

from ring.measured import main, program, ready, ready_while, result, say
from ring.peers import PEERS, connect
from ring.rows import Shape, batch_of, stamp

#: A reader ends when nothing has come for so long.
_IDLE_S = 0.5
_SETTLE_S = 0.2
_WAIT_S = 0.05
_START_S = 30.0
#: Stands in the rows that count; those before only connect readers.
COUNTED = 1


def measure(task: Any) -> dict[str, Any]:
    """Rows a second of the writer and of each reader, and the share of rows that readers lost."""
    shape, name = Shape(*task["shape"]), f"bench-ring-{time.monotonic_ns()}"
    records, vectors = batch_of(shape)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(contextlib.closing(PEERS[task["name"]][0](name, shape)))
        told = {"read": task["name"], "place": name, "shape": shape}
        readers = [stack.enter_context(program("streams", told)) for _ in range(task["readers"])]
        for reader in readers:
            ready(reader, "a reader")
        for reader in readers:  # each has connected once when it says so again
            ready_while(reader, partial(writer.write, records, vectors), "a reader")
        time.sleep(_SETTLE_S)
        stamp(records, COUNTED)
        written, started = 0, time.perf_counter()
        while (spent_s := time.perf_counter() - started) < task["seconds"]:
            writer.write(records, vectors)
            written += shape.batch
        found = [result(reader, "a reader") for reader in readers]
    return {
        "writer": written / spent_s,
        "readers": [each["rows"] / each["seconds"] for each in found],
        "lost": 1 - sum(each["rows"] for each in found) / (len(found) * written),
    }


def follow(task: Any) -> dict[str, float]:
    """A reader: rows that came after those that it connected with, and from first to last."""
    shape = Shape(*task["shape"])
    reader = PEERS[task["read"]][1](task["place"], shape)
    say("ready")
    connect(lambda: None, reader)
    say("ready")
    rows, first_s, last_s = 0, 0.0, time.monotonic() + _START_S
    while time.monotonic() < last_s + _IDLE_S:
        found = reader.next(_WAIT_S)
        if reader.rows(found) and reader.sent_ns(found) == COUNTED:
            rows += reader.rows(found)
            last_s = time.monotonic()
            first_s = first_s or last_s
    return {"rows": rows, "seconds": last_s - first_s}


if __name__ == "__main__":
    main(lambda task: follow(task) if "read" in task else measure(task))
