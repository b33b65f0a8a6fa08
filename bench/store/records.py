"""Real enriched records: the example's messages through the whole plan once, then at new addresses.

Texts and vectors repeat every ``ROWS`` rows, more than a row group of the store; addresses, ids and
times do not.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamapp import compose
from streamapp.agents.publish import Standpoint, enriched_records
from streamapp.core.config import load
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.sink import Store, StoredRecord
from streamapp.topics.enriched import Enriched, decode, encode
from streamapp.topics.wire import decode_slice
from streamapp.workflow import PartitionState

MESSAGES = Path(__file__).parents[2] / "examples" / "messages.csv"
ROWS, CALL = 4096, 256
BEGIN_MS, APART_US = 1_760_000_000_000, 1000
TOPIC = "events.raw"


class Enrichment(NamedTuple):
    """What the plan made of the messages, as one record of ``ROWS`` rows, and its columns."""

    record: Enriched
    columns: dict[str, pa.DataType]


@cache
def enrichment() -> Enrichment:
    """Run the default plan once (about ten seconds on two cores)."""
    settings, _ = load()
    plan = compose.plan(settings)
    plan.open()
    with MESSAGES.open(encoding="utf-8") as lines:
        texts = [row["message"] for row in csv.DictReader(lines)]
    state = PartitionState(settings.conversations_max)
    batches, last = [], None
    for first in range(0, ROWS, CALL):
        slice_ = _slice([f"{texts[n % len(texts)]} {n}" for n in range(first, first + CALL)], first)
        raw = {record.offset: record for record in slice_.records}
        events, changes = plan.run(decode_slice(slice_, event_bytes_max=1 << 20), state, raw)
        out, _ = enriched_records(
            events, changes, Standpoint(None, plan.provenance()), raw, 8 << 20
        )
        last = [decode(Record(0, 0, None, one.value, one.headers)) for one in out]
        batches += [one.rows for one in last]
    assert last is not None
    rows = pa.concat_batches(batches)
    columns = {field.name: field.type for field in plan.columns()}
    return Enrichment(replace(last[-1], rows=rows, states=()), columns)


def _slice(texts: Sequence[str], first: int) -> Slice:
    values = [
        json.dumps(
            {
                "message": text,
                "conversation_id": f"c{n % 500}",
                "type": "UserMessage",
                "plan": "gold",
            }
        ).encode()
        for n, text in enumerate(texts, first)
    ]
    records = [Record(first + n, BEGIN_MS + n, None, value) for n, value in enumerate(values)]
    return Slice(OffsetRange(TOPIC, 0, first, first + len(values)), records)


def encoded(rows_in: int, *, first: int = 0, partition: int = 0) -> Iterator[Record]:
    """Log records of ``rows_in`` rows (a divisor of ``ROWS``) each, without end, from an offset on.

    The log offset is the record's number.
    """
    made, _ = enrichment()
    for number, start in enumerate(range(first, 1 << 62, rows_in)):
        rows = _moved(made.rows.slice(start % ROWS, rows_in), start, partition)
        cover = made.cover.__class__(
            topic=TOPIC, partition=partition, first=start, next=start + rows_in, rows=rows_in
        )
        value, headers = encode(replace(made, cover=cover, rows=rows))
        yield Record(number, BEGIN_MS, None, value, headers)


def _moved(rows: pa.RecordBatch, first: int, partition: int) -> pa.RecordBatch:
    """The same events at other offsets, with ids and times of their own."""
    offsets = np.arange(first, first + rows.num_rows, dtype=np.int64)
    times = BEGIN_MS * 1000 + offsets * APART_US
    new = {
        "source_offset": pa.array(offsets),
        "id": pa.array([f"{TOPIC}-{partition}-{offset}" for offset in offsets]),
        "time": pa.array(times).cast(rows.schema.field("time").type),
        "ingest_time": pa.array(times).cast(rows.schema.field("ingest_time").type),
    }
    arrays = [new.get(field.name, rows.column(field.name)) for field in rows.schema]
    return pa.RecordBatch.from_arrays(arrays, schema=rows.schema)


def decoded(records: Sequence[Record], partition: int = 0) -> list[StoredRecord]:
    """As the store agent decodes what it was given."""
    return [
        StoredRecord(decode(record), "events.enriched", partition, record.offset + 1)
        for record in records
    ]


def table(path: str, records: Sequence[Record]) -> list[pa.Table]:
    """What the store makes of each record: the rows of its table ``events``."""
    told: list[pa.Table] = []
    with Store.open(path, columns=enrichment().columns) as store:
        store.subscribe(lambda rows, _: told.append(rows))
        for record in records:
            store.write(decoded([record]))
    return told
