"""Vectors or texts to probabilities of labels: a session and what its manifest says of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse, Reject
from streamapp.core.model import ModelRef
from streamapp.models.manifest import ClassifyManifest, HeadManifest, Manifest
from streamapp.models.sample import TEXTS
from streamapp.models.session import STRING, Array, Session, unfit
from streamapp.models.tokenizer import Tokenizer, open_tokenizer
from streamapp.models.tokens import (
    CHARS_PER_TOKEN_MAX,
    batches,
    token_feeds,
    token_inputs,
)

Floats = npt.NDArray[np.float32]
#: What ``Classifier.classify`` takes.
Inputs = Sequence[str | None] | Floats

#: How far a probability may be from that of the same text alone.
_DIFFERENCE_MAX = 1e-3


class HeadClassifier:
    """A head: vectors of one embedder to labels.

    Raises:
        Refuse: the session does not have one input, or no output with a value for each label.
    """

    def __init__(self, session: Session, manifest: HeadManifest) -> None:
        self.ref: ModelRef = session.ref
        self.labels = tuple(manifest.labels)
        self.embedder = manifest.embedder
        self.threshold, self.margin_min = manifest.threshold, manifest.margin_min
        self._dim = manifest.dim
        self._session, self._activation = session, manifest.activation
        self._temperature = np.float32(manifest.temperature)
        self._input = _only_input(session)
        self._output = _output(session, manifest.output, len(self.labels))

    def classify(self, inputs: Inputs) -> Floats:
        """Probabilities (n, labels) of vectors (n, dim); a row of NaN where a vector has NaN.

        Raises:
            Reject: vectors of another length, or no vectors.
        """
        vectors = np.asarray(inputs)
        if vectors.ndim != 2 or vectors.dtype != np.float32 or vectors.shape[1] != self._dim:
            what = f"{vectors.dtype} {vectors.shape}"
            raise Reject(
                "models.vectors",
                f"{self.ref} takes vectors of {self._dim} numbers, not {what}",
                f"embed texts with {self.embedder}",
            )
        given = ~np.isnan(vectors[:, 0])
        found = np.full((len(vectors), len(self.labels)), np.nan, np.float32)
        if given.any():
            asked = np.ascontiguousarray(vectors if given.all() else vectors[given])
            scores = self._session.run({self._input: asked}, [self._output])[self._output]
            checked = _answered(scores, len(asked), len(self.labels), self._session)
            found[given] = activated(checked, self._activation, self._temperature)
        return found


class TextClassifier:
    """Texts to labels, by a session that takes tokens or the texts themselves.

    Raises:
        Refuse: the session has no output with a value for each label.
    """

    embedder = ""

    def __init__(self, session: Session, manifest: ClassifyManifest, reader: "Reader") -> None:
        self.ref: ModelRef = session.ref
        self.labels = tuple(manifest.labels)
        self.threshold, self.margin_min = manifest.threshold, manifest.margin_min
        self._session, self._activation = session, manifest.activation
        self._reader = reader
        self._chars_max = CHARS_PER_TOKEN_MAX * manifest.tokens_max
        self._output = _output(session, manifest.output, len(self.labels))

    def classify(self, inputs: Inputs) -> Floats:
        """Probabilities (n, labels) of texts; a row of NaN where a text is None.

        Raises:
            Reject: vectors in place of texts.
        """
        if isinstance(inputs, np.ndarray):
            raise Reject(
                "models.texts", f"{self.ref} takes texts, not vectors", "give it the text column"
            )
        given = [row for row, text in enumerate(inputs) if text is not None]
        found = np.full((len(inputs), len(self.labels)), np.nan, np.float32)
        texts = [text[: self._chars_max] for text in inputs if text is not None]
        for batch, feeds in self._reader.calls(texts) if texts else ():
            scores = self._session.run(feeds, [self._output])[self._output]
            checked = _answered(scores, len(batch), len(self.labels), self._session)
            rows = [given[place] for place in batch]
            found[rows] = activated(checked, self._activation, np.float32(1))
        return found


class Reader(Protocol):
    """Texts to calls: the places of some texts, and what a session is fed with for them."""

    def calls(self, texts: Sequence[str]) -> Iterator[tuple[list[int], dict[str, Array]]]: ...


class TokenReader:
    """For graphs with ``input_ids`` and perhaps ``attention_mask`` and ``token_type_ids``.

    Texts of about one length share a call.

    Raises:
        Refuse: the session has other inputs.
    """

    def __init__(self, session: Session, manifest: ClassifyManifest, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._inputs = token_inputs(session)
        texts = manifest.batch_texts if manifest.batch_invariant else 1
        self._limits = texts, manifest.batch_tokens_max

    def calls(self, texts: Sequence[str]) -> Iterator[tuple[list[int], dict[str, Array]]]:
        """As ``Reader.calls``."""
        tokens, _ = self._tokenizer.encode(texts)
        for batch in batches([len(one) for one in tokens], *self._limits):
            chosen = [tokens[place] for place in batch]
            yield batch, token_feeds(chosen, self._tokenizer.pad, self._inputs)[0]


class StringReader:
    """For sessions with one input of texts, ``string[n]`` or ``string[n,1]``.

    Graphs of scikit-learn's pipelines, servers and Python callables are such.

    Raises:
        Refuse: the session has another input.
    """

    def __init__(self, session: Session, manifest: ClassifyManifest) -> None:
        name = _only_input(session)
        self._input = session.inputs[0]
        if self._input.dtype != STRING or len(self._input.shape) not in {1, 2}:
            raise Refuse(
                "models.signature",
                f"{session.ref}: input {name} is {self._input}",
                "give the manifest a tokenizer, or serve a model that takes string[n]",
            )
        self._texts = manifest.batch_texts if manifest.batch_invariant else 1

    def calls(self, texts: Sequence[str]) -> Iterator[tuple[list[int], dict[str, Array]]]:
        """As ``Reader.calls``."""
        wide = (-1, 1)[: len(self._input.shape)]
        for first in range(0, len(texts), self._texts):
            part = np.array(texts[first : first + self._texts], object).reshape(wide)
            yield list(range(first, first + len(part))), {self._input.name: part}


def open_classifier(
    session: Session, manifest: Manifest, folder: Path
) -> HeadClassifier | TextClassifier:
    """The classifier that a manifest describes.

    Args:
        session: the opened model.
        manifest: of the task ``head`` or ``classify``.
        folder: where the files are.

    Raises:
        Refuse: a model for another task, or its signature is not a classifier's.
    """
    if isinstance(manifest, HeadManifest):
        return HeadClassifier(session, manifest)
    if isinstance(manifest, ClassifyManifest):
        return TextClassifier(session, manifest, _reader(session, manifest, folder))
    raise Refuse(
        "models.task",
        f"{manifest.full_name} is a model for {manifest.task}, not one that gives labels",
        "name one of `streamapp models list` for head or classify",
    )


def _reader(session: Session, manifest: ClassifyManifest, folder: Path) -> Reader:
    if not manifest.tokenizer:
        return StringReader(session, manifest)
    tokenizer = open_tokenizer(folder / manifest.tokenizer, manifest.tokens_max)
    return TokenReader(session, manifest, tokenizer)


def prove_classifier(manifest: ClassifyManifest, folder: Path, session: Session) -> None:
    """Hold a text classifier to its manifest: labels, inputs, and neighbours that do not matter.

    Raises:
        Refuse: it is another kind of model, or a text's answer depends on its batch.
    """
    found = open_classifier(session, manifest, folder)
    if not manifest.batch_invariant:
        return
    together = found.classify(TEXTS)
    alone = np.concatenate([found.classify([text]) for text in TEXTS])
    difference = float(np.abs(together - alone).max())
    if difference > _DIFFERENCE_MAX:
        raise Refuse(
            "models.batch_invariance",
            f"{manifest.full_name}: a text's probabilities depend on its batch "
            f"(by {difference:.4f}, {_DIFFERENCE_MAX} is allowed)",
            "set batch_invariant = false in the manifest; it then runs text by text",
        )


def activated(scores: npt.ArrayLike, activation: str, temperature: np.float32) -> Floats:
    """Scores (n, labels) to probabilities: ``softmax``, ``sigmoid``, or ``none`` when they are."""
    found = np.asarray(scores, np.float32)
    if activation == "softmax":
        powers = np.exp((found - found.max(axis=1, keepdims=True)) / temperature)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
    if activation == "sigmoid":
        halves = np.tanh(found / (2 * temperature))  # which cannot overflow
        return np.asarray((1 + halves) / 2, np.float32)
    return found


def _only_input(session: Session) -> str:
    if len(session.inputs) == 1:
        return session.inputs[0].name
    names = ", ".join(tensor.name for tensor in session.inputs)
    raise Refuse(
        "models.signature",
        f"{session.ref}: inputs are {names}",
        "one is wanted, of vectors or texts",
    )


def _output(session: Session, wanted: str, labels: int) -> str:
    """The output that is named, or the only one; it must have a value for each label."""
    found = {tensor.name: tensor for tensor in session.outputs}
    name = wanted or (next(iter(found)) if len(found) == 1 else "")
    if name not in found:
        why = (
            f"has no output {name!r}" if name else "has several outputs and its manifest says none"
        )
        raise Refuse(
            "models.signature",
            f"{session.ref} {why}; it has {', '.join(found)}",
            "set output in the manifest",
        )
    shape = found[name].shape
    if len(shape) != 2 or shape[1] not in {-1, labels}:
        raise Refuse(
            "models.labels",
            f"{session.ref}: {found[name]} has not one value for each of {labels} labels",
            "correct labels in the manifest",
        )
    return name


def _answered(scores: Array, rows: int, labels: int, session: Session) -> Array:
    """The scores, when there is one of each label for each row."""
    if scores.shape != (rows, labels):
        why = f"{scores.shape} for {rows} rows and {labels} labels"
        raise unfit(session, why, "correct labels in the manifest")
    return scores
