"""Markdown tables, and the block of a page that is made of a benchmark's results."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_BENCH = Path(__file__).parent


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, figures to the right."""
    widths = [max(len(row[n]) for row in [heads, *rows]) for n in range(len(heads))]
    lines = [_line(heads, widths), _rule(widths), *(_line(row, widths) for row in rows)]
    return "\n".join(lines) + "\n"


def rewrite(name: str, begin: str, end: str, render: Callable[[Mapping[str, Any]], str]) -> None:
    """Put what is made of bench/results/NAME.json between two lines of docs/performance.md."""
    text = render(json.loads((_BENCH / "results" / f"{name}.json").read_text()))
    page = _BENCH.parent / "docs" / "performance.md"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(before + begin + text + end + after)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if n else cell.ljust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join([first, *others])} |"


def _rule(widths: Sequence[int]) -> str:
    return f"| {' | '.join('-' * (w - 1) + ':' if n else '-' * w for n, w in enumerate(widths))} |"
