"""The results as Markdown: what a run prints, and the block of docs/performance.md made of them."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from tables import table

BEGIN, END = "<!-- figures of make bench-services -->\n", "<!-- end of the services' figures -->\n"


def render(results: Mapping[str, Any], sections: Mapping[str, ModuleType]) -> str:
    """The aims of all sections first, then the table of each."""
    figures, ratios = results["figures"], results["ratios"]
    rows = [
        [about, figure(ratios[name]) if name in ratios else "not measured", aim]
        for section in sections.values()
        for name, (about, aim) in section.AIMS.items()
    ]
    away = "".join(f"\nNot measured: {n}: {why}.\n" for n, why in figures["not_measured"].items())
    blocks = [table(["", "found", "aim"], rows) + away]
    blocks += [
        section.render(figures[name]) for name, section in sections.items() if name in figures
    ]
    if "versions" in results:
        versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        blocks.append(f"{results['machine']}; {versions}.\n")
    return "\n".join(["", *blocks, ""])


def figure(value: float) -> str:
    """As long as it says something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if value < 1 else f"{value:.2f}"
