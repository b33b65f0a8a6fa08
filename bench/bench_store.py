"""The store beside bare DuckDB, SQLite and Parquet; Flight beside reading in process; search beside NumPy.

python bench/bench_store.py               everything, about eight minutes; 6 GB of memory, 4 GB of /tmp
python bench/bench_store.py --quick       does it work? (figures mean little, none are kept)
python bench/bench_store.py --soak        ten minutes of work: does anything grow? docs/store-soak.svg
python bench/bench_store.py --soak 60     one minute of it, nothing is kept
python bench/bench_store.py --markdown    bench/results/store.json into docs/performance.md
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from report import median_ratio, write
from store import commits, page, reads, records, similar, soak, writes
from tables import rewrite


class Sizes(NamedTuple):
    """How often and how much."""

    turns: int
    read_rows: int
    read_rounds: int
    commit_rounds: int
    commit_s: float
    similar_rows: tuple[int, ...]
    similar_rounds: int


FULL = Sizes(15, 98_304, 9, 3, 10.0, (100_000, 1_000_000), 9)
QUICK = Sizes(3, 8192, 2, 1, 1.0, (20_000,), 2)
#: Rows of a transaction, and transactions of a turn.
TRANSACTIONS = {1: 32, 64: 16, 256: 8, 2048: 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is kept")
    parser.add_argument("--markdown", action="store_true", help="rewrite the docs page's figures")
    parser.add_argument(
        "--soak",
        type=float,
        nargs="?",
        const=soak.SECONDS,
        metavar="SECONDS",
        help="600 unless told",
    )
    options = parser.parse_args()
    if options.soak is not None:
        soak.run(options.soak)
        return
    if options.markdown:
        rewrite("store", page.BEGIN, page.END, page.render)
        return
    sizes = QUICK if options.quick else FULL
    with TemporaryDirectory() as folder:
        figures = measure(sizes, Path(folder))
    results = {"ratios": ratios_of(figures), "figures": figures}
    if not options.quick:
        results = write("store", results["ratios"], figures)
    print(page.render(results))


def measure(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Every figure; what is compared is measured in turns, so that drift hits all alike."""
    say("real messages through the whole workflow")
    records.enrichment()
    written = {}
    for rows, transactions in TRANSACTIONS.items():
        say(f"transactions of {rows} rows")
        written[str(rows)] = writes.measure(rows, transactions, sizes.turns)
    say("reading in process, by bare Flight, by DoGet, by ADBC")
    read = reads.measure(folder, sizes.read_rows, sizes.read_rounds)
    say("commits beside readers")
    committed = commits.measure(folder, sizes.commit_rounds, sizes.commit_s)
    searched = {}
    for rows in sizes.similar_rows:
        say(f"similar on {rows} rows")
        ratios, row = similar.measure(rows, folder, sizes.similar_rounds)
        searched[str(rows)] = {"ratios": ratios, "row": row}
    return {
        "sizes": sizes._asdict(),
        "writes": written,
        "reads": read,
        "commits": {n: _spread(found) for n, found in committed.items()},
        "similar": searched,
    }


def _spread(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    ms = sorted(found["ms"])
    return {
        "commits": len(ms),
        "p50_ms": statistics.median(ms),
        "p99_ms": ms[int(len(ms) * 0.99)],
        "max_ms": ms[-1],
        "asked_per_s": round(statistics.median(found["asked"]), 1),
    }


def ratios_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """Rates to rates: above 1 ours is faster."""
    ratios = {}
    for rows, spent in figures["writes"].items():
        name = "" if rows == "2048" else f"_{rows}"
        for ours in ("sink", "agent"):
            for other in ("duckdb", "planned", "sqlite", "parquet"):
                ratios[f"{ours}_vs_{other}{name}"] = median_ratio(
                    spent[other]["ms"], spent[ours]["ms"]
                )
    whole = figures["reads"]["all columns"]
    for way in ("doget", "adbc"):
        ratios[f"{way}_vs_duckdb"] = median_ratio(whole["in process"]["s"], whole[way]["s"])
        ratios[f"{way}_cpu_vs_sum"] = statistics.median(whole[way]["cpu_s"]) / sum(
            statistics.median(whole[part]["cpu_s"]) for part in ("in process", "bare")
        )
    commits_of = figures["commits"]
    ratios["commit_p99_5_readers"] = commits_of["5"]["p99_ms"] / commits_of["0"]["p99_ms"]
    for found in figures["similar"].values():
        ratios |= found["ratios"]
    return ratios


def say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
