"""The results as Markdown: what a run prints, and the block of docs/performance.md made of them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tables import table

BEGIN, END = "<!-- figures of make bench-gateway -->\n", "<!-- end of the gateway's figures -->\n"

#: What has an aim: what it says, and the least that it should be.
AIMS = {
    "single_vs_bare_aiohttp": ("one event a request: ours to a bare aiohttp handler", 0.5),
    "single_vs_karapace": ("one record a request: ours to Karapace's REST proxy", 5.0),
    "ndjson_events_per_s": ("NDJSON, events/s", 100_000.0),
}
SINGLE = {
    "bare": "bare aiohttp: parses, keeps nothing",
    "ours": "ours, `/ingest`, on Kafka",
    "ours_local": "ours, `/ingest`, on `local://`",
    "ours_v2": "ours, Confluent v2, on Kafka",
    "aiokafka": "bare aiohttp and aiokafka's producer",
    "karapace": "Karapace's REST proxy",
}
MANY = {
    "ndjson": "NDJSON, on Kafka",
    "arrow": "Arrow, on Kafka",
    "cloudevents": "CloudEvents in a batch, on Kafka",
    "ndjson_local": "NDJSON, on `local://`",
    "arrow_local": "Arrow, on `local://`",
}


def render(results: Mapping[str, Any]) -> str:
    """Ratios first, then where they come from."""
    figures = results["figures"]
    blocks = [
        _aims(results["ratios"], figures["not_measured"]),
        _single(figures["single"]),
        _many(figures["many"], figures["many_events"]),
    ]
    if "versions" in results:
        blocks.append(_setting(results))
    return "\n".join(["", *blocks, ""])


def _aims(ratios: Mapping[str, float], not_measured: Mapping[str, str]) -> str:
    rows = [
        [about, _figure(ratios[name]) if name in ratios else "-", f"≥ {_figure(aim)}"]
        for name, (about, aim) in AIMS.items()
    ]
    rows.append(
        ["one event: ours to aiohttp and aiokafka", _figure(ratios["single_vs_aiokafka"]), ""]
    )
    said = [f"Not measured: {name}: {why}\n" for name, why in not_measured.items()]
    return "\n".join([table(["median of rounds", "found", "aim"], rows), *said])


def _single(figures: Mapping[str, Sequence[Sequence[float]]]) -> str:
    rows = [
        [SINGLE[name], *(f"{value:,.0f}" for value in _medians(runs)[:1]), *_times(runs)]
        for name, runs in figures.items()
    ]
    return table(["one event a request", "requests/s", "p50 ms", "p99 ms", "CPU µs"], rows)


def _times(runs: Sequence[Sequence[float]]) -> list[str]:
    _, p50_ms, p99_ms, cpu_us = _medians(runs)
    return [f"{p50_ms:.1f}", f"{p99_ms:.1f}", f"{cpu_us:.0f}"]


def _many(figures: Mapping[str, Sequence[Sequence[float]]], events: int) -> str:
    rows = []
    for name, runs in figures.items():
        per_s, p50_ms, p99_ms, cpu_us = _medians(runs)
        rows.append(
            [
                MANY[name],
                f"{per_s * events:,.0f}",
                f"{cpu_us / events:.1f}",
                f"{p50_ms:.0f}",
                f"{p99_ms:.0f}",
            ]
        )
    heads = [f"{events:,} events a request", "events/s", "CPU µs an event", "p50 ms", "p99 ms"]
    return table(heads, rows)


def _medians(runs: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def _setting(results: Mapping[str, Any]) -> str:
    shown = ("streamapp", "aiohttp", "aiokafka", "msgspec", "kafka", "wrk", "python")
    versions = ", ".join(f"{name} {results['versions'][name]}" for name in shown)
    return f"{results['machine']}, 32 connections; {versions}.\n"
