"""Several transforms as one operation."""

import pyarrow as pa
import pytest
from table_work import TableWork, made, result

from streamapp.core.errors import Halt, Refuse
from streamapp.services.pipeline.run import Run

ROWS = pa.table(
    {
        "who": ["a", "b", "a", None, "a"],
        "age": ["36", "x", "7", "9", "41"],
        "at": pa.array([1, 2, 12, 17, 3], pa.timestamp("s")),
    }
)
CLEAN = [
    {"map": {"columns": {"age": "cast(age as int)"}}},
    {"filter": "age > 8"},
    {"validate": {"rules": [{"column": "who", "not_null": True}]}},
]


def test_each_takes_what_the_one_before_left():
    work = TableWork()
    found = result(Run, {"transforms": CLEAN}, work, rows=ROWS)
    assert found["age"].to_pylist() == [36, 41]
    assert [(row["age"], why) for row, why in work.bad_rows] == [
        ("x", "config.transforms[0].map.columns.age fails"),
        (9, "breaks 'who is not null'"),
    ]
    assert work.done == 5


def test_every_transform_is_counted():
    operation, _ = made(Run, {"transforms": CLEAN}, rows=ROWS)
    operation.run({"rows": ROWS})
    counts = ["name", "rows_in", "rows_out", "rejected", "dropped"]
    assert [[told[name] for name in counts] for told in operation.report()] == [
        ["map", 5, 4, 1, 0],
        ["filter", 4, 3, 0, 1],
        ["validate", 3, 2, 1, 0],
    ]
    operation.close()


@pytest.mark.parametrize(
    ("more", "scope"),
    [
        ([], "row"),
        ([{"join": {"source": "s", "on": ["who"]}}], "row"),
        ([{"join": {"on": ["who"]}}], "table"),
        ([{"dedupe": {}}], "table"),
        ([{"window": {"time": "at", "kind": "session", "gap": "1s",
                      "columns": {"n": "count(*)"}}}], "window"),
    ],
)  # fmt: skip
def test_its_scope_is_that_of_its_transforms(more, scope):
    operation = Run(Run.Config(transforms=(*CLEAN, *more)))
    assert operation.scope == scope
    assert (operation.parallel == "threads") == (scope == "row")


def test_joins_take_the_other_inputs_and_sources():
    names = pa.table({"who": ["a"], "name": ["ada"]})
    towns = pa.table({"who": ["a"], "town": ["ulm"]})
    config = [{"join": {"on": ["who"]}}, {"join": {"on": ["who"], "source": "towns"}}]
    work = TableWork(sources={"towns": towns})
    found = result(Run, {"transforms": config}, work, rows=ROWS, names=names)
    assert found.column_names == ["who", "age", "at", "name", "town"]
    assert found["town"].to_pylist() == ["ulm"] * 3
    with pytest.raises(Refuse, match="1 joins take an input, there are 0"):
        made(Run, {"transforms": config}, work, rows=ROWS)


def test_a_window_among_them_runs_on_a_topic():
    window = {"time": "at", "kind": "tumbling", "size": "10s", "columns": {"n": "count(*)"}}
    window["grace"] = "15s"
    config = {"transforms": [*CLEAN[:2], {"window": window}, {"filter": "n > 1"}]}
    operation, schema = made(Run, config, rows=ROWS)
    whole = operation.run({"rows": ROWS})
    assert whole["n"].to_pylist() == [2]
    other, _ = made(Run, config, rows=ROWS)
    parts = [operation.feed(ROWS[:3])]
    other.restore(operation.state())
    parts += [other.feed(ROWS[3:]), other.flush()]
    assert pa.concat_tables(parts).select(schema.names).equals(whole)
    assert [told["late"] for told in other.report() if "late" in told] == [0]
    operation.close()
    other.close()


def test_without_a_window_it_is_not_fed():
    operation, _ = made(Run, {"transforms": CLEAN}, rows=ROWS)
    with pytest.raises(Halt, match="no window"):
        operation.feed(ROWS)


@pytest.mark.parametrize(
    ("transforms", "said"),
    [
        ([], "length"),
        ([{}], r"config.transforms\[0\]: it has 0 names"),
        ([{"filtre": "x"}], "did you mean 'filter'"),
        ([{"filter": {"when": "x"}}], r"config.transforms\[0\].filter: .*`when`"),
        ([{"filter": {"where": 1}}], r"config.transforms\[0\].filter.where: Expected `str`"),
        ([CLEAN[0], {"filter": "ago > 1"}], r"transforms\[1\].filter.where: 'map' has no 'ago'"),
        ([{"map": {"keep": ["a"], "drop": ["b"]}}], r"config.transforms\[0\].map.keep"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(transforms, said):
    with pytest.raises((Refuse, ValueError), match=said):
        made(Run, {"transforms": transforms}, rows=ROWS)
