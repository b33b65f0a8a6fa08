"""Values that some formats and Python have none for: written as text, or refused by their column."""

import json
from datetime import date

import pyarrow as pa
import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.data import open_output
from streamapp.workflow.data.plain_rows import python_rows
from streamapp.workflow.graph.spec import Output
from streamapp.workflow.run.outputs import aside_lines

DAYS = pa.array([-800_000, 3_000_000, 0, None], pa.date32())
FAR = ["-0221-09-04", "10183-09-21", "1970-01-01", None]


def write(folder, name, table):
    open_output(Output(source="x", path=name), folder, name="rows").write(table.to_reader())
    return (folder / name).read_text()


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (DAYS, [*FAR[:2], date(1970, 1, 1), None]),
        (pa.array([1 << 38, None], pa.timestamp("s")), ["10680-07-14 06:09:04", None]),
        (pa.array([1], pa.timestamp("s", "Mars/Olympus")), ["1970-01-01 00:00:01Z"]),
        (pa.ListArray.from_arrays([0, 2], DAYS[:2]), [FAR[:2]]),
        (pa.StructArray.from_arrays([DAYS[:1]], ["day"]), [{"day": FAR[0]}]),
    ],
)
def test_a_time_that_python_has_no_value_for_is_a_text(column, found):
    assert [row["x"] for row in python_rows(pa.table({"x": column}))] == found


def test_times_beyond_all_calendars_are_written_as_arrow_writes_them(tmp_path):
    table = pa.table({"id": [1, 2, 3, 4], "day": DAYS})
    lines = [json.loads(line) for line in write(tmp_path, "a.jsonl", table).splitlines()]
    assert [line["day"] for line in lines] == FAR
    assert write(tmp_path, "a.csv", table).splitlines()[1:3] == ["1,-0221-09-04", "2,10183-09-21"]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("a.csv", pa.array([pa.MonthDayNano([1, 2, 3])])),
        ("a.parquet", pa.array([{}], pa.struct([]))),
        ("a.parquet", pa.array([pa.MonthDayNano([1, 2, 3])])),
    ],
)
def test_a_type_that_a_format_has_not_is_refused_with_its_column(tmp_path, name, column):
    with pytest.raises(Refuse, match=rf"{name} cannot hold column 'odd', which is ") as refused:
        write(tmp_path, name, pa.table({"id": [1], "odd": column}))
    assert refused.value.code == "data.column"
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_duckdb_refuses_a_type_that_it_has_not(tmp_path):
    table = pa.table({"odd": pa.array([1], pa.float32()).cast(pa.float16())})
    output = open_output(Output(source="x", path="a.duckdb", table="t"), tmp_path, name="rows")
    with pytest.raises(Refuse, match=r"a\.duckdb: Not implemented"):
        output.write(table.to_reader())


def test_rows_set_aside_keep_their_own_reason_and_any_time(tmp_path):
    table = pa.table({"reason": ["mine"], "day": DAYS[:1], "at": pa.array([1], pa.timestamp("ns"))})
    (line,) = aside_lines("ours", table)
    assert json.loads(line) == {
        "reason": "ours", "day": FAR[0], "at": "1970-01-01T00:00:00", "row.reason": "mine",
    }  # fmt: skip
