"""What is proven of a model beside the sha256 of its files: that it is what its manifest says."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.core.model import ModelRef
from streamapp.models.embedders import open_embedder, proven_invariance
from streamapp.models.entities import open_extractor, prove_extractor
from streamapp.models.manifest import (
    OF_FILES,
    REMOTE,
    ChatManifest,
    ClassifyManifest,
    EmbedManifest,
    EntitiesManifest,
    HeadManifest,
    Manifest,
    TensorManifest,
)
from streamapp.models.opening import Opening, check_requires, open_session
from streamapp.models.receipt import Receipt
from streamapp.models.session import DTYPES, Array, Session, Tensor
from streamapp.models.vocabulary import prove_vocabulary


def prove(
    manifest: Manifest, folder: Path, ref: ModelRef, receipt: Receipt, how: Opening
) -> Receipt:
    """The receipt with what was measured.

    A model that is a session of files is opened, its signature is held against the manifest's and
    its example is run; an embedder's vectors are compared alone and in a batch.  Of other models
    see ``prove_opening``.

    Raises:
        Refuse: a file cannot be loaded, or does not do what the manifest says.
    """
    if manifest.format not in OF_FILES:
        if manifest.format not in REMOTE:
            prove_opening(manifest, folder, ref, how)
        return receipt
    with closing(open_session(manifest, folder, ref, how)) as session:
        prove_vocabulary(manifest, folder)
        _hold(manifest, folder, session)
        if isinstance(manifest, EntitiesManifest):
            prove_extractor(manifest, folder, session)
        if isinstance(manifest, ClassifyManifest):
            from streamapp.models.classifier import prove_classifier  # needs tokenizers

            prove_classifier(manifest, folder, session)
    if not isinstance(manifest, EmbedManifest):
        return receipt
    embedder = open_embedder(manifest, folder, ref, how.threads)
    cosine = proven_invariance(manifest, embedder)
    return msgspec.structs.replace(receipt, cosine_min=cosine)


def prove_opening(manifest: Manifest, folder: Path, ref: ModelRef, how: Opening) -> str:
    """Open a model that is no session of files as its task wants it; "", or why that is not proof.

    Raises:
        Refuse: it does not do what the manifest says.
    """
    try:
        check_requires(manifest)
    except Refuse as error:
        return error.message
    if isinstance(manifest, ChatManifest):
        return "a language model is proven by its answer: streamapp ask try"
    if manifest.format == "spacy":
        return _loaded(manifest, folder, ref)
    try:
        with closing(open_session(manifest, folder, ref, how)) as session:
            _hold(manifest, folder, session)
    except Retry as error:
        return error.message
    return ""


def _loaded(manifest: Manifest, folder: Path, ref: ModelRef) -> str:
    from streamapp.models.entities.spacy import SpacyExtractor

    assert isinstance(manifest, EntitiesManifest)  # noqa: S101  # spaCy serves no other task
    try:
        SpacyExtractor(ref, manifest, folder)
    except Refuse as error:
        if error.code != "models.requires":
            raise
        return error.message
    return ""


def _hold(manifest: Manifest, folder: Path, session: Session) -> None:
    """Run the example where the model is here, and make of the session what its task wants."""
    if manifest.format not in REMOTE and (feeds := example_of(manifest, session.inputs)):
        _run(manifest, session, feeds)
    if isinstance(manifest, HeadManifest | ClassifyManifest):
        from streamapp.models.classifier import open_classifier  # needs tokenizers

        open_classifier(session, manifest, folder)
    if manifest.format in OF_FILES:
        return  # the rest is measured
    if isinstance(manifest, EmbedManifest):
        from streamapp.models.session_embedder import SessionEmbedder

        SessionEmbedder(session, manifest)
    if isinstance(manifest, EntitiesManifest):
        open_extractor(manifest, folder, session.ref, lambda: session)


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
