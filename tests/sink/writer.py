"""A store's writer, to be killed: stores records of four partitions and says what is durable.

Usage: writer.py PATH ROWS [serve].  Prints ``stored PARTITION NEXT`` after each transaction; with
``serve`` it answers queries over Flight, and prints ``port PORT`` first.
"""

import itertools
import sys

import numpy as np
import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA, Rejected, vector_column
from streamapp.flight import FlightServer
from streamapp.sink import Store, StoredRecord
from streamapp.topics.enriched import Cover, Enriched

DIM = 64


def record(partition, first, count):
    """Offsets ``[first, first + count)``: every hundredth is a reject, the others are events."""
    offsets = [o for o in range(first, first + count) if o % 100]
    events = {
        "source_offset": offsets,
        "id": [f"{partition}-{offset}" for offset in offsets],
        "type": ["message"] * len(offsets),
        "source": ["test"] * len(offsets),
        "conversation": [None] * len(offsets),
        "actor": [None] * len(offsets),
        "time": [offset * 1000 for offset in offsets],
        "ingest_time": [offset * 1000 for offset in offsets],
        "text": ["some words"] * len(offsets),
        "duration_ms": [0.0] * len(offsets),
        "payload": ["{}"] * len(offsets),
        "attachments": [None] * len(offsets),
    }
    arrays = [pa.array(events[field.name], field.type) for field in EVENT_SCHEMA]
    rows = pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)
    vectors = np.repeat(np.array(offsets, np.float32)[:, None], DIM, axis=1)
    rejects = tuple(
        Rejected(o, o, None, b"bad", (), "wire", "event.json", "why")
        for o in range(first, first + count)
        if o % 100 == 0
    )
    cover = Cover(
        topic="events.raw", partition=partition, first=first, next=first + count, rows=len(offsets)
    )
    rows = rows.append_column("embedding", vector_column(vectors))
    return StoredRecord(
        Enriched(cover, rows, (), rejects), "events.enriched", partition, first + count
    )


def main():
    path, count = sys.argv[1], int(sys.argv[2])
    columns = {"embedding": pa.list_(pa.float32(), DIM)}
    store = Store.open(path, columns=columns, dedup_window_events=5000)
    if sys.argv[3:] == ["serve"]:
        server = FlightServer(store.reader, port=0)
        say(f"port {server.port}")
    ends = {partition: at for (_, partition), at in store.positions().items()}
    for partition in itertools.cycle(range(4)):
        # Begin a little early, as a replay would.
        first = max(0, ends.get(partition, 0) - 7)
        store.write([record(partition, first, count)])
        ends[partition] = first + count
        say(f"stored {partition} {first + count}")


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
