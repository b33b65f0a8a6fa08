"""Texts to unit vectors: tokens, batches of about one length, and a Session.

Batches run at once on as many cores as there are, each on one: two calls of one thread are half as
fast again as one call of two, which wait for each other at every layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Halt, Refuse
from streamapp.models.session import Session
from streamapp.models.tokenizer import open_tokenizer
from streamapp.models.tokens import (
    CHARS_PER_TOKEN_MAX,
    batches,
    token_feeds,
    token_inputs,
)

Vectors = npt.NDArray[np.float32]
Tokens = Sequence[int]
Feed = Mapping[str, npt.NDArray[np.integer[Any]]]

_INTEGERS = ("int64", "int32")


@dataclass(frozen=True, slots=True)
class Call:
    """How a model wants to be called.

    ``pooling`` is ``graph`` (the output ``sentence_embedding``), ``mean`` or ``cls``; ``output``
    names another output than the usual ones.  Texts sorted by length go in batches of at most
    ``batch_texts`` texts and ``batch_tokens_max`` tokens: on CPUs small even batches win, and the
    attention's memory is bounded.  ``callers`` is how many batches run at once.
    """

    pooling: str = "mean"
    prefixes: Mapping[str, str] = field(default_factory=dict)
    tokens_max: int = 512
    batch_texts: int = 16
    batch_tokens_max: int = 2048
    callers: int = 1
    output: str = ""


@runtime_checkable
class WritesInto(Protocol):
    """A Session that can write an output to memory of ours."""

    def run_into(self, feeds: Feed, output: str, out: Vectors) -> None: ...


class OnnxEmbedder:
    """An ONNX encoder with ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``.

    Args:
        session: the graph, on any runtime; closed with its last user.
        tokenizer: its tokenizer.json.
        call: how it wants to be called.

    Raises:
        Refuse: the tokenizer cannot be read, or inputs, outputs or what a text gives are not an
            encoder's.
    """

    def __init__(self, session: Session, tokenizer: Path, call: Call) -> None:
        self.ref = session.ref
        self.call = call
        self._tokenizer = open_tokenizer(tokenizer, call.tokens_max)
        self._session = session
        self._inputs = _inputs(session)
        self._output = _output(session, call.pooling, call.output)
        self._binds = isinstance(session, WritesInto) and _gives_vectors(session, self._output)
        self._callers = (
            ThreadPoolExecutor(call.callers, thread_name_prefix="streamapp-embedder")
            if call.callers > 1
            else None
        )
        feed, _ = token_feeds(self._encode([""], "query")[0], self._tokenizer.pad, self._inputs)
        self.dim = _dim(session, self._output, session.run(feed, [self._output])[self._output])

    def embed(
        self, texts: Sequence[str | None], kind: str = "query", out: Vectors | None = None
    ) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """Vectors (n, dim), float32, L2-normalised, and whether each text was truncated, (n,).

        A row without text, None, is NaN.  A batch of texts that follow each other is written to its
        rows by onnxruntime itself; texts that are neighbours only by length come by a copy, which
        is nothing beside what padding them to their neighbours in time would cost.

        Args:
            texts: any number.
            kind: names the prefix.
            out: where the vectors go, (n, dim) float32 and C-contiguous; default: new memory.

        Raises:
            Halt: ``out`` is another kind of array.
        """
        vectors = np.empty((len(texts), self.dim), np.float32) if out is None else out
        _check(vectors, (len(texts), self.dim))
        truncated = np.zeros(len(texts), np.bool_)
        given = [(row, text) for row, text in enumerate(texts) if text is not None]
        if len(given) < len(texts):
            vectors[[row for row, text in enumerate(texts) if text is None]] = np.nan
        if not given:
            return vectors, truncated
        rows = np.array([row for row, _ in given])
        tokens, truncated[rows] = self._encode([text for _, text in given], kind)
        self._write_all(tokens, vectors, rows)
        return vectors, truncated

    def measure_invariance(self, texts: Sequence[str]) -> float:
        """The smallest cosine between a text's vector alone and within one batch of all texts."""
        tokens, _ = self._encode(texts, "query")
        together = self._forward(tokens)
        alone = np.concatenate([self._forward([one]) for one in tokens])
        return float((together.astype(np.float64) * alone).sum(axis=1).min())

    def embed_alone(self) -> None:
        """One text per call from now on: slower, but its vector cannot depend on neighbours."""
        self.call = replace(self.call, batch_texts=1)

    def close(self) -> None:
        """End the threads that call; the session stays."""
        if self._callers is not None:
            self._callers.shutdown()

    def _encode(
        self, texts: Sequence[str], kind: str
    ) -> tuple[list[list[int]], npt.NDArray[np.bool_]]:
        prefix = self.call.prefixes.get(kind, "")
        chars_max = CHARS_PER_TOKEN_MAX * self.call.tokens_max
        ids, cut = self._tokenizer.encode([prefix + text[:chars_max] for text in texts])
        long = [len(text) > chars_max for text in texts]
        return ids, np.logical_or(cut, long)

    def _write_all(
        self, tokens: Sequence[Tokens], vectors: Vectors, rows: npt.NDArray[np.int64]
    ) -> None:
        """Every batch to its rows; where several run at once, the longest first."""

        def write(batch: npt.NDArray[np.int64]) -> None:
            self._write([tokens[one] for one in batch], vectors, rows[batch])

        batches = list(self._batches(tokens))
        if self._callers is None or len(batches) == 1:
            for batch in batches:
                write(batch)
            return
        for _ in self._callers.map(write, reversed(batches)):
            pass  # an error of one is raised here

    def _batches(self, tokens: Sequence[Tokens]) -> Iterator[npt.NDArray[np.int64]]:
        """Row numbers in order, those of the shortest texts first.

        Few texts are spread over the callers.
        """
        share = -(-len(tokens) // self.call.callers)
        texts_max = max(1, min(self.call.batch_texts, share))
        lengths = [len(one) for one in tokens]
        for batch in batches(lengths, texts_max, self.call.batch_tokens_max):
            yield np.sort(batch)

    def _write(
        self, tokens: Sequence[Tokens], vectors: Vectors, rows: npt.NDArray[np.int64]
    ) -> None:
        """One batch to its rows, which are in order."""
        first, next_ = rows[0], rows[-1] + 1
        if next_ - first == len(rows):
            self._forward(tokens, vectors[first:next_])
        else:
            vectors[rows] = self._forward(tokens)

    def _forward(self, tokens: Sequence[Tokens], out: Vectors | None = None) -> Vectors:
        """Unit vectors (n, dim) of n texts, in ``out`` when it is given."""
        vectors = np.empty((len(tokens), self.dim), np.float32) if out is None else out
        feed, mask = token_feeds(tokens, self._tokenizer.pad, self._inputs)
        if self._binds:
            self._session.run_into(feed, self._output, vectors)  # type: ignore[attr-defined]
        else:
            states = self._session.run(feed, [self._output])[self._output]
            _pool(states, mask, self.call.pooling, vectors)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, np.maximum(lengths, 1e-12), out=vectors)
        return vectors


