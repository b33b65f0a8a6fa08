"""Texts to vectors: the stage beside every way to call onnxruntime by hand."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import pyarrow as pa
from report import interleaved

from models import data
from streamapp.core.batch import Batch
from streamapp.core.ranges import OffsetRange
from streamapp.models import Registry, Session
from streamapp.models.manifest import EmbedManifest
from streamapp.models.runtime import onnxruntime
from streamapp.models.tokenizer import open_tokenizer
from streamapp.stages.embed import Embed

NAIVE = 32
SORTED = (8, 16, 32, 64)
WORDS = (8, 32, 128)
TOGETHER = (1, 16, 64)
#: Of one figure of the table of lengths and batches.
CALLS = 12


class Subject:
    """One model, and the ways to call it; every figure is texts a second."""

    def __init__(self, registry: Registry, name: str) -> None:
        manifest = registry.manifest_of(EmbedManifest, name)
        folder = registry.folder(name)
        self._tokenizer = open_tokenizer(folder / manifest.tokenizer, manifest.tokens_max)
        self._prefix = manifest.prefixes.get("query", "")
        self._session: Session = registry.session(name)
        self._plain = onnxruntime.InferenceSession(
            str(folder / manifest.model), providers=["CPUExecutionProvider"]
        )
        self._stage = Embed({"model": name})
        self._stage.declare(registry)
        self._stage.open(registry)

    def stage(self, texts: Sequence[str]) -> None:
        """Ours, as the worker calls it."""
        rows = pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.string())})
        self._stage.enrich(Batch(rows, OffsetRange("", 0, 0, len(rows))))

    def one_by_one(self, texts: Sequence[str]) -> None:
        """A call for each text, onnxruntime as it comes."""
        for text in texts:
            self._plain.run(None, self._feeds(self._encode([text])))

    def in_order(self, texts: Sequence[str], size: int = NAIVE) -> None:
        """Batches as the texts come, onnxruntime as it comes."""
        for first in range(0, len(texts), size):
            self._plain.run(None, self._feeds(self._encode(texts[first : first + size])))

    def sorted_feeds(self, texts: Sequence[str], size: int) -> list[dict[str, Any]]:
        """Batches by length, tokenised and padded before the clock starts."""
        tokens = sorted(self._encode(texts), key=len)
        return [self._feeds(tokens[first : first + size]) for first in range(0, len(tokens), size)]

    def run_all(self, feeds: Sequence[dict[str, Any]]) -> None:
        """The session that serves, called with what is ready."""
        for one in feeds:
            self._session.run(one)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer.encode([self._prefix + text for text in texts])[0]

    def _feeds(self, tokens: Sequence[Sequence[int]]) -> dict[str, Any]:
        shape = len(tokens), max(map(len, tokens))
        ids, mask = np.full(shape, self._tokenizer.pad, np.int64), np.zeros(shape, np.int64)
        for row, one in enumerate(tokens):
            ids[row, : len(one)], mask[row, : len(one)] = one, 1
        zeros = np.zeros(shape, np.int64)
        known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": zeros}
        return {given.name: known[given.name] for given in self._plain.get_inputs()}


def rates(subject: Subject, texts: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Texts a second of each way, interleaved."""

    def timed(call: Callable[..., None], *arguments: Any) -> float:
        start_s = time.perf_counter()
        call(*arguments)
        return len(texts) / (time.perf_counter() - start_s)

    ways: dict[str, Callable[[], float]] = {
        "stage": partial(timed, subject.stage, texts),
        "one by one": partial(timed, subject.one_by_one, texts),
        f"batches of {NAIVE} in order": partial(timed, subject.in_order, texts),
    }
    for size in SORTED:
        feeds = subject.sorted_feeds(texts, size)
        ways[f"sorted, of {size}"] = partial(timed, subject.run_all, feeds)
    return interleaved(ways, rounds)


def lengths(subject: Subject, calls: int) -> dict[str, dict[str, dict[str, float]]]:
    """By words of a text and texts of a call: texts a second, and p95 of the time to an answer."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for words in WORDS:
        found[str(words)] = {}
        for together in TOGETHER:
            texts = made(words, together)
            ours = _times(partial(subject.stage, texts), calls)
            plain = _times(partial(subject.in_order, texts, together), calls)
            found[str(words)][str(together)] = {
                "stage_per_s": together / statistics.median(ours),
                "stage_p95_ms": 1e3 * float(np.percentile(ours, 95)),
                "plain_per_s": together / statistics.median(plain),
                "plain_p95_ms": 1e3 * float(np.percentile(plain, 95)),
            }
    return found


def made(words: int, count: int) -> list[str]:
    """Texts of so many words each, out of real ones."""
    pool = cycle(" ".join(data.banking("test").texts).split())
    return [" ".join(islice(pool, words)) for _ in range(count)]


def _times(call: Callable[[], None], calls: int) -> list[float]:
    call()
    found = []
    for _ in range(calls):
        start_s = time.perf_counter()
        call()
        found.append(time.perf_counter() - start_s)
    return found
