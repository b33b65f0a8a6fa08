"""``streamapp.services.call``: Arrow in and out, not copied, and bad rows never lost in silence."""

import polars as pl
import pyarrow as pa
import pytest
from demo_operations import demo  # noqa: F401  # a fixture

import streamapp.services
from streamapp.core.errors import Refuse
from streamapp.plugin.calling import CallWork, TableSource, run_operation, table_of
from streamapp.services import call

pytestmark = pytest.mark.usefixtures("demo")
TABLE = pa.table({"text": ["a b", "c"]})


@pytest.mark.parametrize(
    "given",
    [
        TABLE,
        TABLE.to_batches()[0],
        TABLE.to_reader(),
        pl.DataFrame({"text": ["a b", "c"]}),
        [{"text": "a b"}, {"text": "c"}],
    ],
    ids=["table", "batch", "reader", "polars", "rows"],
)
def test_whatever_speaks_arrow_is_taken(given):
    assert call("demo.words", given, least=1)["words"].to_pylist() == [2, 1]


def test_columns_that_pass_are_not_copied():
    found = call("demo.words", TABLE)
    assert (
        found["text"].chunk(0).buffers()[2].address == TABLE["text"].chunk(0).buffers()[2].address
    )
    assert pl.DataFrame(found)["words"].to_list() == [2, 1]


def test_bad_rows_are_an_error_unless_they_are_taken():
    rows = [{"text": "a"}, {"text": None}]
    with pytest.raises(Refuse, match=r"set rows aside \(1\): no text") as refused:
        call("demo.words", rows)
    assert refused.value.code == "operation.aside"
    aside = []
    assert call("demo.words", rows, aside=aside).num_rows == 1
    assert [(bad.to_pylist(), why) for bad, why in aside] == [([{"text": None}], "no text")]


def test_sources_stand_in_for_declared_ones():
    assert call("demo.lookup", TABLE, sources={"names": TABLE})["rows"].to_pylist() == [2]
    with pytest.raises(Refuse, match="no source is called 'names'"):
        call("demo.lookup", TABLE)


@pytest.mark.parametrize(
    ("given", "code"),
    [(7, "operation.table"), ([{"a": 1}, {"a": "x"}], "operation.table"), ("x", "operation.table")],
)
def test_what_is_no_table_is_said(given, code):
    with pytest.raises(Refuse) as refused:
        call("demo.words", given)
    assert refused.value.code == code


def test_unknown_names_have_a_suggestion():
    with pytest.raises(Refuse, match=r"did you mean 'demo.words'"):
        call("demo.wrods", TABLE)
    with pytest.raises(Refuse, match="2 inputs|not 2"):
        call("demo.words", TABLE, TABLE)
    with pytest.raises(AttributeError):
        _ = streamapp.services.nothing


def test_a_value_that_is_none_of_a_keys_is_told_with_those_there_are():
    with pytest.raises(Refuse, match=r"config.mode: .*'left'.*did you mean 'left_join'"):
        call("integrate.integrate", TABLE, mode="left", key_fields=["text"])


def test_rows_may_have_different_columns_and_none_is_lost():
    rows = table_of([{}, {"a": 1}, {"b": "x"}], "rows")
    assert rows.to_pylist() == [{"a": None, "b": None}, {"a": 1, "b": None}, {"a": None, "b": "x"}]
    assert table_of([], "rows").num_rows == 0
    with pytest.raises(Refuse, match="2 rows of rows have no columns"):
        table_of([{}, {}], "rows")


def test_a_source_is_opened_once_in_a_call():
    opened = []

    class Sources:
        def source(self, name):
            opened.append(name)
            return TableSource(name, pa.table({"id": [1], "b": [2]}))

    config = {"secondary_sources": ["more"], "key_fields": ["id"], "mode": "full_outer_join"}
    work = CallWork(Sources(), lambda: None)
    found = run_operation(
        "integrate.integrate", config, {"rows": pa.table({"id": [1], "a": [3]})}, work
    )
    assert found.to_pylist() == [{"id": 1, "a": 3, "b": 2}]
    assert opened == ["more"]
