"""What is measured: a model opened in one of several ways, and the same work for each."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.embedder import Call, OnnxEmbedder
from streamapp.models.manifest import EmbedManifest, Manifest
from streamapp.models.sample import TEXTS
from streamapp.models.serving.warming import example_feeds
from streamapp.models.session import DTYPES, STRING, Array, Session, Tensor
from streamapp.models.tuned import Tuned, open_file
from streamapp.models.tuning.waits import measure_waits

Floats = npt.NDArray[np.float32]
#: The least rows of work: two of the largest batches for each core.  With fewer, calls that run at
#: once would end far apart, since one of them has the longest texts.
ROWS_MIN = 64 * len(os.sched_getaffinity(0))
#: The size of an axis behind the first that a signature leaves open.
SIZE_OPEN = 16


class Ready(Protocol):
    """A model opened in one way."""

    rows: int

    def all(self) -> Floats:
        """Run all of the work; what it gives, one row of numbers for each row, (rows, n)."""
        ...

    def one(self, row: int) -> None:
        """Run one row alone."""
        ...

    def invariance(self) -> float | None:
        """The least cosine between a row alone and among others; None where nobody promised."""
        ...

    def waits(self) -> dict[float, float]:
        """Wait of a served call in ms to rows per second; empty where calls cannot be joined."""
        ...

    def close(self) -> None: ...


class Subject:
    """A model to be measured.

    Args:
        manifest: of a model whose files are ONNX.
        folder: where they are, verified.
        ref: who it is.
        texts: what an embedder is measured on.

    Raises:
        Refuse: it is run by something else.
    """

    def __init__(
        self, manifest: Manifest, folder: Path, ref: ModelRef, texts: Sequence[str] = TEXTS
    ) -> None:
        if manifest.format not in ("onnx", "openvino"):
            raise Refuse(
                "models.tune",
                f"{manifest.full_name} is of format {manifest.format!r}",
                "only models that are ONNX files can be measured this way",
            )
        self.manifest, self.folder, self.ref, self.texts = manifest, folder, ref, list(texts)
        #: Where variants lie until one is chosen.
        self.variants = folder

    @property
    def is_invariant(self) -> bool:
        """Whether the manifest promises that a row does not depend on its neighbours."""
        return isinstance(self.manifest, EmbedManifest) and self.manifest.batch_invariant

    def open(self, tuned: Tuned) -> Ready:
        """The model, opened in this way.

        Raises:
            Refuse: it cannot be.
        """
        folder = self.variants if tuned.variant else self.folder
        session = open_file(self.ref, folder / self.manifest.model, tuned)
        if isinstance(self.manifest, EmbedManifest):
            return _Texts(session, self.manifest, self.folder, self.texts, tuned)
        return _Arrays(session, self.manifest, tuned)


class _Texts:
    """An embedder on texts."""

    def __init__(
        self,
        session: Session,
        manifest: EmbedManifest,
        folder: Path,
        texts: Sequence[str],
        tuned: Tuned,
    ) -> None:
        call = Call(
            pooling=manifest.pooling,
            prefixes=manifest.prefixes,
            tokens_max=manifest.tokens_max,
            batch_texts=tuned.batch,
            batch_tokens_max=manifest.batch_tokens_max,
            callers=tuned.calls,
        )
        rows = max(ROWS_MIN, len(texts))
        self._texts, self._session = list(islice(cycle(texts), rows)), session
        self._embedder = OnnxEmbedder(session, folder / manifest.tokenizer, call)
        self.rows = len(self._texts)

    def all(self) -> Floats:
        return self._embedder.embed(self._texts)[0]

    def one(self, row: int) -> None:
        self._embedder.embed([self._texts[row]])

    def invariance(self) -> float | None:
        return self._embedder.measure_invariance(self._texts[:32])

    def waits(self) -> dict[float, float]:
        return {}  # an embedder makes its own batches of the texts it is given

    def close(self) -> None:
        self._embedder.close()
        self._session.close()


class _Arrays:
    """Any session, on its manifest's example or on numbers from a fixed seed."""

    def __init__(self, session: Session, manifest: Manifest, tuned: Tuned) -> None:
        self._session = session
        joins = all(t.shape and t.shape[0] < 0 for t in (*session.inputs, *session.outputs))
        self._tuned, self._joins = tuned, joins
        self._batch = tuned.batch if joins else 1
        example = example_feeds(session, manifest)
        feeds = [example or drawn(session.inputs, seed) for seed in range(ROWS_MIN)]
        self._feeds = [{k: v[:1] if joins else v for k, v in one.items()} for one in feeds]
        self.rows = ROWS_MIN
        self._calls = ThreadPoolExecutor(tuned.calls)

    def all(self) -> Floats:
        firsts = range(0, self.rows, self._batch)
        found = list(self._calls.map(self._run, firsts))
        return np.concatenate(found)

    def one(self, row: int) -> None:
        self._session.run(self._feeds[row])

    def invariance(self) -> float | None:
        return None

    def waits(self) -> dict[float, float]:
        return measure_waits(self._session, self._feeds, self._tuned) if self._joins else {}

    def close(self) -> None:
        self._calls.shutdown()
        self._session.close()

    def _run(self, first: int) -> Floats:
        part = self._feeds[first : first + self._batch]
        feeds = {name: np.concatenate([one[name] for one in part]) for name in part[0]}
        found = self._session.run(feeds if self._batch > 1 else part[0])
        numbers = [v for v in found.values() if v.dtype.kind in "fiu" and v.size]
        return np.concatenate([v.reshape(len(part), -1) for v in numbers], 1).astype(np.float32)


def drawn(inputs: Sequence[Tensor], seed: int) -> dict[str, Array]:
    """One row for these inputs, the same for the same seed; small whole numbers for integers."""
    chance = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for tensor in inputs:
        rest = [size if size >= 0 else SIZE_OPEN for size in tensor.shape[1:]]
        first = [1 if tensor.shape[0] < 0 else tensor.shape[0]] if tensor.shape else []
        shape = (*first, *rest)
        if tensor.dtype == STRING:
            feeds[tensor.name] = np.full(shape, "text", object)
        elif tensor.dtype.startswith("float"):
            feeds[tensor.name] = chance.standard_normal(shape).astype(tensor.dtype)
        else:
            feeds[tensor.name] = chance.integers(0, 2, shape).astype(DTYPES[tensor.dtype])
    return feeds
