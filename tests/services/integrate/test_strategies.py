"""Which value survives: every strategy, and null, which is never a value."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_work import TableWork, result

from streamapp.core.errors import Refuse
from streamapp.services.integrate.operation import Integrate

SOURCES = {
    "crm": pa.table({
        "id": [1, 1], "name": ["Ann", None], "n": [5, None],
        "at": [datetime(2024, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)],
    }),
    "web": pa.table({
        "id": [1, 1], "name": ["Anna-Lena", "Bo"], "n": [7, 1],
        "at": [datetime(2025, 1, 1, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)],
    }),
    "bill": pa.table({"id": [1], "name": ["Bo"], "n": [7], "at": [None]}),
}  # fmt: skip


SUMMED = {"key_fields": ["id"], "conflicts": {"n": "sum"}}


def survivors(conflict, field="name", **config):
    config = {"key_fields": ["id"], "conflicts": {field: conflict}, **config}
    (row,) = result(Integrate, config, **SOURCES).to_pylist()
    return row[field]


def test_fields_that_are_worked_out_side_by_side_are_as_they_are_one_by_one():
    config = {
        "key_fields": ["id"], "report": ["conflicts", "lineage"], "timestamp_field": "at",
        "conflict_strategy": "most_recent", "conflicts": {"n": "sum", "name": "longest"},
    }  # fmt: skip
    one, several = (
        result(Integrate, config, TableWork(threads=threads), **SOURCES) for threads in (1, 3)
    )
    assert several.equals(one)
    (row,) = several.to_pylist()
    assert row["name"] == "Anna-Lena"
    assert row["_conflicts"] == ["name", "n", "at"]


@pytest.mark.parametrize(
    ("conflict", "field", "value"),
    [
        ("prefer_primary", "name", "Ann"),
        ("prefer_secondary", "name", "Bo"),
        ("first_non_null", "name", "Ann"),
        ("most_recent", "name", "Anna-Lena"),  # the newest record has no name
        ("most_frequent", "name", "Bo"),
        ("longest", "name", "Anna-Lena"),
        ("min", "name", "Ann"),
        ("max", "n", 7),
        ("sum", "n", 20),
        ("mean", "n", 5.0),
        ("concat", "name", "Ann; Anna-Lena; Bo; Bo"),
        ({"strategy": "concat", "separator": "/"}, "n", "5/7/1/7"),
        ("union", "name", ["Ann", "Anna-Lena", "Bo"]),
        ({"strategy": "trust", "weights": {"bill": 3, "web": 2}}, "name", "Bo"),
        ({"strategy": "trust", "weights": {"web": 2}, "half_life_days": 365}, "name", "Anna-Lena"),
        ({"strategy": "trust", "weights": {"crm": 9}, "half_life_days": 365}, "name", "Ann"),
        ({"strategy": "expression", "expression": "length(name)"}, "name", "Anna-Lena"),
        ({"strategy": "expression", "expression": "case when source = 'web' then -n end"}, "n", 1),
    ],
)
def test_a_strategy(conflict, field, value):
    assert survivors(conflict, field, timestamp_field="at") == value


def test_all_values_are_kept_with_where_they_are_from():
    assert survivors("keep_all", "n") == [
        {"source": "crm", "row": 0, "value": 5},
        {"source": "web", "row": 0, "value": 7},
        {"source": "web", "row": 1, "value": 1},
        {"source": "bill", "row": 0, "value": 7},
    ]


def test_the_order_of_preference_is_not_that_of_the_sources():
    assert survivors("prefer_primary", source_order=["web"]) == "Anna-Lena"
    assert survivors("prefer_secondary", source_order=["web"]) == "Bo"
    assert survivors("first_non_null", source_order=["web"]) == "Ann"


def test_times_may_be_texts():
    texts = {
        "a": pa.table({"id": [1], "v": [1], "t": ["2024-05-01 10:00:00"]}),
        "b": pa.table({"id": [1], "v": [2], "t": ["2024-05-01 10:00:01"]}),
    }
    trust = {"strategy": "trust", "half_life_days": 1}
    for conflict in ("most_recent", trust):
        config = {"key_fields": ["id"], "conflicts": {"v": conflict}, "timestamp_field": "t"}
        assert result(Integrate, config, **texts)["v"].to_pylist() == [2]


def test_a_sum_of_whole_numbers_is_right_or_refused():
    big = 2**63 - 1
    for values in ([big, 1, -1], [-big, big, big]):
        found = result(Integrate, SUMMED, a=pa.table({"id": [1] * 3, "n": values}))
        assert found["n"].to_pylist() == [big]
    unsigned = pa.array([2**64 - 1, 1], pa.uint64())
    for values in ([big, 1], [-big, -2], unsigned):
        with pytest.raises(Refuse, match=r"config.conflicts.n: a sum is beyond"):
            result(Integrate, SUMMED, a=pa.table({"id": [1, 1], "n": values}))


def test_what_disagrees_is_quarantined_with_all_its_records():
    work = TableWork()
    a = pa.table({"id": [1, 2], "v": ["x", "x"]})
    b = pa.table({"id": [1, 2, 3], "v": ["x", "y", None]})
    config = {"key_fields": ["id"], "conflicts": {"v": "quarantine"}}
    found = result(Integrate, config, work, a=a, b=b).to_pylist()
    assert found == [{"id": 1, "v": "x"}, {"id": 3, "v": None}]
    ((first, reason), (second, _)) = work.bad_rows
    assert first == {"id": 2, "v": "x", "_source": "a", "_row": 1}
    assert second == {"id": 2, "v": "y", "_source": "b", "_row": 1}
    assert "disagree" in reason


def test_a_left_join_quarantines_its_row():
    work = TableWork(sources={"b": pa.table({"id": [2], "v": ["y"]})})
    config = {
        "mode": "left_join", "secondary_sources": ["b"], "key_fields": ["id"],
        "conflicts": {"v": "quarantine"},
    }  # fmt: skip
    rows = pa.table({"id": [1, 2], "v": ["x", "x"], "w": [1, 2]})
    assert result(Integrate, config, work, a=rows)["w"].to_pylist() == [1]
    assert [row for row, _ in work.bad_rows] == [{"id": 2, "v": "x", "w": 2}]


@pytest.mark.parametrize("values", [[b"\xff"], [[1]], [{"a": 1}], [timedelta(1)]])
def test_what_is_no_text_is_not_written_as_one(values):
    config = {"key_fields": ["id"], "conflicts": {"v": "concat"}}
    with pytest.raises(Refuse, match=r"config.conflicts.v: concat is for what can be said"):
        result(Integrate, config, a=pa.table({"id": [1], "v": values}))


VALUES = st.lists(st.lists(st.one_of(st.none(), st.sampled_from("xyz")), max_size=3), max_size=3)


@settings(max_examples=20, deadline=None)
@given(VALUES, st.sampled_from(["prefer_primary", "most_frequent", "longest", "min", "concat"]))
def test_null_never_conflicts_wins_or_counts(values, strategy):
    """A thing with nulls beside its values is the thing without them."""

    def sources(rows):
        return {
            f"s{number}": pa.table({"id": pa.array([1] * len(v), pa.int64()), "v": pa.array(v, pa.string())})
            for number, v in enumerate(rows)
        }  # fmt: skip

    bare = [[value for value in source if value is not None] for source in values]
    if not any(bare):
        return
    config = {"key_fields": ["id"], "conflicts": {"v": strategy}, "report": ["conflicts"]}
    with_nulls = result(Integrate, config, **sources(values)).to_pylist()
    assert with_nulls == result(Integrate, config, **sources(bare)).to_pylist()
    several = len({value for source in bare for value in source}) > 1
    assert with_nulls[0]["_conflicts"] == (["v"] if several else [])


def test_every_value_says_where_it_is_from():
    config = {
        "key_fields": ["id"], "timestamp_field": "at", "report": ["lineage", "sources"],
        "conflicts": {"name": "most_recent", "n": "sum"},
    }  # fmt: skip
    (row,) = result(Integrate, config, **SOURCES).to_pylist()
    assert row["_sources"] == ["crm", "web", "bill"]
    assert row["_lineage"]["name"] == {"source": "web", "row": 0, "rule": "most_recent"}
    assert row["_lineage"]["n"] == {"source": None, "row": None, "rule": "sum"}
    assert row["_lineage"]["id"] == {"source": "crm", "row": 0, "rule": "agreed"}


@pytest.mark.parametrize(
    ("conflict", "words"),
    [
        ("most_recent", ["most_recent needs a column of time", "timestamp_field"]),
        ("sum", ["sum is for numbers", "'name' is string"]),
        ({"strategy": "trust", "weights": {"sap": 1}}, ["no source 'sap'", "crm, web, bill"]),
        ({"strategy": "trust", "weights": {"crm": 0}}, ["weights.crm is 0"]),
        ({"strategy": "expression"}, ["expression is empty"]),
        ({"strategy": "expression", "expression": "nam"}, ["expression", "nam", "there are"]),
        ({"strategy": "expression", "expression": "length("}, ["expression"]),
        ({"strategy": "expression", "expression": "abs(name)"}, ["expression"]),
        ({"strategy": "expression", "expression": "n" + " + n" * 300}, ["more than 1,000 char"]),
        (
            {"strategy": "expression", "expression": "LPAD(name, 1000000000)"},
            ["'LPAD'", "any size"],
        ),
        ({"strategy": "expression", "expression": '"range"(0, 100000000)'}, ["'range'"]),
        (
            {
                "strategy": "expression",
                "expression": "n IN (SELECT a FROM read_csv('/etc/passwd'))",
            },
            ["'SELECT'", "columns alone"],
        ),
    ],
)
def test_a_strategy_that_does_not_fit(conflict, words):
    with pytest.raises(Refuse) as refused:
        survivors(conflict)
    for word in ["config.conflicts.name", *words]:
        assert word in str(refused.value)
