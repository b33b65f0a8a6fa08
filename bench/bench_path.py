"""What enrichment costs beside its model: the whole worker path against the bare embedder, same texts.

Both embed the same messages in calls of the same size.  Ours also decodes the JSON, finds language, intent and sentiment,
computes kinetics, and encodes the enriched record; the store's row is the same record written to DuckDB.
"""

import csv
import json
import statistics
import tempfile
import time
from pathlib import Path

from report import interleaved, median_ratio, report

from streamapp import compose
from streamapp.agents.publish import Standpoint, enriched_records
from streamapp.core.config import load
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.sink import Store, StoredRecord
from streamapp.topics.enriched import decode
from streamapp.topics.wire import decode_slice
from streamapp.workflow import PartitionState

MESSAGES = Path(__file__).parent.parent / "examples" / "messages.csv"
EVENTS, CALL = 1024, 256


def main() -> None:
    settings, _ = load()
    plan = compose.plan(settings)
    plan.open()
    embedder = compose.registry(settings).embedder()
    with MESSAGES.open(encoding="utf-8") as lines:
        texts = [row["message"] for row in csv.DictReader(lines)]
    texts = [f"{texts[n % len(texts)]} {n}" for n in range(EVENTS)]
    slices = [slice_of(texts, first) for first in range(0, EVENTS, CALL)]
    encoded: list[Record] = []

    def bare() -> float:
        started = time.perf_counter()
        for first in range(0, EVENTS, CALL):
            embedder.embed(texts[first : first + CALL])
        return EVENTS / (time.perf_counter() - started)

    def enrich() -> float:
        encoded.clear()
        state = PartitionState(settings.conversations_max)
        started = time.perf_counter()
        for slice_ in slices:
            batch = decode_slice(slice_, event_bytes_max=1 << 20)
            raw = {record.offset: record for record in slice_.records}
            enriched, changes = plan.run(batch, state, raw)
            records, _ = enriched_records(
                enriched, changes, Standpoint(None, plan.provenance()), raw, 8 << 20
            )
            encoded.extend(Record(0, 0, None, r.value, r.headers) for r in records)
        return EVENTS / (time.perf_counter() - started)

    def store() -> float:
        columns = {field.name: field.type for field in plan.columns()}
        with (
            tempfile.TemporaryDirectory() as folder,
            Store.open(f"{folder}/s.duckdb", columns=columns) as sink,
        ):
            started = time.perf_counter()
            for number, record in enumerate(encoded):
                sink.write([StoredRecord(decode(record), "events.enriched", 0, number + 1)])
            return EVENTS / (time.perf_counter() - started)

    figures = interleaved({"bare embedder": bare, "worker path": enrich, "store": store})
    table = [["", "events/s (median)"]]
    table += [[name, f"{statistics.median(rates):,.0f}"] for name, rates in figures.items()]
    ratios = {
        "enrich_vs_bare_embedder": median_ratio(figures["worker path"], figures["bare embedder"]),
        "store_vs_worker": median_ratio(figures["store"], figures["worker path"]),
    }
    report("path", table, ratios, {"events_per_s": figures, "events_per_call": CALL})


def slice_of(texts: list[str], first: int) -> Slice:
    values = [
        json.dumps(
            {
                "message": text,
                "conversation_id": f"c{n % 50}",
                "type": "UserMessage",
                "plan": "gold",
            }
        ).encode()
        for n, text in enumerate(texts[first : first + CALL], first)
    ]
    records = [
        Record(first + n, 1_760_000_000_000 + n, None, value) for n, value in enumerate(values)
    ]
    return Slice(OffsetRange("events.raw", 0, first, first + len(values)), records)


if __name__ == "__main__":
    main()
