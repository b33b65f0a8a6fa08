from pathlib import Path

import pytest
from example_workflow import EXAMPLE

from streamapp.core.errors import Refuse
from streamapp.workflow.graph.load import graph_of, load_graph, read_graph
from streamapp.workflow.graph.spec import Graph, Input, Output, RetryPolicy, Step

#: Each line names the one before nine times.
BOMB = b"a0: &a0 x\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 7)
)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "workflow.yaml"
        path.write_text(text)
        return path

    return write


def test_a_file_is_what_it_says(file):
    graph = load_graph(file(EXAMPLE))
    assert (graph.name, graph.version) == ("text-processing-pipeline", "1.0")
    assert graph.inputs == {"documents": Input(type="file", pattern="*.txt")}
    assert graph.outputs == {"classifications": Output(source="model-inference", format="json")}
    first, second, third = graph.stages
    assert first.config == {"extract_keywords": True, "analyze_sentiment": True}
    assert graph.takes(first) == ("documents",)
    assert graph.takes(second) == ("nlp-analysis",)
    assert second.config["key_fields"] == ["document_id"]
    assert third.config == {"model": "text-classifier-v2", "threshold": 0.75}


def test_what_is_declared_is_equal_wherever_it_is_written(file, tmp_path):
    graph = load_graph(file(EXAMPLE))
    assert graph.folder == tmp_path
    assert graph == Graph(**{n: getattr(graph, n) for n in graph.declared().__struct_fields__})
    assert graph != Graph(name=graph.name)


def test_plain_values_are_a_graph():
    step = {"name": "a", "service": "text", "operation": "analyze", "retry": 2, "depends_on": "b"}
    graph = graph_of({"name": "w", "version": 2, "stages": [step]}, Path("/tmp"))
    expected = Step(
        name="a", service="text", operation="analyze", depends_on=("b",), retry=RetryPolicy(max=2)
    )
    assert graph.stages == (expected,)
    assert graph.version == "2"


def test_yaml_is_that_of_1_2(file):
    text = EXAMPLE + "params: {on: 'x', no: no, day: 2026-01-02, octal: 0o17}\n"
    graph = load_graph(file(text))
    assert graph.params == {"on": "x", "no": "no", "day": "2026-01-02", "octal": 15}


def test_an_alias_is_the_value_that_it_names(file):
    text = EXAMPLE.replace("service: gospel", "service: &s gospel").replace(
        "service: model-router", "service: *s"
    )
    assert {step.service for step in load_graph(file(text)).stages} == {"gospel", "combine"}


@pytest.mark.parametrize(
    ("before", "after", "place", "message", "fix"),
    [
        ("service: gospel", "servise: gospel", "12:5", "no key 'servise'", "'service'"),
        ("    operation: analyze\n", "", "11:5", "no 'operation'", "add operation:"),
        ("depends_on: nlp", "needs: nlp", "21:5", "no key 'needs'", "'depends_on'"),
        ("format: json", "format: [json]", "40:13", "format: Expected `str", ""),
        ("pattern:", "patern:", "8:5", "an input has no key 'patern'", "'pattern'"),
        ("name: text-processing-pipeline", "name: a b", "2:7", "it is no name", "letters"),
        ("  documents:", "  my documents:", "6:3", "'my documents' is no name", "letters"),
        ("depends_on: nlp-analysis", "retry: {max: x}", "21:18", "max: Expected int", ""),
        ("depends_on: nlp-analysis", "retry: {mx: 1}", "21:13", "retry has no key 'mx'", "'max'"),
        ("depends_on: nlp-analysis", "on_failure: stop", "21:17", "Invalid enum", ""),
        ("depends_on: nlp-analysis", "service: x", "21:5", "stands twice, first in line 19", ""),
        ("version:", "verzion:", "3:1", "a workflow has no key 'verzion'", "'version'"),
        ('pattern: "*.txt"', 'pattern: "*.txt', "8:14", "found unexpected end", "quotes"),
        ("  documents:", "\tdocuments:", "6:1", "found character", "not with tabs"),
        ("type: file", "type: !!python/name:os.system x", "7:11", "is no plain value", "tag"),
        ("type: file", "type: !!python/object/apply:os.system [id]", "7:11", "is no plain", "tag"),
    ],
)
def test_what_is_wrong_has_its_place(file, before, after, place, message, fix):
    assert before in EXAMPLE
    path = file(EXAMPLE.replace(before, after, 1))
    with pytest.raises(Refuse, match=message.replace("`", ".?")) as caught:
        load_graph(path)
    assert caught.value.message.startswith(f"{path}:{place}")
    assert fix in caught.value.fix


def test_one_mistake_does_not_hide_another(file):
    text = EXAMPLE.replace("pattern:", "patern:").replace("threshold:", "- x\n      thr:")
    _, one = read_graph(file(text))
    assert len(one) == 1  # what is no YAML has nothing behind it
    text = EXAMPLE.replace("pattern:", "patern:").replace("operation", "operate")
    _, problems = read_graph(file(text))
    assert [problem.code for problem in problems] == ["workflow.key"] * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"- a\n- b\n", "not a list"),
        (b"5", "not a number"),
        (b"name: \xff", "not UTF-8"),
        (b"name: x\nstages: {a: 1}\n", "stages is a mapping, not a list"),
        (b"name: x\ninputs: [a]\n", "inputs is a list, not a mapping"),
        (b"name: x\nstages: [5]\n", "Expected mapping"),
        (BOMB, "too many values"),
        (b"a: &a {b: *a}\n", "too many values, or too deep"),
        (b"x: " + b"[" * 200, "nested deeper than 50"),
        (b"name: x\n<<: {a: 1}\n", "merge keys"),
        (b"? [a]\n: 1\n", "a key is a list"),
        (b"#" * (1 << 20) + b"##", "larger than 1 MiB"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_workflow_is_refused(tmp_path, content, message):
    path = tmp_path / "w.yaml"
    path.write_bytes(content)
    with pytest.raises(Refuse, match=message) as caught:
        load_graph(path)
    assert caught.value.message.startswith(str(path))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(Refuse, match="No such file"):
        load_graph(tmp_path / "w.yaml")
