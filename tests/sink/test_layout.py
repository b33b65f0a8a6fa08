"""What a sink keeps of a schema holds for records of that schema only."""

from collections import Counter

import pyarrow as pa
import pytest

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.errors import Halt
from streamapp.sink.layout import Layout, Origin
from streamapp.sink.schema import CORE_FIELDS

ORIGIN = Origin("events.raw", 3, 7)


@pytest.fixture
def layout():
    return Layout(pa.schema([*CORE_FIELDS, pa.field("words", pa.int32())]))


def with_words(record, words):
    rows = record.enriched.rows.select(EVENT_SCHEMA.names)
    return rows if words is None else rows.append_column("WORDS", words)


def test_records_of_several_schemas_by_turns(make, layout):
    given = [
        (pa.array([5], pa.int32()), 5, {}),
        (None, None, {}),
        (pa.array([5], pa.int64()), 5, {}),
        (pa.array(["many"]), None, {"words": 1}),
    ]
    for words, stored, counted in given * 2:
        left_out = Counter()
        rows = layout.align(ORIGIN, with_words(make.record(4, 5), words), left_out)
        assert rows.schema == layout.schema
        (row,) = rows.to_pylist()
        assert (row["words"], left_out) == (stored, counted)
        assert (row["source_topic"], row["source_partition"], row["provenance"]) == ORIGIN
        assert (row["source_offset"], row["id"]) == (4, "id-4")


def test_the_order_of_a_records_columns_does_not_matter(make, layout):
    rows = with_words(make.record(0, 3), None)
    turned = rows.select(EVENT_SCHEMA.names[::-1])
    as_usual = layout.align(ORIGIN, rows, Counter())
    assert layout.align(ORIGIN, turned, Counter()) == as_usual


def test_a_good_record_vouches_for_no_other_schema(make, open_store):
    store = open_store()
    store.write([make.record(0, 2)])
    bad = make.record(2, 4)
    for rows in (
        bad.enriched.rows.drop_columns(["type"]),
        bad.enriched.rows.set_column(0, "source_offset", pa.array([2, 3], pa.int32())),
    ):
        enriched = bad.enriched.__class__(bad.enriched.cover, rows)
        with pytest.raises(Halt, match="should have a column"):
            store.write([bad._replace(enriched=enriched)])
    assert store.write([bad]).rows == 2
    assert make.rows(store, "SELECT count(*) FROM events") == [(4,)]
