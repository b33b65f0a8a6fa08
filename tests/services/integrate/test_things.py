"""Records by their things: the order that strategies ask them in."""

import subprocess
import sys

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from streamapp.plugin.calling import CallWork, TableSources
from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY, PLAIN, Order
from streamapp.services.integrate.things import Things, ascending, first_equals

EDGES = [0, 1, 65_535, 65_536, 65_537, 131_072]
NUMBERS = st.integers(0, (1 << 32) - 1) | st.sampled_from(EDGES)
LARGER = st.sampled_from([1 << bits for bits in (32, 47, 48, 63)]) | st.sampled_from(EDGES)


def pace(threads):
    return Pace(CallWork(TableSources({}), lambda: None, threads=threads), None)


@given(st.lists(NUMBERS, max_size=60))
def test_numbers_of_any_size_are_in_order_and_equal_ones_stay(numbers):
    found = ascending(np.array(numbers, np.uint32))
    assert found.tolist() == sorted(range(len(numbers)), key=numbers.__getitem__)


@given(st.lists(NUMBERS | LARGER, max_size=60))
def test_each_number_is_told_the_first_that_is_equal(numbers):
    found = first_equals(np.array(numbers, np.uint64))
    assert found.tolist() == [numbers.index(number) for number in numbers]


def records_of(rows, column):
    """Each thing's number in order of appearance, and records of (thing, value)."""
    things = {number: place for place, number in enumerate(dict.fromkeys(row[0] for row in rows))}
    return things, pl.DataFrame({
        ENTITY: pl.Series([things[number] for number, _ in rows], dtype=pl.UInt32),
        column: pl.Series([value for _, value in rows], dtype=pl.Int64),
    })  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 3)), min_size=1, max_size=30)
)
def test_a_things_first_record_is_the_one_of_the_order(rows):
    things, records = records_of(rows, "at")
    recent = Order("recent", [pl.col("at")])
    found = Things(records, [PLAIN, recent], pace(2))

    def newest(place):
        at = rows[place][1]
        return (at is None, -(at or 0), place)

    for number, thing in things.items():
        places = [place for place, row in enumerate(rows) if row[0] == number]
        for order, first in ((PLAIN, places[0]), (recent, min(places, key=newest))):
            having = found.ranked(order)
            assert having.places[having.winners[thing]] == first


@given(
    st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 2)), min_size=1, max_size=30)
)
def test_a_thing_that_has_no_value_has_no_first_and_one_of_several_values_disagrees(rows):
    things, records = records_of(rows, "value")
    having = Things(records, [PLAIN], pace(1)).having("value", PLAIN)
    values = records["value"].gather(having.places)
    of_things = [
        [value for number, value in rows if number == wanted and value is not None]
        for wanted in things
    ]
    assert values.gather(having.winners).to_list() == [next(iter(one), None) for one in of_things]
    assert having.disagree(values).to_list() == [len(set(one)) > 1 for one in of_things]


def test_both_of_two_are_made_whatever_the_threads():
    for threads in (1, 2):
        assert pace(threads).beside(lambda: "one", lambda: "other") == ("one", "other")


INTEGRATE = """
import sys
sys.path[:] = [path for path in sys.path if not path.endswith("bare")]  # has no pandas
import polars as pl
from streamapp.services import call

rows = [{"id": 1, "at": "2026-01-02", "n": 1}, {"id": 1, "at": "2026-01-03", "n": 2}]
config = {"key_fields": ["id"], "timestamp_field": "at", "report": ["conflicts"]}
config |= {"conflict_strategy": "most_recent", "conflicts": {"n": "sum"}}
config |= {"mapping": {"input": {"at": {"name": "at", "type": "date32"}}}}
found = call("integrate.integrate", pl.DataFrame(rows).to_arrow(), **config).to_pylist()
print(found[0]["n"], found[0]["_conflicts"], "pandas" in sys.modules)
"""


def test_a_process_that_integrates_does_not_import_pandas():
    done = subprocess.run(
        [sys.executable, "-c", INTEGRATE], capture_output=True, text=True, check=False
    )
    assert done.stdout == "3 ['at', 'n'] False\n", done.stderr
