"""A Flight client in a process of its own: ``python -m store.client PORT``, a JSON task a line.

It answers each with a line: seconds, rows and bytes of the result that was read to its end, or the
number of queries that it asked while it was told to go on.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
from pyarrow import flight

BENCH = Path(__file__).parents[1]


class Client:
    """Starts the program and gives it tasks."""

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "store.client", str(port)],
            cwd=BENCH,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCH), str(BENCH.parent)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def begin(self, **task: Any) -> None:
        """Give it a task; it works on while we do something else."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")

    def end(self) -> Any:
        """The answer to the task that was begun."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a client of the benchmark ended; its error is above")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    where = f"grpc://127.0.0.1:{sys.argv[1]}"
    tasks = {"doget": _doget, "adbc": _adbc, "ask": _ask}
    with (
        flight.connect(where) as client,
        flightsql.connect(where, autocommit=True) as connection,
    ):
        for line in sys.stdin:
            task = json.loads(line)
            answer = tasks[task.pop("what")](client, connection, **task)
            print(json.dumps(answer), flush=True)


def _doget(
    client: flight.FlightClient, _: Any, sql: str, port: int | None = None
) -> dict[str, float]:
    if port is not None:
        with flight.connect(f"grpc://127.0.0.1:{port}") as other:
            return _doget(other, _, sql)
    cpu_s, started_s = time.process_time(), time.perf_counter()
    answer = client.do_get(flight.Ticket(sql.encode()))
    rows = size_bytes = 0
    for chunk in answer:
        rows, size_bytes = rows + chunk.data.num_rows, size_bytes + chunk.data.nbytes
    return _spent(started_s, cpu_s) | {"rows": rows, "bytes": size_bytes}


def _adbc(_: Any, connection: Any, sql: str) -> dict[str, float]:
    cpu_s, started_s = time.process_time(), time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute(sql)
        rows, size_bytes = _consumed(cursor.fetch_record_batch())
    return _spent(started_s, cpu_s) | {"rows": rows, "bytes": size_bytes}


def _spent(started_s: float, cpu_s: float) -> dict[str, float]:
    return {"s": time.perf_counter() - started_s, "cpu_s": time.process_time() - cpu_s}


def _consumed(reader: pa.RecordBatchReader) -> tuple[int, int]:
    rows = size_bytes = 0
    for batch in reader:
        rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
    return rows, size_bytes


def _ask(
    client: flight.FlightClient, _: Any, sql: list[str], seconds: float, every_s: float
) -> dict[str, int]:
    """Ask at a steady pace until the time is over."""
    asked, due_s = 0, time.monotonic()
    end_s = due_s + seconds
    while due_s < end_s:
        client.do_get(flight.Ticket(sql[asked % len(sql)].encode())).read_all()
        asked += 1
        due_s = max(due_s + every_s, time.monotonic())
        time.sleep(max(min(due_s, end_s) - time.monotonic(), 0))
    return {"asked": asked}


if __name__ == "__main__":
    main()
