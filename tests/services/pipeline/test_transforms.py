"""Transforms of tables: what each of them leaves, makes and sets aside."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_work import TableWork, made, result

from streamapp.core.errors import Refuse
from streamapp.services.pipeline.groups import Aggregate, Dedupe, Sample
from streamapp.services.pipeline.join import Join
from streamapp.services.pipeline.rows import Filter, Map
from streamapp.services.pipeline.validate import Validate

ROWS = pa.table(
    {
        "name": ["ada", "bob", None, "eve", "bob"],
        "age": ["36", "x", "7", None, "41"],
        "n": pa.array([1, 2, 3, 4, 5], pa.int32()),
        "kind": pa.array(["a", "b", "a", "b", "a"]).dictionary_encode(),
        "at": pa.array([1, 2, 3, 4, 5], pa.timestamp("ns", "Europe/Berlin")),
    }
)


def test_a_filter_leaves_out_what_is_false_or_null():
    work = TableWork()
    kept = result(Filter, {"where": "name <> 'ada'"}, work, rows=ROWS)
    assert kept["n"].to_pylist() == [2, 4, 5]
    assert kept.schema.equals(ROWS.schema)
    assert (work.done, work.set_aside) == (5, [])


def test_rows_at_which_an_expression_fails_are_set_aside():
    work = TableWork()
    kept = result(Filter, {"where": "cast(age as int) > 10"}, work, rows=ROWS)
    assert kept["n"].to_pylist() == [1, 5]
    assert [(row["n"], why) for row, why in work.bad_rows] == [(2, "config.where fails")]


def test_a_row_is_set_aside_once_however_many_expressions_fail():
    work = TableWork()
    columns = {"a": "cast(age as int)", "b": "cast(name as int)", "c": "10 // n"}
    kept = result(Map, {"columns": columns}, work, rows=ROWS)
    assert kept["n"].to_pylist() == [3]
    assert [row["n"] for row, _ in work.bad_rows] == [2, 1, 4, 5]


@pytest.mark.parametrize(
    ("on_error", "found"), [("null", [36, None, 7, None, 41]), ("quarantine", [36, 7, None, 41])]
)
def test_what_becomes_of_a_row_that_fails(on_error, found):
    config = {"columns": {"age": "cast(age as int)"}, "on_error": on_error}
    assert result(Map, config, rows=ROWS)["age"].to_pylist() == found


def test_what_expressions_share_does_not_fail_for_all_rows():
    columns = {"a": "cast(age as int)", "b": "cast(age as int) + 1", "c": "cast(age as int) * n"}
    work = TableWork()
    kept = result(Map, {"columns": columns}, work, rows=ROWS)
    assert kept["b"].to_pylist() == [37, 8, None, 42]
    assert [row["n"] for row, _ in work.bad_rows] == [2]


def test_a_stage_may_rather_fail_and_say_at_which_row():
    config = {"columns": {"age": "cast(age as int)"}, "on_error": "fail"}
    with pytest.raises(Refuse, match=r"config.columns.age: 'cast\(age as int\)' fails at row 2"):
        result(Map, config, rows=ROWS)


def test_columns_are_computed_kept_dropped_and_renamed():
    config = {"columns": {"twice": "n * 2", "n": "n + 1"}, "drop": ["age"], "rename": {"n": "m"}}
    table = result(Map, config, rows=ROWS)
    assert table.column_names == ["name", "m", "kind", "at", "twice"]
    assert table["twice"].to_pylist() == [2, 4, 6, 8, 10]
    assert table["m"].to_pylist() == [2, 3, 4, 5, 6]
    assert table["kind"].type == ROWS["kind"].type
    table = result(Map, {"keep": ["n", "at"]}, rows=ROWS)
    assert table.equals(ROWS.select(["n", "at"]))


def test_sums_of_whole_numbers_are_whole_numbers_that_files_can_hold():
    table = result(Aggregate, {"by": ["kind"], "columns": {"n": "sum(n)"}}, rows=ROWS)
    assert table.schema.field("n").type == pa.int64()
    assert table.to_pylist() == [{"kind": "a", "n": 9}, {"kind": "b", "n": 6}]
    assert table["kind"].type == ROWS["kind"].type


def test_groups_come_as_they_come_up_and_null_is_one():
    config = {"by": ["name"], "columns": {"n": "count(*)", "s": "sum(n) / count(*)"}}
    table = result(Aggregate, config, rows=ROWS)
    assert table["name"].to_pylist() == ["ada", "bob", None, "eve"]
    assert table["s"].to_pylist() == [1, 3.5, 3, 4]


def test_one_row_for_all_and_none_for_none():
    config = {"columns": {"n": "count(*)"}}
    assert result(Aggregate, config, rows=ROWS).to_pylist() == [{"n": 5}]
    assert result(Aggregate, config, rows=ROWS[:0]).to_pylist() == []


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({"by": ["name"]}, [1, 2, 3, 4]),
        ({"by": ["name"], "keep": "last"}, [1, 3, 4, 5]),
        ({"by": ["kind"], "order_by": "age"}, [1, 4]),
        ({"by": ["kind"], "order_by": "age", "keep": "last"}, [2, 3]),
        ({}, [1, 2, 3, 4, 5]),
    ],
)
def test_of_rows_that_are_the_same_one_stays(config, left):
    assert sorted(result(Dedupe, config, rows=ROWS)["n"].to_pylist()) == left


def test_the_same_rows_twice():
    twice = pa.concat_tables([ROWS, ROWS])
    assert result(Dedupe, {}, rows=twice).equals(ROWS.combine_chunks())


OTHER = pa.table({"name": ["bob", "eve", "eve", "zoe", None], "n": [10, 20, 30, 40, 50]})


@pytest.mark.parametrize(
    ("how", "rows"),
    [
        ("inner", [("bob", 2, 10), ("eve", 4, 20), ("eve", 4, 30), ("bob", 5, 10)]),
        ("left", [("ada", 1, None), ("bob", 2, 10), (None, 3, None), ("eve", 4, 20),
                  ("eve", 4, 30), ("bob", 5, 10)]),
        ("right", [("bob", 2, 10), ("eve", 4, 20), ("eve", 4, 30), ("bob", 5, 10),
                   ("zoe", None, 40), (None, None, 50)]),
        ("full", [("ada", 1, None), ("bob", 2, 10), (None, 3, None), ("eve", 4, 20),
                  ("eve", 4, 30), ("bob", 5, 10), ("zoe", None, 40), (None, None, 50)]),
        ("semi", [("bob", 2), ("eve", 4), ("bob", 5)]),
        ("anti", [("ada", 1), (None, 3)]),
    ],
)  # fmt: skip
def test_joins(how, rows):
    ours = ROWS.select(["name", "n"])
    table = result(Join, {"on": ["name"], "how": how}, ours=ours, theirs=OTHER)
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    if how in {"inner", "left", "semi", "anti"}:  # the same with a source, in any cuts
        work = TableWork(sources={"theirs": OTHER})
        config = {"on": ["name"], "how": how, "source": "theirs"}
        operation, _ = made(Join, config, work, ours=ours)
        assert operation.scope == "row"
        parts = [operation.run({"ours": ours.slice(at, 2)}) for at in (0, 2, 4)]
        operation.close()
        assert pa.concat_tables(parts).to_pylist() == table.to_pylist()


def test_keys_of_other_names():
    theirs = OTHER.rename_columns(["who", "n"])
    table = result(Join, {"on": {"name": "who"}}, ours=ROWS.select(["name", "n"]), theirs=theirs)
    assert table.column_names == ["name", "n", "n_right"]


def test_a_sample_is_the_same_every_time_and_about_as_large_as_asked():
    rows = pa.table({"n": range(10_000)})
    config = {"fraction": 0.25, "seed": 7}
    kept = result(Sample, config, rows=rows)["n"].to_pylist()
    assert result(Sample, config, rows=rows)["n"].to_pylist() == kept
    assert result(Sample, config | {"seed": 8}, rows=rows)["n"].to_pylist() != kept
    assert 2_300 < len(kept) < 2_700
    assert len(set(result(Sample, {"rows": 100}, rows=rows)["n"].to_pylist())) == 100
    assert result(Sample, {"rows": 100}, rows=rows[:30]).equals(rows[:30])


@given(cut=st.integers(0, 500))
@settings(max_examples=3, deadline=None)
def test_a_sample_by_values_is_that_of_its_parts(cut):
    rows = pa.table({"n": range(500), "k": [n % 50 for n in range(500)]})
    operation, _ = made(Sample, {"fraction": 0.3, "by": ["k"]}, rows=rows)
    parts = pa.concat_tables(
        [operation.run({"rows": rows[:cut]}), operation.run({"rows": rows[cut:]})]
    )
    operation.close()
    whole = result(Sample, {"fraction": 0.3, "by": ["k"]}, rows=rows)
    assert parts.to_pylist() == whole.to_pylist()
    stays = {row["k"] for row in whole.to_pylist()}
    assert whole.num_rows == 10 * len(stays)
    assert 0 < len(stays) < 50


RULES = [
    {"column": "name", "not_null": True},
    {"column": "n", "min": 2, "max": 4, "name": "small"},
    {"where": "cast(age as int) < 100"},
]


def test_rows_that_break_a_rule_are_set_aside_under_the_first():
    work = TableWork()
    kept = result(Validate, {"rules": RULES}, work, rows=ROWS)
    assert kept["n"].to_pylist() == [4]
    assert [(row["n"], why) for row, why in work.bad_rows] == [
        (3, "breaks 'name is not null'"),
        (1, "breaks 'small: n is at least 2'"),
        (5, "breaks 'small: n is at most 4'"),
        (2, "breaks 'cast(age as int) < 100'"),
    ]


def test_rows_may_be_flagged_instead():
    kept = result(Validate, {"rules": RULES, "on_fail": "flag"}, rows=ROWS)
    assert [len(found) for found in kept["problems"].to_pylist()] == [1, 1, 1, 0, 1]


def test_or_the_first_ends_the_stage():
    with pytest.raises(Refuse, match="row 3 breaks 'name is not null'"):
        result(Validate, {"rules": RULES, "on_fail": "fail"}, rows=ROWS)


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ({"column": "name", "pattern": "[a-d]+b?"}, [1, 3]),
        ({"column": "name", "pattern": "a"}, [3]),
        ({"column": "name", "one_of": ["eve", "o'neil"]}, [3, 4]),
        ({"column": "name", "length_min": 4}, [3]),
        ({"column": "age", "length_max": 1}, [2, 3, 4]),
        ({"column": "kind", "min": "b"}, [2, 4]),
    ],
)
def test_rules(rule, left):
    assert result(Validate, {"rules": [rule]}, rows=ROWS)["n"].to_pylist() == left


def test_values_that_were_there_before():
    work = TableWork()
    kept = result(Validate, {"unique": ["name"]}, work, rows=ROWS)
    assert kept["n"].to_pylist() == [1, 2, 3, 4]
    assert work.bad_rows[0][1] == "breaks 'name was there before'"


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        (Filter, {"where": "n"}, "config.where is int32, not a condition"),
        (Filter, {"where": "nope > 1"}, "config.where: 'rows' has no 'nope' column"),
        (Map, {"columns": {"n": "sum(n)"}}, "config.columns.n: .* is over many rows"),
        (Map, {"keep": ["n"], "drop": ["name"]}, "config.keep"),
        (Map, {"drop": ["nope"]}, "config.drop: 'rows' has no 'nope'"),
        (Map, {"rename": {"n": "name"}}, "two columns 'name'"),
        (Aggregate, {"columns": {"n": "n + 1"}}, "config.columns.n: .* not over the rows of a"),
        (Aggregate, {"by": ["n"], "columns": {"n": "count(*)"}}, "two columns 'n'"),
        (Aggregate, {"by": ["m"], "columns": {"n": "count(*)"}}, "config.by"),
        (Dedupe, {"order_by": "m"}, "config.order_by"),
        (Sample, {}, "it says not how many"),
        (Sample, {"rows": 4, "by": ["n"]}, "config.by"),
        (Join, {"on": ["n"]}, "there is no other table"),
        (Validate, {}, "config.rules"),
        (Validate, {"rules": [{"column": "n"}]}, r"config.rules\[0\]: it asks for nothing"),
        (Validate, {"rules": [{"min": 1}]}, r"config.rules\[0\].column"),
        (Validate, {"rules": [{"column": "n", "min": "b"}]}, r"config.rules\[0\]"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_planned(kind, config, said):
    with pytest.raises(Refuse, match=said):
        made(kind, config, rows=ROWS)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Map, {"columns": {"x": "A", "y": "a"}}),
        (Filter, {"where": 'A > 0 and "a" > 0'}),
        (Aggregate, {"by": ["a"], "columns": {"x": 'sum("A")'}}),
        (Dedupe, {}),
        (Dedupe, {"by": ["a"], "order_by": "A"}),
        (Sample, {"fraction": 0.5, "by": ["a", "A"]}),
        (Validate, {"unique": ["a", "A"]}),
        (Validate, {"rules": [{"column": "a", "min": 1}, {"column": "A", "min": 1}]}),
    ],
)
def test_two_columns_that_are_one_to_sql_are_not_mistaken_for_each_other(kind, config):
    with pytest.raises(Refuse, match="'[aA]' and '[aA]' differ only by case"):
        made(kind, config, rows=pa.table({"A": [1], "a": [2]}))


def test_one_of_them_alone_is_the_one_that_is_named():
    rows = pa.table({"A": [1, 1], "a": [2, 3]})
    assert result(Dedupe, {"by": ["A"]}, rows=rows).to_pylist() == [{"A": 1, "a": 2}]
    assert result(Map, {"columns": {"x": "a"}}, rows=rows)["x"].to_pylist() == [2, 3]


def test_keys_of_other_types_are_refused():
    theirs = pa.table({"n": ["1"]})
    with pytest.raises(Refuse, match="'n' of 'ours' is int32, 'n' of 'theirs' is string"):
        made(Join, {"on": ["n"]}, ours=ROWS, theirs=theirs)


def test_what_was_done_is_counted():
    operation, _ = made(Filter, {"where": "cast(age as int) > 10"}, rows=ROWS)
    operation.run({"rows": ROWS})
    [told] = operation.report()
    [again] = operation.report()
    operation.close()
    assert again == {**told, "rows_in": 0, "rows_out": 0, "rejected": 0, "dropped": 0, "seconds": 0}
    counts = {name: told[name] for name in ("name", "rows_in", "rows_out", "rejected", "dropped")}
    assert counts == {"name": "filter", "rows_in": 5, "rows_out": 2, "rejected": 1, "dropped": 2}


def test_ctrl_c_within_a_query_is_ctrl_c(monkeypatch):
    operation, _ = made(Filter, {"where": "n > 1"}, rows=ROWS)

    class Interrupted:
        """A connection whose query DuckDB ends at Ctrl-C."""

        def cursor(self):
            return self

        def register(self, *_):
            raise RuntimeError("Query interrupted")

        def close(self):
            pass

    monkeypatch.setattr(operation.database, "_connection", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        operation.run({"rows": ROWS})
    monkeypatch.undo()
    operation.close()


def test_rows_that_do_not_fit_into_memory_are_spilled_or_refused():
    rows = pa.table({"n": range(150_000), "s": [f"{n:0200d}" for n in range(150_000)]})
    work = TableWork(memory_bytes_max=1)
    assert result(Dedupe, {}, work, rows=rows).num_rows == 150_000
    huge = {"columns": {"all": "string_agg(s, '')", "more": "list(s)"}}
    with pytest.raises(Refuse, match="more than its 64 MiB"):
        result(Aggregate, huge, work, rows=rows)
