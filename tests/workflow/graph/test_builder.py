"""The builder makes the graph that its YAML makes."""

import pytest
from example_workflow import EXAMPLE
from hypothesis import given, settings
from hypothesis import strategies as st

import streamapp
from streamapp.core.errors import Refuse
from streamapp.workflow.graph.builder import Workflow
from streamapp.workflow.graph.load import graph_of, load_graph


def example(folder="."):
    return (
        streamapp.Workflow("text-processing-pipeline", "1.0", folder=folder)
        .input("documents", pattern="*.txt")
        .stage(
            "nlp-analysis",
            "gospel.analyze",
            config={"extract_keywords": True, "analyze_sentiment": True},
        )
        .stage(
            "data-enrichment",
            "combine.integrate",
            depends_on="nlp-analysis",
            config={
                "secondary_sources": ["metadata-db"],
                "mode": "left_join",
                "key_fields": ["document_id"],
            },
        )
        .stage(
            "model-inference",
            "model-router.infer",
            depends_on="data-enrichment",
            config={"model": "text-classifier-v2", "threshold": 0.75},
        )
        .output("classifications", source="model-inference", format="json")
    )


def test_it_is_equal_to_its_yaml(tmp_path):
    path = tmp_path / "workflow.yaml"
    path.write_text(EXAMPLE)
    graph = load_graph(path)
    assert example(tmp_path).graph() == graph
    assert Workflow.of(graph) == example()
    assert Workflow.of(graph).graph().folder == tmp_path
    assert example().stage("more", "text.analyze").graph() != graph


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co", "Cn"]), max_size=20)
    | st.sampled_from(["yes", "null", "~", "1.0", "0x10", "2020-01-01", "a: b", "- x", "#", "'", "line\nline\n", "\t", "${x}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,8}", fullmatch=True)
STAGES = st.fixed_dictionaries(
    {"service": st.just("text"), "operation": st.just("analyze")},
    optional={
        "config": st.dictionaries(st.text("xyz_", min_size=1, max_size=5), VALUES, max_size=3),
        "depends_on": st.lists(NAMES, max_size=2) | NAMES,
        "when": st.just("params.x > 1"),
        "foreach": st.dictionaries(NAMES, st.lists(st.integers() | st.text("ab"), min_size=1, max_size=3), min_size=1, max_size=2),
        "retry": st.integers(0, 9) | st.fixed_dictionaries({"max": st.integers(0, 9), "on": st.just(["timeout"])}),
        "timeout_s": st.floats(0.1, 1000),
        "on_failure": st.sampled_from(["fail", "skip", "continue"]),
        "scale": st.sampled_from(["fused", "own"]),
        "resources": st.fixed_dictionaries({"memory_mb": st.integers(1, 9)}),
        "tests": st.just([{"name": "t", "rows": [{"text": "x"}], "expect_rows": 1}]),
    },
)  # fmt: skip
INPUTS = st.fixed_dictionaries(
    {}, optional={"pattern": st.just("*.txt") | st.just(["a", "b"]), "format": st.just("csv"), "options": st.dictionaries(st.text("ab", min_size=1), VALUES, max_size=2)}
)  # fmt: skip
CONTENTS = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "version": st.sampled_from(["1", "1.0", "2024-01-01"]),
        "description": st.text("ab: #\n", max_size=8),
        "params": st.dictionaries(NAMES, st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab:", max_size=4), max_size=2),
        "inputs": st.dictionaries(NAMES, INPUTS, max_size=2),
        "stages": st.dictionaries(NAMES, STAGES, max_size=3).map(lambda stages: [{"name": name, **stage} for name, stage in stages.items()]),
        "outputs": st.dictionaries(NAMES, st.fixed_dictionaries({"source": NAMES}, optional={"path": st.just("a/b.csv")}), max_size=2),
    },
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(content=CONTENTS)
def test_whatever_it_declares_comes_back_from_its_yaml(tmp_path_factory, content):
    graph = graph_of(content, tmp_path_factory.getbasetemp())
    path = tmp_path_factory.getbasetemp() / "again.yaml"
    Workflow.of(graph).save(path)
    assert load_graph(path) == graph


@pytest.mark.parametrize(("wrong", "why"), [
    (lambda w: w.input("documents", pattern="*.md"), "two inputs 'documents'"),
    (lambda w: w.stage("nlp-analysis", "text.analyze"), "two stages 'nlp-analysis'"),
    (lambda w: w.output("classifications", source="x"), "two outputs 'classifications'"),
    (lambda w: w.input("more", patern="*"), "has no key 'patern'.*did you mean 'pattern'"),
    (lambda w: w.stage("more", "text.analyze", timeout=3), "has no key 'timeout'.*did you mean 'timeout_s'"),
    (lambda w: w.stage("more", "text.analyze", retry="often"), "retry"),
    (lambda w: w.stage("a b", "text.analyze"), "name"),
])  # fmt: skip
def test_what_is_wrong_is_refused_where_it_is_written_and_leaves_it_as_it_was(wrong, why):
    workflow = example()
    with pytest.raises(Refuse, match=why):
        wrong(workflow)
    assert workflow == example()


def test_what_a_caller_changes_later_changes_nothing():
    config = {"labels": ["a"]}
    workflow = Workflow("w").stage("s", "text.analyze", config=config)
    config["labels"].append("b")
    assert workflow.graph().stages[0].config == {"labels": ["a"]}
    assert "- b" not in workflow.to_yaml()
