"""Windows of event time: by an oracle of plain Python, in any cuts, and after any kill."""

from collections import defaultdict
from itertools import pairwise

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_work import TableWork, made, result

from streamapp.core.errors import Halt, Refuse
from streamapp.services.pipeline.window.operation import Window
from streamapp.services.pipeline.window.spec import duration_us

US = 1_000_000
COLUMNS = {"n": "count(*)", "total": "sum(price)", "first": "first(price)", "all": "list(price)"}
KINDS = [
    {"kind": "tumbling", "size": "10s"},
    {"kind": "hopping", "size": "10s", "every": "4s"},
    {"kind": "hopping", "size": "3s", "every": "5s"},
    {"kind": "sliding", "size": "10s"},
    {"kind": "session", "gap": "5s"},
]
ROWS = st.lists(
    st.tuples(
        st.integers(-30, 60), st.sampled_from(["a", "b", None]),
        st.floats(-10, 10, allow_nan=False) | st.none(),
    ),
    max_size=25,
)  # fmt: skip
GRACES = st.sampled_from([0, 3, 20])
CUTS = st.lists(st.integers(0, 25), max_size=4)


def table_of(rows):
    return pa.table(
        {
            "at": pa.array([at * US for at, _, _ in rows], pa.timestamp("us", "UTC")),
            "who": pa.array([who for _, who, _ in rows], pa.string()),
            "price": pa.array([price for _, _, price in rows], pa.float64()),
        }
    )


def config_of(kind, grace):
    return {"time": "at", "by": ["who"], "grace": f"{grace}s", "columns": COLUMNS, **kind}


def of_store(query, table):
    """What DuckDB answers, of rows that it has in another order."""
    rows = table.append_column("source_offset", pa.array(range(len(table)), pa.int64()))
    rows = rows.take(pa.array(range(len(table) - 1, -1, -1), pa.int64()))
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("events", rows)
        return connection.sql(query).to_arrow_table().to_pylist()


def seconds(text):
    return duration_us(text, "") // US


def expected(rows, kind, grace):
    """(start, end, who) to the rows' numbers, and how many rows are late."""
    found, late, seen = defaultdict(list), 0, -(10**9)
    taken = []
    for number, (at, who, _) in enumerate(rows):
        mark, seen = seen - grace, max(seen, at)
        if kind["kind"] in {"sliding", "session"}:
            late += at < mark
            taken += [(at, who, number)] * (at >= mark)
            continue
        size, every = seconds(kind["size"]), seconds(kind.get("every", kind["size"]))
        starts = [s for s in range(at - at % every, at - size, -every) if s + size > at]
        open_ones = [start for start in starts if start + size > mark]
        late += bool(starts) and not open_ones
        for start in open_ones:
            found[start, start + size, who].append(number)
    if kind["kind"] == "sliding":
        size = seconds(kind["size"])
        for at, who, _ in taken:
            mine = [n for t, w, n in taken if w == who and at - size < t <= at]
            found[at - size, at, who] = mine
    if kind["kind"] == "session":
        found = sessions(taken, seconds(kind["gap"]))
    return found, late


def sessions(taken, gap):
    found = {}
    for key in {who for _, who, _ in taken}:
        mine = sorted((at, number) for at, who, number in taken if who == key)
        runs = []
        for at, number in mine:
            if runs and at - runs[-1][-1][0] < gap:
                runs[-1].append((at, number))
            else:
                runs.append([(at, number)])
        for run in runs:
            found[run[0][0], run[-1][0] + gap, key] = [number for _, number in run]
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
@given(rows=ROWS, grace=GRACES, cuts=CUTS)
@settings(max_examples=6, deadline=None)
def test_all_at_once_and_in_parts_equal_what_plain_python_finds(kind, rows, grace, cuts):
    check(kind, rows, grace, cuts)


@pytest.mark.soak
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
@given(rows=ROWS, grace=GRACES, cuts=CUTS)
@settings(max_examples=1_000, deadline=None)
def test_the_same_for_longer(kind, rows, grace, cuts):
    check(kind, rows, grace, cuts)


def check(kind, rows, grace, cuts):
    config, table, work = config_of(kind, grace), table_of(rows), TableWork()
    operation, schema = made(Window, config, work, rows=table)
    whole = operation.run({"rows": table})
    assert whole.schema.equals(schema)
    windows, late = expected(rows, kind, grace)
    by_end = sorted(windows, key=lambda key: (key[1], key[0], key[2] is None, key[2]))
    assert [
        (int(row["window_start"].timestamp()), int(row["window_end"].timestamp()), row["who"])
        for row in whole.to_pylist()
    ] == by_end
    in_order = kind["kind"] not in {"sliding", "session"}
    for row, key in zip(whole.to_pylist(), by_end, strict=True):
        prices = [rows[number][2] for number in windows[key]]
        assert row["n"] == len(prices)
        if in_order:
            assert row["all"] == prices
            assert row["first"] == prices[0]
    assert operation.late == late
    assert of_store(operation.backfill("events", "source_offset"), table) == whole.to_pylist()
    parts, other = [], operation
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    operation.late = 0
    for begin, end in pairwise(edges):
        parts.append(other.feed(table[begin:end]))
        kept, before = other.state(), other  # killed, and another goes on
        other = Window(before.config)
        other.schema({"rows": table.schema}, work)
        other.open(work)
        other.restore(kept)
        before.close()
    parts.append(other.flush())
    assert pa.concat_tables(parts).to_pylist() == whole.to_pylist()
    assert other.late == late
    assert other.flush().num_rows == 0
    again = pa.concat_tables([other.feed(table), other.flush()])  # it has forgotten what it saw
    assert again.to_pylist() == whole.to_pylist()
    other.close()


