"""What a pull proves of files whose sha256 is right: that they are what the manifest says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streamapp.core.errors import Refuse, Reject
from streamapp.core.model import ModelRef
from streamapp.models.embedders import open_embedder, proven_invariance
from streamapp.models.entities import prove_extractor
from streamapp.models.manifest import (
    ClassifyManifest,
    EmbedManifest,
    EntitiesManifest,
    Manifest,
    TensorManifest,
)
from streamapp.models.opening import Opening, open_session
from streamapp.models.receipt import Receipt
from streamapp.models.session import DTYPES, Array, Session, Tensor

#: Formats that are opened as a session of files.
_SESSIONS = ("onnx", "openvino")


def prove(
    manifest: Manifest, folder: Path, ref: ModelRef, receipt: Receipt, how: Opening
) -> Receipt:
    """The receipt with what was measured.

    A model that is a session is opened, its signature is held against the manifest's and its
    example is run; an embedder's vectors are compared alone and in a batch.

    Raises:
        Refuse: a file cannot be loaded, or does not do what the manifest says.
    """
    if manifest.format not in _SESSIONS:
        return receipt
    session = open_session(manifest, folder, ref, how)
    try:
        if feeds := example_of(manifest, session.inputs):
            _run(manifest, session, feeds)
        if isinstance(manifest, EntitiesManifest):
            prove_extractor(manifest, folder, session)
        if isinstance(manifest, ClassifyManifest):
            from streamapp.models.classifier import prove_classifier  # needs tokenizers

            prove_classifier(manifest, folder, session)
    finally:
        session.close()
    if not isinstance(manifest, EmbedManifest):
        return receipt
    embedder = open_embedder(manifest, folder, ref, how.threads)
    cosine = proven_invariance(manifest, embedder)
    return msgspec.structs.replace(receipt, cosine_min=cosine)


def example_of(manifest: Manifest, inputs: tuple[Tensor, ...]) -> dict[str, Array]:
    """The manifest's example as feeds; empty when there is none for these inputs.

    Raises:
        Refuse: it is no array of the input's type.
    """
    declared = {tensor.name: tensor for tensor in inputs}
    if set(manifest.example) != set(declared):
        if isinstance(manifest, TensorManifest) and manifest.example:
            raise Refuse(
                "models.example",
                f"{manifest.full_name} takes {', '.join(declared)}, "
                f"its example has {', '.join(manifest.example)}",
                "correct [example] in the manifest",
            )
        return {}
    return {
        name: _array(manifest, declared[name], value) for name, value in manifest.example.items()
    }


def _array(manifest: Manifest, tensor: Tensor, value: Any) -> Array:
    try:
        with np.errstate(over="raise"):
            return np.asarray(value, DTYPES[tensor.dtype])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise Refuse(
            "models.example",
            f"{manifest.full_name}: example {tensor.name} is no {tensor}: {error}",
            "correct [example] in the manifest",
        ) from None


def _run(manifest: Manifest, session: Session, feeds: Mapping[str, Array]) -> None:
    try:
        session.run(feeds)
    except Reject as error:
        raise Refuse(
            "models.example",
            f"{manifest.full_name} does not run on its own example: {error.message}",
            "correct [example] or the signature in the manifest",
        ) from None
