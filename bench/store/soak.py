"""A store at work for ten minutes: does anything grow that should not?

One writer stores real records at a steady pace, 256 rows a transaction.  A retention keeps a fixed
number of rows.  Beside them three Flight clients: a dashboard that asks ten times a second, one that
reads all columns of all rows again and again, and one that has opened a large result and reads a
batch a second.  It fails when memory, the file or the WAL grows on after the first third.
"""

import contextlib
import itertools
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

import pyarrow as pa
import report
from pyarrow import flight
from store import commits
from store.client import Client
from store.plot import Panel, svg
from store.records import decoded, encoded, enrichment

from streamapp.flight import FlightServer, Limits
from streamapp.sink import Store
from streamapp.sink.retain import Window, bound, retain

PLOT = Path(__file__).parents[2] / "docs" / "store-soak.svg"
SECONDS = 600.0
ROWS, COMMIT_EVERY_S = 256, 0.1
#: Of all rows a twelfth is kept: the file is as large as it gets long before the first third ends.
KEEP, RETAINED = 12, 120
#: The plot has every sample, the results one of so many.
KEPT_EVERY = 10
WAL_BYTES_MAX = 32 << 20
#: Of the last third to the second; in less than ten minutes DuckDB still fills its buffers.
GROWTH_MAX, SHORT_GROWTH_MAX = 1.10, 1.50
WINDOW = Window(3600, 10_000)


class Sample(NamedTuple):
    """The store at one moment; sizes in MB."""

    at_s: float
    memory: float
    file: float
    wal: float
    rows: int
    slowest_ms: float


class Writer:
    """Stores records and drops old rows until it is told to stop."""

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self._keep_rows = int(seconds / KEEP / COMMIT_EVERY_S) * ROWS
        self._retain_every_s = seconds / RETAINED
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self.rows, self.slowest_ms = 0, 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._write_on()
        except BaseException as error:  # noqa: BLE001  # raised again by who waits for us
            self._error = error

    def _write_on(self) -> None:
        due_s, retain_s = time.monotonic(), time.monotonic() + self._retain_every_s
        for record in encoded(ROWS):
            started_s = time.perf_counter()
            self.rows += self._store.write(decoded([record])).rows
            self.slowest_ms = max(self.slowest_ms, (time.perf_counter() - started_s) * 1000)
            if time.monotonic() >= retain_s:
                for _ in retain(self._store, bound(self._store, WINDOW, keep_rows=self._keep_rows)):
                    pass
                retain_s = time.monotonic() + self._retain_every_s
            due_s = max(due_s + COMMIT_EVERY_S, time.monotonic())
            if self._stop.wait(due_s - time.monotonic()):
                return


def run(seconds: float) -> None:
    """Work for so long; what ten minutes or more showed is kept."""
    with TemporaryDirectory() as folder:
        samples = soak(Path(folder) / "soak.duckdb", seconds)
    found = verdict(samples)
    for what, said in found.items():
        print(f"{what}: {said:,.3g}")
    if seconds >= SECONDS:
        PLOT.write_text(plot(samples))
        seldom = samples[::KEPT_EVERY]
        columns = {name: [getattr(s, name) for s in seldom] for name in Sample._fields}
        report.write("store-soak", found, {"samples": columns})
    most = GROWTH_MAX if seconds >= SECONDS else SHORT_GROWTH_MAX
    grown = [name for name in ("memory", "file") if found[f"{name}_growth"] > most]
    if grown or found["wal_mb_max"] * 1e6 > WAL_BYTES_MAX:
        sys.exit(f"grew on: {', '.join(grown) or 'the WAL'}")


def soak(path: Path, seconds: float) -> list[Sample]:
    """One sample a second."""
    with (
        Store.open(
            str(path),
            columns=enrichment().columns,
            dedup_window_s=WINDOW.dedup_window_s,
            dedup_window_events=WINDOW.dedup_window_events,
        ) as store,
        contextlib.ExitStack() as stack,
    ):
        server = FlightServer(store.reader, port=0, limits=Limits(seconds_max=30))
        stack.callback(server.stop)
        writer = stack.enter_context(Writer(store, seconds))
        _wait_for_rows(writer)
        asking = stack.enter_context(Client(server.port))
        asking.begin(what="ask", sql=commits.SQL, seconds=seconds, every_s=commits.EVERY_S)
        reading = stack.enter_context(Client(server.port))
        sql = ["SELECT * FROM events"]
        reading.begin(what="ask", sql=sql, seconds=seconds, every_s=2.0)
        stack.enter_context(_slow_client(server.port))
        return list(_samples(path, writer, seconds))


def _wait_for_rows(writer: Writer) -> None:
    deadline_s = time.monotonic() + 60
    while not writer.rows:
        if time.monotonic() > deadline_s:
            raise RuntimeError("nothing was stored in a minute")
        time.sleep(0.05)


def _samples(path: Path, writer: Writer, seconds: float) -> Iterator[Sample]:
    started_s = time.monotonic()
    wal = path.with_name(f"{path.name}.wal")
    for number in itertools.count(1):
        time.sleep(max(started_s + number - time.monotonic(), 0))
        at_s = time.monotonic() - started_s
        slowest_ms, writer.slowest_ms = writer.slowest_ms, 0.0
        sizes = (_size(path), _size(wal))
        yield Sample(round(at_s, 1), _memory(), *sizes, writer.rows, round(slowest_ms, 1))
        if at_s >= seconds:
            return


@contextlib.contextmanager
def _slow_client(port: int) -> Iterator[None]:
    """Reads a batch a second of a result that it never reads to its end; asks again when cut off."""
    stop = threading.Event()

    def read() -> None:
        with flight.connect(f"grpc://127.0.0.1:{port}") as client:
            while not stop.is_set():
                answer = client.do_get(flight.Ticket(b"SELECT e.* FROM events AS e, range(1000)"))
                with contextlib.suppress(flight.FlightError, pa.ArrowException):
                    while not stop.wait(1.0):
                        answer.read_chunk()
                answer.cancel()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _size(path: Path) -> float:
    try:
        return round(path.stat().st_size / 1e6, 2)
    except FileNotFoundError:
        return 0.0


def _memory() -> float:
    """Resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * 4096 / 1e6, 1)


def verdict(samples: Sequence[Sample]) -> dict[str, float]:
    """How much grew from the second third to the last, and the largest WAL."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return {
        "memory_growth": _median(last, "memory") / _median(middle, "memory"),
        "file_growth": _median(last, "file") / _median(middle, "file"),
        "wal_mb_max": max(sample.wal for sample in samples),
        "rows_per_s": (samples[-1].rows - samples[0].rows) / (samples[-1].at_s - samples[0].at_s),
        "commit_ms_max": max(sample.slowest_ms for sample in samples),
    }


def _median(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)


def plot(samples: Sequence[Sample]) -> str:
    """Memory, file and WAL, and rows, over time."""
    of = {name: [getattr(sample, name) for sample in samples] for name in Sample._fields}
    rows = [count / 1e6 for count in of["rows"]]
    panels = [
        Panel("resident memory of the store's process", "MB", {"memory": of["memory"]}),
        Panel("DuckDB file and WAL", "MB", {"file": of["file"], "WAL": of["wal"]}),
        Panel("slowest commit of each second", "ms", {"commit": of["slowest_ms"]}),
        Panel("rows stored so far", "M", {"rows": rows}),
    ]
    title = f"{samples[-1].at_s:.0f} s: one writer, retention, three Flight clients"
    return svg(title, of["at_s"], panels)
