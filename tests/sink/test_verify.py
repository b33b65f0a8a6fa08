"""Each promise that ``verify`` checks is broken by hand, with DuckDB alone, and must be named."""

import contextlib
import hashlib
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Halt, Refuse, Reject
from streamapp.sink import Store, keep
from streamapp.sink.verify import CHECKS, HOLE, LISTED_MAX, Window, failure, verify

WINDOW = Window(3600, 1000)
#: Of DuckDB's file format.
HEADERS_BYTES, BLOCK_BYTES = 3 * 4096, 256 * 1024


def report_of(path, window=WINDOW, **options):
    with keep.opened(path) as read, contextlib.closing(read()) as cursor:
        *steps, report = verify(cursor, window, **options)
    assert [step["at"] for step in steps] == list(range(len(steps)))
    assert report["done"]
    return report


def found(report):
    return [(one["code"], one["where"]) for one in report["findings"]]


@pytest.fixture
def stored(make, path):
    """A store of two partitions with everything in it; closed."""
    with Store.open(path, columns=make.COLUMNS) as store:
        store.write([make.record(0, 50, rejects=[make.reject(7)])])
        store.write([make.record(50, 60), make.record(60, 70, lost=10)])
        store.write([make.record(0, 20, events=[make.event(3, name="x")], partition=1)])
    return path


def broken(path, *statements):
    """The report after DuckDB alone ran these on the file."""
    with duckdb.connect(path) as plain:
        for statement in statements:
            plain.execute(statement).fetchall()
    return report_of(path)


def test_a_sound_store_is_clean(stored):
    report = report_of(stored, deep=True)
    assert (report["ok"], report["findings"], report["holes"]) == (True, [], [])
    totals = {name: report[name] for name in ("rows", "dead", "lost", "retained")}
    assert totals == {"rows": 60, "dead": 1, "lost": 10, "retained": 0}
    assert failure(report, stored) is None


COPY = "INSERT INTO events SELECT * REPLACE ({}) FROM events WHERE source_offset = 4"
BREAKS = {
    "a row is gone": (
        ["DELETE FROM events WHERE source_offset = 4"],
        [("ledger.rows", "events.raw-0[0,70)")],
    ),
    "a row from nowhere": (
        [COPY.format("900 AS source_offset, 'new' AS id")],
        [("ledger.stray", "events.raw-0@900")],
    ),
    "a row of a partition that the ledger does not know": (
        [COPY.format("9 AS source_partition, 'new' AS id")],
        [("ledger.stray", "events.raw-9@4")],
    ),
    "a row of another topic": (
        [COPY.format("'other' AS source_topic, 'new' AS id")],
        [("ledger.stray", "other-0@4")],
    ),
    "a row below the first range": (
        [COPY.format("-1 AS source_offset, 'new' AS id")],
        [("ledger.stray", "events.raw-0@-1")],
    ),
    "a row twice": (
        [COPY.format("'new' AS id")],
        [("ledger.rows", "events.raw-0[0,70)"), ("address.repeated", "events.raw-0@4")],
    ),
    "a dead letter that is a row too": (
        ["UPDATE dead SET source_offset = 4"],
        [("address.repeated", "events.raw-0@4")],
    ),
    "a dead letter from nowhere": (
        ["UPDATE dead SET source_offset = 800"],
        [("ledger.stray", "events.raw-0@800")],
    ),
    "an id twice": (
        ["UPDATE events SET id = 'id-5' WHERE id = 'id-30'"],
        [("ids.repeated", "events.raw-0@30")],
    ),
    "the ledger counts too many": (
        ['UPDATE ledger SET rows = rows + 1 WHERE "partition" = 1'],
        [("ledger.rows", "events.raw-1[0,20)")],
    ),
    "the ledger counts what is no number of rows": (
        ['UPDATE ledger SET lost = -1 WHERE "partition" = 1'],
        [("ledger.range", "events.raw-1[0,20)")],
    ),
    "more than a range can hold": (
        ['UPDATE ledger SET lost = 20 WHERE "partition" = 1'],
        [("ledger.rows", "events.raw-1[0,20)")],
    ),
    "an empty range": (
        [('INSERT INTO ledger SELECT * REPLACE (5 AS "first", 5 AS "next", 0 AS rows) '
         'FROM ledger WHERE "partition" = 1')],
        [("ledger.overlap", "events.raw-1[5,5)"), ("ledger.range", "events.raw-1[5,5)")],
    ),
    "a range within another": (
        [('INSERT INTO ledger SELECT * REPLACE (10 AS "first", 0 AS rows, 0 AS lost) '
         'FROM ledger WHERE "partition" = 1')],
        [("ledger.overlap", "events.raw-1[10,20)")],
    ),
    "the ledger forgot a partition": (
        ['DELETE FROM ledger WHERE "partition" = 1'],
        [("ledger.stray", "events.raw-1@3")],
    ),
    "a position that went back": (
        [('INSERT INTO position SELECT * REPLACE (3 AS "next") FROM position '
         'WHERE "partition" = 1')],
        [("position.back", "events.enriched-1")],
    ),
    "no position": (
        ['DELETE FROM position WHERE "partition" = 1'],
        [("position.missing", "events.raw-1")],
    ),
    "provenance that nothing explains": (
        ["UPDATE events SET provenance = 1 WHERE source_offset = 30"],
        [("provenance.missing", "events.raw-0@30")],
    ),
    "rows that were retained and are here": (
        ["INSERT INTO retained VALUES ('events.raw', 1, 3, 4, 0, 0, now(), now())"],
        [("retained.returned", "events.raw-1@3")],
    ),
    "retained without the ledger": (
        ["INSERT INTO retained VALUES ('events.raw', 1, 18, 24, 0, 0, now(), now())"],
        [("retained.stray", "events.raw-1[18,24)")],
    ),
    "fewer retained than are gone": (
        ["DELETE FROM events WHERE source_offset < 3",
         "INSERT INTO retained VALUES ('events.raw', 0, 0, 3, 2, 0, now(), now())"],
        [("ledger.rows", "events.raw-0[0,70)")],
    ),
}  # fmt: skip


