"""What a test of a stage needs: a Batch out of a few columns, and models without weights."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA, Batch
from streamapp.core.entity import Entity
from streamapp.core.errors import Refuse, Reject
from streamapp.core.model import ModelRef
from streamapp.core.ranges import OffsetRange
from streamapp.models.routing.given import Given
from streamapp.models.routing.router import Router
from streamapp.models.routing.spec import RouteSpec
from streamapp.models.session import Session
from streamapp.plugin.chat import Chat
from streamapp.plugin.extractor import Extractor
from streamapp.plugin.stage import Classifier

_EPOCH_US = 1_700_000_000_000_000
_SECOND_US = 1_000_000


def batch_of(first: int = 0, **columns: Any) -> Batch:
    """A Batch of the given columns; the event's other columns get plain values.

    Args:
        first: source offset of the first row; the others follow.
        columns: name to list or Arrow array, all of one length; a name that is no column of the
            event becomes one, as if an earlier stage had written it.
    """
    rows = len(next(iter(columns.values()))) if columns else 0
    offsets = list(range(first, first + rows))
    times = [_EPOCH_US + _SECOND_US * offset for offset in offsets]
    plain: dict[str, list[Any]] = {
        "source_offset": offsets,
        "id": [str(offset) for offset in offsets],
        "type": ["message"] * rows,
        "source": ["test"] * rows,
        "conversation": [None] * rows,
        "actor": [None] * rows,
        "time": times,
        "ingest_time": times,
        "text": [None] * rows,
        "duration_ms": [0.0] * rows,
        "payload": ["{}"] * rows,
        "attachments": [None] * rows,
    }
    arrays = [_array(columns.get(field.name, plain[field.name]), field) for field in EVENT_SCHEMA]
    added = {name: pa.array(columns[name]) for name in columns if name not in EVENT_SCHEMA.names}
    batch = Batch(
        pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA),
        OffsetRange("events.raw", 0, first, first + rows),
    )
    return batch.with_columns(added)


def _array(values: Any, field: pa.Field) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, field.type)


class HashEmbedder:
    """Bags of hashed words: texts with equal words get near unit vectors."""

    ref = ModelRef("embed", "hashed-words", 1, hashlib.sha256(b"hashed-words").hexdigest())

    def __init__(self, dim: int = 16) -> None:
        self.dim = dim

    def embed(
        self,
        texts: Sequence[str | None],
        kind: str = "query",  # noqa: ARG002  # the contract's
        out: npt.NDArray[np.float32] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """As ``Embedder.embed``; nothing is ever truncated."""
        vectors = np.empty((len(texts), self.dim), np.float32) if out is None else out
        for row, text in enumerate(texts):
            vectors[row] = np.nan if text is None else 0
            for word in [] if text is None else text.lower().split() or [""]:
                digest = hashlib.sha256(word.encode()).digest()
                for place in range(self.dim):
                    vectors[row, place] += digest[place % len(digest)] - 127.5
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors, np.zeros(len(texts), np.bool_)


class HashClassifier:
    """The likeliest label is the one whose name shares the most words with the text.

    Args:
        labels: at least one.
        takes: ``vectors`` (of a HashEmbedder of ``dim``) or ``texts``.
        dim: of the vectors.
        threshold: see ``Classifier``.
        version: of its ref, by which two of one name differ.
    """

    margin_min = 0.0

    def __init__(
        self,
        labels: Sequence[str],
        takes: str = "vectors",
        dim: int = 16,
        threshold: float = 0.0,
        version: int = 1,
    ) -> None:
        self.labels, self.threshold = tuple(labels), threshold
        self._words = HashEmbedder(dim)
        ref = self._words.ref
        self.embedder = f"{ref.task}/{ref.name}@{ref.version}" if takes == "vectors" else ""
        digest = hashlib.sha256(f"{labels} {version}".encode()).hexdigest()
        task = "head" if self.embedder else "classify"
        self.ref = ModelRef(task, "hashed-words", version, digest)
        self._directions, _ = self._words.embed(self.labels)

    def classify(
        self, inputs: Sequence[str | None] | npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """As ``Classifier.classify``."""
        if isinstance(inputs, np.ndarray) != bool(self.embedder):
            raise Reject("models.inputs", f"{self.ref} takes the other kind", "see its embedder")
        given = inputs if isinstance(inputs, np.ndarray) else self._words.embed(inputs)[0]
        powers = np.exp(10 * (given @ self._directions.T))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


class WordExtractor:
    """Finds what stands after a label and a colon, to the end of its line: ``total: 3 EUR``.

    Args:
        labels: of a model that knows no others; none: it looks for any.
        score: of every entity.
        chars_max: what is longer is cut.
    """

    ref = ModelRef("entities", "words", 1, hashlib.sha256(b"words").hexdigest())

    def __init__(
        self, labels: Sequence[str] = (), score: float = 0.9, chars_max: int = 1000
    ) -> None:
        self.labels, self.score, self.chars_max = tuple(labels), score, chars_max

    def extract(
        self,
        texts: Sequence[str | None],
        labels: Sequence[str],
        *,
        threshold: float | Mapping[str, float] | None = None,
        flat: bool = True,  # noqa: ARG002  # nothing overlaps
        multi_label: bool = False,  # noqa: ARG002
    ) -> tuple[list[list[Entity]], npt.NDArray[np.bool_]]:
        """As ``Extractor.extract``."""
        for label in labels:
            if self.labels and label not in self.labels:
                why = f"{self.ref} knows no label {label!r}"
                raise Refuse("entities.labels", why, f"it knows {', '.join(self.labels)}")
        each = threshold if isinstance(threshold, Mapping) else {}
        least = threshold if isinstance(threshold, float | int) else 0.5
        wanted = [label for label in labels if self.score > each.get(label, least)]
        pattern = (
            re.compile(rf"\b({'|'.join(map(re.escape, wanted))}): *([^\n]+)") if wanted else None
        )
        found = [
            [
                Entity(match.start(2), match.end(2), match[2], match[1], self.score)
                for match in (pattern.finditer((text or "")[: self.chars_max]) if pattern else ())
            ]
            for text in texts
        ]
        return found, np.array([len(text or "") > self.chars_max for text in texts], np.bool_)


class HashModels:
    """A ``Models`` whose every embedder is a HashEmbedder.

    Args:
        dim: length of its vectors.
        sessions: what ``session`` gives, by name.
        classifiers: what ``classifier`` gives, by name.
        routes: what ``router`` gives, by name, over those.
        extractors: what ``extractor`` gives, by name.
        chats: what ``chat`` gives, by name.
    """

    def __init__(
        self,
        dim: int = 16,
        sessions: Mapping[str, Session] | None = None,
        classifiers: Mapping[str, Classifier] | None = None,
        extractors: Mapping[str, Extractor] | None = None,
        chats: Mapping[str, Chat] | None = None,
        routes: Mapping[str, RouteSpec] | None = None,
    ) -> None:
        self._routes = dict(routes or {})
        self._embedder = HashEmbedder(dim)
        self._sessions = dict(sessions or {})
        self._classifiers = dict(classifiers or {})
        self._extractors = dict(extractors or {})
        self._chats = dict(chats or {})

    def embedder(self, name: str | None = None) -> HashEmbedder:  # noqa: ARG002  # any will do
        """The one embedder there is."""
        return self._embedder

    def embedding_dim(self, name: str | None = None) -> int:  # noqa: ARG002  # any will do
        """Length of its vectors."""
        return self._embedder.dim

    def router(self, name: str) -> Router:
        """The route of this name, or one of a classifier alone."""
        spec = self._routes.get(name)
        if spec is None:
            task: Any = "head" if self.classifier(name).embedder else "classify"
            spec = RouteSpec(task=task, models=[name])
        known = self._extractors if spec.task == "entities" else self._classifiers
        return Router(name, Given(spec, known))

    def session(self, name: str) -> Session:
        """The session that was given under this name."""
        if name not in self._sessions:
            raise Refuse("models.unknown", f"no session is called {name!r}", "give it to sessions")
        return self._sessions[name]

    def classifier(self, name: str | None = None) -> Classifier:
        """The classifier that was given under this name; without a name the first."""
        found = self._classifiers.get(name or next(iter(self._classifiers), ""))
        if found is None:
            why = f"no classifier is called {name!r}"
            raise Refuse("models.unknown", why, "give it to classifiers")
        return found

    def labels(self, name: str | None = None) -> tuple[str, ...]:
        """Those of that classifier."""
        return self.classifier(name).labels

    def extractor(self, name: str | None = None) -> Extractor:
        """The extractor that was given under this name; without a name the first."""
        found = self._extractors.get(name or next(iter(self._extractors), ""))
        if found is None:
            raise Refuse(
                "models.unknown", f"no extractor is called {name!r}", "give it to extractors"
            )
        return found

    def chat(self, name: str | None = None) -> Chat:
        """The language model that was given under this name; without a name the first."""
        found = self._chats.get(name or next(iter(self._chats), ""))
        if found is None:
            raise Refuse("models.unknown", f"no chat is called {name!r}", "give it to chats")
        return found
