"""The results as Markdown: what a run prints, and the block of docs/performance.md made of them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tables import table

BEGIN, END = "<!-- figures of make bench-models -->\n", "<!-- end of the models' figures -->\n"

#: What each ratio says, and the least that it should be; the most where the aim begins with ≤.
AIMS = {
    "stage_vs_sorted_run": ("e5-small: the stage to the best run sorted by length", "≥ 0.95"),
    "stage_vs_naive_batch": ("e5-small: the stage to batches of 32 as they come", "≥ 2"),
    "stage_texts_per_s": ("e5-small: the stage, texts/s", "≥ 900"),
    "stage_vs_minilm_sorted": (
        "e5-small: the stage to MiniLM's best run sorted by length",
        "≥ 1.07",
    ),
    "batching_vs_per_sample": (
        "64 callers, 1.8 M weights: shared calls to the fastest single ones",
        "≥ 5",
    ),
    "batching_vs_per_sample_large": ("the same, 25 M weights", "≥ 5"),
    "ensemble_p95_ms": ("three models at 820 samples/s: p95, ms", "≤ 28"),
    "banking77_5shot": ("BANKING77, five examples each: e5-small", "≥ 0.69"),
    "banking77_5shot_minilm": ("the same: MiniLM", "≥ 0.75"),
    "banking77_head": ("BANKING77, trained head: e5-small", "≥ 0.91"),
    "banking77_head_minilm": ("the same: MiniLM", "≥ 0.92"),
    "routed_points_lost": ("points that routing loses to direct calls", "≤ 0.2"),
    "v2_vs_plain": ("`/v2` infer to plain aiohttp and onnxruntime, requests", "≥ 1"),
}
PARTS = {
    "banking": "BANKING77",
    "rates": "texts/s",
    "lengths": "lengths",
    "routed": "routing",
    "sentiment": "sentiment",
    "language": "languages",
    "served": "`/v2`",
    "fastembed": "fastembed",
}


def render(results: Mapping[str, Any]) -> str:
    """Ratios first, then where they come from."""
    figures = results["figures"]
    known = {
        "banking": _banking,
        "sentiment": _sentiment,
        "language": _language,
        "routed": _routed,
        "rates": lambda found: _rates(found, figures.get("fastembed")),
        "lengths": _lengths,
        "calls": lambda found: _calls(found, figures.get("calls_large")),
        "ensemble": _ensemble,
        "served": _served,
    }
    blocks = [_aims(results["ratios"], figures["not_measured"])]
    blocks += [show(figures[part]) for part, show in known.items() if part in figures]
    if "versions" in results:
        versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        blocks.append(f"{results['machine']}; {versions}.\n")
    return "\n".join(["", *blocks, ""])


def _aims(ratios: Mapping[str, float], not_measured: Mapping[str, str]) -> str:
    rows = [
        [about, _figure(ratios[name]) if name in ratios else "not measured", aim]
        for name, (about, aim) in AIMS.items()
    ]
    notes = [
        f"\nNot measured: {PARTS.get(name, name)}: {why}.\n" for name, why in not_measured.items()
    ]
    return table(["", "found", "aim"], rows) + "".join(notes)


def _banking(found: Mapping[str, Any]) -> str:
    rows = [
        ["label names only", *(_share(one["zero_shot"]) for one in found.values())],
        ["nearest mean of 5 examples", *(_spread(one["few_centroid"]) for one in found.values())],
        ["head of 5 examples", *(_spread(one["few_head"]) for one in found.values())],
        ["head of all", *(_share(one["head"]["accuracy"]) for one in found.values())],
    ]
    rows += _answered("head, calibrated for 95 %", [one["head"] for one in found.values()])
    for name, title in (("told", "with"), ("not_told", "without")):
        rows += _answered(
            f"a fourth of labels unknown, {title} examples",
            [one["unknown"][name] for one in found.values()],
        )
    return table(["BANKING77, right of `test.csv`", *found], rows)


def _answered(title: str, judged: Sequence[Mapping[str, float]]) -> list[list[str]]:
    rows = [
        [f"{title}: answered", *(_share(one["coverage"]) for one in judged)],
        [f"{title}: right of them", *(_share(one["precision"]) for one in judged)],
    ]
    if not any(one["refused"] != one["refused"] for one in judged):  # NaN: there are none
        rows.append([f"{title}: unknown kept unknown", *(_share(one["refused"]) for one in judged)])
    return rows


def _sentiment(found: Mapping[str, float]) -> str:
    rows = [[way, _share(value)] for way, value in found.items()]
    return table(["feeling of sentences of reviews", "right"], rows)


def _language(found: Mapping[str, float]) -> str:
    rows = [[f"{found['sentences']:.0f} sentences", _share(found["accuracy"])]]
    return table([f"language, of {found['languages']:.0f}", "right"], rows)


def _routed(found: Mapping[str, float]) -> str:
    names = {"intents": "trained head", "nearest": "nearest mean", "routed": "by a route over both"}
    rows = [[names[name], _share(value)] for name, value in found.items()]
    return table(["BANKING77 on e5-small", "right"], rows)


def _rates(found: Mapping[str, Mapping[str, Sequence[float]]], peer: Any) -> str:
    ways = list(next(iter(found.values())))
    names = {"stage": "ours: the stage `embed`", "one by one": "onnxruntime, a call for each"}
    rows = [
        [names.get(way, f"onnxruntime, {way}"), *(_rate(runs[way]) for runs in found.values())]
        for way in ways
    ]
    if peer:
        for batch, runs in peer["rates"].items():
            cells = [_rate(runs) if model == "MiniLM" else "" for model in found]
            rows.append([f"fastembed, batches of {batch}", *cells])
    return table(["messages of 15 tokens, texts/s", *found], rows)


def _lengths(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = []
    for words, by_batch in found.items():
        for together, one in by_batch.items():
            rows.append(
                [
                    f"{words} words, {together} at once",
                    f"{one['stage_per_s']:,.0f}",
                    f"{one['stage_p95_ms']:,.1f}",
                    f"{one['plain_per_s']:,.0f}",
                    f"{one['plain_p95_ms']:,.1f}",
                ]
            )
    heads = ["e5-small", "ours, texts/s", "p95 ms", "onnxruntime, texts/s", "p95 ms"]
    return table(heads, rows)


def _calls(
    found: Mapping[str, Sequence[float]], large: Mapping[str, Sequence[float]] | None
) -> str:
    names = {
        "shared": "ours: shared calls",
        "one at a time": "ours, batches of one",
        "alone, 1 threads": "each calls onnxruntime, 1 thread",
        "alone, 2 threads": "each calls onnxruntime, 2 threads",
    }
    rows = [
        [names[way], _rate(runs), _rate(large[way]) if large else ""] for way, runs in found.items()
    ]
    return table(["64 callers of one model, samples/s", "1.8 M weights", "25 M weights"], rows)


def _ensemble(found: Mapping[str, float]) -> str:
    row = [f"{found['per_s']:,.0f}/s offered", f"{found['p50_ms']:.1f}", f"{found['p95_ms']:.1f}"]
    return table(["the mean of three models", "p50 ms", "p95 ms"], [row])


def _served(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    names = {"gateway": "ours: the gateway's `/v2`", "plain": "plain aiohttp and onnxruntime"}
    keys = ("per_s", "p50_ms", "p95_ms", "cpu_us", "resident_mb")
    rows = [
        [names[name], *(f"{statistics.median(run[key] for run in runs):,.1f}" for key in keys)]
        for name, runs in found.items()
    ]
    heads = ["64 connections", "requests/s", "p50 ms", "p95 ms", "CPU µs/request", "memory MB"]
    return table(heads, rows)


def _rate(runs: Sequence[float]) -> str:
    return f"{statistics.median(runs):,.0f}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.pstdev(values):.3f}"


def _share(value: float) -> str:
    return f"{value:.3f}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if value < 1 else f"{value:.2f}"
