"""Enriched records to store, made of what a test cares about."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from streamapp.core.batch import EVENT_SCHEMA, Rejected, vector_column
from streamapp.sink import Store, StoredRecord
from streamapp.topics.enriched import Cover, Enriched

DIM = 4
COLUMNS = {
    "embedding": pa.list_(pa.float32(), DIM),
    "entities": pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32())])),
    "words": pa.int32(),
}
HOUR_US = 3_600_000_000


def event(
    offset, *, name=None, source="test", ingest_us=None, text=None, payload="{}", time_us=None
):
    """One event of source offset ``offset``; everything follows from the offset unless given."""
    ingest_us = 1_000_000 * offset if ingest_us is None else ingest_us
    return {
        "source_offset": offset,
        "id": f"id-{offset}" if name is None else name,
        "type": "message",
        "source": source,
        "conversation": "c",
        "actor": "ann",
        "time": ingest_us if time_us is None else time_us,
        "ingest_time": ingest_us,
        "text": f"text {offset}" if text is None else text,
        "duration_ms": 0.0,
        "payload": payload,
        "attachments": None,
    }


def stage_columns(events):
    """Columns of the three stages; every third event has no vector."""
    vectors = np.zeros((len(events), DIM), np.float32)
    for row, one in enumerate(events):
        vectors[row, one["source_offset"] % DIM] = 1
        if one["source_offset"] % 3 == 2:
            vectors[row] = np.nan
    entities = [[{"text": e["id"], "score": 0.5}] for e in events]
    return {
        "embedding": vector_column(vectors) if events else pa.array([], COLUMNS["embedding"]),
        "entities": pa.array(entities, COLUMNS["entities"]),
        "words": pa.array([e["source_offset"] for e in events], pa.int32()),
    }


def reject(offset, code="event.json"):
    """A dead letter of source offset ``offset``."""
    headers = (("h", b"\x00\xff"), ("h", b"2"))
    return Rejected(offset, 1000 * offset, b"key", b"\xffnot json", headers, "wire", code, "why")


def record(
    first,
    next_,
    events=None,
    *,
    rejects=(),
    partition=0,
    topic="events.raw",
    at=None,
    lost=0,
    stages=True,
    provenance='["embed@1"]',
    extra=None,
):
    """The enriched record of ``[first, next_)``; all its offsets are events unless given."""
    dead = {r.source_offset for r in rejects}
    if events is None:
        events = [event(o) for o in range(first, next_) if o not in dead and not lost]
    arrays = [pa.array([e[f.name] for e in events], f.type) for f in EVENT_SCHEMA]
    rows = pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)
    columns = (stage_columns(events) if stages else {}) | (extra or {})
    for name, array in columns.items():
        rows = rows.append_column(name, array)
    cover = Cover(
        topic=topic, partition=partition, first=first, next=next_, rows=len(events), lost=lost
    )
    enriched = Enriched(cover, rows, (), tuple(rejects), provenance)
    return StoredRecord(enriched, "events.enriched", partition, next_ if at is None else at)


def all_rows(store, sql):
    """Rows of a query through a reader of its own."""
    cursor = store.reader()
    try:
        return cursor.execute(sql).fetchall()
    finally:
        cursor.close()


@pytest.fixture(scope="session")
def make():
    """The factories above, in one hand."""
    return SimpleNamespace(
        event=event, record=record, reject=reject, rows=all_rows, COLUMNS=COLUMNS, HOUR_US=HOUR_US
    )


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "store.duckdb")


@pytest.fixture
def open_store():
    """``Store.open`` with this file's columns; closed when the test ends."""
    stores = []

    def opened(path=":memory:", **options):
        store = Store.open(path, **({"columns": COLUMNS} | options))
        stores.append(store)
        return store

    yield opened
    for store in stores:
        store.close()
