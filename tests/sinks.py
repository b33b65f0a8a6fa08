"""The sinks under one contract, what is put into them, and a second way to read what they hold.

What a sink stored is read back by DuckDB or Arrow alone, from its file or its manifest, and never
by code of ours.
"""

import contextlib
import json

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import S3FileSystem

from streamapp.core.batch import EVENT_SCHEMA, Rejected, vector_column
from streamapp.sink import Store, StoredRecord
from streamapp.sink.parquet import ORDER, ParquetStore
from streamapp.topics.enriched import Cover, Enriched

DIM = 4
COLUMNS = {
    "embedding": pa.list_(pa.float32(), DIM),
    "entities": pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32())])),
    "words": pa.int32(),
}
DAY_US = 86_400_000_000


def event(offset, **given):
    """One event; everything follows from its offset unless given."""
    return {
        "source_offset": offset,
        "id": f"id-{offset}",
        "type": "message",
        "source": "test",
        "conversation": "c",
        "actor": None,
        "time": 1_000_000 * offset,
        "ingest_time": 1_000_000 * offset,
        "text": f"text {offset}",
        "duration_ms": 0.5,
        "payload": "{}",
        "attachments": None,
    } | given


def reject(offset, code="event.json"):
    """A dead letter."""
    headers = (("h", b"\x00\xff"), ("h", b"2"))
    return Rejected(offset, 1000 * offset, b"key", b"\xffnot json", headers, "wire", code, "why")


def record(first, next_, events=None, *, rejects=(), partition=0, topic="events.raw", **given):
    """The enriched record of ``[first, next_)``: all its offsets are events unless given."""
    dead = {one.source_offset for one in rejects}
    if events is None:
        events = [event(o, source=f"s{partition}") for o in range(first, next_) if o not in dead]
    arrays = [pa.array([one[f.name] for one in events], f.type) for f in EVENT_SCHEMA]
    rows = pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)
    columns = stage_columns(events) if given.get("stages", True) else {}
    for name, column in (columns | given.get("extra", {})).items():
        rows = rows.append_column(name, column)
    cover = Cover(
        topic=topic, partition=partition, first=first, next=next_, rows=len(events),
        lost=given.get("lost", 0),
    )  # fmt: skip
    provenance = given.get("provenance", '["embed@1"]')
    return StoredRecord(
        Enriched(cover, rows, (), tuple(rejects), provenance),
        "events.enriched",
        partition,
        given.get("at", next_),
    )


def stage_columns(events):
    """Three stages' columns; every third event has no vector."""
    if not events:
        return {name: pa.array([], kind) for name, kind in COLUMNS.items()}
    vectors = np.zeros((len(events), DIM), np.float32)
    for row, one in enumerate(events):
        vectors[row, one["source_offset"] % DIM] = 1
        if one["source_offset"] % 3 == 2:
            vectors[row] = np.nan
    entities = [[{"text": one["id"], "score": 0.5}] for one in events]
    return {
        "embedding": vector_column(vectors),
        "entities": pa.array(entities, COLUMNS["entities"]),
        "words": pa.array([one["source_offset"] for one in events], pa.int32()),
    }


class DuckSink:
    """The sink that is one DuckDB file."""

    row = "rowid"

    def __init__(self, folder):
        self.url = str(folder / "store.duckdb")

    def open(self, **options):
        return Store.open(self.url, **({"columns": COLUMNS} | options))

    def arrow(self, table):
        """A table as Arrow has it; nobody may have the sink open."""
        with duckdb.connect(self.url, read_only=True) as plain:
            plain.execute("SET TimeZone = 'UTC'")
            return plain.table(table).to_arrow_table()


class ParquetSink:
    """The sink that is a root of Parquet files; the manifest is read here by hand."""

    row = ORDER

    def __init__(self, url, **driver):
        self.url = url
        self.files, self.root = fsspec.core.url_to_fs(url, **driver)

    def open(self, **options):
        return ParquetStore.open(self.url, **({"columns": COLUMNS} | options))

    def entries(self):
        """Entries from the newest checkpoint on."""
        self.files.invalidate_cache()
        found = []
        for path in sorted(self.files.glob(f"{self.root}/_manifest/*.json"), reverse=True):
            found.insert(0, json.loads(self.files.cat_file(path)))
            if found[0]["kind"] == "checkpoint":
                break
        return found

    def paths(self, table):
        return [
            f"{self.root}/{file['path']}"
            for entry in self.entries()
            for file in entry["files"]
            if file["table"] == table
        ]

    def arrow(self, table):
        """A table as Arrow has it; the sink may be open."""
        if table == "ledger":
            ranges = [one for entry in self.entries() for one in entry["ranges"]]
            names = ["topic", "partition", "first", "next", "lost", "rows", "stored_at"]
            return pa.Table.from_pylist([dict(zip(names, one, strict=True)) for one in ranges])
        return ds.dataset(self.paths(table), filesystem=self.files, format="parquet").to_table()


class S3Sink(ParquetSink):
    """The same in an object store, read back through Arrow's own S3 client."""

    def __init__(self, folder, server):
        self.url, self.root = f"s3://tests/{folder}", f"tests/{folder}"
        client = S3FileSystem(
            endpoint_override=server.removeprefix("http://"), scheme="http",
            access_key="tests", secret_key="tests", region="us-east-1",
        )  # fmt: skip
        self.files = ArrowFSWrapper(client)


@contextlib.contextmanager
def asking(sink, *tables):
    """SQL to answers on what a sink stored, from a DuckDB that knows only Arrow tables."""
    with duckdb.connect(":memory:") as plain:
        for table in tables:
            plain.register(table, sink.arrow(table))
        yield lambda sql: plain.execute(sql).fetchall()


def rows(sink, sql, *tables):
    """One answer of :func:`asking`."""
    with asking(sink, *tables) as ask:
        return ask(sql)
