"""Where boxes and arrows go: columns by what comes after what, few crossings, long arrows around.

The method is that of Sugiyama, Tagawa and Toda (1981), with barycenters for the order within a
column and medians for the height.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import NamedTuple
from unicodedata import combining, east_asian_width

_SWEEPS = 8
_GAP_X, _GAP_Y, _MARGIN = 56.0, 22.0, 16.0
_CHAR_TITLE, _CHAR_LINE = 7.6, 6.2


class Point(NamedTuple):
    """In pixels, down and to the right."""

    x: float
    y: float


class Edge(NamedTuple):
    """An arrow, by ids of nodes."""

    start: str
    end: str
    kind: str = ""


def letters(text: str) -> int:
    """How wide a text is, in average letters: those of East Asia count twice, marks on others not.

    See https://www.unicode.org/reports/tr11/.
    """
    return sum(0 if combining(one) else 1 + (east_asian_width(one) in ("W", "F")) for one in text)


@dataclass(frozen=True, slots=True)
class Node:
    """A box.

    Attributes:
        id: of its own.
        kind: for its looks.
        title: its first line.
        lines: under it.
        classes: more for its looks.
    """

    id: str
    kind: str
    title: str
    lines: tuple[str, ...]
    classes: str = ""
    padding: float = 10.0
    line_height: float = 16.0

    @property
    def width(self) -> float:
        """Of the box, by an average letter."""
        longest = max((letters(line) * _CHAR_LINE for line in self.lines), default=0.0)
        return max(letters(self.title) * _CHAR_TITLE, longest, 60.0) + 4 * self.padding

    @property
    def height(self) -> float:
        """Of the box."""
        return 2 * self.padding + self.line_height * (1 + len(self.lines))


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes with their centers, and arrows with the points that they go through."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    places: Mapping[str, Point]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    height: float


def lay_out(nodes: Sequence[Node], edges: Sequence[Edge]) -> Layout:
    """Place the boxes, the first to the left.  A cycle's last arrow goes back."""
    ranks = _ranks(nodes, edges)
    columns, chains = _columns(nodes, edges, ranks)
    _order(columns, chains)
    sizes = {node.id: (node.width, node.height) for node in nodes}
    widths = [max((sizes.get(one, (0, 0))[0] for one in column), default=0) for column in columns]
    lefts = [_MARGIN + sum(widths[:rank]) + _GAP_X * rank for rank in range(len(columns))]
    heights = _heights(columns, chains, {name: size[1] for name, size in sizes.items()})
    places = {
        one: Point(lefts[rank] + widths[rank] / 2, heights[one])
        for rank, column in enumerate(columns)
        for one in column
    }
    routes = []
    for chain in chains:
        start, end = places[chain[0]], places[chain[-1]]
        passed = list(_passed(chain[1:-1], places, widths, ranks_of(columns)))
        routes.append(
            (
                Point(start.x + sizes[chain[0]][0] / 2, start.y),
                *passed,
                Point(end.x - sizes[chain[-1]][0] / 2, end.y),
            )
        )
    bottom = max((heights[node.id] + node.height / 2 for node in nodes), default=0.0)
    right = lefts[-1] + widths[-1] if columns else 0.0
    shown = {node.id: places[node.id] for node in nodes}
    return Layout(
        tuple(nodes), tuple(edges), shown, tuple(routes), right + _MARGIN, bottom + _MARGIN
    )


def _passed(
    chain: Sequence[str], places: Mapping[str, Point], widths: Sequence[float],
    ranks: Mapping[str, int],
) -> Iterator[Point]:  # fmt: skip
    """Both sides of each column that a long arrow passes: between them it is level."""
    for one in chain:
        half = widths[ranks[one]] / 2
        yield Point(places[one].x - half, places[one].y)
        yield Point(places[one].x + half, places[one].y)


def ranks_of(columns: Sequence[Sequence[str]]) -> dict[str, int]:
    """The column of each."""
    return {one: rank for rank, column in enumerate(columns) for one in column}


def _ranks(nodes: Sequence[Node], edges: Sequence[Edge]) -> dict[str, int]:
    """The longest way to each box; what leads to nothing stands right before its first use."""
    ranks = {node.id: 0 for node in nodes}
    for _ in nodes:
        changed = False
        for edge in edges:
            if edge.start != edge.end and ranks[edge.end] <= ranks[edge.start] < len(nodes):
                ranks[edge.end] = ranks[edge.start] + 1
                changed = True
        if not changed:
            break
    entered = {edge.end for edge in edges}
    for node in nodes:
        uses = [ranks[edge.end] for edge in edges if edge.start == node.id]
        if node.id not in entered and uses:
            ranks[node.id] = max(min(uses) - 1, 0)
    used = sorted(set(ranks.values()))
    return {name: used.index(rank) for name, rank in ranks.items()}


