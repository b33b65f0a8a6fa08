"""Pictures of a graph: all of it is there, nothing lies over another, what is odd is escaped."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.workflow.graph.builder import Workflow
from streamapp.workflow.graph.draw import mermaid, svg
from streamapp.workflow.graph.layout import Edge, Node, lay_out

SVG = "{http://www.w3.org/2000/svg}"


def workflow():
    return (
        Workflow("w")
        .input("documents", pattern="*.txt")
        .input("orders", path="orders.csv")
        .stage("analysis", "gospel.analyze", inputs="documents")
        .stage("clean", "pipeline.filter", inputs="orders", when='params.x > 3 and "a"')
        .stage("joined", "combine.integrate", depends_on=["analysis", "clean"], scale="own")
        .stage("audit", "pipeline.sample", depends_on="joined", foreach={"a": [1, 2], "b": [3]})
        .output("audit", source="audit", format="csv")
        .output("raw", source="orders", path="raw.parquet")
        .graph()
    )


def test_mermaid_has_every_part_and_arrow():
    text = mermaid(workflow(), {"joined": ["metadata-db"]})
    assert text.startswith("flowchart LR\n")
    ids = dict(re.findall(r'^    (n\d+)\W+"([^<"]+)', text, re.MULTILINE))
    assert list(ids.values()) == [
        "documents", "orders", "metadata-db", "analysis", "clean", "joined", "audit", "audit", "raw",
    ]  # fmt: skip
    found = re.findall(r"^    (n\d+) (?:-->|-\.->) (n\d+)$", text, re.MULTILINE)
    arrows = {(ids[start], ids[end]) for start, end in found}
    assert arrows == {
        ("documents", "analysis"), ("orders", "clean"), ("analysis", "joined"), ("clean", "joined"),
        ("metadata-db", "joined"), ("joined", "audit"), ("audit", "audit"), ("orders", "raw"),
    }  # fmt: skip
    assert "text.analyze" in text
    assert "for each a, b (2)" in text
    assert 'params.x #62; 3 and #34;a#34;"' in text


def test_svg_is_a_picture_that_needs_nothing():
    root = ET.fromstring(svg(workflow(), {"joined": ["metadata-db"]}))
    titles = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "t"]
    assert sorted(titles) == sorted(
        [
            "documents",
            "orders",
            "metadata-db",
            "analysis",
            "clean",
            "joined",
            "audit",
            "audit",
            "raw",
        ]
    )
    assert len(root.findall(f"{SVG}path")) == 8
    kinds = [box.get("class").split() for box in root.iter(f"{SVG}rect")]
    assert ["n", "stage", "own"] in kinds
    assert ["n", "stage", "maybe"] in kinds
    assert not re.search(r"(href|src|url\(http)", svg(workflow()))


def test_odd_names_are_escaped():
    graph = (
        Workflow("w")
        .input("x", pattern='<script>"&*.txt')
        .output("o", source="x", format="csv")
        .graph()
    )
    root = ET.fromstring(svg(graph))
    assert any(text.text == '<script>"&*.txt' for text in root.iter(f"{SVG}text"))
    assert "<script>" not in mermaid(graph)


def test_a_box_is_as_wide_as_its_letters_are_and_holds_what_xml_can():
    graph = (
        Workflow("w")
        .input("x", pattern="表" * 40)
        .input("y", pattern="y" * 15)
        .input("z", pattern="z\x07\ufffe" + "e\u0301" * 12 + ".csv")
        .graph()
    )
    root = ET.fromstring(svg(graph))
    lines = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "s"]
    assert lines == ["表" * 15 + "…", "y" * 15, "z��" + "e\u0301" * 12 + ".csv"]
    wide, narrow, _ = (float(box.get("width")) for box in root.iter(f"{SVG}rect"))
    assert wide - narrow == round(31 * 6.2 - 15 * 6.2)


def test_an_empty_workflow_is_an_empty_picture():
    graph = Workflow("w").graph()
    assert mermaid(graph) == "flowchart LR\n"
    ET.fromstring(svg(graph))


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 12))
    nodes = [
        Node(str(n), "stage", "x" * draw(st.integers(1, 30)), ("y",) * draw(st.integers(0, 3)))
        for n in range(count)
    ]
    pairs = draw(
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=20)
    )
    return nodes, [Edge(str(min(pair)), str(max(pair))) for pair in pairs if pair[0] != pair[1]]


@settings(max_examples=60, deadline=None)
@given(graph=graphs())
def test_no_box_lies_over_another_and_every_arrow_goes_forward(graph):
    nodes, edges = graph
    layout = lay_out(nodes, edges)
    boxes = {
        node.id: (
            place.x - node.width / 2,
            place.y - node.height / 2,
            place.x + node.width / 2,
            place.y + node.height / 2,
        )
        for node, place in ((node, layout.places[node.id]) for node in nodes)
    }
    for one, a in boxes.items():
        assert a[0] >= 0
        assert a[1] >= 0
        assert a[2] <= layout.width
        assert a[3] <= layout.height
        for other, b in boxes.items():
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert one == other or apart
    for edge, route in zip(layout.edges, layout.routes, strict=True):
        assert [point.x for point in route] == sorted(point.x for point in route)
        assert route[0].x == pytest.approx(boxes[edge.start][2])
        assert route[-1].x == pytest.approx(boxes[edge.end][0])


def test_a_cycle_is_drawn_too():
    """A file that is wrong may be drawn before it is checked."""
    nodes = [Node(name, "stage", name, ()) for name in "ab"]
    assert lay_out(nodes, [Edge("a", "b"), Edge("b", "a")]).width > 0