def test_windows_close_as_soon_as_the_grace_is_over_and_late_rows_are_counted():
    config = config_of({"kind": "tumbling", "size": "10s"}, 2)
    work = TableWork()
    first = table_of([(1, "a", 1.0), (11, "a", 2.0), (9, "a", 4.0)])
    operation, _ = made(Window, {**config, "late": "quarantine"}, work, rows=first)
    assert operation.feed(first).num_rows == 0
    assert operation.feed(table_of([(12, "b", 8.0)]))["total"].to_pylist() == [5.0]
    assert operation.feed(table_of([(9, "a", 16.0), (11, "a", 32.0)])).num_rows == 0
    assert [(row["price"], why) for row, why in work.bad_rows] == [(16.0, "late")]
    assert operation.flush()["total"].to_pylist() == [34.0, 8.0]
    [told] = operation.report()
    operation.close()
    assert (told["late"], told["dropped"], told["rows_in"], told["rows_out"]) == (1, 1, 6, 3)


def test_a_row_may_be_late_for_some_of_its_windows():
    rows = table_of([(0, "a", 1.0), (10, "a", 2.0), (8, "a", 4.0)])
    config = config_of({"kind": "hopping", "size": "10s", "every": "5s"}, 0)
    operation, _ = made(Window, config, rows=rows)
    found = operation.run({"rows": rows}).to_pylist()
    operation.close()
    assert [row["total"] for row in found] == [1.0, 1.0, 6.0, 2.0]
    assert (operation.late, operation.late_partly) == (0, 1)


def test_a_sliding_window_looks_only_at_rows_near_its_own():
    count = 100_000  # compared with each other they would take minutes
    at = pa.array(range(-500, count - 500)).cast(pa.timestamp("s"))
    rows = pa.table({"at": at, "who": ["a"] * count})
    config = {"kind": "sliding", "size": "10s", "time": "at", "columns": {"n": "count(*)"}}
    for by in ([], ["who"]):
        found = result(Window, {**config, "by": by}, rows=rows)
        assert found["n"].to_pylist() == [min(number, 10) for number in range(1, count + 1)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
def test_times_of_any_unit(unit, tz):
    rows = pa.table({"at": pa.array([1, 2], pa.timestamp("s", tz)).cast(pa.timestamp(unit, tz))})
    config = {"time": "at", "kind": "tumbling", "size": "1s", "columns": {"n": "count(*)"}}
    found = result(Window, config, rows=rows)
    moment = pa.timestamp("us", "UTC" if tz else None)
    assert found["window_start"].cast(pa.int64()).to_pylist() == [1_000_000, 2_000_000]
    assert found.schema.field("window_end").type == moment


def test_rows_without_a_time_are_set_aside():
    work = TableWork()
    rows = pa.table({"at": pa.array([None, 1], pa.timestamp("s")), "n": [1, 2]})
    config = {"time": "at", "kind": "session", "gap": "1s", "columns": {"n": "sum(n)"}}
    assert result(Window, config, work, rows=rows)["n"].to_pylist() == [2]
    assert work.bad_rows == [({"at": None, "n": 1}, "at is null")]


def test_open_windows_have_a_limit():
    rows = table_of([(1, "a", 1.0)] * 11)
    config = {**config_of({"kind": "tumbling", "size": "1d"}, 0), "rows_max": 10}
    operation, _ = made(Window, config, rows=rows)
    with pytest.raises(Refuse, match="config.rows_max: 11 rows are in open windows"):
        operation.feed(rows)
    assert operation.run({"rows": rows})["n"].to_pylist() == [11]
    operation.close()


def test_a_state_that_is_none():
    operation, _ = made(Window, config_of(KINDS[0], 0), rows=table_of([]))
    with pytest.raises(Halt, match="its state cannot be read"):
        operation.restore(b"x")
    operation.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": "soon"}, "config.size: 'soon' is not a duration"),
        ({"size": "0s"}, "config.size: '0s' is out of range"),
        ({"size": "99999999w"}, "config.size"),
        ({"size": "1s 2s"}, "config.size"),
        ({"grace": "-1s"}, "config.grace"),
        ({"every": "1s"}, "config.every: a tumbling window takes no every"),
        ({"kind": "hopping"}, "config.every: a hopping window needs every"),
        ({"kind": "hopping", "every": "1ms"}, "a row would be in 10,000 windows"),
        ({"kind": "session"}, "config.size: a session window takes no size"),
        ({"time": "price"}, "config.time: column 'price' of 'rows' is double, not a timestamp"),
        ({"time": "when"}, "config.time"),
        ({"by": ["whom"]}, "config.by"),
        ({"columns": {"x": "sum(cost)"}}, "config.columns.x: 'rows' has no 'cost'"),
        ({"start": "who"}, "two columns 'who'"),
        ({"columns": {"x": "price"}}, "config.columns.x: 'price' is not over the rows of a window"),
        ({"columns": {"x": "sum(price)", "X": "count(*)"}}, "differ only by case"),
        ({"columns": {" start": "sum(price)"}}, "a space at its beginning"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_planned(change, said):
    with pytest.raises(Refuse, match=said):
        made(Window, {**config_of(KINDS[0], 0), **change}, rows=table_of([]))


@pytest.mark.parametrize(
    ("text", "us"), [("5us", 5), ("250ms", 250_000), ("1h30m", 5_400_000_000), ("1w", 604_800 * US)]
)
def test_durations(text, us):
    assert duration_us(text, "config.size") == us
