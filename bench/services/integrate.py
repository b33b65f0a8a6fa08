"""Records of three sources into one file, beside pandas; and how right matching is.

All do the same work, from the sources' files to a Parquet file, and write the same things: every
value of every row is compared after each round, and a difference ends the bench.  See
``integrate_theirs.py`` for what that work is, and for the two ways of pandas: the usual one is that
of the aim, the fastest stands beside it, and so does polars, the fastest other engine that we know.
"""

import statistics
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import venvs
from report import median_ratio
from services import process
from services.integrate_same import check
from tables import table

HERE = Path(__file__).parent
#: What records are matched with beside us.
SPLINK = ("splink==5.0.0", "pandas==3.1.1", "pyarrow==26.0.1")
WAYS = {
    "ours": ("integrate_ours.py", "call"),
    "workflow": ("integrate_ours.py", "workflow"),
    "theirs": ("integrate_theirs.py", "usual"),
    "fastest": ("integrate_theirs.py", "fastest"),
    "polars": ("integrate_polars.py",),
}
OURS = ("ours", "workflow")
AIMS = {
    "integrate_vs_pandas": ("integrate: records/s to pandas", "≥ 7"),
    "integrate_rec_per_s": ("integrate: records/s of three sources", "≥ 98,039"),
    "integrate_peak_mb": ("integrate: peak memory, MB", "≤ 740"),
}


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Records a second and peak memory of all, in turns; precision and recall of matching.

    Raises:
        Different: they did not write the same.
    """
    count, rounds = (20_000, 1) if quick else (500_000, 3)
    said = process.run(HERE / "integrate_records.py", str(folder), str(count))
    figures: dict[str, Any] = {**said.found} | {who: [] for who in WAYS}
    for _ in range(rounds):
        for who, run in in_turn(folder).items():
            rate = figures["records"] / run.found["seconds"]
            one = {"rec_per_s": rate, "peak_mb": run.peak_mb}
            figures[who].append(one | {key: run.found[key] for key in ("things", "conflicts")})
    return figures | {"quality": _quality(folder, quick)}


def in_turn(folder: Path) -> dict[str, process.Run]:
    """Each way once, on the records in ``folder``.

    Raises:
        Different: they did not write the same.
    """
    runs = {
        who: process.run(HERE / script, str(folder), str(folder / who), *more)
        for who, (script, *more) in WAYS.items()
    }
    for ours in OURS:
        for theirs in WAYS.keys() - OURS:
            check(folder / ours, folder / theirs)
    return runs


def _quality(folder: Path, quick: bool) -> dict[str, Any]:
    """Of records whose keys are not looked at."""
    some = folder / "some"
    some.mkdir()
    count = 5_000 if quick else 50_000
    process.run(HERE / "integrate_records.py", str(some), str(count))
    script = HERE / "integrate_quality.py"
    found: dict[str, Any] = {"records": count, "ours": process.run(script, str(some)).found}
    try:
        python = venvs.python("integrate-splink", *SPLINK)
        theirs = process.run(HERE / "integrate_splink.py", str(some), python=python)
        found["splink"] = theirs.found
    except (venvs.Unavailable, process.Failed) as error:
        found["splink_not_measured"] = str(error).splitlines()[0]
    return found


def ratios(figures: Mapping[str, Any]) -> dict[str, float]:
    """Those of the aims."""
    rates = {who: [one["rec_per_s"] for one in figures[who]] for who in ("ours", "theirs")}
    return {
        "integrate_vs_pandas": median_ratio(rates["ours"], rates["theirs"]),
        "integrate_rec_per_s": statistics.median(rates["ours"]),
        "integrate_peak_mb": max(one["peak_mb"] for one in figures["ours"]),
    }


def render(figures: Mapping[str, Any]) -> str:
    """A row for each way, and one for each way of matching."""
    names = {
        "ours": "ours: one call, sources to file",
        "workflow": "ours: a workflow, each step kept for a resumption",
        "theirs": "pandas and rapidfuzz, a loop over pairs",
        "fastest": "pandas, Arrow's readers, rapidfuzz's loop",
        "polars": "polars and rapidfuzz's loop",
    }
    rows = [
        [name, *(_median(figures[who], key) for key in ("rec_per_s", "peak_mb", "things"))]
        for who, name in names.items()
        if who in figures
    ]
    heads = [f"{figures['records']:,} records of three sources", "records/s", "peak MB", "things"]
    quality = figures["quality"]
    names = {"ours": "ours: rules", "splink": "splink: learnt weights"}
    judged = [
        [name, f"{quality[who]['precision']:.3f}", f"{quality[who]['recall']:.3f}"]
        for who, name in names.items()
        if who in quality
    ]
    heads_judged = [f"{quality['records']:,} records, keys not looked at", "precision", "recall"]
    text = table(heads, rows) + "\n" + table(heads_judged, judged)
    if away := quality.get("splink_not_measured"):
        text += f"\nNot measured: splink: {away}.\n"
    return text


def packages() -> dict[str, str]:
    """Versions that the figures depend on."""
    ours = {name: version(name) for name in ("polars", "rapidfuzz", "pandas")}
    return ours | {"splink": SPLINK[0].partition("==")[2]}


def _median(runs: Any, key: str) -> str:
    return f"{statistics.median(run[key] for run in runs):,.0f}"
