"""The results as Markdown: what a run prints, and the block of docs/performance.md made of them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tables import table

BEGIN, END = "<!-- figures of make bench-transport -->\n", "<!-- end of figures -->\n"

#: What each ratio says, and the least that it should be.
AIMS = {
    "received_vs_faust_take": ("received and decoded: ours to Faust `take(256)`", 18.0),
    "received_vs_quix": ("received and decoded: ours to Quix Streams", 4.0),
    "received_vs_getmany": ("received and decoded: ours to bare `aiokafka.getmany`", 0.8),
    "published_vs_faust_take": ("to the enriched record: ours to Faust `take(256)`", 12.0),
    "local_append_vs_sqlite": ("append: `local://` to SQLite's own", 0.5),
}
NAMES = {
    "getmany": "aiokafka `getmany`",
    "ours": "ours",
    "ours, not decoded": "ours, not decoded",
    "faust_event": "plain Faust, event by event",
    "faust_take": "Faust `take(256)`",
    "quix": "Quix Streams",
}


def render(results: Mapping[str, Any]) -> str:
    """Ratios first, then where they come from."""
    figures = results["figures"]
    blocks = [
        _ratios(results["ratios"], figures["not_measured"]),
        _rates("received and decoded", figures["received"]),
        _rates("to the enriched record", figures["published"]),
        _growth("partitions", figures["growth"]["partitions"]),
        _growth("events in a batch", figures["growth"]["batch"]),
        _parts(figures),
        _latency(figures["latency"]),
        _logs(figures["logs"]),
    ]
    if "versions" in results:
        blocks.append(_setting(results))
    return "\n".join(["", *blocks, ""])


def _ratios(ratios: Mapping[str, float], not_measured: Mapping[str, str]) -> str:
    rows = []
    for name, (about, aim) in AIMS.items():
        found = f"{ratios[name]:.2f}" if name in ratios else "not measured"
        rows.append([about, found, f"{aim:g}"])
    notes = [f"\nNot measured: {NAMES[name]}: {why}.\n" for name, why in not_measured.items()]
    return table(["ratio (median of rounds)", "found", "aim"], rows) + "".join(notes)


def _rates(title: str, found: Mapping[str, Sequence[Sequence[float]]]) -> str:
    ordered = sorted(found.items(), key=lambda item: -_median(item[1], 0))
    rows = [[NAMES[name], *_figure(runs)] for name, runs in ordered]
    return table([title, "events/s", "CPU µs/event"], rows)


def _growth(title: str, found: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    rows = [
        [f"{int(value):,}", *_figure(paths["received"]), *_figure(paths["published"])]
        for value, paths in found.items()
    ]
    heads = [title, "received/s", "CPU µs/event", "published/s", "CPU µs/event"]
    return table(heads, rows)


def _parts(figures: Mapping[str, Any]) -> str:
    sizes = list(figures["parts"])
    fetched = _median(figures["received"]["ours, not decoded"], 1)
    whole = _median(figures["published"]["ours"], 1)
    rows = [
        ["receive: fetch, one Faust message per Slice, acknowledge", "", "", *_cost(fetched)],
        *(
            [part, *(cell for size in sizes for cell in _cost(figures["parts"][size][part]))]
            for part in figures["parts"][sizes[0]]
        ),
        ["the whole path, with publication", "", "", *_cost(whole)],
    ]
    heads = [
        cell
        for size in sizes
        for cell in (f"µs/event, batches of {int(size):,}", "events/s of a core")
    ]
    return table(["CPU of a part", *heads], rows)


def _cost(cpu_us: float) -> list[str]:
    return [f"{cpu_us:.2f}", f"{1e6 / cpu_us:,.0f}"]


def _latency(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = []
    for rate in found["ours"]:
        cells = [
            f"{found[name][rate][figure]:,.1f}"
            for name, figure in (
                ("ours", "answered_p50_ms"),
                ("ours", "answered_p99_ms"),
                ("ours", "p50_ms"),
                ("ours", "p99_ms"),
                ("faust_event", "p50_ms"),
                ("faust_event", "p99_ms"),
            )
        ]
        rows.append([f"{int(rate):,}/s", *cells])
    heads = ["answer p50", "p99", "ours p50", "p99", "plain Faust p50", "p99"]
    return table(["from POST, ms", *heads], rows)


def _logs(found: Mapping[str, Mapping[str, float]]) -> str:
    rows = [[name, f"{at['append']:,.0f}", f"{at['read']:,.0f}"] for name, at in found.items()]
    return table(["records of 1 KB by our clients", "append/s", "read/s"], rows)


def _setting(results: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return f"{results['machine']}; {versions}.\n"


def _figure(runs: Sequence[Sequence[float]]) -> list[str]:
    return [f"{_median(runs, 0):,.0f}", f"{_median(runs, 1):.2f}"]


def _median(runs: Sequence[Sequence[float]], place: int) -> float:
    return statistics.median(run[place] for run in runs)
