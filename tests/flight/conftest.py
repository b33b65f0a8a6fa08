"""A store with known rows, and servers on it."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

from streamapp.core.batch import EVENT_SCHEMA, vector_column
from streamapp.flight import FlightServer, Limits, query
from streamapp.sink import Store, StoredRecord
from streamapp.topics.enriched import Cover, Enriched

DIM = 1024
ROWS = 6000


def _record():
    """``ROWS`` events, each vector pointing along axis ``offset % DIM``."""
    numbers = np.arange(ROWS)
    events = {
        "source_offset": numbers,
        "id": [f"id-{n}" for n in numbers],
        "type": ["message"] * ROWS,
        "source": ["test"] * ROWS,
        "conversation": ["c"] * ROWS,
        "actor": [None] * ROWS,
        "time": numbers * 1000,
        "ingest_time": numbers * 1000,
        "text": [f"text {n}" for n in numbers],
        "duration_ms": np.zeros(ROWS, np.float32),
        "payload": ['{"a": 1}'] * ROWS,
        "attachments": [None] * ROWS,
    }
    arrays = [pa.array(events[field.name], field.type) for field in EVENT_SCHEMA]
    rows = pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)
    vectors = np.zeros((ROWS, DIM), np.float32)
    vectors[numbers, numbers % DIM] = 1
    cover = Cover(topic="events.raw", partition=0, first=0, next=ROWS, rows=ROWS)
    rows = rows.append_column("embedding", vector_column(vectors))
    return StoredRecord(Enriched(cover, rows), "events.enriched", 0, 1)


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
