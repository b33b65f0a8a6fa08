"""What reading over Flight costs beside reading DuckDB in the process that has it open.

One store of real rows; the same SQL, every batch of the answer looked at, three ways in turns: a
cursor of the store in its process, plain Flight (DoGet), and ADBC, both from another process on
the same machine over loopback.
"""

import itertools
import time
from pathlib import Path

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


def measure(folder: Path, rows: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each way, by query."""
    with Store.open(str(folder / "reads.duckdb"), columns=enrichment().columns) as store:
        for record in itertools.islice(encoded(BATCH_ROWS), rows // BATCH_ROWS):
            store.write(decoded([record]))
        server = FlightServer(store.reader, port=0, limits=Limits(rows_max=1 << 40))
        try:
            with Client(server.port) as client:
                return {name: _read(store, client, sql, rounds) for name, sql in QUERIES.items()}
        finally:
            server.stop()


def _read(store: Store, client: Client, sql: str, rounds: int) -> dict[str, list[float]]:
    def in_process() -> dict[str, float]:
        cursor = store.reader()
        try:
            started_s = time.perf_counter()
            rows = size_bytes = 0
            for batch in cursor.sql(sql).to_arrow_reader(BATCH_ROWS):
                rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
            return {"s": time.perf_counter() - started_s, "rows": rows, "bytes": size_bytes}
        finally:
            cursor.close()

    def remote(what: str) -> dict[str, float]:
        client.begin(what=what, sql=sql)
        answer: dict[str, float] = client.end()
        return answer

    found = interleaved(
        {
            "in process": in_process,
            "doget": lambda: remote("doget"),
            "adbc": lambda: remote("adbc"),
        },
        rounds,
    )
    counts = {answer["rows"] for answers in found.values() for answer in answers}
    if len(counts) != 1:
        raise AssertionError(f"{sql}: not all ways gave the same rows: {counts}")
    figures = {way: [answer["s"] for answer in answers] for way, answers in found.items()}
    return figures | {"rows": [*counts], "bytes": [found["in process"][0]["bytes"]]}
