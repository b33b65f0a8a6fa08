"""Texts to vectors and to weights of tokens in one pass, as BGE-M3 does (arXiv:2402.03216).

A text's weights say how much each of its tokens matters to what it is about; the products of the
weights of tokens that two texts share say how alike they are in words.  Two exports are understood:
one whose graph gives both (``dense_vecs``, ``sparse_vecs``), and one that gives hidden states, of
which the first is the vector, and a linear layer beside the graph makes the weights.  Special
tokens weigh nothing, and a token that occurs twice has the larger weight, as in FlagEmbedding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Halt, Refuse
from streamapp.models.linear import read_linear
from streamapp.models.manifest import EmbedManifest, SparseSpec
from streamapp.models.session import Session
from streamapp.models.tokenizer import open_tokenizer
from streamapp.models.tokens import CHARS_PER_TOKEN_MAX, batches, token_feeds

Vectors = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Weights = dict[str, float]

_DENSE = ("dense_vecs", "dense", "sentence_embedding")
_STATES = ("last_hidden_state", "token_embeddings")
_SPARSE = ("sparse_vecs", "sparse", "sparse_weights")
#: What BAAI/bge-m3 calls the layer, with any suffix.
HEAD = "sparse_linear"
_IDS, _MASK = "input_ids", "attention_mask"


class HybridEmbedder:
    """An embedder that weighs tokens too.  See ``plugin.SparseEmbedder``.

    Args:
        session: the opened graph: ``input_ids`` and ``attention_mask`` to one of the two exports.
        manifest: how it wants to be called; has ``sparse``.
        folder: with its tokenizer and, for the second export, the linear layer.

    Raises:
        Refuse: the graph is no such export, or the layer does not fit it.
    """

    def __init__(self, session: Session, manifest: EmbedManifest, folder: Path) -> None:
        self.ref = session.ref
        self.dim = manifest.dim
        self._session = session
        self._manifest = manifest
        self._batch_texts = manifest.batch_texts if manifest.batch_invariant else 1
        self._tokenizer = open_tokenizer(folder / manifest.tokenizer, manifest.tokens_max)
        self._dense, self._sparse = _outputs(session, manifest)
        self._inputs = _inputs(session, manifest)
        head = manifest.sparse.head if manifest.sparse else ""
        self._head = read_linear(folder / head) if head else None
        if self._head and self._head[0].shape != (1, self.dim):
            raise Refuse(
                "models.linear",
                f"{folder / head} is a layer of {self._head[0].shape[::-1]}, not {self.dim, 1}",
                f"give the layer of {manifest.full_name} that makes one number of a hidden state",
            )
        try:
            self.embed([""])
        except Halt as error:
            raise Refuse(error.code, error.message, error.fix) from None

    def embed(
        self, texts: Sequence[str | None], kind: str = "query", out: Vectors | None = None
    ) -> tuple[Vectors, Flags]:
        """As ``plugin.Embedder.embed``."""
        vectors, truncated, _ = self.embed_sparse(texts, kind, out)
        return vectors, truncated

    def embed_sparse(
        self, texts: Sequence[str | None], kind: str = "query", out: Vectors | None = None
    ) -> tuple[Vectors, Flags, list[Weights | None]]:
        """Vectors and flags as of ``embed``, and each text's tokens with their weights.

        Tokens are pieces as the vocabulary writes them, in the order of the text; weights are above
        0; None for a text that is None.

        Raises:
            Halt: ``out`` is another kind of array, or the graph gives other shapes than it should.
        """
        vectors = np.empty((len(texts), self.dim), np.float32) if out is None else out
        if out is not None and (out.shape != (len(texts), self.dim) or out.dtype != np.float32):
            raise Halt(
                "models.out",
                f"vectors of {len(texts), self.dim} cannot go into {out.dtype} {out.shape}",
                "give a float32 array of that shape",
            )
        truncated = np.zeros(len(texts), np.bool_)
        weights: list[Weights | None] = [None] * len(texts)
        vectors[[row for row, text in enumerate(texts) if text is None]] = np.nan
        given = [(row, text) for row, text in enumerate(texts) if text is not None]
        tokens, cut = self._encode([text for _, text in given], kind)
        limits = self._batch_texts, self._manifest.batch_tokens_max
        for batch in batches([len(one) for one in tokens], *limits):
            dense, sparse = self._run([tokens[place] for place in batch])
            for place, vector, scores in zip(batch, dense, sparse, strict=True):
                row = given[place][0]
                vectors[row], truncated[row] = vector, cut[place]
                weights[row] = self._weights(tokens[place], scores)
        return vectors, truncated, weights

    def measure_invariance(self, texts: Sequence[str]) -> float:
        """The smallest cosine between a text's vector alone and within one batch of all texts."""
        tokens, _ = self._encode(texts, "query")
        together, _ = self._run(tokens)
        alone = np.concatenate([self._run([one])[0] for one in tokens])
        return float((together.astype(np.float64) * alone).sum(axis=1).min())

    def embed_alone(self) -> None:
        """One text per call from now on."""
        self._batch_texts = 1

    def _encode(self, texts: Sequence[str], kind: str) -> tuple[list[list[int]], list[bool]]:
        prefix = self._manifest.prefixes.get(kind, "")
        chars_max = CHARS_PER_TOKEN_MAX * self._manifest.tokens_max
        ids, cut = self._tokenizer.encode([prefix + text[:chars_max] for text in texts])
        return ids, [a or len(text) > chars_max for a, text in zip(cut, texts, strict=True)]

    def _run(self, tokens: Sequence[Sequence[int]]) -> tuple[Vectors, Vectors]:
        """Unit vectors (n, dim) and weights of tokens (n, tokens), not below 0."""
        feeds, mask = token_feeds(tokens, self._tokenizer.pad, self._inputs)
        shape = mask.shape
        found = self._session.run(feeds, list(dict.fromkeys([self._dense, self._sparse])))
        dense, sparse = found[self._dense], found[self._sparse]
        if self._head:  # both are the hidden states
            sparse = dense @ self._head[0][0] + self._head[1]
        if dense.ndim == 3:
            dense = dense[:, 0]
        sparse = sparse.reshape(sparse.shape[:2]) if sparse.shape[2:] == (1,) else sparse
        if dense.shape != (shape[0], self.dim) or sparse.shape != shape:
            raise Halt(
                "models.shape",
                f"{self._manifest.full_name} gave {self._dense} {dense.shape} and {self._sparse} "
                f"{sparse.shape}, expected {(shape[0], self.dim)} and {shape}",
                "correct dim, output and sparse in the manifest",
            )
        lengths = np.linalg.norm(dense, axis=1, keepdims=True)
        return dense / np.maximum(lengths, 1e-12), np.maximum(sparse, 0)

    def _weights(self, tokens: Sequence[int], scores: Vectors) -> Weights:
        best: dict[int, float] = {}
        for token, score in zip(tokens, scores.tolist(), strict=False):
            if score > best.get(token, 0.0) and token not in self._tokenizer.specials:
                best[token] = score
        return {self._tokenizer.piece(token): score for token, score in best.items()}