@pytest.fixture
def compacted(make, stored):
    """As a store is after its next start: touching ranges are one row of the ledger."""
    Store.open(stored, columns=make.COLUMNS).close()
    return stored


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_named(compacted, name):
    statements, expected = BREAKS[name]
    report = broken(compacted, *statements)
    assert found(report) == expected
    assert not report["ok"]
    assert all(one["what"] for one in report["findings"])
    error = failure(report, compacted)
    only_data = {code for code, _ in expected} == {"ids.repeated"}
    assert type(error) is (Reject if only_data else Halt)
    assert error.exit_code == (65 if only_data else 70)


def test_every_check_can_fail():
    seen = {code for _, expected in BREAKS.values() for code, _ in expected}
    assert seen == {check.code for check in CHECKS}


def test_before_compaction_each_range_is_counted_by_itself(stored):
    report = broken(stored, "DELETE FROM events WHERE source_offset = 55")
    assert found(report) == [("ledger.rows", "events.raw-0[50,70)")]


def test_what_was_retained_is_no_loss(compacted):
    report = broken(
        compacted,
        "DELETE FROM events WHERE source_offset < 3",
        "INSERT INTO retained VALUES ('events.raw', 0, 0, 3, 3, 0, now(), now())",
    )
    assert (report["ok"], report["retained"], report["rows"]) == (True, 3, 57)


def test_holes_are_listed(make, path):
    with Store.open(path, columns=make.COLUMNS) as store:
        store.write([make.record(0, 5), make.record(8, 9), make.record(12, 14)])
    report = report_of(path)
    assert report["holes"] == ["events.raw-0[5,8)", "events.raw-0[9,12)"]
    assert found(report) == [(HOLE, place) for place in report["holes"]]
    error = failure(report, path)
    assert (type(error), error.exit_code, error.code) == (Reject, 65, "store.incomplete")
    assert "2 ledger.hole" in error.message


def test_an_id_may_come_again_when_the_window_has_passed(make, path):
    again = make.event(40, name="id-0", ingest_us=2 * make.HOUR_US)
    with Store.open(path, columns=make.COLUMNS, dedup_window_s=3600) as store:
        store.write([make.record(0, 5), make.record(5, 41, events=[again])])
    assert report_of(path)["ok"]
    assert found(report_of(path, Window(3 * 3600, 1000))) == [("ids.repeated", "events.raw-0@40")]
    assert report_of(path, Window(3 * 3600, 4))["ok"]
    assert report_of(path, Window(0, 1000))["ok"]


