"""Where outputs and what stands beside them go, and what is in the way there."""

import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.run.binding import find_problems
from streamapp.workflow.run.cache import Cache
from streamapp.workflow.run.engine import Services, run
from streamapp.workflow.run.record import Record, keep_record, running

SAME = {"operation": "same"}


def outputs(**paths):
    return {name: {"source": "s0", "path": path} for name, path in paths.items()}


@pytest.mark.parametrize(
    ("declared", "other"),
    [
        (outputs(a="a.csv", b="x/../a.csv"), "output 'a'"),
        ({**outputs(a="b.csv"), "b": {"source": "s0", "format": "csv"}}, "output 'a'"),
        (outputs(a="a.csv", b="b.csv"), ""),
        ({"a": {"source": "s0", "path": "a.db"}, "b": {"source": "s0", "path": "a.db"}}, ""),
        ({n: {"source": "s0", "path": "a.db", "table": "t"} for n in "ab"}, "output 'a'"),
        (outputs(b="lab.provenance.json"), "the provenance"),
        (outputs(b="quarantine/b.csv"), "quarantine"),
    ],
)
def test_two_outputs_never_go_to_one_place(project, declared, other):
    _, problems = find_problems(project.graph(SAME, outputs=declared))
    messages = [f"outputs.b: output 'b' is written where {other} is"] if other else []
    assert [problem.message for problem in problems] == messages


def test_no_output_is_in_a_folder_that_another_is_the_file_of(project):
    for declared in (outputs(a="x.csv", b="x.csv/y/b.csv"), outputs(b="x.csv/b.csv", a="x.csv")):
        _, problems = find_problems(project.graph(SAME, outputs=declared))
        [said] = [problem.message for problem in problems]
        assert said == "outputs.b: output 'b' needs a folder x.csv, where output 'a' is a file"


def test_no_output_is_written_over_what_is_read(project):
    before = (project.folder / "rows.jsonl").read_bytes()
    over = project.graph(SAME, outputs=outputs(o="flow/rows.jsonl"))
    services = Services(cache=project.cache)
    with pytest.raises(Refuse, match="over flow/rows.jsonl, which input 'rows' reads"):
        run(over, folder_out=project.folder.parent, services=services)
    assert (project.folder / "rows.jsonl").read_bytes() == before


def test_what_the_system_refuses_is_an_error_with_its_place(project):
    graph = project.graph(SAME)
    project.out.write_text("a file")
    with pytest.raises(Refuse, match="out: File exists") as caught:
        project.run(graph)
    assert caught.value.code == "workflow.disk"
    project.out.unlink()
    project.cache.write_text("a file")
    with pytest.raises(Refuse, match="cache: Not a directory"):
        project.run(graph)


def test_where_one_output_cannot_be_written_the_files_of_the_others_are_as_they_were(project):
    graph = project.graph(SAME, outputs=outputs(a="a.csv", b="b.csv", c="c.db"))
    assert project.run(graph).state == "done"
    before = (project.out / "a.csv").read_bytes()
    (project.out / "b.csv").unlink()
    (project.out / "b.csv").mkdir()
    project.write(range(3))
    report = project.run(graph)
    assert report.state == "failed"
    assert "b.csv: Is a directory" in report.error.message
    assert report.outputs == ()
    assert (project.out / "a.csv").read_bytes() == before
    assert not list(project.out.glob(".*.part"))
    (project.out / "b.csv").rmdir()
    report = project.run(graph)
    assert [(each.name, each.rows) for each in report.outputs] == [("c", 3), ("a", 3), ("b", 3)]
    assert (project.out / "a.csv").read_text() == (project.out / "b.csv").read_text()


def test_rows_that_cannot_be_set_aside_beside_the_outputs_are_an_error(project):
    project.out.mkdir()
    (project.out / "quarantine").write_text("a file")
    report = project.run(project.graph({"operation": "aside"}))
    assert report.error.code == "data.write"
    assert report.error.message.startswith(f"{project.out}/quarantine/s0.jsonl: ")
    assert [written.name for written in report.outputs] == ["result"]


def test_what_stands_beside_the_outputs_has_their_mode(project):
    project.run(project.graph({"operation": "aside"}))
    files = [path for path in project.out.rglob("*") if path.is_file()]
    assert {"result.jsonl", "s0.jsonl", "lab.provenance.json"} == {path.name for path in files}
    assert len({path.stat().st_mode for path in files}) == 1


def test_a_run_that_is_under_way_is_not_gone_on_with(project):
    record = Record(run="1-a", workflow="lab", path="", params={}, folder_out=str(project.out),
                    started_us=1, state="running")  # fmt: skip
    cache = Cache(project.cache)
    keep_record(cache, record)
    services = Services(cache=project.cache)
    graph = project.graph(SAME)
    with running(cache, "1-a"), pytest.raises(Refuse, match="'1-a' is under way"):
        run(graph, folder_out=project.out, services=services, resumed=record)
    assert run(graph, folder_out=project.out, services=services, resumed=record).state == "done"
