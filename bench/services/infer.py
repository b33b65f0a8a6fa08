"""Samples: labels by a route of two models through the registry, beside the better one in a loop."""

import csv
import statistics
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import venvs
from report import median_ratio
from services import process
from tables import table

from models import data as labelled
from streamapp.compose import registry as open_registry
from streamapp.core.config import load
from streamapp.models.heads.files import Origin, write_head
from streamapp.models.heads.training import train
from streamapp.topics.catalogue import defaults

HERE = Path(__file__).parent
AIMS = {
    "infer_samples_per_s": ("infer: 10,000 samples through the router, samples/s", "≥ 820"),
    "infer_p95_ms": ("infer: p95 of a single sample through the router, ms", "≤ 28"),
    "infer_points_lost": ("infer: points of accuracy that the router loses", "≤ 0.2"),
    "infer_vs_direct": ("infer: samples/s to a loop over the better model", ""),
}
EMBEDDER = "embed/multilingual-e5-small"
#: The route knows how often each is right; the first is the better one.
HEADS = {"intents": "linear", "nearest": "prototypes"}
_ROUTE = '[route.topic]\ntask = "head"\nmodels = ["head/nearest", "head/intents"]\n'


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Both ways in turns; the loop goes through a tenth of the samples.

    Of BANKING77's 13,083 texts 3,083 are learnt from, and 10,000 others are asked about.
    """
    count, rounds = (120, 1) if quick else (10_000, 3)
    _prepare(folder, 1_500 if quick else 3_083, count)
    figures: dict[str, Any] = {"samples": count, "direct": [], "routed": []}
    few, single = str(max(count // 10, 20)), str(20 if quick else 300)
    for _ in range(rounds):
        for how, samples in (("routed", str(count)), ("direct", few)):
            run = process.run(HERE / "infer_run.py", str(folder), how, samples, single)
            figures[how].append({**run.found, "peak_mb": run.peak_mb})
    # The accuracy of the loop needs all samples, once.
    every = process.run(HERE / "infer_run.py", str(folder), "direct", str(count), "1")
    return figures | {"direct_accuracy": every.found["accuracy"]}


def ratios(figures: Mapping[str, Any]) -> dict[str, float]:
    """Those of the aims."""
    rates = {how: [one["per_s"] for one in figures[how]] for how in ("direct", "routed")}
    lost = figures["direct_accuracy"] - figures["routed"][0]["accuracy"]
    return {
        "infer_samples_per_s": statistics.median(rates["routed"]),
        "infer_p95_ms": statistics.median(one["p95_ms"] for one in figures["routed"]),
        "infer_points_lost": 100 * lost,
        "infer_vs_direct": median_ratio(rates["routed"], rates["direct"]),
    }


def render(figures: Mapping[str, Any]) -> str:
    """A row for each way."""
    names = {
        "routed": "ours: `infer.infer` by a route of two heads on e5-small",
        "direct": "a loop: embed, ask the better head, one text at a time",
    }
    right = {"routed": figures["routed"][0]["accuracy"], "direct": figures["direct_accuracy"]}
    rows = [
        [
            name,
            f"{statistics.median(one['per_s'] for one in figures[how]):,.0f}",
            f"{statistics.median(one['p95_ms'] for one in figures[how]):.1f}",
            f"{100 * right[how]:.1f} %",
            f"{max(one['peak_mb'] for one in figures[how]):,.0f}",
        ]
        for how, name in names.items()
    ]
    heads = ["labels of BANKING77", "samples/s", "p95 of one, ms", "right", "peak MB"]
    return table(heads, rows)


def packages() -> dict[str, str]:
    """What the figures depend on."""
    return {name: version(name) for name in ("onnxruntime", "tokenizers")}


def _prepare(folder: Path, learnt: int, asked: int) -> None:
    """Two trained heads, their route, and the samples."""
    try:
        parts = [labelled.banking(part) for part in ("train", "test")]
    except labelled.Unavailable as error:
        raise venvs.Unavailable(str(error)) from None
    rows = [row for part in parts for row in zip(part.texts, part.labels, strict=True)]
    order = np.random.default_rng(0).permutation(len(rows))
    learn = [rows[place] for place in order[:learnt]]
    with (folder / "asked.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows(rows[place] for place in order[learnt : learnt + asked])
    registry = open_registry(load()[0])
    registry.pull(EMBEDDER)
    vectors, _ = registry.embedder(EMBEDDER).embed([text for text, _ in learn])
    models = folder / "models"
    for name, kind in HEADS.items():
        head = train(vectors, [label for _, label in learn], kind, precision=0.5)
        origin = Origin(f"{EMBEDDER}@1", "0" * 64, "train.csv", "0" * 64, "")
        write_head(models / "head" / name / "1", head._replace(threshold=0.0), origin)
    (models / "routes.toml").write_text(_ROUTE)
    pulled = registry.folder(EMBEDDER).parents[1]
    (folder / "cache" / "models").mkdir(parents=True)
    (folder / "cache" / "models" / "embed").symlink_to(pulled)
    ours = type(registry)([models, defaults("models")], folder / "cache")
    for name in HEADS:
        ours.pull(f"head/{name}")
