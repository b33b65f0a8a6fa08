"""A graph as a picture: Mermaid for pages that draw it, SVG that needs nothing."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from unicodedata import category

from streamapp.workflow.graph.layout import Edge, Layout, Node, Point, lay_out, letters
from streamapp.workflow.graph.names import plain_service
from streamapp.workflow.graph.spec import Graph, Input, Output, Step

_TEXT_MAX = 32
_MERMAID = {
    "input": ("([", "])"),
    "source": ("[(", ")]"),
    "stage": ("[", "]"),
    "output": ("[/", "/]"),
}
_STYLE = """\
.n{stroke-width:1.5;fill:#fff;stroke:#57606a}.input{fill:#ddf4ff;stroke:#0969da}
.source{fill:#fbefff;stroke:#8250df}.output{fill:#dafbe1;stroke:#1a7f37}
.own{stroke-width:3}.maybe{stroke-dasharray:6 4}
.e{fill:none;stroke:#57606a;stroke-width:1.5}.e.source{stroke:#8250df;stroke-dasharray:3 4}
marker path{fill:#57606a}text{font:13px system-ui,sans-serif;fill:#1f2328;text-anchor:middle}
.t{font-weight:600}.s{font-size:11px;fill:#57606a}
@media(prefers-color-scheme:dark){
.n{fill:#161b22;stroke:#9198a1}.input{fill:#0c2d6b;stroke:#58a6ff}
.source{fill:#3c1e70;stroke:#bc8cff}.output{fill:#04391a;stroke:#3fb950}.e{stroke:#9198a1}
marker path{fill:#9198a1}text{fill:#f0f6fc}.s{fill:#9198a1}}"""
_ARROW = """\
<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"
 markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>"""


def mermaid(graph: Graph, sources: Mapping[str, Sequence[str]] | None = None) -> str:
    """The graph as Mermaid's flowchart; see https://mermaid.js.org/syntax/flowchart.html.

    Args:
        graph: as loaded.
        sources: declared sources that a stage reads, by the stage's name.
    """
    nodes, edges = _parts(graph, sources or {})
    ids = {node.id: f"n{place}" for place, node in enumerate(nodes)}
    lines = ["flowchart LR"]
    for node in nodes:
        left, right = _MERMAID[node.kind]
        label = "<br/>".join(_entities(line) for line in (node.title, *node.lines))
        lines.append(f'    {ids[node.id]}{left}"{label}"{right}')
    for edge in edges:
        arrow = "-.->" if edge.kind == "source" else "-->"
        lines.append(f"    {ids[edge.start]} {arrow} {ids[edge.end]}")
    return "\n".join(lines) + "\n"


def svg(graph: Graph, sources: Mapping[str, Sequence[str]] | None = None) -> str:
    """The graph as an SVG picture, in light and dark; arguments as ``mermaid``."""
    layout = lay_out(*_parts(graph, sources or {}))
    name = escape(_printable(f"{graph.name} {graph.version}"))
    width, height = round(layout.width), round(layout.height)
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{name}">',
            f"<title>{name}</title>",
            f"<style>{_STYLE}</style>",
            _ARROW,
            *_lines(layout),
            *(box for node in layout.nodes for box in _box(node, layout.places[node.id])),
            "</svg>\n",
        ]
    )


def _parts(
    graph: Graph, sources: Mapping[str, Sequence[str]]
) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
    """Boxes and arrows; one name may be that of an input and of an output."""
    nodes = [_node("input", name, _input_lines(one)) for name, one in graph.inputs.items()]
    edges: list[Edge] = []
    declared = sorted({name for names in sources.values() for name in names})
    nodes += [_node("source", name, ("declared source",)) for name in declared]
    stages = {step.name for step in graph.stages}
    for step in graph.stages:
        nodes.append(_node("stage", step.name, tuple(_stage_lines(step)), _classes(step)))
        for name in graph.takes(step):
            kind = "stage" if name in stages and name in step.depends_on else "input"
            edges.append(Edge(f"{kind} {name}", f"stage {step.name}"))
        read = sources.get(step.name, ())
        edges += [Edge(f"source {name}", f"stage {step.name}", "source") for name in read]
    for name, output in graph.outputs.items():
        nodes.append(_node("output", name, _output_lines(output)))
        kind = "stage" if output.source in stages else "input"
        edges.append(Edge(f"{kind} {output.source}", f"output {name}"))
    known = {node.id for node in nodes}
    return tuple(nodes), tuple(e for e in edges if {e.start, e.end} <= known)


def _node(kind: str, name: str, lines: tuple[str, ...], classes: str = "") -> Node:
    return Node(f"{kind} {name}", kind, _cut(name), tuple(map(_cut, lines)), classes)


def _input_lines(declared: Input) -> tuple[str, ...]:
    pattern = declared.pattern
    patterns = pattern if isinstance(pattern, str) or pattern is None else ", ".join(pattern)
    where = declared.source or declared.path or patterns or declared.format or declared.type
    table = declared.table or ("query" if declared.query else "")
    return (where, table) if table else (where,)


def _stage_lines(step: Step) -> Iterator[str]:
    yield f"{plain_service(step.service)}.{step.operation}"
    if step.foreach:
        calls = 1
        for values in step.foreach.values():
            calls *= len(values)
        yield f"for each {', '.join(step.foreach)} ({calls})"
    if step.when:
        yield f"when {step.when}"


def _classes(step: Step) -> str:
    own = ["own"] if step.scale == "own" else []
    return " ".join([*own, *(["maybe"] if step.when else [])])


def _output_lines(declared: Output) -> tuple[str, ...]:
    return (declared.path or declared.table or declared.format or "",)


def _cut(text: str) -> str:
    text = _printable(" ".join(text[:1000].split()))
    if letters(text) <= _TEXT_MAX:
        return text
    while letters(text) >= _TEXT_MAX:
        text = text[:-1]
    return text + "…"


def _printable(text: str) -> str:
    """The text without what XML cannot hold."""
    return "".join("�" if category(one) in ("Cc", "Cs", "Cn") else one for one in text)


def _entities(text: str) -> str:
    """Text within Mermaid's quotes, where what is not plain is a numbered entity."""
    return "".join(c if c.isalnum() or c in " .,-_/*()…" else f"#{ord(c)};" for c in text)


def _lines(layout: Layout) -> Iterator[str]:
    for edge, points in zip(layout.edges, layout.routes, strict=True):
        kind = "e source" if edge.kind == "source" else "e"
        yield f'<path class="{kind}" d="{_curve(points)}" marker-end="url(#a)"/>'


def _curve(points: Sequence[Point]) -> str:
    """A line through the points that leaves and enters each of them level."""
    path = f"M{points[0].x:.0f} {points[0].y:.0f}"
    for start, end in pairwise(points):
        middle = (start.x + end.x) / 2
        path += f"C{middle:.0f} {start.y:.0f} {middle:.0f} {end.y:.0f} {end.x:.0f} {end.y:.0f}"
    return path


def _box(node: Node, center: Point) -> Iterator[str]:
    left, top = center.x - node.width / 2, center.y - node.height / 2
    radius = {"input": node.height / 2, "source": 16}.get(node.kind, 6)
    yield (
        f'<rect class="n {node.kind} {node.classes}" x="{left:.0f}" y="{top:.0f}" '
        f'width="{node.width:.0f}" height="{node.height:.0f}" rx="{radius:.0f}"/>'
    )
    y = center.y - (node.height - 2 * node.padding) / 2 + 12
    yield f'<text class="t" x="{center.x:.0f}" y="{y:.0f}">{escape(node.title)}</text>'
    for line in node.lines:
        y += node.line_height
        yield f'<text class="s" x="{center.x:.0f}" y="{y:.0f}">{escape(line)}</text>'
