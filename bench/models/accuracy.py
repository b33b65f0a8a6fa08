"""How often answers are right, on data that nothing here was tuned on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from models import data
from streamapp.core.batch import Batch
from streamapp.core.ranges import OffsetRange
from streamapp.models import Registry
from streamapp.models.heads import calibration
from streamapp.models.heads.logistic import Floats, Linear, fit
from streamapp.models.heads.training import PENALTY_FEW, centroids, train
from streamapp.plugin import Stage
from streamapp.plugin.testing import HashModels
from streamapp.stages.language import Language
from streamapp.stages.sentiment import Sentiment

MODELS = {"e5-small": "embed/multilingual-e5-small", "MiniLM": "embed/all-minilm-l6-v2"}
SHOTS, SEEDS = 5, 5
#: Of the answers that shall be right.
PRECISION = 0.95
#: Each fourth label's texts are taken for texts that belong to no label.
STRANGE = 4
#: What a text that feels so might say; written once and never tuned.
FEELINGS = {"negative": "this is bad, I hate it", "positive": "this is great, I love it"}


class Vectors:
    """Texts to vectors by a model, each part of the data embedded once."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._known: dict[tuple[str, str], Floats] = {}

    def of(self, model: str, part: str, texts: Sequence[str]) -> Floats:
        if (model, part) not in self._known:
            self._known[model, part] = self.registry.embedder(MODELS[model]).embed(texts)[0]
        return self._known[model, part]


def banking(vectors: Vectors, rows_max: int) -> dict[str, Any]:
    """Intents of BANKING77, by model; ``train.csv`` to learn from, ``test.csv`` to score on.

    Raises:
        data.Unavailable: it is not here.
    """
    learn, score = (data.first_of(data.banking(part), rows_max) for part in ("train", "test"))
    names = sorted(set(learn.labels))
    truth = _places(score.labels, names)
    found: dict[str, Any] = {}
    for model in MODELS:
        known = vectors.of(model, f"train {rows_max}", learn.texts)
        asked = vectors.of(model, f"test {rows_max}", score.texts)
        called = vectors.of(model, "names", [name.replace("_", " ") for name in names])
        few = [_few(known, learn.labels, names, asked, truth, seed) for seed in range(SEEDS)]
        found[model] = {
            "zero_shot": _right(asked @ called.T, truth),
            "few_centroid": [one[0] for one in few],
            "few_head": [one[1] for one in few],
            "head": _head(known, learn.labels, asked, score.labels),
            "unknown": _unknown(known, learn.labels, asked, score.labels, names),
        }
    return found


def _few(
    known: Floats,
    labels: Sequence[str],
    names: Sequence[str],
    asked: Floats,
    truth: Floats,
    seed: int,
) -> tuple[float, float]:
    """Centroids, and a head, of a few examples of each label."""
    chance, places = np.random.default_rng(seed), _places(labels, names)
    rows = np.concatenate(
        [
            chance.choice(np.flatnonzero(places == place), SHOTS, replace=False)
            for place in range(len(names))
        ]
    )
    made: list[Linear] = [
        centroids(known[rows], places[rows], len(names)),
        fit(known[rows], places[rows], len(names), PENALTY_FEW),
    ]
    centroid, head = (_right(one.scores(asked), truth) for one in made)
    return centroid, head


def _head(
    known: Floats, labels: Sequence[str | None], asked: Floats, truth: Sequence[str | None]
) -> dict[str, float]:
    """A trained head, and what its threshold is worth on texts that it never saw."""
    head = train(known, list(labels), precision=PRECISION)
    place_of = {name: place for place, name in enumerate(head.labels)}
    places = np.array([place_of.get(one or "", calibration.UNKNOWN) for one in truth])
    shares = calibration.shares_of(head.linear.scores(asked), head.temperature)
    return calibration.judge(shares, places, head.threshold)._asdict()


def _unknown(
    known: Floats,
    labels: Sequence[str],
    asked: Floats,
    truth: Sequence[str],
    names: Sequence[str],
) -> dict[str, dict[str, float]]:
    """A fourth of the labels is not known: with, and without examples that belong to no label."""
    strange = set(names[::STRANGE])
    told = [None if one in strange else one for one in labels]
    rows = [place for place, one in enumerate(told) if one is not None]
    hidden = [None if one in strange else one for one in truth]
    return {
        "told": _head(known, told, asked, hidden),
        "not_told": _head(known[rows], [told[row] for row in rows], asked, hidden),
    }


def sentiment(vectors: Vectors, rows_max: int) -> dict[str, float]:
    """How a sentence of a review feels: one half to learn from, the other to score on.

    Raises:
        data.Unavailable: it cannot be fetched.
    """
    texts, labels = data.first_of(data.reviews(), rows_max)
    half = len(texts) // 2
    names = sorted(FEELINGS)
    places = _places(labels, names)
    stage = Sentiment({})
    found = {"lexicon": _by_lexicon(stage, texts[half:], labels[half:])}
    for model in MODELS:
        known = vectors.of(model, f"reviews {rows_max}", texts)
        called = vectors.of(model, "feelings", [FEELINGS[name] for name in names])
        head = train(known[:half], labels[:half], precision=0.5)
        found[f"zero-shot, {model}"] = _right(known[half:] @ called.T, places[half:])
        found[f"head, {model}"] = _right(head.linear.scores(known[half:]), places[half:])
    return found


def _by_lexicon(stage: Stage, texts: Sequence[str], labels: Sequence[str]) -> float:
    columns = _enriched(stage, text=texts, language=["en"] * len(texts))
    sentiments = columns["sentiment"].to_pylist()
    right = [
        (value > 0) == (label == "positive")
        for value, label in zip(sentiments, labels, strict=True)
    ]
    return float(np.mean(right))


def language() -> dict[str, float]:
    """Which language example sentences are in, of the languages that the stage knows.

    Raises:
        data.Unavailable: they cannot be fetched.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    known = set(LanguageIdentifier.from_model_file(MODEL_FILE).labels)
    texts, codes = data.sentences()
    pairs = [pair for pair in zip(texts, codes, strict=True) if pair[1] in known]
    found = _enriched(Language({}), text=[text for text, _ in pairs])["language"].to_pylist()
    right = [said == code for said, (_, code) in zip(found, pairs, strict=True)]
    return {
        "accuracy": float(np.mean(right)),
        "sentences": len(pairs),
        "languages": len({code for _, code in pairs}),
    }


def _enriched(stage: Stage, **columns: Sequence[str]) -> Mapping[str, pa.Array]:
    stage.open(HashModels())
    rows = pa.RecordBatch.from_pydict({k: pa.array(v, pa.string()) for k, v in columns.items()})
    found = stage.enrich(Batch(rows, OffsetRange("", 0, 0, len(rows))))
    stage.close()
    return found


def _places(labels: Sequence[str], names: Sequence[str]) -> Any:
    place_of: Callable[[str], int] = {name: place for place, name in enumerate(names)}.__getitem__
    return np.array([place_of(label) for label in labels])


def _right(scores: Floats, truth: Any) -> float:
    return float((scores.argmax(axis=1) == truth).mean())