def test_much_that_is_wrong_is_counted_and_not_all_listed(compacted):
    report = broken(compacted, "UPDATE events SET provenance = 1")
    assert report["counts"] == {"provenance.missing": 60}
    assert len(report["findings"]) == LISTED_MAX


def test_a_damaged_block_is_found_by_reading_it(make, path):
    with Store.open(path, columns=make.COLUMNS) as store:
        for first in range(0, 20_480, 2048):
            texts = [
                make.event(first + n, text=hashlib.sha512(b"%d" % (first + n)).hexdigest() * 2)
                for n in range(2048)
            ]
            store.write([make.record(first, first + 2048, texts)])
    assert report_of(path, deep=True)["ok"]
    sound = Path(path).read_bytes()
    outcomes = {}
    for at in range(HEADERS_BYTES + BLOCK_BYTES // 2, len(sound), 3 * BLOCK_BYTES):
        Path(path).write_bytes(sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :])
        try:
            outcomes[at] = report_of(path, deep=True)
        except Refuse as refusal:  # a block that opening reads
            assert refusal.code == "store.corrupt"
    damaged = [report for report in outcomes.values() if not report["ok"]]
    assert len(damaged) > 2
    for report in damaged:
        assert report["counts"] == {"file.damaged": 1}
        assert "orrupt" in report["findings"][0]["what"]
        assert isinstance(failure(report, path), Halt)


def test_a_store_from_before_there_was_a_table_retained(compacted):
    with duckdb.connect(compacted) as plain:
        plain.execute("DROP TABLE retained")
    assert report_of(compacted)["ok"]


def test_it_writes_nothing(stored):
    before = Path(stored).read_bytes()
    report_of(stored, deep=True)
    assert Path(stored).read_bytes() == before
    assert [one.name for one in Path(stored).parent.iterdir()] == [Path(stored).name]


def test_it_sees_one_moment_while_the_store_writes(make, open_store):
    store = open_store()
    store.write([make.record(0, 100)])
    with contextlib.closing(store.reader()) as cursor:
        steps = verify(cursor, WINDOW)
        next(steps)
        for first in range(100, 1000, 50):
            store.write([make.record(first, first + 50)])
            next(steps, None) if first < 400 else None
        *_, report = steps
    assert (report["ok"], report["rows"]) == (True, 100)


@pytest.mark.parametrize("what", ["text", "table", "empty"])
def test_what_is_no_store_is_refused(tmp_path, what):
    path = str(tmp_path / "x.duckdb")
    if what == "text":
        Path(path).write_text("hello " * 10_000)
    else:
        with duckdb.connect(path) as plain:
            plain.execute("CREATE TABLE theirs (i INTEGER)" if what == "table" else "SELECT 1")
    with pytest.raises(Refuse, match=path):
        report_of(path)


def test_a_missing_store_is_not_made(tmp_path):
    with pytest.raises(Refuse, match="there is no store"):
        report_of(str(tmp_path / "x.duckdb"))
    assert list(tmp_path.iterdir()) == []


_cuts = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=10
)


@settings(max_examples=12, deadline=None)
@given(cuts=_cuts)
def test_whatever_was_stored_in_whatever_order_verifies(make, cuts):
    with Store.open(":memory:", columns=make.COLUMNS) as store:
        for at, (partition, first, size) in enumerate(cuts, 1):
            range_ = range(first, first + size)
            events = [make.event(o, source=f"s{partition}") for o in range_ if o % 5]
            dead = [make.reject(o) for o in range_ if o % 5 == 0]
            store.write([
                make.record(first, first + size, events, rejects=dead, partition=partition, at=at)
            ])  # fmt: skip
        holes = [str(hole) for hole in store.ledger.holes()]
        with contextlib.closing(store.reader()) as cursor:
            *_, report = verify(cursor, WINDOW)
    assert report["holes"] == holes
    assert set(report["counts"]) <= {HOLE}
