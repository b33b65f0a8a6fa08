"""What a sink promises, held against every sink there is; read back without code of ours."""

import uuid

import numpy as np
import pyarrow as pa
import pytest
import s3_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sinks import (
    COLUMNS,
    DAY_US,
    DIM,
    DuckSink,
    ParquetSink,
    S3Sink,
    asking,
    event,
    record,
    reject,
    rows,
)

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.core.ranges import OffsetRange
from streamapp.sink.intake import provenance_id
from streamapp.sink.matrix import Matrix
from streamapp.sink.search import Search

pytestmark = pytest.mark.timeout(400)  # the S3 server is installed once


@pytest.fixture(params=["duckdb", "parquet", "parquet-memory", "parquet-s3"])
def new_sink(request, tmp_path, monkeypatch):
    """Makes sinks of one kind, each empty."""
    name = request.param.partition("-")[2]
    if name == "s3":
        for variable, value in s3_server.environment(request.getfixturevalue("s3_server")).items():
            monkeypatch.setenv(variable, value)

    def new():
        unique = uuid.uuid4().hex
        if request.param == "duckdb":
            (tmp_path / unique).mkdir()
            return DuckSink(tmp_path / unique)
        if name == "memory":
            return ParquetSink(f"memory://{unique}")
        if name == "s3":
            return S3Sink(unique, request.getfixturevalue("s3_server"))
        return ParquetSink(str(tmp_path / unique))

    return new


@pytest.fixture
def sink(new_sink):
    return new_sink()


def stored(sink):
    """Source offsets of the events, in order."""
    return [o for (o,) in rows(sink, "SELECT source_offset FROM events ORDER BY 1", "events")]


_COVERED = "SELECT partition, unnest(range(first, next)) FROM ledger ORDER BY ALL"
_ADDRESS = "SELECT source_partition, source_offset FROM"


def covered(sink):
    return rows(sink, _COVERED, "ledger")


def test_rows_come_back_as_they_went_in(sink):
    events = [
        event(0, payload='{"a": [1, {"b": "ü"}]}', text="olá\x00 🙂"),
        event(2, ingest_time=1_790_000_000_123_456),
        event(5, ingest_time=1_790_000_000_123_456 + DAY_US),
    ]
    sent = record(0, 6, events)
    with sink.open() as store:
        assert store.write([sent]).rows == 3
    table = sink.arrow("events").sort_by("source_offset")
    for name in sent.enriched.rows.schema.names:
        expected = sent.enriched.rows.column(name)
        assert table[name].to_pylist() == expected.to_pylist(), name
        if name != "attachments":  # DuckDB marks it as JSON
            assert table.schema.field(name).type in (expected.type, pa.json_()), name
    assert table.schema.field("embedding").type.list_size == DIM
    assert set(table["source_topic"].to_pylist()) == {"events.raw"}
    assert set(table["source_partition"].to_pylist()) == {0}
    assert set(table["provenance"].to_pylist()) == {provenance_id('["embed@1"]')}


def test_what_came_again_is_skipped(sink):
    with sink.open() as store:
        store.write([record(0, 4)])
        again = store.write([record(0, 4)])
        assert (again.rows, again.duplicates_by_range) == (0, 4)
        partly = store.write([record(2, 6)])
        assert (partly.rows, partly.duplicates_by_range) == (2, 2)
        twice = store.write([record(6, 8), record(6, 8), record(7, 9)])
        assert (twice.rows, twice.duplicates_by_range) == (3, 3)
        assert list(store.ledger) == [OffsetRange("events.raw", 0, 0, 9)]
    assert stored(sink) == [*range(9)]
    with sink.open() as store:
        assert store.write([record(0, 9)]).duplicates_by_range == 9
    assert stored(sink) == [*range(9)]


def test_a_hole_is_counted_until_it_is_filled(sink):
    with sink.open() as store:
        assert store.write([record(0, 2), record(5, 6)]).holes == 1
        assert store.write([record(3, 4)]).holes == 2
    with sink.open() as store:
        assert store.write([record(2, 5)]).holes == 0
    assert stored(sink) == [*range(6)]