def _check(out: Vectors, shape: tuple[int, int]) -> None:
    """A binding gets a bare address: what is there must be what onnxruntime takes it for."""
    if out.shape != shape or out.dtype != np.float32 or not out.flags.carray:
        raise Halt(
            "models.out",
            f"vectors of shape {shape} cannot go into {out.dtype} {out.shape}",
            "give a writable, C-contiguous float32 array of that shape",
        )


def _pool(states: Vectors, mask: npt.NDArray[np.int64], pooling: str, out: Vectors) -> None:
    """From (n, dim) or (n, tokens, dim) to (n, dim)."""
    if states.ndim == 2:
        out[:] = states
    elif pooling == "cls":
        out[:] = states[:, 0]
    else:  # the mean's direction; its length is lost at once anyway
        np.matmul(mask[:, None, :].astype(np.float32), states, out=out[:, None, :])


def _inputs(session: Session) -> dict[str, str]:
    """Input names with the integer type each wants."""
    found = token_inputs(session)
    if wrong := [name for name, kind in found.items() if kind not in _INTEGERS]:
        raise Refuse(
            "models.signature",
            f"{session.ref}: input {wrong[0]} is {found[wrong[0]]}",
            "export as int64",
        )
    return found


def _gives_vectors(session: Session, output: str) -> bool:
    """Whether the output is one float32 vector per text, and so can be written where we say."""
    found = next(tensor for tensor in session.outputs if tensor.name == output)
    return len(found.shape) == 2 and found.dtype == "float32"


def _dim(session: Session, output: str, found: Vectors) -> int:
    """How many numbers a text becomes, from what one text gave."""
    if len(found) != 1:  # a runtime that takes an operator for another
        raise Refuse(
            "models.run",
            f"{session.ref}: 1 text gave {output} of shape {found.shape}",
            "run it by another backend, or export it anew",
        )
    return int(found.shape[-1])


def _output(session: Session, pooling: str, named: str) -> str:
    """The output to take: the named or the pooled one where there is one, else hidden states."""
    found = {tensor.name: len(tensor.shape) for tensor in session.outputs}
    wanted = ["sentence_embedding"] if pooling == "graph" else []
    wanted += ["last_hidden_state", "token_embeddings", *found]
    for name in [named] if named else wanted:
        if found.get(name) in {2, 3}:
            return name
    raise Refuse(
        "models.signature",
        f"{session.ref}: outputs are {', '.join(found)}",
        "export it with last_hidden_state or sentence_embedding, or name one in the manifest",
    )
