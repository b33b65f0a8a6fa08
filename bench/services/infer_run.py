"""Labels of texts by one contender; prints samples/s, p95 of a single sample, share that is right.

python infer_run.py FOLDER direct|routed SAMPLES SINGLE
"""

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamapp.models import Registry
from streamapp.plugin.calling import CallWork, TableSources
from streamapp.plugin.registered import make
from streamapp.topics.catalogue import defaults

#: A head of the route, and the route.
BEST, ROUTE = "head/intents", "topic"
EMBEDDER = "embed/multilingual-e5-small"


def main() -> None:
    folder, how = Path(sys.argv[1]), sys.argv[2]
    samples, single = int(sys.argv[3]), int(sys.argv[4])
    with (folder / "asked.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[:samples]
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    registry = Registry([folder / "models", defaults("models")], folder / "cache")
    contender = (Direct if how == "direct" else Routed)(registry)
    contender.labels(texts[:8])  # opens what is opened late
    begun = time.perf_counter()
    said = contender.labels(texts)
    seconds = time.perf_counter() - begun
    took_ms = []
    for text in texts[:single]:
        begun = time.perf_counter()
        contender.labels([text])
        took_ms.append(1000 * (time.perf_counter() - begun))
    right = sum(a == b for a, b in zip(said, labels, strict=True)) / len(labels)
    found = {"per_s": len(texts) / seconds, "p95_ms": float(np.percentile(took_ms, 95))}
    print(json.dumps(found | {"accuracy": right, "samples": len(texts)}))


class Direct:
    """What one writes without a router: a loop that asks embedder and head for each text."""

    def __init__(self, registry: Registry) -> None:
        self._embedder = registry.embedder(EMBEDDER)
        self._head = registry.classifier(BEST)

    def labels(self, texts: list[str]) -> list[str]:
        found = []
        for text in texts:
            vectors, _ = self._embedder.embed([text])
            place = int(self._head.classify(vectors).argmax())
            found.append(self._head.labels[place])
        return found


class Routed:
    """``infer.infer`` with the route over both heads."""

    def __init__(self, registry: Registry) -> None:
        config: dict[str, Any] = {"model": ROUTE, "threshold": 0.0}
        self._operation = make("infer.infer", config)
        self._operation.open(CallWork(TableSources({}), lambda: registry))

    def labels(self, texts: list[str]) -> list[str]:
        table = self._operation.run({"texts": pa.table({"text": texts})})
        found: list[str] = table.column("label").to_pylist()
        return found


if __name__ == "__main__":
    main()
