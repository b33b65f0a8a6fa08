"""An Embedder on any Session that takes texts and gives vectors: on a server, or a callable."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.manifest import EmbedManifest
from streamapp.models.session import STRING, Remote, Session, unfit

#: A text is cut to this many characters per token of the model's window: who serves the model has
#: its tokenizer, and refuses what is too long.
CHARS_PER_TOKEN_MAX = 4


class SessionEmbedder:
    """Texts to unit vectors by a session with one input, string[n], and one output, float[n,dim].

    Args:
        session: opened; it is not closed here.
        manifest: prefixes, ``dim`` and the window; ``batch_texts`` is what one call takes.

    Raises:
        Refuse: the session takes or gives something else.
    """

    def __init__(self, session: Session, manifest: EmbedManifest) -> None:
        self._session, self._manifest = session, manifest
        self.dim: int = manifest.dim
        inputs, outputs = session.inputs, session.outputs
        takes_texts = len(inputs) == 1 and inputs[0].dtype == STRING and len(inputs[0].shape) == 1
        vectors = [out for out in outputs if len(out.shape) == 2 and out.dtype.startswith("float")]
        if not takes_texts or not vectors:
            raise Refuse(
                "models.signature",
                f"{manifest.full_name} takes {', '.join(map(str, inputs))} and gives "
                f"{', '.join(map(str, outputs))}",
                "serve it with one input string[n] and an output float32[n,dim]",
            )
        self._input, self._output = inputs[0].name, vectors[0].name
        if vectors[0].shape[1] not in {-1, self.dim}:
            raise Refuse(
                "models.dim",
                f"{manifest.full_name} gives {vectors[0]}, dim is {self.dim}",
                "correct dim in the manifest",
            )

    @property
    def ref(self) -> ModelRef:
        """Who it is."""
        return self._session.ref

    def embed(
        self,
        texts: Sequence[str | None],
        kind: str = "query",
        out: npt.NDArray[np.float32] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """As ``Embedder.embed``; a text is said to be truncated where it was cut here.

        Raises:
            Retry: the server is away, or gives other vectors than were asked for.
            Reject: the server says that a text is wrong.
            Halt: a callable gives other vectors.
        """
        vectors = np.empty((len(texts), self.dim), np.float32) if out is None else out
        vectors[:] = np.nan
        truncated = np.zeros(len(texts), np.bool_)
        rows = [row for row, text in enumerate(texts) if text is not None]
        step = self._manifest.batch_texts
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            given = [texts[row] or "" for row in some]
            vectors[some] = self._vectors(given, kind)
            truncated[some] = [len(text) > self._chars_max for text in given]
        return vectors, truncated

    @property
    def _chars_max(self) -> int:
        return CHARS_PER_TOKEN_MAX * self._manifest.tokens_max

    def _vectors(self, texts: Sequence[str], kind: str) -> npt.NDArray[np.float32]:
        prefix = self._manifest.prefixes.get(kind, "")
        feed = np.empty(len(texts), object)
        feed[:] = [prefix + text[: self._chars_max] for text in texts]
        found = self._session.run({self._input: feed}, [self._output])[self._output]
        if found.shape != (len(texts), self.dim):
            raise unfit(
                self._session,
                f"vectors {found.shape} for {len(texts)} texts, dim is {self.dim}",
                "correct dim in the manifest",
            )
        with np.errstate(over="ignore"):  # infinite, which is looked for
            vectors = found.astype(np.float32)
        if isinstance(self._session, Remote) and not np.isfinite(vectors).all():
            raise self._session.garbled("vectors with numbers that are none, or too large")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
