"""Promises of the store: each source offset once, whatever comes, how often, in any order."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Halt, Retry
from streamapp.core.ranges import OffsetRange
from streamapp.sink import Store, keyed
from streamapp.sink.intake import provenance_id
from streamapp.sink.schema import CORE_FIELDS


def test_rows_come_back_as_they_went_in(make, open_store):
    store = open_store()
    events = [
        make.event(0, payload='{"a": [1, {"b": "ü"}]}', text="olá\x00 🙂"),
        make.event(2, ingest_us=1_790_000_000_123_456),
        make.event(5),
    ]
    sent = make.record(0, 6, events)
    written = store.write([sent])
    assert (written.rows, written.holes, written.left_out) == (3, 0, {})
    cursor = store.reader()
    table = cursor.sql("SELECT * FROM events ORDER BY source_offset").to_arrow_table()
    cursor.close()
    assert table.column_names == [f.name for f in CORE_FIELDS] + list(make.COLUMNS)
    assert table.schema.field("time").type == pa.timestamp("us", tz="UTC")
    for name in sent.enriched.rows.schema.names:
        expected = sent.enriched.rows.column(name)
        assert table.schema.field(name).type == expected.type, name
        assert table.column(name).to_pylist() == expected.to_pylist(), name
    assert set(table["source_topic"].to_pylist()) == {"events.raw"}
    assert set(table["provenance"].to_pylist()) == {provenance_id('["embed@1"]')}


def test_provenance_is_explained_once(make, open_store, path):
    with open_store(path) as store:
        store.write([make.record(0, 2), make.record(2, 3, provenance='["embed@2"]')])
        store.write([make.record(3, 4)])
    store = open_store(path)
    store.write([make.record(4, 5)])
    joined = make.rows(
        store,
        "SELECT p.detail, list(source_offset ORDER BY source_offset) FROM events e "
        "JOIN provenance p ON e.provenance = p.id GROUP BY 1 ORDER BY 1",
    )
    assert joined == [('["embed@1"]', [0, 1, 3, 4]), ('["embed@2"]', [2])]


def test_what_came_again_is_skipped(make, open_store):
    store = open_store()
    store.write([make.record(0, 4)])
    again = store.write([make.record(0, 4)])
    assert (again.rows, again.duplicates_by_range) == (0, 4)
    partly = store.write([make.record(2, 6)])
    assert (partly.rows, partly.duplicates_by_range) == (2, 2)
    twice = store.write([make.record(6, 8), make.record(6, 8), make.record(7, 9)])
    assert (twice.rows, twice.duplicates_by_range) == (3, 3)
    assert list(store.ledger) == [OffsetRange("events.raw", 0, 0, 9)]


def test_a_hole_is_counted_until_it_is_filled(make, open_store):
    store = open_store()
    assert store.write([make.record(0, 2), make.record(5, 6)]).holes == 1
    assert store.write([make.record(3, 4)]).holes == 2
    assert store.write([make.record(2, 5)]).holes == 0
    assert make.rows(store, "SELECT list(source_offset ORDER BY source_offset) FROM events") == [
        ([*range(6)],)
    ]


def test_positions_never_go_back(make, open_store, path):
    with open_store(path) as store:
        store.write([make.record(0, 2, at=10), make.record(0, 1, partition=3, at=7)])
        store.write([make.record(0, 2, at=9)])
        expected = {("events.enriched", 0): 10, ("events.enriched", 3): 7}
        assert store.positions() == expected
    assert open_store(path).positions() == expected


def test_rejects_are_kept_with_address_and_bytes_once(make, open_store):
    store = open_store()
    sent = make.record(0, 4, rejects=[make.reject(1), make.reject(3, "stage.failed")])
    assert store.write([sent]).dead == 2
    assert store.write([sent]).dead == 0
    rows = make.rows(
        store, "SELECT * EXCLUDE (timestamp, stored_at) FROM dead ORDER BY source_offset"
    )
    headers = [{"name": "h", "value": b"\x00\xff"}, {"name": "h", "value": b"2"}]
    assert rows[0] == (
        "events.raw",
        0,
        1,
        b"key",
        b"\xffnot json",
        headers,
        "wire",
        "event.json",
        "why",
    )
    assert [row[7] for row in rows] == ["event.json", "stage.failed"]
    assert make.rows(store, "SELECT epoch_ms(timestamp) FROM dead ORDER BY 1") == [(1000,), (3000,)]


def test_a_range_of_rejects_only_advances_all_the_same(make, open_store):
    store = open_store()
    store.write([make.record(0, 2, [], rejects=[make.reject(0), make.reject(1)])])
    assert list(store.ledger) == [OffsetRange("events.raw", 0, 0, 2)]
    assert store.positions() == {("events.enriched", 0): 2}


def test_lost_offsets_are_counted_once(make, open_store):
    store = open_store()
    store.write([make.record(0, 3)])
    assert store.write([make.record(3, 103, lost=100)]).lost == 100
    assert store.write([make.record(50, 120, lost=70)]).lost == 17
    assert make.rows(store, "SELECT sum(lost), sum(rows) FROM ledger") == [(117, 3)]


def test_payload_that_duckdb_cannot_keep_costs_only_its_event(make, open_store):
    store = open_store()
    bad = make.event(1, payload='{"a": "\\ud800"}')
    sent = make.record(0, 3, [make.event(0), bad, make.event(2)])
    written = store.write([sent])
    assert (written.rows, written.dead) == (2, 1)
    assert make.rows(store, "SELECT source_offset, stage, code, value FROM dead") == [
        (1, "store", "store.json", b'{"a": "\\ud800"}')
    ]
    assert store.write([sent]).duplicates_by_range == 3
    assert make.rows(store, 'SELECT "first", "next", rows FROM ledger') == [(0, 3, 2)]


def test_another_event_at_a_stored_address_halts(make, open_store):
    store = open_store()
    store.write([make.record(0, 4)])
    other = make.record(2, 6, [make.event(2), make.event(3, name="new"), make.event(4)])
    with pytest.raises(Halt, match=r"offset 3 is event 'id-3' .* now comes as 'new'") as caught:
        store.write([other])
    assert caught.value.code == "store.recreated"
    assert make.rows(store, "SELECT count(*) FROM events") == [(4,)]
    assert store.write([make.record(4, 5)]).rows == 1  # and nothing of it was kept


def test_the_same_id_at_another_time_halts(make, open_store):
    store = open_store()
    store.write([make.record(0, 1)])
    with pytest.raises(Halt, match="made anew"):
        store.write([make.record(0, 1, [make.event(0, ingest_us=99)])])


def test_two_events_of_one_address_in_one_write_halt(make, open_store):
    with pytest.raises(Halt, match="made anew"):
        open_store().write([make.record(0, 1), make.record(0, 1, [make.event(0, name="other")])])


@pytest.mark.parametrize("offsets", [[3], [0, 0], [1, 0], [-1]])
def test_rows_outside_their_range_halt(make, open_store, offsets):
    with pytest.raises(Halt, match="nothing of it"):
        open_store().write([make.record(0, 2, [make.event(o) for o in offsets])])


def test_an_id_in_the_window_is_stored_once(make, open_store, path):
    with open_store(path, dedup_window_s=3600) as store:
        store.write([make.record(0, 2, [make.event(0, name="a"), make.event(1, name="a")])])
        assert make.rows(store, "SELECT source_offset FROM events") == [(0,)]
    store = open_store(path, dedup_window_s=3600)
    again = make.record(0, 1, [make.event(0, name="a", ingest_us=5)], partition=1)
    assert store.write([again]).duplicates_by_id == 1
    other_source = make.record(1, 2, [make.event(1, name="a", source="other")], partition=1)
    assert store.write([other_source]).rows == 1
    late = make.record(2, 3, [make.event(2, name="a", ingest_us=2 * make.HOUR_US)])
    assert store.write([late]).rows == 1
    assert next(iter(store.ledger)).next == 3


def test_a_duplicate_by_id_that_comes_again_is_no_recreated_topic(make, open_store):
    store = open_store()
    sent = make.record(0, 2, [make.event(0, name="a"), make.event(1, name="a")])
    store.write([sent])
    assert store.write([sent]).duplicates_by_range == 2


def test_window_off(make, open_store):
    store = open_store(dedup_window_s=0)
    events = [make.event(0, name="a"), make.event(1, name="a")]
    assert store.write([make.record(0, 2, events)]).rows == 2


def test_columns_that_do_not_fit_are_left_out_and_counted(make, open_store):
    store = open_store()
    extra = {"later": pa.array(["x"]), "words": pa.array(["many"])}
    sent = make.record(0, 1, stages=False, extra=extra)
    assert store.write([sent]).left_out == {"later": 1, "words": 1}
    row = make.rows(store, "SELECT id, words, embedding, entities FROM events")
    assert row == [("id-0", None, None, None)]


def test_close_and_write_again_is_a_retry(make, open_store):
    store = open_store()
    store.close()
    store.close()
    with pytest.raises(Retry, match="closed"):
        store.write([make.record(0, 1)])
    with pytest.raises(Retry, match="not open"):
        store.reader()


def test_an_open_reader_keeps_its_snapshot_and_stops_nobody(make, open_store, path):
    store = open_store(path)
    store.write([make.record(0, 3000)])
    cursor = store.reader()
    batches = cursor.sql("SELECT * FROM events").to_arrow_reader(100)
    seen = batches.read_next_batch().num_rows
    store.write([make.record(3000, 5000)])
    assert seen + sum(batch.num_rows for batch in batches) == 3000
    cursor.close()
    assert make.rows(store, "SELECT count(*) FROM events") == [(5000,)]


def test_work_between_two_writes_is_one_transaction(make, open_store):
    store = open_store()
    store.write([make.record(0, 4)])

    def drop(writer, then):
        writer.execute("DELETE FROM events WHERE source_offset < 2").fetchall()
        if then:
            raise ValueError(then)
        return "done"

    with pytest.raises(ValueError, match="no"):
        store.exclusively(lambda writer: drop(writer, "no"))
    assert make.rows(store, "SELECT count(*) FROM events") == [(4,)]
    assert store.exclusively(lambda writer: drop(writer, "")) == "done"
    assert make.rows(store, "SELECT count(*) FROM events") == [(2,)]
    assert store.write([make.record(0, 5)]).duplicates_by_range == 4
    store.close()
    with pytest.raises(Retry, match="closed"):
        store.exclusively(lambda writer: drop(writer, ""))


def test_a_checkpoint_on_demand_empties_the_wal(make, open_store, path):
    store, wal = open_store(path), Path(f"{path}.wal")
    store.write([make.record(0, 4)])
    assert wal.stat().st_size > 0
    assert store.checkpoint()
    assert not wal.exists() or wal.stat().st_size == 0


def test_keys_made_before_are_those_made_here(make, open_store):
    store, events = open_store(), [make.event(0), make.event(1, name="id-0"), make.event(2)]
    assert store.write([keyed(make.record(0, 3, events))]).duplicates_by_id == 1
    late = make.record(0, 5, [*events, make.event(3), make.event(4, name="id-2")])
    written = store.write([keyed(late)])
    assert (written.rows, written.duplicates_by_range, written.duplicates_by_id) == (1, 3, 1)


_cuts = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=12
)


@pytest.mark.timeout(600)  # it opens hundreds of stores, which a busy machine takes minutes for
@settings(max_examples=40, deadline=None)
@given(cuts=_cuts, groups=st.integers(1, 4), reopen_after=st.integers(0, 12))
def test_any_order_and_overlap_gives_each_offset_once(
    make, tmp_path_factory, cuts, groups, reopen_after
):
    """Records of any ranges of three partitions, in any order, in one or many transactions."""
    path = str(tmp_path_factory.mktemp("any") / "store.duckdb")
    records = [
        make.record(
            first,
            first + length,
            partition=partition,
            at=index + 1,
            events=[
                make.event(o, source=f"s{partition}") for o in range(first, first + length) if o % 5
            ],
            rejects=[make.reject(o) for o in range(first, first + length) if o % 5 == 0],
        )
        for index, (partition, first, length) in enumerate(cuts)
    ]
    store = Store.open(path, columns=make.COLUMNS)
    for start in range(0, len(records), groups):
        if reopen_after <= start < reopen_after + 3 * groups:
            store.close()
            store = Store.open(path, columns=make.COLUMNS)
        store.write(records[start : start + groups])
    expected = {(p, o) for p, first, n in cuts for o in range(first, first + n)}
    rows = make.rows(store, "SELECT source_partition, source_offset, id, words FROM events")
    assert sorted((p, o) for p, o, _, _ in rows) == sorted(a for a in expected if a[1] % 5)
    assert all((id_, words) == (f"id-{o}", o) for _, o, id_, words in rows)
    dead = make.rows(store, "SELECT source_partition, source_offset FROM dead")
    assert sorted(dead) == sorted(a for a in expected if a[1] % 5 == 0)
    stored = make.rows(store, 'SELECT "partition", unnest(range("first", "next")) FROM ledger')
    assert sorted(stored) == sorted(expected)
    assert make.rows(store, "SELECT sum(rows) FROM ledger") == [(len(rows),)]
    store.close()
