"""Answers by a route beside those of its best model called directly."""

from pathlib import Path
from typing import Any

import numpy as np
from models.accuracy import MODELS, Vectors

from models import data
from streamapp.core.batch import vector_column
from streamapp.models import Registry
from streamapp.models.heads.files import Origin, write_head
from streamapp.models.heads.training import train
from streamapp.plugin.testing import batch_of
from streamapp.stages.classify import Classify
from streamapp.topics.catalogue import defaults
from streamapp.workflow import PartitionState

#: On the vectors of e5-small; the route knows how often each is right.
KINDS = {"linear": "intents", "prototypes": "nearest"}
_ROUTE = """\
[route.topic]
task = "head"
models = ["head/nearest", "head/intents"]
"""
_ROWS = 512


def accuracy(vectors: Vectors, rows_max: int, folder: Path) -> dict[str, Any]:
    """Share of ``test.csv`` that is right: by each head directly, and by the route over both.

    Raises:
        data.Unavailable: BANKING77 is not here.
    """
    model = "e5-small"
    learn, score = (data.first_of(data.banking(part), rows_max) for part in ("train", "test"))
    known = vectors.of(model, f"train {rows_max}", learn.texts)
    asked = vectors.of(model, f"test {rows_max}", score.texts)
    models = folder / "models"
    for kind, name in KINDS.items():
        head = train(known, list(learn.labels), kind, precision=0.5)
        origin = Origin(f"{MODELS[model]}@1", "0" * 64, "train.csv", "0" * 64, "")
        write_head(models / "head" / name / "1", head._replace(threshold=0.0), origin)
    (models / "routes.toml").write_text(_ROUTE)
    pulled = vectors.registry.folder(MODELS[model]).parents[1]
    (folder / "cache" / "models").mkdir(parents=True)
    (folder / "cache" / "models" / "embed").symlink_to(pulled)
    registry = Registry([models, defaults("models")], folder / "cache")
    found: dict[str, Any] = {}
    for name in KINDS.values():
        registry.pull(f"head/{name}")
        classifier = registry.classifier(f"head/{name}")
        best = classifier.classify(asked).argmax(axis=1)
        said = [classifier.labels[place] for place in best]
        found[name] = _right(said, score.labels)
    routed = _routed(registry, score.texts, asked)
    return found | {"routed": _right(routed, score.labels)}


def _routed(registry: Registry, texts: list[str], vectors: np.ndarray) -> list[str | None]:
    stage = Classify({"columns": {"topic": "topic"}})
    stage.declare(registry)
    stage.open(registry)
    state = PartitionState(cap=1000)
    said: list[str | None] = []
    for first in range(0, len(texts), _ROWS):
        part = slice(first, first + _ROWS)
        batch = batch_of(first, text=texts[part], embedding=vector_column(vectors[part]))
        overlay = state.overlay()
        columns = stage.enrich(batch, overlay.view(stage.name))
        overlay.commit()
        said += columns["topic"].to_pylist()
    stage.close()
    return said


def _right(said: list[Any], labels: list[str]) -> float:
    return float(np.mean([a == b for a, b in zip(said, labels, strict=True)]))
