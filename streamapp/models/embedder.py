"""Texts to unit vectors with onnxruntime and tokenizers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Halt, Refuse
from streamapp.core.model import ModelRef
from streamapp.models.runtime import onnxruntime
from streamapp.models.tokenizer import open_tokenizer

Vectors = npt.NDArray[np.float32]
Tokens = Sequence[int]
Feed = Mapping[str, npt.NDArray[np.integer[Any]]]

#: A text is cut to this many characters per token of the model's window before it is tokenised.
CHARS_PER_TOKEN_MAX = 64
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


@dataclass(frozen=True, slots=True)
class Call:
    """How a model wants to be called.

    ``pooling`` is ``graph`` (the output ``sentence_embedding``), ``mean`` or ``cls``.  Texts sorted
    by length go in batches of at most ``batch_texts`` texts and ``batch_tokens_max`` tokens: on
    CPUs small even batches win, and the attention's memory is bounded.
    """

    pooling: str = "mean"
    prefixes: Mapping[str, str] = field(default_factory=dict)
    tokens_max: int = 512
    batch_texts: int = 16
    batch_tokens_max: int = 2048


class OnnxEmbedder:
    """An ONNX encoder with ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``.

    Raises:
        Refuse: a file cannot be loaded, or the graph's inputs and outputs are not an encoder's.
    """

    def __init__(
        self, ref: ModelRef, model: Path, tokenizer: Path, call: Call, threads: int
    ) -> None:
        self.ref = ref
        self.call = call
        self._tokenizer = open_tokenizer(tokenizer, call.tokens_max)
        self._session = _open_session(model, threads)
        self._inputs = _inputs(self._session, model)
        self._output = _output(self._session, model, call.pooling)
        self._binds = _gives_vectors(self._session, self._output)
        feed, _ = self._feed([self._encode([""], "query")[0][0]])
        self.dim: int = self._session.run([self._output], feed)[0].shape[-1]

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
        for batch in self._batches(tokens):
            self._write([tokens[one] for one in batch], vectors, rows[batch])
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

    def _encode(
        self, texts: Sequence[str], kind: str
    ) -> tuple[list[list[int]], npt.NDArray[np.bool_]]:
        prefix = self.call.prefixes.get(kind, "")
        chars_max = CHARS_PER_TOKEN_MAX * self.call.tokens_max
        ids, cut = self._tokenizer.encode([prefix + text[:chars_max] for text in texts])
        long = [len(text) > chars_max for text in texts]
        return ids, np.logical_or(cut, long)

    def _batches(self, tokens: Sequence[Tokens]) -> Iterator[npt.NDArray[np.int64]]:
        """Row numbers in order, those of the shortest texts first."""
        lengths = np.array([len(one) for one in tokens])
        order = np.argsort(lengths, kind="stable")
        first = 0
        while first < len(order):
            next_ = first + 1
            while next_ < len(order) and next_ - first < self.call.batch_texts:
                if (next_ - first + 1) * lengths[order[next_]] > self.call.batch_tokens_max:
                    break
                next_ += 1
            yield np.sort(order[first:next_])
            first = next_

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
        feed, mask = self._feed(tokens)
        if self._binds:
            self._run_into(feed, vectors)
        else:
            _pool(self._session.run([self._output], feed)[0], mask, self.call.pooling, vectors)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, np.maximum(lengths, 1e-12), out=vectors)
        return vectors

    def _run_into(self, feed: Feed, vectors: Vectors) -> None:
        """Run with ``vectors`` as the output's memory; another shape is onnxruntime's error.

        The binding is made anew: inputs have another shape each time, keeping it would save 2 of
        the call's 4,000 us or more, and it would go on pointing to memory that is not ours.
        """
        binding = self._session.io_binding()
        for name, values in feed.items():
            binding.bind_cpu_input(name, values)
        place = (vectors.shape, vectors.ctypes.data)
        binding.bind_output(self._output, "cpu", 0, np.float32, *place)
        self._session.run_with_iobinding(binding)

    def _feed(self, tokens: Sequence[Tokens]) -> tuple[Feed, npt.NDArray[np.int64]]:
        """What the graph is fed with, and the mask, (n, tokens)."""
        shape = len(tokens), max(len(one) for one in tokens)
        ids = np.full(shape, self._tokenizer.pad, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, one in enumerate(tokens):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        offered = {"input_ids": ids, "attention_mask": mask}
        feed = {
            name: offered.get(name, np.zeros(shape, np.int64)).astype(kind, copy=False)
            for name, kind in self._inputs.items()
        }
        return feed, mask


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


def _open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Every batch has its own shape: a memory pattern would not be reused, and an arena would keep
    # what the longest texts needed (200 MB more) for no gain in speed.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # onnxruntime's errors share no narrower base
        raise Refuse(
            "models.onnx", f"{path}: {error}", "give an ONNX file that onnxruntime can run"
        ) from None


def _inputs(session: onnxruntime.InferenceSession, path: Path) -> dict[str, npt.DTypeLike]:
    """Input names with the integer type each wants."""
    found = {given.name: given.type for given in session.get_inputs()}
    allowed = {"input_ids", "attention_mask", "token_type_ids"}
    if "input_ids" not in found or not allowed.issuperset(found):
        raise Refuse(
            "models.signature",
            f"{path}: inputs are {', '.join(found)}",
            "export it with input_ids, attention_mask and perhaps token_type_ids",
        )
    if wrong := [name for name, kind in found.items() if kind not in _INTEGERS]:
        raise Refuse(
            "models.signature", f"{path}: input {wrong[0]} is {found[wrong[0]]}", "export as int64"
        )
    return {name: _INTEGERS[kind] for name, kind in found.items()}


def _gives_vectors(session: onnxruntime.InferenceSession, output: str) -> bool:
    """Whether the output is one float32 vector per text, and so can be bound to memory of ours."""
    found = {given.name: given for given in session.get_outputs()}[output]
    return len(found.shape) == 2 and found.type == "tensor(float)"


def _output(session: onnxruntime.InferenceSession, path: Path, pooling: str) -> str:
    """The output to take: the pooled one where there is one, else the hidden states."""
    found = {given.name: len(given.shape) for given in session.get_outputs()}
    wanted = ["sentence_embedding"] if pooling == "graph" else []
    wanted += ["last_hidden_state", "token_embeddings", *found]
    for name in wanted:
        if found.get(name) in {2, 3}:
            return name
    raise Refuse(
        "models.signature",
        f"{path}: outputs are {', '.join(found)}",
        "export it with last_hidden_state or sentence_embedding",
    )
