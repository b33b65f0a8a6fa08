"""A store with known rows, and servers on it."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight
from sinks import event, record

from streamapp.core.batch import vector_column
from streamapp.flight import FlightServer, Limits, query
from streamapp.sink import Store

DIM = 1024
ROWS = 6000


def _record():
    """``ROWS`` events, each vector pointing along axis ``offset % DIM``."""
    numbers = np.arange(ROWS)
    events = [
        event(n, time=n * 1000, ingest_time=n * 1000, payload='{"a": 1}') for n in range(ROWS)
    ]
    vectors = np.zeros((ROWS, DIM), np.float32)
    vectors[numbers, numbers % DIM] = 1
    return record(0, ROWS, events, stages=False, extra={"embedding": vector_column(vectors)}, at=1)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("flight") / "store.duckdb")
    with Store.open(path, columns={"embedding": pa.list_(pa.float32(), DIM)}) as opened:
        opened.write([_record()])
        yield opened


@pytest.fixture
def serve(store):
    """``serve(seconds_max=..., token=..., options={...})`` makes a server; all are stopped when the test ends."""
    servers = []

    def started(*, token="", options=None, **limits):
        results = []
        server = FlightServer(
            store.reader,
            port=0,
            token=token,
            limits=Limits(**limits),
            on_query=results.append,
            **(options or {}),
        )
        servers.append(server)
        return SimpleNamespace(
            server=server,
            port=server.port,
            uri=f"grpc://127.0.0.1:{server.port}",
            results=results,
            query=lambda sql: query("127.0.0.1", server.port, sql, token),
            client=lambda: flight.connect(f"grpc://127.0.0.1:{server.port}"),
        )

    yield started
    for server in servers:
        server.stop()


@pytest.fixture
def served(serve):
    """A server with the usual limits and no token."""
    return serve()
