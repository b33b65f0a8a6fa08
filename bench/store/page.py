"""The results as Markdown: what a run prints, and the block of docs/performance.md made of them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tables import table

BEGIN, END = "<!-- figures of make bench-store -->\n", "<!-- end of the store's figures -->\n"

#: What has an aim: what it says, and the least that it should be.
AIMS = {
    "sink_vs_duckdb": ("2,048 rows: the sink to bare DuckDB", 0.9),
    "doget_vs_duckdb": ("all columns: DoGet to reading in process", 0.9),
    "adbc_vs_duckdb": ("all columns: ADBC to reading in process", 0.9),
}
WRITERS = {
    "sink": "ours, the sink",
    "agent": "ours, the store agent",
    "duckdb": "bare DuckDB",
    "planned": "bare DuckDB, planned once",
    "sqlite": "SQLite WAL",
    "parquet": "a Parquet file each",
}
WAYS = {
    "in process": "in process",
    "bare": "bare Flight, the answer ready",
    "doget": "DoGet",
    "adbc": "ADBC",
}


def render(results: Mapping[str, Any]) -> str:
    """Ratios first, then where they come from."""
    figures = results["figures"]
    blocks = [
        _aims(results["ratios"]),
        _to_ours(results["ratios"], figures["writes"]),
        _writes(figures["writes"]),
        _reads(figures["reads"]),
        _commits(figures["commits"]),
        _similar(figures["similar"]),
    ]
    if "versions" in results:
        blocks.append(_setting(results))
    return "\n".join(["", *blocks, ""])


def _aims(ratios: Mapping[str, float]) -> str:
    rows = [[about, f"{ratios[name]:.2f}", f"≥ {aim:g}"] for name, (about, aim) in AIMS.items()]
    return table(["ratio (median of rounds)", "found", "aim"], rows)


def _to_ours(ratios: Mapping[str, float], writes: Mapping[str, Any]) -> str:
    def cells(kind: str) -> list[str]:
        names = (f"{kind}{'' if rows == '2048' else f'_{rows}'}" for rows in writes)
        return [f"{ratios[name]:.2f}" for name in names]

    rows = [
        *(
            [f"the {ours} to {title}", *cells(f"{ours}_vs_{other}")]
            for ours in ("sink", "agent")
            for other, title in list(WRITERS.items())[2:]
        ),
    ]
    heads = [f"{int(rows):,} row{'s' * (rows != '1')}" for rows in writes]
    return table(["rows/s, ratio (median of turns)", *heads], rows)


def _writes(writes: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    heads, rows = ["a transaction, ms (CPU ms)"], {name: [title] for name, title in WRITERS.items()}
    for count, spent in writes.items():
        heads.append(f"{int(count):,} row{'s' * (count != '1')}")
        for name, row in rows.items():
            ms, cpu_ms = (statistics.median(spent[name][kind]) for kind in ("ms", "cpu_ms"))
            row.append(f"{ms:.1f} ({cpu_ms:.1f})")
    return table(heads, list(rows.values()))


def _reads(reads: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    rows = []
    for name, found in reads.items():
        size_bytes = found["bytes"][0]
        cells = [f"{size_bytes / 1e6:,.1f} MB"]
        for way in WAYS:
            ms, cpu_ms = (1000 * statistics.median(found[way][part]) for part in ("s", "cpu_s"))
            rate = f", {size_bytes / ms / 1e6:.2f} GB/s" if size_bytes > 1_000_000 else ""
            cells.append(f"{ms:,.1f} ms (CPU {cpu_ms:,.1f}){rate}")
        rows.append([name, *cells])
    return table(["an answer read to its end", "size", *WAYS.values()], rows)


def _commits(commits: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [number, f"{found['asked_per_s']:,.0f}"]
        + [f"{found[part]:,.1f}" for part in ("p50_ms", "p99_ms", "max_ms")]
        for number, found in commits.items()
    ]
    heads = ["Flight clients", "their queries/s", "commit p50 ms", "p99 ms", "largest ms"]
    return table(heads, rows)


def _similar(found: Mapping[str, Mapping[str, Any]]) -> str:
    heads = ["rows", "NumPy ms", "similar ms", "half in memory ms", "SQL alone ms", "first ms"]
    return table(heads, [one["row"] for one in found.values()])


def _setting(results: Mapping[str, Any]) -> str:
    shown = ("streamapp", "duckdb", "pyarrow", "numpy", "python")
    versions = ", ".join(f"{name} {results['versions'][name]}" for name in shown)
    return f"{results['machine']}; {versions}.\n"