def test_positions_never_go_back(sink):
    expected = {("events.enriched", 0): 10, ("events.enriched", 3): 7}
    with sink.open() as store:
        store.write([record(0, 2, at=10), record(0, 1, partition=3, at=7)])
        store.write([record(0, 2, at=9)])
        assert store.positions() == expected
    with sink.open() as store:
        assert store.positions() == expected
        store.write([record(2, 2, at=12)])  # nothing but a position
    with sink.open() as store:
        assert store.positions() == expected | {("events.enriched", 0): 12}


def test_rejects_are_kept_with_address_and_bytes_once(sink):
    sent = record(0, 4, rejects=[reject(1), reject(3)])
    with sink.open() as store:
        assert store.write([sent]).dead == 2
        assert store.write([sent]).dead == 0
    dead = sink.arrow("dead").drop_columns("stored_at").sort_by("source_offset").to_pylist()
    assert [one["source_offset"] for one in dead] == [1, 3]
    assert dead[0]["value"] == b"\xffnot json"
    assert dead[0]["headers"] == [{"name": "h", "value": b"\x00\xff"}, {"name": "h", "value": b"2"}]
    assert (dead[0]["stage"], dead[0]["code"], dead[0]["key"]) == ("wire", "event.json", b"key")
    assert dead[1]["timestamp"].timestamp() == 3
    assert stored(sink) == [0, 2]


def test_a_range_of_rejects_only_advances_all_the_same(sink):
    with sink.open() as store:
        store.write([record(0, 2, [], rejects=[reject(0), reject(1)])])
        assert store.positions() == {("events.enriched", 0): 2}
    assert covered(sink) == [(0, 0), (0, 1)]


def test_lost_offsets_are_counted_once(sink):
    with sink.open() as store:
        store.write([record(0, 3)])
        assert store.write([record(3, 103, [], lost=100)]).lost == 100
        assert store.write([record(50, 120, [], lost=70)]).lost == 17
    assert rows(sink, "SELECT sum(lost), sum(rows) FROM ledger", "ledger") == [(117, 3)]


def test_provenance_is_explained_once(sink):
    for first, detail in [(0, '["embed@1"]'), (2, '["embed@2"]'), (4, '["embed@1"]')]:
        with sink.open() as store:
            store.write([record(first, first + 2, provenance=detail)])
    explained = sink.arrow("provenance").to_pylist()
    assert sorted(one["detail"] for one in explained) == ['["embed@1"]', '["embed@2"]']
    given = dict(rows(sink, "SELECT source_offset, provenance FROM events", "events"))
    assert given[0] == given[4] == provenance_id('["embed@1"]') != given[2]


@pytest.mark.parametrize("reopened", [False, True])
def test_another_event_at_a_stored_address_halts(sink, reopened):
    store = sink.open()
    store.write([record(0, 4)])
    if reopened:
        store.close()
        store = sink.open()
    with store:
        other = record(2, 6, [event(2, source="s0"), event(3, id="new"), event(4)])
        with pytest.raises(Halt, match=r"offset 3 is event 'id-3' .* now comes as 'new'") as caught:
            store.write([other])
        assert caught.value.code == "store.recreated"
        with pytest.raises(Halt, match="made anew"):  # the same id at another time
            store.write([record(0, 1, [event(0, ingest_time=99)])])
        assert store.write([record(4, 5)]).rows == 1  # and nothing of it was kept
    assert stored(sink) == [0, 1, 2, 3, 4]


def test_two_events_of_one_address_in_one_write_halt(sink):
    with sink.open() as store, pytest.raises(Halt, match="made anew"):
        store.write([record(0, 1), record(0, 1, [event(0, id="other")])])


@pytest.mark.parametrize("offsets", [[3], [0, 0], [1, 0], [-1]])
def test_rows_outside_their_range_halt(sink, offsets):
    with sink.open() as store, pytest.raises(Halt, match="nothing of it"):
        store.write([record(0, 2, [event(o) for o in offsets])])


