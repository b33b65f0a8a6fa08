"""The five modes: laws of sets over keys, whatever the rows."""

from itertools import pairwise

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from table_work import TableWork, made, result

from streamapp.services.integrate.operation import Integrate

SCHEMA = pa.schema([("id", pa.string()), ("value", pa.int64())])
KEYS = st.one_of(st.none(), st.sampled_from("abcdef"))
#: Each example is several integrations; the laws need few to break.
FEW = settings(max_examples=12, deadline=None)
ROWS = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.integers(0, 3))), max_size=8)


def table(rows):
    columns = list(zip(*rows, strict=True)) or [[], []]
    return pa.table(
        [pa.array(column, f.type) for column, f in zip(columns, SCHEMA, strict=True)], SCHEMA
    )


def integrated(mode, *sources, **config):
    named = {f"s{number}": table(rows) for number, rows in enumerate(sources)}
    return result(Integrate, {"mode": mode, "key_fields": ["id"], **config}, **named).to_pylist()


def keys(rows):
    return {row["id"] for row in rows if row["id"] is not None}


def given_keys(rows):
    return {key for key, _ in rows if key is not None}


@FEW
@given(ROWS, ROWS, ROWS)
def test_keys_follow_the_laws_of_sets(a, b, c):
    in_a, in_b, in_c = map(given_keys, (a, b, c))
    assert keys(integrated("union", a, b, c)) == in_a | in_b | in_c
    assert keys(integrated("full_outer_join", a, b, c)) == in_a | in_b | in_c
    assert keys(integrated("intersection", a, b, c)) == in_a & in_b & in_c
    assert keys(integrated("left_join", a, b, c)) == in_a
    assert keys(integrated("right_join", a, b, c)) == in_c


@FEW
@given(ROWS, ROWS)
def test_rows_are_counted_by_the_mode(a, b):
    nulls = [key for key, _ in a + b if key is None]
    assert len(integrated("union", a, b)) == len(a) + len(b)
    assert len(integrated("left_join", a, b)) == len(a)
    assert len(integrated("right_join", a, b)) == len(b)
    things = len(given_keys(a + b)) + len(nulls)  # a record without a key is a thing of its own
    assert len(integrated("full_outer_join", a, b)) == things
    assert len(integrated("intersection", a, b)) == len(given_keys(a) & given_keys(b))


@FEW
@given(ROWS, ROWS)
def test_a_union_is_the_rows_as_they_are(a, b):
    assert [tuple(row.values()) for row in integrated("union", a, b)] == a + b


@FEW
@given(ROWS)
def test_a_thing_joined_with_itself_is_itself(a):
    alone = integrated("full_outer_join", a)
    assert integrated("full_outer_join", [tuple(row.values()) for row in alone]) == alone


@FEW
@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(a, b, random):
    shuffled = [random.sample(rows, len(rows)) for rows in (a, b)]
    for mode in ("union", "intersection", "left_join", "full_outer_join"):
        config = {"conflict_strategy": "max", "report": ["sources", "conflicts"]}
        one, other = (integrated(mode, *given, **config) for given in ((a, b), shuffled))
        assert sorted(map(repr, one)) == sorted(map(repr, other))


@FEW
@given(ROWS, ROWS, st.lists(st.integers(0, 8), max_size=3))
def test_a_left_join_may_be_cut_anywhere(a, b, cuts):
    """What lets it run in chunks, and live."""
    work = TableWork(sources={"other": table(b)})
    config = {
        "mode": "left_join", "secondary_sources": ["other"], "key_fields": ["id"],
        "report": ["sources", "conflicts", "lineage"], "conflict_strategy": "prefer_secondary",
    }  # fmt: skip
    operation, schema = made(Integrate, config, work, rows=table(a))
    assert (operation.scope, operation.inputs) == ("row", (1, 1))
    whole = operation.run({"rows": table(a)})
    ends = sorted({0, len(a), *(cut for cut in cuts if cut <= len(a))})
    pieces = [
        operation.run({"rows": table(a).slice(first, last - first)})
        for first, last in pairwise(ends)
    ]
    assert pa.concat_tables([schema.empty_table(), *pieces]).equals(whole)


def test_a_left_join_keeps_what_it_does_not_touch():
    given = pa.table({
        "id": ["b", "a"],
        "tags": pa.array([["x"], None], pa.list_(pa.string())),
        "kind": pa.array(["k", "l"]).dictionary_encode(),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    })  # fmt: skip
    work = TableWork(sources={"other": pa.table({"id": ["a"], "size": [3]})})
    config = {"mode": "left_join", "secondary_sources": ["other"], "key_fields": ["id"]}
    found = result(Integrate, config, work, rows=given)
    assert found.column("tags").to_pylist() == [["x"], None]
    assert found.column("map").to_pylist() == [[("k", 1)], None]
    assert found.column("kind").to_pylist() == ["k", "l"]
    assert found.column("size").to_pylist() == [None, 3]


def test_several_records_of_one_key_are_merged_into_the_row():
    orders = pa.table({"id": ["a", "a", None], "amount": [3, 4, 5], "note": ["x", "y", "z"]})
    work = TableWork(sources={"orders": orders})
    config = {
        "mode": "left_join", "secondary_sources": ["orders"], "key_fields": ["id"],
        "conflicts": {"amount": "sum", "note": "keep_all"},
    }  # fmt: skip
    found = result(Integrate, config, work, rows=pa.table({"id": ["a", None, ""]})).to_pylist()
    assert found[0] == {
        "id": "a",
        "amount": 7,
        "note": [
            {"source": "orders", "row": 0, "value": "x"},
            {"source": "orders", "row": 1, "value": "y"},
        ],
    }
    assert [row["amount"] for row in found[1:]] == [None, None]  # null and empty are no keys


def test_the_primary_source_may_be_any():
    a, b = table([("a", 1)]), table([("b", 2), ("a", 3)])
    config = {"mode": "left_join", "key_fields": ["id"], "primary_source": "b"}
    found = result(Integrate, config, a=a, b=b)
    assert found.to_pylist() == [{"id": "b", "value": 2}, {"id": "a", "value": 3}]


def test_a_source_may_have_nothing_but_its_key():
    work = TableWork(sources={"known": pa.table({"id": ["a"]})})
    config = {
        "mode": "left_join", "secondary_sources": ["known"], "key_fields": ["id"],
        "report": ["sources", "conflicts", "lineage"],
    }  # fmt: skip
    found = result(Integrate, config, work, rows=pa.table({"id": ["a", "b"]})).to_pylist()
    assert [row["_sources"] for row in found] == [["rows", "known"], ["rows"]]
    assert found[0]["_lineage"] == {"id": {"source": "rows", "row": None, "rule": "agreed"}}
    assert (
        result(Integrate, config | {"report": []}, work, rows=pa.table({"id": ["b"]})).num_columns
        == 1
    )
