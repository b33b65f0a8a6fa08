"""What a run would do, and the tests that stand in a file."""

from streamapp.workflow.run.binding import bind, find_problems
from streamapp.workflow.run.engine import Services
from streamapp.workflow.run.preview import preview
from streamapp.workflow.run.step_tests import run_tests


def will(project, graph):
    found = preview(bind(graph), Services(cache=project.cache))
    return {part.name: (part.will, part.why) for part in found}


def test_a_plan_says_what_a_run_then_does(project):
    graph = project.graph({"operation": "double"}, {"operation": "total"})
    assert will(project, graph) == {
        "rows": ("read", "it was not read before"),
        "s0": ("maybe run", "rows may differ"),
        "s1": ("maybe run", "s0 may differ"),
        "result": ("write", ""),
    }
    assert not list(project.out.glob("*")), "a plan writes nothing"
    project.run(graph)
    after = will(project, graph)
    assert [after[name][0] for name in ("rows", "s0", "s1")] == ["use"] * 3
    changed = project.graph({"operation": "double", "config": {"note": "x"}})
    (part,) = [p for p in preview(bind(changed), Services(cache=project.cache)) if p.name == "s0"]
    assert (part.will, part.why, part.rows, part.calls) == ("run", "config changed: note", 10, 1)
    assert part.columns == {"n": "int64", "twice": "int64"}
    assert part.seconds is not None, "it was measured"


def test_types_are_checked_before_anything_runs(project):
    graph = project.graph(
        {"operation": "total", "inputs": "rows"}, {"operation": "same"},
        {"operation": "same", "inputs": "rows"},
        inputs={"rows": {"path": "rows.jsonl"}, "gone": {"path": "rws.jsonl"}},
        outputs={"o": {"source": "s2", "format": "jsn"}},
    )  # fmt: skip
    _, problems = find_problems(graph)
    said = [problem.message.partition(":")[0] for problem in problems]
    assert said == ["inputs.gone", "stages[1]", "outputs.o"]
    assert "rows.jsonl" in problems[0].fix
    assert "it has rows, sum" in problems[1].fix
    assert "json" in problems[2].fix


def test_tests_in_a_file_say_what_differs(project):
    (project.folder / "token").write_text("hunter2")
    graph = project.graph(
        {
            "operation": "double",
            "tests": [
                {"rows": [{"n": 2}], "expect": [{"twice": 4}]},
                {"name": "wrong", "rows": [{"n": 2}], "expect": [{"twice": 5}]},
                {"rows": [{"n": 2}], "expect": [{"thrice": 5}]},
                {"rows": [{"n": 2}, {"n": 3}], "expect_rows": 1},
                {"rows": [{"m": 2}], "expect_error": "operation.column"},
                {"rows": [{"m": 2}], "expect": []},
                {"rows": [{"n": 2}], "expect_error": "lab.away"},
                {"expect_rows": 0},
            ],
        },
        {
            "operation": "secret",
            "config": {"key": "${file:token}", "tell": True},
            "tests": [{"rows": [{"n": 1}], "expect_rows": 1}],
        },
        {
            "operation": "looks",
            "config": {"source": "more"},
            "tests": [
                {"rows": [{"n": 1}], "sources": {"more": [{"a": 1}]}, "expect": [{"known": 1}]}
            ],
        },
    )
    tested = run_tests(graph, Services(cache=project.cache))
    assert [one.passed for one in tested] == [
        True, False, False, False, True, False, False, False, False, True,
    ]  # fmt: skip
    why = [one.why for one in tested]
    assert tested[1].name == "wrong"
    assert why[1] == "row 1: twice is 4, not 5"
    assert "no column 'thrice'" in why[2]
    assert why[3] == "2 rows, not 1"
    assert "no 'n' column" in why[5]
    assert why[6] == "no error, not lab.away"
    assert "no rows of 'rows'" in why[7]
    assert "hunter2" not in why[8]


def test_a_mistake_of_an_operation_fails_its_test_and_not_the_others(project):
    rows = {"rows": [{"n": 1}], "expect_rows": 1}
    broken = {"operation": "breaks", "config": {"how": "error"}, "tests": [rows]}
    graph = project.graph({"operation": "same", "tests": [rows]}, broken)
    good, bad = run_tests(graph, Services(cache=project.cache))
    assert (good.passed, bad.passed) == (True, False)
    assert bad.why.startswith("operation.error: ZeroDivisionError: by nothing")


def test_a_time_beyond_pythons_calendar_is_compared_as_it_is_written(project):
    graph = project.graph({
        "service": "pipeline", "operation": "map",
        "config": {"columns": {"at": "make_timestamp(n * 400000000000000000)"}},
        "tests": [
            {"rows": [{"n": 1}], "expect": [{"at": "14645-06-30 15:06:40.000000"}]},
            {"rows": [{"n": 1}], "expect": [{"at": "2026-06-30"}]},
        ],
    })  # fmt: skip
    good, bad = run_tests(graph, Services(cache=project.cache))
    assert (good.passed, bad.passed) == (True, False)
    assert "at is '14645-06-30 15:06:40.000000', not '2026-06-30'" in bad.why