def test_an_id_in_the_window_is_stored_once(sink):
    both = record(0, 2, [event(0, id="a"), event(1, id="a")])
    with sink.open(dedup_window_s=3600) as store:
        assert store.write([both]).duplicates_by_id == 1
        assert store.write([both]).duplicates_by_range == 2  # and no topic made anew
    with sink.open(dedup_window_s=3600) as store:
        again = record(0, 1, [event(0, id="a", ingest_time=5)], partition=1)
        assert store.write([again]).duplicates_by_id == 1
        other_source = record(1, 2, [event(1, id="a", source="other")], partition=1)
        assert store.write([other_source]).rows == 1
        late = record(2, 3, [event(2, id="a", ingest_time=7200 * 1_000_000)])
        assert store.write([late]).rows == 1
    found = "SELECT source_partition, source_offset FROM events ORDER BY ALL"
    assert rows(sink, found, "events") == [(0, 0), (0, 2), (1, 1)]


def test_the_window_that_is_read_back_is_the_one_that_was(sink):
    """Ids of several commits and days, newest 5 remembered: the same after opening again."""
    days = [0, DAY_US, 0, 2 * DAY_US, DAY_US, 0, DAY_US, 2 * DAY_US]
    events = [event(o, ingest_time=day + o) for o, day in enumerate(days)]

    def dropped(store):
        """Offsets of partition 1 whose ids were in the window; nothing is ever written twice."""
        probe = record(
            0, 8, [one | {"source_offset": o} for o, one in enumerate(events)], partition=1
        )
        return store.write([probe]).duplicates_by_id

    options = {"dedup_window_s": 30 * 86_400, "dedup_window_events": 5}
    with sink.open(**options) as store:
        store.write([record(0, 3, events[:3])])
        store.write([record(3, 8, events[3:])])
    with sink.open(**options) as store:
        assert dropped(store) == 5
    kept = "SELECT source_offset FROM events WHERE source_partition = 1 ORDER BY 1"
    assert rows(sink, kept, "events") == [(0,), (1,), (2,)]


def test_window_off(sink):
    with sink.open(dedup_window_s=0) as store:
        assert store.write([record(0, 2, [event(0, id="a"), event(1, id="a")])]).rows == 2


def test_a_new_stage_widens_and_a_gone_one_stays(sink):
    with sink.open(columns={"words": pa.int32()}) as store:
        left = store.write([record(0, 2)])
        assert left.left_out == {"embedding": 2, "entities": 2}
    with sink.open(columns={"embedding": COLUMNS["embedding"]}) as store:
        assert store.write([record(2, 4)]).left_out == {"entities": 2}
    with sink.open() as store:
        store.write([record(4, 5)])
        cursor = store.reader()
        found = cursor.sql(
            "SELECT source_offset, words, embedding IS NOT NULL, len(entities) FROM events ORDER BY 1"
        ).fetchall()
        cursor.close()
    assert found == [
        (0, 0, False, None),
        (1, 1, False, None),
        (2, 2, False, None),  # its event has no vector
        (3, 3, True, None),
        (4, 4, True, 1),
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": pa.string()}, "words"),
        ({"ID": pa.int32()}, "has already"),
        ({"nothing": pa.null()}, "null"),
    ],
)
def test_columns_that_cannot_be_are_refused(sink, columns, message):
    sink.open().close()
    with pytest.raises(Refuse, match=message):
        sink.open(columns=COLUMNS | columns)
    sink.open().close()  # and nothing is changed or locked


def test_values_of_another_type_are_left_out_and_counted(sink):
    extra = {"later": pa.array(["x"]), "words": pa.array(["many"])}
    sent = record(0, 1)
    batch = sent.enriched.rows.drop_columns(["words"])
    for name, column in extra.items():
        batch = batch.append_column(name, column)
    from dataclasses import replace

    with sink.open() as store:
        changed = sent._replace(enriched=replace(sent.enriched, rows=batch))
        assert store.write([changed]).left_out == {"later": 1, "words": 1}
    assert sink.arrow("events")["words"].to_pylist() == [None]


