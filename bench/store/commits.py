"""How long a commit takes while others read: none, one, five Flight clients of the same store."""

import contextlib
import itertools
import time
from pathlib import Path

from store.client import Client
from store.records import decoded, encoded, enrichment

from streamapp.flight import FlightServer
from streamapp.sink import Store

READERS = (0, 1, 5)
ROWS = 256
#: What a dashboard asks: each client one of them ten times a second.
EVERY_S = 0.1
SQL = [
    "SELECT intent, count(*), avg(velocity) FROM events GROUP BY ALL",
    "SELECT * EXCLUDE embedding FROM latest",
]
COMMIT_EVERY_S = 0.04


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of commits of 256 rows, 25 a second, by the number of readers."""
    found: dict[str, dict[str, list[float]]] = {str(n): {"ms": [], "asked": []} for n in READERS}
    log = encoded(ROWS)
    with (
        Store.open(str(folder / "commits.duckdb"), columns=enrichment().columns) as store,
        contextlib.ExitStack() as stack,
    ):
        for record in itertools.islice(log, 40):
            store.write(decoded([record]))
        server = FlightServer(store.reader, port=0)
        stack.callback(server.stop)
        clients = [stack.enter_context(Client(server.port)) for _ in range(max(READERS))]
        for client in clients:  # until each is there
            client.begin(what="ask", sql=SQL, seconds=0.2, every_s=EVERY_S)
        for client in clients:
            client.end()
        for _ in range(rounds):
            for number in READERS:
                for client in clients[:number]:
                    client.begin(what="ask", sql=SQL, seconds=seconds, every_s=EVERY_S)
                end_s = (due_s := time.monotonic()) + seconds
                while due_s < end_s:
                    records = decoded([next(log)])
                    started_s = time.perf_counter()
                    store.write(records)
                    spent_s = time.perf_counter() - started_s
                    found[str(number)]["ms"].append(round(spent_s * 1000, 3))
                    due_s = max(due_s + COMMIT_EVERY_S, time.monotonic())
                    time.sleep(max(due_s - time.monotonic(), 0))
                asked = sum(client.end()["asked"] for client in clients[:number])
                found[str(number)]["asked"].append(asked / seconds)
    return found
