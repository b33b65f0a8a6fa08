from pathlib import Path

import lab
import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.graph.check import check, variants
from streamapp.workflow.graph.load import graph_of, load_graph
from streamapp.workflow.graph.names import operation_name, plain_service


@pytest.fixture(autouse=True)
def operations(tmp_path_factory, monkeypatch):
    """The lab's operations, as if a package had brought them."""
    yield from lab.installed(tmp_path_factory, monkeypatch)


def graph(*stages, **keys):
    content = {"name": "w", "inputs": {"rows": {"path": "x.csv"}}, "stages": list(stages), **keys}
    return graph_of(content, Path("/"))


def stage(name, *takes, **keys):
    found = {"name": name, "service": "lab", "operation": "same", **keys}
    if takes:
        found["depends_on"] = list(takes)
    return found


def test_nothing_is_wrong_with_a_good_one():
    assert check(graph(stage("a"), stage("b", "a"), stage("c", "b", operation="total"))) == []


@pytest.mark.parametrize(
    ("made", "code", "message", "fix"),
    [
        (graph(), "workflow.empty", "stages: nothing", "add"),
        (graph(stage("a"), stage("a")), "workflow.twice", "stages[1].name: a stage", "rename"),
        (graph(stage("rows")), "workflow.twice", "an input is called 'rows'", "rename"),
        (graph(stage("ab", "ba"), stage("bx")), "workflow.depends", "stage 'ba'", "there are bx"),
        (graph(stage("a", "rows")), "workflow.depends", "stage 'rows'", "name it in inputs"),
        (graph(stage("a"), stage("b", "a", "a", operation="total")), "workflow.twice", "'a'", ""),
        (graph(stage("a", operation="sme")), "workflow.operation", "'sme'", "'same'"),
        (graph(stage("a", service="lap")), "workflow.service", "'lap'", "'lab'"),
        (graph(stage("a", service="heihachi")), "workflow.operation", "none of its own", ""),
        (graph(stage("a", config={"nte": ""})), "operation.config", "config.nte", "'note'"),
        (graph(stage("a", config={"note": 5})), "operation.config", "config.note", ""),
        (graph(stage("a", config={"note": 2**64})), "operation.config", "config.note", "text"),
        (graph(stage("a"), stage("b"), stage("c", "a", "b")), "workflow.inputs", "takes 1 inputs,",
         "now: a, b"),
        (graph(stage("a", config={"note": "${params.x}"})), "workflow.template", "'params.x'", ""),
        (graph(stage("a", when="rows.b > 1")), "workflow.when", "no 'rows.b'", "'rows.rows'"),
        (graph(stage("a", when="f()")), "workflow.when", "Call", "compare"),
        (graph(stage("a", foreach={"x": []})), "workflow.foreach", "0 calls", ""),
        (graph(stage("a", foreach=dict.fromkeys("pqrstuvwxyz", [0] * 10))), "workflow.foreach",
         "100,000,000,000 calls", "1 to 1000"),
        (graph(stage("a", foreach={"params": [1]})), "workflow.foreach", "'params' is a name", "another"),
        (graph(stage("a"), outputs={"o": {"source": "aa"}}), "workflow.source", "'aa'", "'a'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(made, code, message, fix):
    problems = check(made)
    assert [problem.code for problem in problems] == [code]
    assert message in problems[0].message
    assert fix in problems[0].fix


def test_a_cycle_is_named_once_and_the_shortest():
    made = graph(
        stage("a", "c", operation="total"),
        stage("b", "a", "d", operation="total"),
        stage("c", "b", operation="total"),
        stage("d", "d", operation="total"),
    )
    messages = [problem.message for problem in check(made) if problem.code == "workflow.cycle"]
    assert [m.partition("other: ")[2] for m in messages] == ["a -> c -> b -> a", "d -> d"]


def test_params_of_a_run_are_those_of_the_file():
    made = graph(stage("a", config={"note": "${params.word}"}), params={"word": "x"})
    assert check(made, {"word": "y"}) == []
    (problem,) = check(made, {"wrd": "y"})
    assert "'word'" in problem.fix
    (problem,) = check(made, {"word": 5})
    assert problem.message.startswith("stages[0].config.note")


def test_a_config_s_key_is_pointed_at(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text(
        "name: w\ninputs:\n  rows: {path: x.csv}\nstages:\n- name: a\n  service: lab\n"
        "  operation: same\n  config:\n    log: x\n    nte: y\n"
    )
    (problem,) = check(load_graph(path))
    assert problem.message.startswith(f"{path}:10:5: config.nte")


def test_variants_are_all_combinations():
    made = graph(stage("a", foreach={"x": [1, 2], "y": ["p", "q"]}))
    assert variants(made.stages[0]) == [
        {"x": 1, "y": "p"}, {"x": 1, "y": "q"}, {"x": 2, "y": "p"}, {"x": 2, "y": "q"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("service", "operation", "name"),
    [
        ("gospel", "analyze", "text.analyze"),
        ("combine", "integrate", "integrate.integrate"),
        ("purpose", "filter", "pipeline.filter"),
        ("model-router", "infer", "infer.infer"),
        ("text", "analyze", "text.analyze"),
        ("python", "shop.clean:prices", "python.shop.clean:prices"),
    ],
)
def test_services_go_by_two_names(service, operation, name):
    assert operation_name(service, operation) == name
    assert plain_service(plain_service(service)) == plain_service(service)


def test_a_service_that_there_is_not_is_refused():
    with pytest.raises(Refuse, match="there is no service 'txet'") as caught:
        operation_name("txet", "analyze")
    assert "'text'" in caught.value.fix
