"""What every benchmark prints and writes: a table, and bench/results/NAME.json."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("streamapp", "faust-streaming", "duckdb", "pyarrow", "numpy", "onnxruntime")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
Name = TypeVar("Name")
Figure = TypeVar("Figure")


def interleaved(
    subjects: Mapping[Name, Callable[[], Figure]], rounds: int = ROUNDS, *, warm_up: bool = True
) -> dict[Name, list[Figure]]:
    """Figures of each subject, one of each per round after a warm-up, so that drift hits all alike."""
    figures: dict[Name, list[Figure]] = {name: [] for name in subjects}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name, measure in subjects.items():
            figure = measure()
            if number:
                figures[name].append(figure)
    return figures


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def report(
    name: str,
    table: Sequence[Sequence[str]],
    ratios: Mapping[str, float],
    figures: Mapping[str, object],
) -> None:
    """Print the table and the ratios; write both with the figures, versions and the command."""
    show(table)
    for label, ratio in ratios.items():
        print(f"{label}: {ratio:.2f}")
    write(name, ratios, figures)


def write(
    name: str,
    ratios: Mapping[str, float],
    figures: Mapping[str, object],
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write bench/results/NAME.json and return what it says."""
    RESULTS.mkdir(exist_ok=True)
    content = {
        "ratios": {label: round(ratio, 4) for label, ratio in ratios.items()},
        "figures": figures,
        "versions": {package: version(package) for package in PACKAGES}
        | {"python": platform.python_version()}
        | dict(versions or {}),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "command": f"python {Path(sys.argv[0]).name}",
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    return content


def show(table: Sequence[Sequence[str]]) -> None:
    """Print a table, its first column to the left."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )
