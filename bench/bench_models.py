"""Models: how right, how fast, and beside what; needs BANKING77 beside the project for most of it.

python bench/bench_models.py               everything, about fifteen minutes
python bench/bench_models.py --quick       does it work? (figures mean little, none are kept)
python bench/bench_models.py --only calls  one part, nothing is kept
python bench/bench_models.py --markdown    bench/results/models.json into docs/performance.md
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import venvs
from gateway import servers, wrk
from report import median_ratio, write
from tables import rewrite

from models import accuracy, calls, data, page, peers, routed, served, texts
from streamapp.compose import registry as open_registry
from streamapp.core.config import load
from streamapp.models import Registry

#: The model that the aims are about.
FIRST = "e5-small"
#: Errors that say why something cannot be measured here.
AWAY = (data.Unavailable, venvs.Unavailable, wrk.Unavailable, servers.Failed, wrk.Failed)


class Sizes(NamedTuple):
    """How much and how often."""

    rows_max: int
    texts: int
    rounds: int
    calls: int
    samples: int
    seconds: float
    sorted: tuple[int, ...] = texts.SORTED


FULL = Sizes(20_000, 1024, 5, texts.CALLS, 20_000, 10.0)
QUICK = Sizes(900, 96, 1, 2, 640, 1.0, (16,))


class Bench:
    """The parts; each gives its figures."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self._sizes, self._folder = sizes, folder
        self._registry: Registry = open_registry(load()[0])
        for name in accuracy.MODELS.values():
            self._registry.pull(name)
        self._vectors = accuracy.Vectors(self._registry)

    @property
    def parts(self) -> dict[str, Callable[[], Any]]:
        """By name; a part that cannot be measured raises one of ``AWAY``."""
        rows = self._sizes.rows_max
        return {
            "banking": partial(accuracy.banking, self._vectors, rows),
            "sentiment": partial(accuracy.sentiment, self._vectors, rows),
            "language": accuracy.language,
            "routed": partial(routed.accuracy, self._vectors, rows, self._made("routed")),
            "rates": self._rates,
            "lengths": self._lengths,
            "fastembed": self._fastembed,
            "calls": partial(self._calls, calls.LAYERS, self._sizes.samples),
            "calls_large": partial(self._calls, calls.LARGE, self._sizes.samples // 10),
            "ensemble": self._ensemble,
            "served": partial(
                served.load, self._made("served"), max(1.0, self._sizes.seconds / 2),
                self._sizes.rounds,
            ),
        }  # fmt: skip

    def _rates(self) -> dict[str, Any]:
        messages = data.banking("test").texts[: self._sizes.texts]
        rounds, sizes = self._sizes.rounds, self._sizes.sorted
        return {
            label: texts.rates(texts.Subject(self._registry, name), messages, rounds, sizes)
            for label, name in accuracy.MODELS.items()
        }

    def _lengths(self) -> dict[str, Any]:
        subject = texts.Subject(self._registry, accuracy.MODELS[FIRST])
        return texts.lengths(subject, self._sizes.calls)

    def _fastembed(self) -> dict[str, Any]:
        messages = data.banking("test").texts[: self._sizes.texts]
        name, folder = accuracy.MODELS["MiniLM"], self._made("fastembed")
        return peers.fastembed(self._registry, name, messages, self._sizes.rounds, folder)

    def _calls(self, layers: Sequence[int], samples: int) -> dict[str, Any]:
        return calls.closed_loop(self._made("calls"), samples, self._sizes.rounds, layers)

    def _ensemble(self) -> dict[str, float]:
        return calls.ensemble(self._made("ensemble"), self._sizes.seconds)._asdict()

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is kept")
    parser.add_argument("--markdown", action="store_true", help="rewrite the docs page's figures")
    parser.add_argument("--only", metavar="PART", help="one part, nothing is kept")
    options = parser.parse_args()
    if options.markdown:
        rewrite("models", page.BEGIN, page.END, page.render)
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-models-")))
        bench = Bench(QUICK if options.quick else FULL, folder)
        figures = measure(bench.parts, options.only)
    results = {"ratios": ratios_of(figures), "figures": figures}
    if not options.quick and options.only is None:
        packages = {name: version(name) for name in ("tokenizers", "aiohttp")}
        packages["fastembed"] = peers.FASTEMBED
        results = write("models", results["ratios"], figures, packages)
    print(page.render(results))


def measure(parts: Mapping[str, Callable[[], Any]], only: str | None) -> dict[str, Any]:
    """Every part's figures; why there are none stands under ``not_measured``."""
    figures: dict[str, Any] = {}
    away = {"sentence-transformers": peers.SENTENCE_TRANSFORMERS}
    for name, part in parts.items():
        if only not in (None, name):
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            figures[name] = part()
        except AWAY as error:
            away[name] = str(error).splitlines()[0]
    return figures | {"not_measured": away}


def ratios_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """What the aims are about; one that was not measured is not there."""
    ratios: dict[str, float] = {}
    if rates := figures.get("rates"):
        ratios |= _rates_of(rates[FIRST])
        ratios["stage_vs_minilm_sorted"] = _to_minilm(rates)
    for part, suffix in (("calls", ""), ("calls_large", "_large")):
        if found := figures.get(part):
            ratios[f"batching_vs_per_sample{suffix}"] = _batching_of(found)
    if found := figures.get("ensemble"):
        ratios["ensemble_p95_ms"] = found["p95_ms"]
    for label, suffix in ((FIRST, ""), ("MiniLM", "_minilm")):
        if found := figures.get("banking", {}).get(label):
            ratios[f"banking77_5shot{suffix}"] = statistics.mean(found["few_centroid"])
            ratios[f"banking77_head{suffix}"] = found["head"]["accuracy"]
    if found := figures.get("routed"):
        best = max(found[name] for name in routed.KINDS.values())
        ratios["routed_points_lost"] = 100 * (best - found["routed"])
    if found := figures.get("served"):
        rate = {name: [one["per_s"] for one in runs] for name, runs in found.items()}
        ratios["v2_vs_plain"] = median_ratio(rate["gateway"], rate["plain"])
    return ratios


def _batching_of(found: Mapping[str, list[float]]) -> float:
    """Shared calls to whatever is the fastest way to a call for each sample: it may be not ours."""
    single = [found[way] for way in found if way != "shared"]
    return median_ratio(found["shared"], [max(runs) for runs in zip(*single, strict=True)])


def _best_sorted(rates: Mapping[str, list[float]]) -> str:
    ways = (way for way in rates if way.startswith("sorted"))
    return max(ways, key=lambda way: statistics.median(rates[way]))


def _to_minilm(rates: Mapping[str, Mapping[str, list[float]]]) -> float:
    """The stage to MiniLM's best sorted run: how fast the machine is goes out of it."""
    minilm = rates["MiniLM"]
    return statistics.median(rates[FIRST]["stage"]) / statistics.median(
        minilm[_best_sorted(minilm)]
    )


def _rates_of(rates: Mapping[str, list[float]]) -> dict[str, float]:
    best = _best_sorted(rates)
    return {
        "stage_vs_sorted_run": median_ratio(rates["stage"], rates[best]),
        "stage_vs_naive_batch": median_ratio(
            rates["stage"], rates[f"batches of {texts.NAIVE} in order"]
        ),
        "stage_texts_per_s": statistics.median(rates["stage"]),
    }


if __name__ == "__main__":
    main()
