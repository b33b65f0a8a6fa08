"""Pipelines from file to file, and the verb."""

import json

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from streamapp.cli.app import main
from streamapp.core.errors import Refuse
from streamapp.services import (
    FilterOperator,
    FilterTransform,
    Pipeline,
    PipelineService,
)
from streamapp.workflow.pipelines import (
    AggregateTransform,
    MapTransform,
    Transform,
    run_pipeline,
)

ROWS = "id,content,n\n1,hello,1\n2,,2\n3,world,x\n4,hello,4\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input.csv").write_text(ROWS)
    return tmp_path


async def test_a_registered_pipeline_from_csv_to_csv(folder):
    pipeline = Pipeline("text_preprocessing")
    pipeline.add_transform(FilterTransform("remove_empty", "content", FilterOperator.NOT_EQ, ""))
    service = PipelineService()
    service.register_pipeline(pipeline)
    done = await service.execute_pipeline(
        "text_preprocessing", "input.csv", "csv", ("output.csv", "csv")
    )
    assert pacsv.read_csv(folder / "output.csv")["id"].to_pylist() == [1, 3, 4]
    assert (done.rows_in, done.rows_out, done.rejected, done.table) == (4, 3, 0, None)
    [told] = done.transforms
    assert (told["name"], told["rows_in"], told["rows_out"]) == ("remove_empty", 4, 3)
    with pytest.raises(Refuse, match="no pipeline is called 'other'"):
        await service.execute_pipeline("other", "input.csv", "csv")


async def test_without_a_file_the_rows_come_back(folder):
    pipeline = Pipeline(
        "sums",
        [
            MapTransform("whole", {"n": "cast(n as int)"}),
            AggregateTransform("sum", ["content"], {"total": "sum(n)"}),
        ],
    )
    service = PipelineService(folder)
    service.register_pipeline(pipeline)
    done = await service.execute_pipeline("sums", "input.csv", "csv", rejects=folder / "bad.jsonl")
    assert done.table["total"].to_pylist()[0] == 5
    assert done.reasons == {"config.transforms[0].map.columns.n fails": 1}
    [line] = (folder / "bad.jsonl").read_text().splitlines()
    assert json.loads(line)["row"]["id"] in {3, "3"}


@pytest.mark.parametrize(
    ("operator", "value", "left"),
    [
        (FilterOperator.EQ, "hello", [1, 4]),
        (FilterOperator.GT, "hello", [3]),
        (FilterOperator.CONTAINS, "orl", [3]),
        (FilterOperator.STARTS_WITH, "he", [1, 4]),
        (FilterOperator.ENDS_WITH, "ld", [3]),
        (FilterOperator.IS_NULL, None, [2]),
        (FilterOperator.NOT_NULL, None, [1, 3, 4]),
        (FilterOperator.EQ, "it's", []),
    ],
)
def test_operators(folder, operator, value, left):
    rows = pa.table({"id": [1, 2, 3, 4], "content": ["hello", None, "world", "hello"]})
    pq.write_table(rows, folder / "rows.parquet")
    pipeline = Pipeline("p", [FilterTransform("f", "content", operator, value)])
    done = run_pipeline(pipeline, ("rows.parquet", None), folder=folder)
    assert done.table["id"].to_pylist() == left


def test_a_pipeline_of_nothing():
    with pytest.raises(Refuse, match="has no transforms"):
        Pipeline("p").operation()
    with pytest.raises(Refuse, match="where"):
        Pipeline("p", [Transform("f", "filter", {})]).operation()


def test_the_verb(folder, capsys):
    line = ["pipeline", "run", "input.csv", "out.csv", "filter=content <> ''", "dedupe=content"]
    assert main([*line, "map=size=length(content)", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["rows_out"] for one in told["transforms"]] == [3, 2, 2]
    assert pacsv.read_csv(folder / "out.csv")["size"].to_pylist() == [5, 5]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("filtr=x", "did you mean filter=?"),
        ("window=x", "needs its config as JSON"),
        ("sample=many", "no fraction"),
        ("map={", "not JSON"),
        ("filter=nope > 1", "no 'nope' column"),
        ("filter=(select 1)", "sub-select"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(folder, capsys, step, said):
    assert main(["pipeline", "run", "input.csv", "out.csv", step]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "out.csv").exists()


def test_an_output_stays_as_it_was_when_a_row_ends_the_run(folder, capsys):
    (folder / "out.csv").write_text("before\n")
    step = 'map={"columns": {"n": "cast(n as int)"}, "on_error": "fail"}'
    assert main(["pipeline", "run", "input.csv", "out.csv", step]) == 2
    assert "fails at row 3" in capsys.readouterr().err
    assert (folder / "out.csv").read_text() == "before\n"


@pytest.mark.parametrize("name", ["input.csv", "out.csv", "./input.csv"])
def test_rejected_rows_take_no_other_rows_place(folder, capsys, name):
    line = ["pipeline", "run", "input.csv", "out.csv", "map=n=cast(n as int)", "--rejects", name]
    assert main(line) == 2
    assert "name another file for the rejected rows" in capsys.readouterr().err
    assert (folder / "input.csv").read_text() == ROWS
    assert not (folder / "out.csv").exists()


def test_the_file_of_rejected_rows_is_that_of_this_run(folder, capsys):
    rejects = folder / "bad.jsonl"
    line = ["pipeline", "run", "input.csv", "out.csv", "--rejects", "bad.jsonl"]
    assert main([*line, "map=n=cast(n as int)"]) == 0
    kept = rejects.read_text()
    assert [json.loads(row)["row"]["id"] for row in kept.splitlines()] == [3]
    assert main([*line, 'map={"columns": {"n": "cast(n as int)"}, "on_error": "fail"}']) == 2
    assert rejects.read_text() == kept
    assert main([*line, "filter=id > 0"]) == 0
    assert rejects.read_text() == ""
    assert sorted(path.name for path in folder.iterdir()) == ["bad.jsonl", "input.csv", "out.csv"]


def test_the_result_is_as_it_was_where_the_rejected_rows_cannot_be_written(folder, capsys):
    (folder / "out.csv").write_text("old")
    (folder / "bad.jsonl").mkdir()
    line = ["pipeline", "run", "input.csv", "out.csv", "filter=id > 0", "--rejects", "bad.jsonl"]
    assert main(line) == 2
    assert "bad.jsonl: Is a directory" in capsys.readouterr().err
    assert (folder / "out.csv").read_text() == "old"
    assert sorted(path.name for path in folder.iterdir()) == ["bad.jsonl", "input.csv", "out.csv"]