def test_subscribers_hear_of_rows_in_the_order_of_commits(sink):
    heard = []
    with sink.open() as store:
        end = store.subscribe(lambda table, written: heard.append((table, written)))
        store.write([record(0, 2)])
        store.write([record(0, 3)])
        end()
        store.write([record(3, 4)])
    assert [(t["source_offset"].to_pylist(), w.rows) for t, w in heard] == [([0, 1], 2), ([2], 1)]


def test_a_reader_keeps_its_snapshot_and_stops_nobody(sink):
    with sink.open() as store:
        store.write([record(0, 300)])
        cursor = store.reader()
        batches = cursor.sql("SELECT source_offset FROM events").to_arrow_reader(100)
        seen = batches.read_next_batch().num_rows
        store.write([record(300, 500)])
        assert seen + sum(batch.num_rows for batch in batches) == 300
        cursor.close()
        cursor = store.reader()
        tables = ("events", "dead", "ledger", "position", "provenance")
        counts = [cursor.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in tables]
        cursor.close()
    assert counts[0] == 500
    assert counts[1] == 0
    assert all(counts[2:])


@pytest.mark.parametrize("rows_in_memory", [100_000, 3])
def test_the_nearest_are_found_among_all_that_is_stored(sink, rows_in_memory):
    """Vectors point in one of four directions by offset; every third event has none."""
    asked = {"a text": [0, 1, 0, 0]}
    search = Search(
        lambda texts: np.array([asked[text] for text in texts], np.float32),
        bytes_max=rows_in_memory * (DIM * 4 + Matrix.ROW_BYTES),
        row=sink.row,
    )

    def found(sql):
        cursor = store.reader()
        try:
            return sorted(id_ for (id_,) in cursor.execute(f"SELECT id FROM {sql}").fetchall())
        finally:
            cursor.close()

    with sink.open(search=search) as store:
        store.write([record(0, 10)])
        assert found("near('id-1', 1)") == ["id-9"]  # 5 has no vector
        assert found("similar('a text', 2)") == ["id-1", "id-9"]
        store.write([record(10, 20)])
        assert found("near('id-1', 2)") == ["id-13", "id-9"]
        assert found("similar('a text', 3) WHERE cosine > 0.99") == ["id-1", "id-13", "id-9"]


def test_closed_is_a_retry_and_closing_twice_is_fine(sink):
    store = sink.open()
    store.close()
    store.close()
    with pytest.raises(Retry, match="closed"):
        store.write([record(0, 1)])
    with pytest.raises(Retry, match="not open"):
        store.reader()


_cuts = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=10
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=_cuts, groups=st.integers(1, 4), reopen_after=st.integers(0, 10))
def test_any_order_and_overlap_gives_each_offset_once(new_sink, cuts, groups, reopen_after):
    """Records of any ranges of three partitions, in any order, in one or many commits."""
    sink = new_sink()
    records = [
        record(
            first, first + length, partition=partition, at=index + 1,
            rejects=[reject(o) for o in range(first, first + length) if o % 5 == 0],
        )
        for index, (partition, first, length) in enumerate(cuts)
    ]  # fmt: skip
    store = sink.open()
    for start in range(0, len(records), groups):
        if start >= reopen_after:
            store.close()
            store = sink.open()
        store.write(records[start : start + groups])
    store.close()
    expected = sorted({(p, o) for p, first, n in cuts for o in range(first, first + n)})
    events = [one for one in expected if one[1] % 5]
    dead = [one for one in expected if one[1] % 5 == 0]
    there = {"events": events, "dead": dead, "ledger": expected}
    with asking(sink, *(table for table, held in there.items() if held)) as ask:
        if events:
            assert ask(f"{_ADDRESS} events ORDER BY ALL") == events
            wrong = "count(*) FROM events WHERE id <> 'id-' || words OR words <> source_offset"
            assert ask(f"SELECT {wrong}") == [(0,)]
        if dead:
            assert ask(f"{_ADDRESS} dead ORDER BY ALL") == dead
        assert ask(_COVERED) == expected
        assert ask("SELECT sum(rows) FROM ledger") == [(len(events),)]
