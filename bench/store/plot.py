"""A plot of a few series over time as SVG text: no library needed, and a diff can be read."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, PANEL, GAP, LEFT, TOP = 760, 120, 46, 70, 34
COLOURS = ("#1f6fb4", "#c2571a")


class Panel(NamedTuple):
    """One plot: series with a name each, over the same seconds; y begins at 0."""

    title: str
    unit: str
    series: dict[str, Sequence[float]]


def svg(title: str, seconds: Sequence[float], panels: Sequence[Panel]) -> str:
    """The panels below one another."""
    height = TOP + len(panels) * (PANEL + GAP)
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
    parts = [
        f'<svg {head} font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(LEFT, 18, title, size=14),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, seconds, TOP + number * (PANEL + GAP) + 14)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, seconds: Sequence[float], top: int) -> list[str]:
    width, bottom = WIDTH - LEFT - 20, top + PANEL
    highest = _round_up(max(max(values) for values in panel.series.values()))
    end_s = max(seconds[-1], 1.0)
    parts = [_text(LEFT, top - 5, panel.title)]
    for part in (0.0, 0.5, 1.0):
        y = bottom - part * PANEL
        parts += [
            f'<path d="M{LEFT} {y:.0f}h{width}" stroke="#ddd"/>',
            _text(LEFT - 6, y + 4, f"{highest * part:g} {panel.unit}", anchor="end"),
            _text(LEFT + part * width, bottom + 14, f"{end_s * part:.0f} s", anchor="middle"),
        ]
    for number, (name, values) in enumerate(panel.series.items()):
        points = " ".join(
            f"{LEFT + at / end_s * width:.1f},{bottom - value / highest * PANEL:.1f}"
            for at, value in zip(seconds, values, strict=True)
        )
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        if len(panel.series) > 1:
            x = WIDTH - 20 - 90 * (len(panel.series) - number - 1)
            parts.append(_text(x, top - 5, name, anchor="end", colour=colour))
    return parts


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    step = 1.0
    while step * 10 <= value:
        step *= 10
    while step > value > 0:
        step /= 10
    return next((step * n for n in (1, 2, 5) if step * n >= value), step * 10)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#333"
) -> str:
    where = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"'
    return f'<text {where} font-size="{size}" fill="{colour}">{escape(text)}</text>'
