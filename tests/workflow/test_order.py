"""The order of stages follows from their columns."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.plugin import BaseStage, int32
from streamapp.workflow.order import STORED, order


def declared(name, reads, writes):
    stage = BaseStage.__new__(BaseStage)
    stage.name, stage.reads, stage.writes = name, reads, dict.fromkeys(writes, int32)
    return stage


def names(stages):
    return [stage.name for stage in stages]


def test_writers_run_before_readers_in_any_file_order():
    stages = [
        declared("a", ["text"], ["x"]),
        declared("b", ["x"], ["y"]),
        declared("c", ["x", "y"], ["z"]),
    ]
    assert all(names(order(given)) == ["a", "b", "c"] for given in permutations(stages))


def test_the_file_decides_where_any_order_would_do():
    stages = [declared(name, ["text"], [name.upper()]) for name in "cab"]
    assert names(order(stages)) == ["c", "a", "b"]


@given(st.permutations(range(8)), st.integers(0, 2**28 - 1))
def test_every_order_serves_every_read(places, edges):
    pairs = [(i, j) for i in range(8) for j in range(i)]
    chosen = [pair for bit, pair in enumerate(pairs) if edges >> bit & 1]
    reads = {i: [f"c{j}" for k, j in chosen if k == i] for i in range(8)}
    stages = [declared(f"s{i}", reads[i], [f"c{i}"]) for i in places]
    done = set()
    for stage in order(stages):
        assert set(stage.reads) <= done
        done |= set(stage.writes)


@pytest.mark.parametrize(
    ("stages", "code", "says"),
    [
        ([("a", ["x"], ["y"])], "workflow.missing_column", "'x'"),
        ([("a", ["embedding"], ["y"])], "workflow.missing_column", "embedding"),
        ([("a", [], ["y"]), ("b", [], ["y"])], "workflow.two_writers", "'a' and 'b'"),
        ([("a", ["y"], ["x"]), ("b", ["x"], ["y"])], "workflow.cycle", "->"),
        ([("a", ["x"], ["x"])], "workflow.cycle", "a -> a"),
        ([("a", [], ["text"])], "workflow.event_column", "'text'"),
        ([("a", [], ["Text"])], "workflow.event_column", "'Text'"),
        ([("a", [], ["Provenance"])], "workflow.event_column", "the store has for its own"),
        ([("a", [], ["y"]), ("b", [], ["Y"])], "workflow.two_writers", "'a' and 'b'"),
    ],
)
def test_columns_that_do_not_fit_are_refused(stages, code, says):
    with pytest.raises(Refuse) as caught:
        order([declared(*one) for one in stages])
    assert caught.value.code == code
    assert says in caught.value.message
    assert caught.value.fix


def test_the_stores_own_columns_are_those_that_are_refused():
    from streamapp.core.batch import EVENT_SCHEMA
    from streamapp.sink.schema import CORE_FIELDS

    assert {field.name for field in CORE_FIELDS} - set(EVENT_SCHEMA.names) == STORED
