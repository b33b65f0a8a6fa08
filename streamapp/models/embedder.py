"""Texts to unit vectors with onnxruntime and tokenizers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.runtime import onnxruntime
from streamapp.models.tokenizer import open_tokenizer

Vectors = npt.NDArray[np.float32]
Tokens = Sequence[int]

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
        self.dim: int = self._forward([self._encode([""], "query")[0][0]]).shape[1]

    def embed(
        self, texts: Sequence[str], kind: str = "query"
    ) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """Vectors (n, dim), float32, L2-normalised, and whether each text was truncated, (n,)."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        if not texts:
            return vectors, np.empty(0, np.bool_)
        tokens, truncated = self._encode(texts, kind)
        for rows in self._batches(tokens):
            vectors[rows] = self._forward([tokens[row] for row in rows])
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
        """Row numbers, shortest texts first."""
        lengths = np.array([len(one) for one in tokens])
        order = np.argsort(lengths, kind="stable")
        first = 0
        while first < len(order):
            next_ = first + 1
            while next_ < len(order) and next_ - first < self.call.batch_texts:
                if (next_ - first + 1) * lengths[order[next_]] > self.call.batch_tokens_max:
                    break
                next_ += 1
            yield order[first:next_]
            first = next_

    def _forward(self, tokens: Sequence[Tokens]) -> Vectors:
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
        (out,) = self._session.run([self._output], feed)
        return _unit(_pool(out, mask, self.call.pooling))


def _pool(out: Vectors, mask: npt.NDArray[np.int64], pooling: str) -> Vectors:
    """(n, dim) out of (n, dim) or (n, tokens, dim)."""
    if out.ndim == 2:
        return out
    if pooling == "cls":
        first: Vectors = out[:, 0]
        return first
    summed: Vectors = np.matmul(mask[:, None, :].astype(np.float32), out)[:, 0]
    return summed  # the mean's direction; its length is lost at once anyway


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
    return unit


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
