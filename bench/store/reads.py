"""What reading over Flight costs beside reading DuckDB in the process that has it open.

One store of real rows; the same SQL, every batch of the answer looked at, in turns: a cursor of the
store in its process, plain Flight (DoGet) and ADBC from another process on the same machine over
loopback; and, as the floor under these two, a bare pyarrow.flight server that has the answer ready.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import flight
from report import interleaved
from store.client import Client
from store.records import decoded, encoded, enrichment

from streamapp.flight import FlightServer, Limits
from streamapp.sink import Store

#: As much as a batch of the Flight server has.
BATCH_ROWS = 2048
QUERIES = {
    "all columns": "SELECT * FROM events",
    "vectors": "SELECT source_offset, embedding FROM events",
    "figures": (
        "SELECT source_partition, source_offset, time, ingest_time, language_confidence, "
        "intent_id, intent_confidence, velocity, fill_rate FROM events, range(10)"
    ),
    "one row": "SELECT id, text FROM events WHERE source_offset = 4711",
}
#: What is measured of each way.
PARTS = ("s", "cpu_s")


class Ready(flight.FlightServerBase):
    """Hands out one table that is in memory; no SQL, no limits, no tokens."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._table = table

    def do_get(self, _: Any, __: flight.Ticket) -> flight.RecordBatchStream:
        return flight.RecordBatchStream(self._table)


def measure(folder: Path, rows: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds, and seconds of CPU in both processes, of each way, by query."""
    with Store.open(str(folder / "reads.duckdb"), columns=enrichment().columns) as store:
        for record in itertools.islice(encoded(BATCH_ROWS), rows // BATCH_ROWS):
            store.write(decoded([record]))
        server = FlightServer(store.reader, port=0, limits=Limits(rows_max=1 << 40))
        try:
            with Client(server.port) as client:
                return {name: _read(store, client, sql, rounds) for name, sql in QUERIES.items()}
        finally:
            server.stop()


def _read(store: Store, client: Client, sql: str, rounds: int) -> dict[str, Any]:
    def in_process() -> dict[str, float]:
        rows = size_bytes = 0
        for batch in cursor.sql(sql).to_arrow_reader(BATCH_ROWS):
            rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
        return {"rows": rows, "bytes": size_bytes}

    def remote(what: str, **more: int) -> dict[str, float]:
        client.begin(what=what, sql=sql, **more)
        answer: dict[str, float] = client.end()
        return answer

    cursor = store.reader()
    table = cursor.sql(sql).to_arrow_table()
    with Ready(pa.Table.from_batches(table.to_batches(BATCH_ROWS), table.schema)) as ready:
        ways: dict[str, Callable[[], dict[str, float]]] = {
            "in process": in_process,
            "bare": lambda: remote("doget", port=ready.port),
            "doget": lambda: remote("doget"),
            "adbc": lambda: remote("adbc"),
        }
        timed = {way: lambda take=take: _timed(take) for way, take in ways.items()}
        found = interleaved(timed, rounds)
    cursor.close()
    counts = {answer["rows"] for answers in found.values() for answer in answers}
    if len(counts) != 1:
        raise AssertionError(f"{sql}: not all ways gave the same rows: {counts}")
    figures = {
        way: {part: [answer[part] for answer in answers] for part in PARTS}
        for way, answers in found.items()
    }
    return figures | {"rows": [*counts], "bytes": [found["in process"][0]["bytes"]]}


def _timed(take: Callable[[], dict[str, float]]) -> dict[str, float]:
    cpu_s, started_s = time.process_time(), time.perf_counter()
    answer = take()
    spent = {"s": time.perf_counter() - started_s, "cpu_s": time.process_time() - cpu_s}
    return answer | {
        "s": answer.get("s", spent["s"]),
        "cpu_s": spent["cpu_s"] + answer.get("cpu_s", 0),
    }
