"""Texts to vectors: the stage beside every way to call onnxruntime by hand."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import pyarrow as pa
from report import interleaved

from models import data
from streamapp.core.batch import Batch
from streamapp.core.ranges import OffsetRange
from streamapp.models import Registry
from streamapp.models.manifest import EmbedManifest
from streamapp.models.runtime import onnxruntime
from streamapp.models.tokenizer import open_tokenizer
from streamapp.stages.embed import Embed

NAIVE = 32
SORTED = (8, 16, 32, 64)
SORTED_BY = "sorted, the best size"
CORES = len(os.sched_getaffinity(0))
#: Threads of a session, and how many call it at once.
PLANS = {
    "1 thread": (1, 1),
    "a thread a core": (CORES, 1),
    "a call a core": (1, CORES),
}
#: Of each size, to find the best one.
TRIES = 2
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
        self._path = str(folder / manifest.model)
        self._sessions: dict[int, Any] = {}
        self._plain = onnxruntime.InferenceSession(self._path, providers=["CPUExecutionProvider"])
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
        """Batches by length, tokenised and padded before the clock starts; the longest first."""
        tokens = sorted(self._encode(texts), key=len)
        starts = range(0, len(tokens), size)
        return [self._feeds(tokens[first : first + size]) for first in reversed(starts)]

    def run_all(self, feeds: Sequence[dict[str, Any]], threads: int, callers: int) -> None:
        """``session.run`` with what is ready: a session of so many threads, called by so many."""
        session = self._session_of(threads)
        if callers == 1:
            for one in feeds:
                session.run(None, one)
            return
        with ThreadPoolExecutor(callers) as pool:
            for _ in pool.map(partial(session.run, None), feeds):
                pass

    def _session_of(self, threads: int) -> Any:
        if threads not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            self._sessions[threads] = onnxruntime.InferenceSession(
                self._path, options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[threads]

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


def rates(
    subject: Subject, texts: Sequence[str], rounds: int, sizes: Sequence[int] = SORTED
) -> dict[str, list[float]]:
    """Texts a second of each way, interleaved.

    Of each plan for batches sorted by length the size that was the fastest, tried before.
    """

    def timed(call: Callable[..., None], *arguments: Any) -> float:
        start_s = time.perf_counter()
        call(*arguments)
        return len(texts) / (time.perf_counter() - start_s)

    ways: dict[str, Callable[[], float]] = {
        "stage": partial(timed, subject.stage, texts),
        "one by one": partial(timed, subject.one_by_one, texts),
        f"batches of {NAIVE} in order": partial(timed, subject.in_order, texts),
    }
    feeds = {size: subject.sorted_feeds(texts, size) for size in sizes}
    for name, plan in PLANS.items():
        tried = {size: partial(timed, subject.run_all, feeds[size], *plan) for size in sizes}
        found = interleaved(tried, TRIES) if len(sizes) > 1 else {sizes[0]: [0.0]}
        best = max(found, key=lambda size: max(found[size]))
        ways[f"{SORTED_BY}, {name}"] = tried[best]
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
