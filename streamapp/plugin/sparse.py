"""SparseEmbedder: an embedder that weighs a text's tokens too."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class SparseEmbedder(Protocol):
    """What some embedders can beside ``Embedder``; ask with ``as_sparse``."""

    def embed_sparse(
        self,
        texts: Sequence[str | None],
        kind: str = "query",
        out: npt.NDArray[np.float32] | None = None,
    ) -> tuple[
        npt.NDArray[np.float32], npt.NDArray[np.bool_], Sequence[Mapping[str, float] | None]
    ]:
        """What ``Embedder.embed`` gives, and each text's tokens with their weights, above 0.

        Tokens are in the order of the text; None for a text that is None.
        """
        ...


def as_sparse(embedder: Any) -> SparseEmbedder | None:
    """The embedder, when it weighs tokens too."""
    found: SparseEmbedder | None = embedder if hasattr(embedder, "embed_sparse") else None
    return found
