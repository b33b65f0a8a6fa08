"""Manifests of task ``embed``, and a user's own encoder, to embedders; what a pull tests."""

from pathlib import Path
from typing import TYPE_CHECKING

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.manifest import EmbedManifest
from streamapp.models.opening import Opening, open_session
from streamapp.models.receipt import sha256_of
from streamapp.models.sample import TEXTS
from streamapp.models.tuned import Backend, as_declared, open_file, read_tuned

if TYPE_CHECKING:  # processes that only ask for columns do without onnxruntime
    from streamapp.models.embedder import OnnxEmbedder
    from streamapp.models.hybrid import HybridEmbedder

#: Below this cosine between alone and in a batch a model is not batch invariant.
COSINE_MIN = 0.99999


def open_embedder(
    manifest: EmbedManifest, folder: Path, ref: ModelRef, threads: int
) -> "OnnxEmbedder | HybridEmbedder":
    """The embedder of a manifest whose files are in ``folder``, verified.

    Raises:
        Refuse: a file cannot be loaded, is no encoder, or gives vectors of another length.
    """
    if manifest.sparse:
        from streamapp.models.hybrid import HybridEmbedder

        session = open_session(manifest, folder, ref, Opening(threads))
        return HybridEmbedder(session, manifest, folder)
    from streamapp.models.embedder import Call, OnnxEmbedder

    backend: Backend = "openvino" if manifest.format == "openvino" else "onnxruntime"
    # A call on one thread, and as many at once as there are threads: see ``embedder``.
    tuned = read_tuned(folder, ref) or as_declared(ref, backend, 1, threads, manifest.batch_texts)
    call = Call(
        pooling=manifest.pooling,
        prefixes=manifest.prefixes,
        tokens_max=manifest.tokens_max,
        batch_texts=tuned.batch if manifest.batch_invariant else 1,
        batch_tokens_max=manifest.batch_tokens_max,
        callers=min(tuned.calls, threads),
        output=manifest.output,
    )
    session = open_file(ref, folder / manifest.model, tuned)
    embedder = OnnxEmbedder(session, folder / manifest.tokenizer, call)
    if embedder.dim != manifest.dim:
        raise Refuse(
            "models.dim",
            f"{manifest.full_name} gives {embedder.dim} numbers, not {manifest.dim}",
            "correct dim in the manifest",
        )
    return embedder


def open_own(model: Path, tokenizer: Path, threads: int) -> "OnnxEmbedder":
    """The user's own model; nobody vouches for its batch invariance, so it is tested here."""
    from streamapp.models.embedder import Call, OnnxEmbedder

    ref = ModelRef("embed", model.stem, 0, sha256_of(model))
    session = open_file(ref, model, as_declared(ref, "onnxruntime", 1, threads, 16))
    embedder = OnnxEmbedder(session, tokenizer, Call(pooling="graph", callers=threads))
    if embedder.measure_invariance(TEXTS) < COSINE_MIN:
        embedder.embed_alone()
    return embedder


def proven_invariance(manifest: EmbedManifest, embedder: "OnnxEmbedder | HybridEmbedder") -> float:
    """The measured invariance.

    Raises:
        Refuse: less was measured than the manifest promises.
    """
    cosine = embedder.measure_invariance(TEXTS)
    if manifest.batch_invariant and cosine < COSINE_MIN:
        raise Refuse(
            "models.batch_invariance",
            f"{manifest.full_name}: a text's vector depends on its batch (cosine {cosine:.5f}, "
            f"{COSINE_MIN} is needed)",
            "set batch_invariant = false in the manifest; it then runs text by text",
        )
    return cosine


def own_files(model: Path | None, tokenizer: Path | None) -> tuple[Path, Path] | None:
    """The files of a user's own encoder; None when none is set.

    Raises:
        Refuse: one is missing.
    """
    if model is None:
        if tokenizer is not None:
            raise Refuse(
                "models.own", "tokenizer_model is set without embedding_model", "give both"
            )
        return None
    tokenizer = tokenizer or model.with_name("tokenizer.json")
    for path, name in ((model, "embedding_model"), (tokenizer, "tokenizer_model")):
        if not path.is_file():
            raise Refuse("models.own", f"{name}: no file {path}", "check the path")
    return model, tokenizer
