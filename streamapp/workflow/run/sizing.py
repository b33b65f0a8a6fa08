"""How much a stage is given: cores, memory and rows at once, by its input and by its last runs."""

import hashlib
from typing import NamedTuple

import msgspec

from streamapp.plugin.operation import Parallel, Scope
from streamapp.workflow.graph.spec import Resources
from streamapp.workflow.run.cache import Cache

#: Before anything was measured: what a process of Python with Arrow holds, and what rows become.
PROCESS_BYTES = 192 << 20
GROWTH = 3.0
#: A call is worth its overhead from here on, and loses little when it fails.
CALL_S = 1.0
CALL_ROWS_MIN = 64
CALL_BYTES_MAX = 64 << 20
#: Before anything was measured a call has so many bytes of input.
CALL_BYTES = 1 << 20
CALLS_MAX = 512
#: A process more takes this long to start; less work is not worth it.
START_S = 1.0
#: What the newest run counts beside those before.
WEIGHT = 0.5


class Measured(msgspec.Struct, frozen=True):
    """What a stage took in its last runs, newer ones counting more.

    Args:
        seconds_per_row: of one worker.
        cpu: cores that one worker kept busy.
        worker_bytes: the most that one process of its workers held.
    """

    seconds_per_row: float
    cpu: float
    worker_bytes: int
    runs: int = 1


class Size(NamedTuple):
    """What a stage is given.

    ``chunks`` are cuts of the rows; one that is None is all.  ``cpu`` and ``memory_bytes`` are what
    it is expected to take, ``memory_bytes_max`` is where it is stopped.
    """

    workers: int
    threads: int
    cuts: tuple[tuple[int, int] | None, ...]
    cpu: float
    memory_bytes: int
    memory_bytes_max: int


class Limits(NamedTuple):
    """Of a run: cores, and bytes of memory of all working processes."""

    cpus: float
    memory_bytes: int


def size(
    scope: Scope,
    parallel: Parallel,
    asked: Resources,
    limits: Limits,
    rows: int,
    input_bytes: int,
    measured: Measured | None,
) -> Size:
    """What a stage is given.

    Args:
        scope: of its operation.
        parallel: of its operation.
        asked: in the file.
        limits: of the run.
        rows: of its first input.
        input_bytes: of all inputs.
        measured: None when it has not run before.
    """
    cpus = max(1, int(min(asked.cpu or limits.cpus, limits.cpus)))
    most = min(asked.workers or cpus, cpus if asked.workers is None else asked.workers)
    per_worker = measured.worker_bytes if measured else PROCESS_BYTES
    memory_max = min((asked.memory_mb or 1 << 40) << 20, limits.memory_bytes)
    fits = max(1, memory_max // max(per_worker, 1))
    if scope != "row" or rows == 0:
        grown = per_worker if measured else per_worker + int(GROWTH * input_bytes)
        return Size(1, cpus, (None,), cpus, min(grown, memory_max), memory_max)
    call_rows = asked.chunk_rows or _call_rows(rows, input_bytes, most, measured)
    cuts = tuple((first, min(first + call_rows, rows)) for first in range(0, rows, call_rows))
    if parallel == "none":
        return Size(1, cpus, cuts, cpus, min(per_worker, memory_max), memory_max)
    workers = min(most, len(cuts), fits)
    if parallel == "processes" and measured and asked.workers is None:
        whole_s = measured.seconds_per_row * rows
        workers = max(1, min(workers, int(whole_s / START_S)))
    processes = workers if parallel == "processes" else 1
    threads = 1 if parallel == "processes" else max(1, cpus // workers)
    cpu = asked.cpu or max(1.0, workers * (measured.cpu if measured else 1.0))
    memory = min(processes * per_worker, memory_max)
    return Size(workers, threads, cuts, min(cpu, limits.cpus), memory, memory_max)


def _call_rows(rows: int, input_bytes: int, workers: int, measured: Measured | None) -> int:
    """Rows of a call: of about a second, enough for every worker, neither tiny nor huge."""
    row_bytes = max(1, input_bytes // rows)
    wanted = CALL_BYTES // row_bytes
    if measured and measured.seconds_per_row > 0:
        wanted = int(CALL_S / measured.seconds_per_row)
    wanted = min(wanted, CALL_BYTES_MAX // row_bytes, -(-rows // workers))
    return max(wanted, CALL_ROWS_MIN, -(-rows // CALLS_MAX))


def stage_name(workflow: str, stage: str, operation: str) -> str:
    """Under which a stage's key and measures are kept: readable, and a file's name."""
    digest = hashlib.blake2b(f"{workflow}\0{stage}\0{operation}".encode(), digest_size=6)
    return f"{stage}-{digest.hexdigest()}"


def remember(
    cache: Cache,
    name: str,
    *,
    rows: int,
    seconds: float,
    cpu_s: float,
    workers: int,
    processes: int,
    bytes_: int,
) -> None:
    """Keep what a stage took, mixed with what is known; its workers may share a process."""
    if rows == 0 or seconds <= 0 or processes == 0:
        return
    now = Measured(seconds * workers / rows, cpu_s / (seconds * workers), bytes_ // processes)
    before = cache.load("measured", name, Measured)
    if before:
        now = Measured(
            _mix(before.seconds_per_row, now.seconds_per_row),
            _mix(before.cpu, now.cpu),
            max(int(_mix(before.worker_bytes, now.worker_bytes)), now.worker_bytes),
            before.runs + 1,
        )
    cache.save("measured", name, now)


def _mix(before: float, now: float) -> float:
    return before + WEIGHT * (now - before)