def _inputs(session: Session, manifest: EmbedManifest) -> dict[str, str]:
    found = {tensor.name: tensor.dtype for tensor in session.inputs}
    if set(found) != {_IDS, _MASK} or not set(found.values()) <= {"int64", "int32"}:
        raise Refuse(
            "models.signature",
            f"{manifest.full_name}: inputs are {', '.join(map(str, session.inputs))}",
            f"export it with {_IDS} and {_MASK}, int64",
        )
    return found


def _outputs(session: Session, manifest: EmbedManifest) -> tuple[str, str]:
    """The outputs that vectors and weights come from; hidden states, twice, where there is a head.

    Raises:
        Refuse: there is none of a known name, and the manifest names none.
    """
    names = [tensor.name for tensor in session.outputs]
    spec = manifest.sparse or SparseSpec()
    dense = manifest.output or _first(_STATES if spec.head else _DENSE, names)
    sparse = dense if spec.head else spec.output or _first(_SPARSE, names)
    if dense not in names or sparse not in names:
        raise Refuse(
            "models.signature",
            f"{manifest.full_name}: outputs are {', '.join(names)}",
            "name those for vectors (output) and weights (sparse.output) in the manifest, "
            "or give hidden states and a linear layer (sparse.head)",
        )
    return dense, sparse


def guessed_of_hybrid(outputs: Sequence[str], files: Sequence[Path]) -> dict[str, Any]:
    """What a manifest should say of a graph with these outputs and the files beside it."""
    head = next((path.name for path in files if path.stem == HEAD), "")
    if head and _first(_STATES, outputs):
        return {"pooling": "cls", "sparse": {"head": head}}
    dense, sparse = _first(_DENSE, outputs), _first(_SPARSE, outputs)
    return {"output": dense, "sparse": {"output": sparse}} if dense and sparse else {}


def _first(wanted: Sequence[str], names: Sequence[str]) -> str:
    return next((name for name in wanted if name in names), "")
