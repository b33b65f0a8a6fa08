"""The first calls of a model allocate and tune: they are made before anybody waits for one."""

from typing import Any

import numpy as np

from streamapp.models.manifest import Manifest
from streamapp.models.sample import TEXTS
from streamapp.models.session import DTYPES, Session


def warm(kind: str, model: Any) -> None:
    """Call what a stage will call: ``kind`` is what the registry calls it."""
    texts = list(TEXTS)
    if kind == "embedder":
        model.embed(texts)
    elif kind == "classifier" and not model.embedder:
        model.classify(texts)
    elif kind == "extractor":
        model.extract(texts[:4], model.labels or ("name",))


def warm_session(session: Session, manifest: Manifest) -> bool:
    """Run the manifest's example once; False when there is none.

    Raises:
        StreamappError: the model cannot run on its own example.
    """
    example = example_feeds(session, manifest)
    if not example:
        return False
    session.run(example)
    return True


def example_feeds(session: Session, manifest: Manifest) -> dict[str, Any]:
    """The manifest's example as feeds; empty when it does not name every input."""
    given = manifest.example
    if not all(tensor.name in given for tensor in session.inputs):
        return {}
    return {
        tensor.name: np.array(given[tensor.name], DTYPES[tensor.dtype]) for tensor in session.inputs
    }