def _columns(
    nodes: Sequence[Node], edges: Sequence[Edge], ranks: Mapping[str, int]
) -> tuple[list[list[str]], list[list[str]]]:
    """Boxes by column, with a place kept in each column that an arrow passes; and those chains."""
    columns: list[list[str]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    for node in nodes:
        columns[ranks[node.id]].append(node.id)
    chains = []
    for number, edge in enumerate(edges):
        chain = [edge.start]
        for rank in range(ranks[edge.start] + 1, ranks[edge.end]):
            chain.append(f"passed {number} {rank}")
            columns[rank].append(chain[-1])
        chains.append([*chain, edge.end])
    return columns, chains


def _order(columns: list[list[str]], chains: Sequence[Sequence[str]]) -> None:
    """Sort each column by the middle of what it is connected with, to and fro."""
    before, after = _neighbours(chains)
    best, fewest = [list(column) for column in columns], _crossings(columns, chains)
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        ranks = range(1, len(columns)) if forth else range(len(columns) - 2, -1, -1)
        for rank in ranks:
            beside = columns[rank - 1 if forth else rank + 1]
            at = {one: place for place, one in enumerate(beside)}
            known = before if forth else after
            here = {one: place for place, one in enumerate(columns[rank])}
            columns[rank].sort(
                key=lambda one, at=at, known=known, here=here: (  # type: ignore[misc]
                    _mean([at[other] for other in known.get(one, ()) if other in at], here[one])
                )
            )
        crossings = _crossings(columns, chains)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    columns[:] = best


def _neighbours(
    chains: Sequence[Sequence[str]],
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for chain in chains:
        for start, end in pairwise(chain):
            before.setdefault(end, []).append(start)
            after.setdefault(start, []).append(end)
    return before, after


def _mean(places: Sequence[int], otherwise: float) -> float:
    return sum(places) / len(places) if places else otherwise


def _crossings(columns: Sequence[Sequence[str]], chains: Sequence[Sequence[str]]) -> int:
    at = {one: place for column in columns for place, one in enumerate(column)}
    ranks = ranks_of(columns)
    links: dict[int, list[tuple[int, int]]] = {}
    for chain in chains:
        for start, end in pairwise(chain):
            links.setdefault(ranks[start], []).append((at[start], at[end]))
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0
        for group in links.values()
        for place, a in enumerate(group)
        for b in group[place + 1 :]
    )


def _heights(
    columns: Sequence[Sequence[str]], chains: Sequence[Sequence[str]], sizes: Mapping[str, float]
) -> dict[str, float]:
    """The middle of each box: as near as its column lets it to the median of its neighbours."""
    before, after = _neighbours(chains)
    found: dict[str, float] = {}
    for column in columns:
        top = _MARGIN
        for one in column:
            found[one] = top + sizes.get(one, 0.0) / 2
            top += sizes.get(one, 0.0) + _GAP_Y
    for sweep in range(_SWEEPS):
        known = before if sweep % 2 == 0 else after
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wanted = [
                median([found[other] for other in known[one]]) if one in known else found[one]
                for one in column
            ]
            found |= zip(column, _spread(column, wanted, sizes), strict=True)
    top = min((found[one] - sizes.get(one, 0.0) / 2 for one in found), default=0.0)
    return {one: height - top + _MARGIN for one, height in found.items()}


def _spread(
    column: Sequence[str], wanted: Sequence[float], sizes: Mapping[str, float]
) -> list[float]:
    """Heights in the column's order, apart from each other, with the least moved on average."""
    halves = [sizes.get(one, 0.0) / 2 for one in column]
    down, up = list(wanted), list(wanted)
    for place in range(1, len(column)):
        apart = halves[place - 1] + halves[place] + _GAP_Y
        down[place] = max(down[place], down[place - 1] + apart)
    for place in range(len(column) - 2, -1, -1):
        apart = halves[place] + halves[place + 1] + _GAP_Y
        up[place] = min(up[place], up[place + 1] - apart)
    return [(one + other) / 2 for one, other in zip(down, up, strict=True)]
