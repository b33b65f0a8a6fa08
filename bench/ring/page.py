"""The results as Markdown: what a run prints, and the block of docs/performance.md made of them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tables import table

BEGIN, END = "<!-- figures of make bench-ring -->\n", "<!-- end of the ring's figures -->\n"

#: What each says, its unit, and what it should be, if anything: at most (-) or at least (+) so much.
AIMS: dict[str, tuple[str, str, float | None]] = {
    "c_write_vs_memcpy": ("C: commit of 256 rows to memcpy, in cache", "x", -1.10),
    "py_batch256_vs_memcpy_cache": ("Python: write of 256 rows to memcpy, in cache", "x", -1.6),
    "py_batch256_vs_memcpy_dram": ("Python: write of 256 rows to memcpy, from DRAM", "x", -1.15),
    "iceoryx2_vs_ours": ("Python: one row written and read, iceoryx2 to ours", "x", 5.0),
    "py_single_write_extra_ns": ("Python: one row written, beyond memcpy", "ns", -120.0),
    "futex_p50_us": ("C: from write to a reader that slept, p50", "µs", -10.0),
    "futex_vs_word_apart": ("the same on two CPUs, to a word and a futex alone", "x", -1.10),
    "py_futex_p50_us": ("Python: from write to a reader that slept, p50", "µs", None),
    "stopped_reader_p50": ("p50 of a write: a reader is stopped to no reader", "x", -1.10),
}
NAMES = {
    "ours": "the ring",
    "seqlock": "shared_memory + NumPy seqlock",
    "seqlock 1 ms": "the same, polling every 1 ms",
    "iceoryx2": "iceoryx2",
    "zmq": "zmq ipc, PUB/SUB",
    "dram": "the ring in DRAM",
}
SLEEPERS = {
    "ours": "the ring: futex",
    "seqlock": "NumPy seqlock, polling every 50 µs",
    "seqlock 1 ms": "NumPy seqlock, polling every 1 ms",
    "iceoryx2": "iceoryx2: event",
    "zmq": "zmq ipc: socket",
    "C ring": "the ring, from C to C",
    "C word": "a word and a futex, from C to C: what the kernel takes",
    "C ring apart": "the ring, from C to C, each on a CPU of its own",
    "C word apart": "a word and a futex, so, too",
}
SHAPES = {
    "cache 1": "one row, in cache",
    "cache 256": "256 rows, in cache",
    "dram 1": "one row, DRAM",
    "dram 256": "256 rows, DRAM",
}
#: The zero-shot gateway's README: ns a write, ns a read, frames a second.
CLAIMED_NS = {"write": 50, "read": 100}
CLAIMED_PER_S = 10_000_000


def render(results: Mapping[str, Any]) -> str:
    """Ratios first, then where they come from."""
    figures = results["figures"]
    blocks = [
        _ratios(results["ratios"], figures["not_measured"]),
        _claims(figures),
        _memcpy(figures),
        _alone(figures["alone"]),
        _streams(figures["streams"]),
        _wake(figures["wake"]),
    ]
    if "versions" in results:
        blocks.append(_setting(results))
    return "\n".join(["", *blocks, ""])


def _ratios(ratios: Mapping[str, float], not_measured: Mapping[str, str]) -> str:
    rows = []
    for name, (about, unit, aim) in AIMS.items():
        places = 2 if unit == "x" else 1 if unit == "µs" else 0
        found = f"{ratios[name]:,.{places}f} {unit}" if name in ratios else "not measured"
        wanted = "" if aim is None else f"{'≤' if aim < 0 else '≥'} {abs(aim):g} {unit}"
        rows.append([about, found, wanted])
    notes = [f"\nNot measured: {NAMES[name]}: {why}.\n" for name, why in not_measured.items()]
    return table(["ratio (median of rounds)", "found", "aim"], rows) + "".join(notes)


def _claims(figures: Mapping[str, Any]) -> str:
    """The ancestor's figures, ours for the ring it has, and what the memory allows."""
    key = "dram 256" if "dram 256" in figures["c"] else "cache 256"
    c, python, small = figures["c"][key], figures["python"][key], figures["python"]["cache 256"]
    parts = {"write": "memcpy in", "read": "memcpy out"}
    rows = [
        [f"{what}, ns a frame", f"{CLAIMED_NS[what]}"]
        + [f"{spent:,.0f}" for spent in (c[memcpy], c[what], python[what], small[what])]
        for what, memcpy in parts.items()
    ]
    rates = [1e9 / spent for spent in (c["memcpy in"], c["write"], python["write"], small["write"])]
    rows.append(["frames/s written", f"{CLAIMED_PER_S:,}", *(f"{rate:,.0f}" for rate in rates)])
    heads = ["ancestor claims", "memcpy allows", "ours, C", "ours, Python", "default ring, Python"]
    return table([SHAPES[key], *heads], rows)


def _memcpy(figures: Mapping[str, Any]) -> str:
    shapes = {key: title for key, title in SHAPES.items() if key in figures["c"]}
    rows = [
        [title, *(f"{figures[language][key][part]:,.0f}" for key in shapes)]
        for title, language, part in (
            ("memcpy into the ring", "c", "memcpy in"),
            ("C commit", "c", "write"),
            ("Python write", "python", "write"),
            ("memcpy out of it", "c", "memcpy out"),
            ("C read", "c", "read"),
            ("Python read", "python", "read"),
        )
    ]
    return table(["ns a row", *shapes.values()], rows)


def _alone(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    shapes = {key: title for key, title in SHAPES.items() if key in found}
    rows = [
        [
            NAMES[name],
            *(f"{(at := found[key][name])['write']:,.0f} + {at['read']:,.0f}" for key in shapes),
        ]
        for name in found["cache 1"]
    ]
    return table(["written + read, ns a row", *shapes.values()], rows)


def _streams(found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    heads, rows = ["256 rows at a time, rows/s"], {name: [NAMES[name]] for name in found["1"]}
    for count, by_name in found.items():
        heads += [f"writer, {count} reader{'s' * (count != '1')}", "each reader", "lost"]
        for name, runs in by_name.items():
            rows[name] += [
                f"{_median(run['writer'] for run in runs):,.0f}",
                f"{_median(_median(run['readers']) for run in runs):,.0f}",
                f"{_median(run['lost'] for run in runs):.0%}",
            ]
    return table(heads, list(rows.values()))


def _wake(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    rows = [
        [
            SLEEPERS[name],
            *(f"{_median(run[part] for run in runs):,.1f}" for part in ("p50_us", "p99_us")),
            f"{_median(run['cpu'] for run in runs):.1%}",
        ]
        for name, runs in found.items()
    ]
    return table(["one row, 1,000 times a second", "p50 µs", "p99 µs", "reader's CPU"], rows)


def _setting(results: Mapping[str, Any]) -> str:
    shown = ("streamapp", "numpy", "python", "iceoryx2", "pyzmq")
    versions = ", ".join(f"{name} {results['versions'][name]}" for name in shown)
    return f"{results['machine']}; {versions}.\n"


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
