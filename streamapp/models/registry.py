"""The registry: names to opened models.  Each model is verified and opened once and then shared."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.manifest import Manifest, find_manifest, read_manifests, read_routes
from streamapp.models.pull import (
    Progress,
    Receipt,
    is_current,
    pull_files,
    quiet,
    read_receipt,
    sha256_of,
    verify,
    write_receipt,
)
from streamapp.models.sample import TEXTS

if TYPE_CHECKING:  # processes that only ask for columns do without onnxruntime
    from streamapp.models.embedder import OnnxEmbedder

#: Below this cosine between alone and in a batch a model is not batch invariant.
COSINE_MIN = 0.99999


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What is known of a model without opening it.  ``cosine_min``: see ``pull.Receipt``."""

    name: str
    pulled: bool
    default: bool
    bytes: int
    folder: Path
    cosine_min: float | None


class Registry:
    """Models by name; what stages get as ``Models``.

    Args:
        models_dir: folder of manifests and ``routes.toml``, or several of which the first that
            knows a name wins.
        cache: where pulled files are kept.
        threads: threads of one inference; None or 0: one per core this process may use.
        embedding_model: an ONNX encoder of the user's own; it becomes the default embedder.
        tokenizer_model: its ``tokenizer.json``; default: the file of that name beside it.

    Raises:
        Refuse: a manifest or ``routes.toml`` is wrong.
    """

    def __init__(
        self,
        models_dir: Path | Sequence[Path],
        cache: Path,
        threads: int | None = None,
        embedding_model: Path | None = None,
        tokenizer_model: Path | None = None,
    ) -> None:
        folders = [models_dir] if isinstance(models_dir, Path) else list(models_dir)
        self._manifests = read_manifests(folders)
        self._routes = read_routes(folders)
        self._cache = cache
        self._threads = threads or len(os.sched_getaffinity(0))
        self._own = _own_files(embedding_model, tokenizer_model)
        self._open: dict[str, OnnxEmbedder] = {}

    def list(self) -> list[Manifest]:
        """Every manifest, by name."""
        return [self._manifests[name] for name in sorted(self._manifests)]

    def manifest(self, name: str | None = None) -> Manifest:
        """The manifest of a name, an alias, or the default embedder.

        Raises:
            Refuse: no such model, or no default is routed.
        """
        name = name or self._routes.defaults.get("embed")
        if name is None:
            raise Refuse(
                "models.route", "routes.toml has no default for embed", "set [defaults] embed"
            )
        return find_manifest(name, self._manifests, self._routes)

    def folder(self, name: str | None = None) -> Path:
        """Where a model's files are kept."""
        manifest = self.manifest(name)
        return self._cache / "models" / manifest.task / manifest.name / str(manifest.version)

    def status(self, name: str | None = None) -> ModelStatus:
        """What is known of a model; does not hash its files."""
        manifest, folder = self.manifest(name), self.folder(name)
        receipt = read_receipt(folder)
        current = receipt is not None and is_current(manifest, receipt)
        files = [folder / file for file in receipt.files] if receipt else []
        there = [file.stat().st_size for file in files if file.is_file()]
        return ModelStatus(
            name=manifest.full_name,
            pulled=current and len(there) == len(files),
            default=manifest is self.manifest() if "embed" in self._routes.defaults else False,
            bytes=sum(there),
            folder=folder,
            cosine_min=receipt.cosine_min if receipt else None,
        )

    def pull(self, name: str | None = None, progress: Progress = quiet) -> ModelStatus:
        """Fetch, verify, build and test a model; does nothing when that was done before.

        Raises:
            Retry: no source answers.
            Refuse: wrong sha256, or the model is not batch invariant though its manifest says so.
        """
        manifest, folder = self.manifest(name), self.folder(name)
        receipt = pull_files(manifest, folder, progress)
        if receipt.cosine_min is None:
            cosine = _test(manifest, self._start(manifest, folder, receipt))
            write_receipt(folder, msgspec.structs.replace(receipt, cosine_min=cosine))
        return self.status(name)

    def embedder(self, name: str | None = None) -> "OnnxEmbedder":
        """The embedder of a name, or the default one; verified, opened once, shared.

        Raises:
            Refuse: unknown, not pulled, or a file is not what was pulled.
        """
        if name is None and self._own:
            return self._opened_own(*self._own)
        manifest, folder = self.manifest(name), self.folder(name)
        if manifest.full_name not in self._open:
            receipt = verify(manifest, folder)
            self._open[manifest.full_name] = self._start(manifest, folder, receipt)
        return self._open[manifest.full_name]

    def embedding_dim(self, name: str | None = None) -> int:
        """How many numbers a vector has; reads no weights but a user's own model's."""
        if name is None and self._own:
            return self._opened_own(*self._own).dim
        return self.manifest(name).dim

    def _start(self, manifest: Manifest, folder: Path, receipt: Receipt) -> "OnnxEmbedder":
        from streamapp.models.embedder import Call, OnnxEmbedder

        digest = receipt.files[manifest.model]
        ref = ModelRef(manifest.task, manifest.name, manifest.version, digest)
        call = Call(
            pooling=manifest.pooling,
            prefixes=manifest.prefixes,
            tokens_max=manifest.tokens_max,
            batch_texts=manifest.batch_texts if manifest.batch_invariant else 1,
            batch_tokens_max=manifest.batch_tokens_max,
        )
        files = folder / manifest.model, folder / manifest.tokenizer
        embedder = OnnxEmbedder(ref, *files, call, self._threads)
        if embedder.dim != manifest.dim:
            raise Refuse(
                "models.dim",
                f"{manifest.full_name} gives {embedder.dim} numbers, not {manifest.dim}",
                "correct dim in the manifest",
            )
        return embedder

    def _opened_own(self, model: Path, tokenizer: Path) -> "OnnxEmbedder":
        """The user's own model; nobody vouches for its batch invariance, so it is tested here."""
        from streamapp.models.embedder import Call, OnnxEmbedder

        if str(model) not in self._open:
            ref = ModelRef("embed", model.stem, 0, sha256_of(model))
            embedder = OnnxEmbedder(ref, model, tokenizer, Call(pooling="graph"), self._threads)
            if embedder.measure_invariance(TEXTS) < COSINE_MIN:
                embedder.embed_alone()
            self._open[str(model)] = embedder
        return self._open[str(model)]


def _test(manifest: Manifest, embedder: "OnnxEmbedder") -> float:
    """The measured invariance; Refuse when less was measured than is promised."""
    cosine = embedder.measure_invariance(TEXTS)
    if manifest.batch_invariant and cosine < COSINE_MIN:
        raise Refuse(
            "models.batch_invariance",
            f"{manifest.full_name}: a text's vector depends on its batch (cosine {cosine:.5f}, "
            f"{COSINE_MIN} is needed)",
            "set batch_invariant = false in the manifest; it then runs text by text",
        )
    return cosine


def _own_files(model: Path | None, tokenizer: Path | None) -> tuple[Path, Path] | None:
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
