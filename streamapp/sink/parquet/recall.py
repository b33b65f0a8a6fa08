"""What the data files remember: ids for the dedup window, events by address, provenance."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from streamapp.core.batch import TIME
from streamapp.sink.intake import Covered
from streamapp.sink.parquet.manifest import State
from streamapp.sink.parquet.parts import Fragments, holding
from streamapp.sink.window import keys_of

_IDENTITY = ["source_offset", "id", "ingest_time"]


def read_ids(
    state: State, fragments: Fragments, span_s: int, events_max: int
) -> Iterator[tuple[bytes, int]]:
    """The newest rows' keys in the window and ingest times in Unix us, as they were stored."""
    files = [file for file in state.files if file.table == "events"]
    if state.schema is None or not files:
        return
    newest_us = max(file.ingest_us[1] for file in files)
    young = ds.field("ingest_time") >= pa.scalar(newest_us - span_s * 1_000_000, TIME)
    dataset = fragments.dataset(files, state.schema)
    blocks: list[pa.Table] = []
    wanted, end = events_max, state.next_order
    oldest = min(file.first for file in files)  # what was before was dropped
    while wanted > 0 and end > oldest:
        first = max(0, end - events_max)
        block = dataset.to_table(
            columns=["source", "id", "ingest_time", "stored_order"],
            filter=young & (ds.field("stored_order") >= first) & (ds.field("stored_order") < end),
        ).sort_by("stored_order")
        blocks.append(block.slice(max(0, block.num_rows - wanted)))
        wanted -= block.num_rows
        end = first
    for block in reversed(blocks):
        for batch in block.to_batches():
            keys = keys_of(batch["source"], batch["id"])
            times_us = batch["ingest_time"].view(pa.int64()).to_pylist()
            yield from zip(keys, times_us, strict=True)


def read_provenance(state: State, fragments: Fragments, schema: pa.Schema) -> set[int]:
    """The ids that table ``provenance`` explains."""
    files = [file for file in state.files if file.table == "provenance"]
    return set(fragments.dataset(files, schema).to_table(["id"])["id"].to_pylist())


def other_event(
    state: State, fragments: Fragments, incoming: pa.Table, covered: Sequence[Covered]
) -> tuple[str, int, int, str, str] | None:
    """Find a row that is not the one stored at its address.

    Args:
        state: what is stored.
        fragments: its files.
        incoming: rows that would be stored together with the covered ones were left out.
        covered: rows that were left out since their offsets are stored.

    Returns:
        (topic, partition, offset, stored id, given id) of the first, or None.  A row with no
        counterpart is fine: it was a duplicate by id, or went to ``dead``.
    """
    for topic, partition, rows in covered:
        offsets = pc.min_max(rows.column("source_offset")).as_py()
        first, last = offsets["min"], offsets["max"]
        offset = ds.field("source_offset")
        here = (
            (ds.field("source_topic") == topic)
            & (ds.field("source_partition") == pa.scalar(partition, pa.int32()))
            & (offset >= first)
            & (offset <= last)
        )
        stored = incoming.filter(here).select(_IDENTITY)
        files = holding(state.files, topic, partition, first, last)
        if files:
            known = fragments.dataset(files, state.schema).to_table(columns=_IDENTITY, filter=here)
            stored = pa.concat_tables([stored, known])
        found = _difference(stored, rows)
        if found is not None:
            return (topic, partition, *found)
    return None


def _difference(stored: pa.Table, given: pa.RecordBatch) -> tuple[int, str, str] | None:
    known = {
        offset: (id_, time)
        for offset, id_, time in zip(*(_plain(stored, name) for name in _IDENTITY), strict=True)
    }
    for offset, id_, time in zip(*(_plain(given, name) for name in _IDENTITY), strict=True):
        if offset in known and known[offset] != (id_, time):
            return offset, known[offset][0], id_
    return None


def _plain(rows: pa.Table | pa.RecordBatch, name: str) -> list[object]:
    column = rows.column(name)
    values: list[object] = (column.cast(pa.int64()) if name != "id" else column).to_pylist()
    return values
