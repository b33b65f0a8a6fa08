"""The registry: names to opened models.  Each model is verified and opened once and then shared."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.catalogue import Catalogue
from streamapp.models.embedders import open_embedder, open_own, own_files
from streamapp.models.manifest import (
    OF_FILES,
    ChatManifest,
    ClassifyManifest,
    EmbedManifest,
    EntitiesManifest,
    HeadManifest,
    Kind,
    Manifest,
    task_of,
)
from streamapp.models.opening import Opening, Secret, check_remote, no_secrets, open_session
from streamapp.models.proving import prove, prove_opening
from streamapp.models.pull import ANYWHERE, Progress, pull_files, quiet
from streamapp.models.receipt import Receipt, read_receipt, sha256_of_manifest, verify
from streamapp.models.session import Session
from streamapp.models.source import Places
from streamapp.models.status import ModelStatus, status_of
from streamapp.models.tuned import Tuned, read_tuned

if TYPE_CHECKING:  # processes that only ask for columns do without onnxruntime
    from streamapp.models.classifier import HeadClassifier, TextClassifier
    from streamapp.models.embedder import OnnxEmbedder
    from streamapp.models.entities.gliner import GlinerExtractor
    from streamapp.models.entities.spacy import SpacyExtractor
    from streamapp.models.hybrid import HybridEmbedder
    from streamapp.models.llm import Chat
    from streamapp.models.routing.router import Router
    from streamapp.models.session_embedder import SessionEmbedder

_log = logging.getLogger("streamapp.models")


class Registry:
    """Models by name; what stages get as ``Models``.

    Args:
        models_dir: folder of manifests and ``routes.toml``, or several of which the first that
            knows a name wins.
        cache: where pulled files are kept.
        threads: threads of one inference; None or 0: one per core this process may use.
        embedding_model: an ONNX encoder of the user's own; it becomes the default embedder.
        tokenizer_model: its ``tokenizer.json``; default: the file of that name beside it.
        secret: gives what a remote model's ``env:NAME`` and ``file:PATH`` hold.
        places: the servers that ``hf:`` and ``mlflow:`` mean.

    Raises:
        Refuse: a folder does not exist.  A manifest, an alias or a route that is wrong is refused
            when it is asked for.
    """

    def __init__(
        self,
        models_dir: Path | Sequence[Path],
        cache: Path,
        threads: int | None = None,
        embedding_model: Path | None = None,
        tokenizer_model: Path | None = None,
        secret: Secret = no_secrets,
        places: Places = ANYWHERE,
    ) -> None:
        folders = [models_dir] if isinstance(models_dir, Path) else list(models_dir)
        self._cache = cache
        self._secret, self._places = secret, places
        self.catalogue = Catalogue.read(folders, self._check)
        self.threads = threads or len(os.sched_getaffinity(0))
        self._own = own_files(embedding_model, tokenizer_model)
        self._open: dict[str, OnnxEmbedder | HybridEmbedder | SessionEmbedder] = {}
        self._sessions: dict[str, Session] = {}
        self._classifiers: dict[str, HeadClassifier | TextClassifier] = {}
        self._extractors: dict[str, GlinerExtractor | SpacyExtractor] = {}
        self._chats: dict[str, Chat] = {}
        self._stamps = self.catalogue.stamps()
        self._opening = Lock()

    def beside(self, folder: Path) -> "Registry":
        """A registry of another folder's manifests alone, with this one's cache and places."""
        return Registry(folder, self._cache, self.threads, secret=self._secret, places=self._places)

    def list(self) -> list[Manifest]:
        """Every manifest, by name."""
        return [manifest for _, manifest in sorted(self.catalogue.manifests.items())]

    def manifest(self, name: str | None = None, task: str | None = None) -> Manifest:
        """The manifest of a name of any kind (see ``catalogue``), or the default of a task.

        Args:
            name: None for the default of ``task``, ``embed`` when that is None too.
            task: what the model must be for; any when None.

        Raises:
            Refuse: no such model, one for another task, or no default is routed.
        """
        manifest = self.catalogue.find(name or self.catalogue.default(task or "embed"))
        if task not in (None, manifest.task):
            raise Refuse(
                "models.task",
                f"{manifest.full_name} is a model for {manifest.task}, not for {task}",
                f"name one of `streamapp models list --task {task}`",
            )
        return manifest

    def manifest_of(self, kind: type[Kind], name: str | None = None) -> Kind:
        """The manifest of a name, or of the default, of one kind.

        Raises:
            Refuse: as ``manifest``.
        """
        manifest = self.manifest(name, task_of(kind))
        assert isinstance(manifest, kind)  # noqa: S101  # a kind is a task
        return manifest

    def refresh(self) -> bool:
        """Read manifests, aliases and routes again if one of the latter two changed.

        Opened models stay open, and what cannot be read any more stays as it was.  True when
        something changed.

        Raises:
            Refuse: a folder does not exist any more; all that was read before stays.
        """
        stamps = self.catalogue.stamps()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        found = self.catalogue.again()
        for one in found.keep(self.catalogue):
            _log.warning("it stays as it was: %s", one)
        self.catalogue = found
        return True

    def warn(self) -> None:
        """Log what is declared wrongly."""
        for one in self.catalogue.broken.values():
            _log.warning("%s", one)

    def folder(self, name: str | None = None) -> Path:
        """Where a model's files are kept."""
        return self._folder_of(self.manifest(name))

    def files(self, name: str | None = None) -> Path:
        """Where a model's files are, each hashed again.

        Raises:
            Refuse: unknown, not pulled, or a file is not what was pulled.
        """
        manifest = self.manifest(name)
        folder = self._folder_of(manifest)
        verify(manifest, folder)
        return folder

    def verify(self, name: str) -> str:
        """Hash a model's files again, and open it where nothing of it was opened by a pull.

        Gives "", or why it is not proven here: its server is away, or a package is missing.

        Raises:
            Refuse: as ``files``; or it does not do what its manifest says.
        """
        manifest = self.manifest(name)
        folder = self._folder_of(manifest)
        receipt = verify(manifest, folder)
        if manifest.format in OF_FILES:
            return ""
        ref = self.ref(manifest, receipt)
        return prove_opening(manifest, folder, ref, Opening(self.threads, self._secret))

    def away(self) -> dict[str, str]:
        """As ``reach.away``, of all models."""
        from streamapp.models.reach import away

        return away(self.list(), self._secret)

    def session(self, name: str) -> Session:
        """The session of a name; verified, opened once, shared.

        Raises:
            Refuse: unknown, not pulled, a file is not what was pulled, or its inputs and outputs
                are not those of the manifest.
            Retry: its server is away.
        """
        manifest = self.manifest(name)
        with self._opening:
            if manifest.full_name not in self._sessions:
                self._sessions[manifest.full_name] = self._opened(manifest)
            return self._sessions[manifest.full_name]

    def open(self, name: str) -> Session:
        """A session of one's own, to be closed by who asked; else as ``session``."""
        return self._opened(self.manifest(name))

    def size(self, name: str) -> int:
        """Bytes of a model's files, which is about what it takes when it is open."""
        return self.status(name).bytes

    def tuned(self, name: str) -> Tuned | None:
        """What ``models tune`` found for a model's files; they are not hashed."""
        manifest = self.manifest(name)
        folder = self._folder_of(manifest)
        receipt = read_receipt(folder)
        return read_tuned(folder, self.ref(manifest, receipt)) if receipt else None

    def classifier(self, name: str | None = None) -> "HeadClassifier | TextClassifier":
        """The classifier of a name, or the default of ``classify``; opened once, shared.

        Raises:
            Refuse: as ``session``; or the model gives no labels.
        """
        from streamapp.models.classifier import open_classifier

        manifest = self.manifest(name, None if name else "classify")
        known = self._classifiers.get(manifest.full_name)
        if known is None:
            folder = self._folder_of(manifest)
            known = open_classifier(self.session(manifest.full_name), manifest, folder)
            self._classifiers[manifest.full_name] = known
        return known

    def labels(self, name: str | None = None) -> tuple[str, ...]:
        """The labels of that classifier; nothing is opened.

        Raises:
            Refuse: as ``manifest``; or the model gives no labels.
        """
        manifest = self.manifest(name, None if name else "classify")
        if isinstance(manifest, HeadManifest | ClassifyManifest):
            return tuple(manifest.labels)
        raise Refuse(
            "models.task",
            f"{manifest.full_name} is a model for {manifest.task}, which gives no labels",
            "name one for head or classify",
        )

    def extractor(self, name: str | None = None) -> "GlinerExtractor | SpacyExtractor":
        """The extractor of a name, or the default of ``entities``; opened once, shared.

        Raises:
            Refuse: as ``session``; or the files beside the model do not fit its manifest.
        """
        from streamapp.models.entities import open_extractor

        manifest = self.manifest_of(EntitiesManifest, name)
        known = self._extractors.get(manifest.full_name)
        if known is None:
            folder = self._folder_of(manifest)
            ref = self.ref(manifest, verify(manifest, folder))
            known = open_extractor(manifest, folder, ref, lambda: self.session(manifest.full_name))
            self._extractors[manifest.full_name] = known
        return known

    def chat(self, name: str | None = None) -> "Chat":
        """The language model of a name, or the default of ``chat``; opened once, shared.

        Raises:
            Refuse: as ``manifest``; or it names no server.
        """
        from streamapp.models.llm.declared import open_chat

        manifest = self.manifest_of(ChatManifest, name)
        with self._opening:
            if manifest.full_name not in self._chats:
                self._chats[manifest.full_name] = open_chat(manifest, self._secret)
            return self._chats[manifest.full_name]

    def router(self, name: str) -> "Router":
        """The router of a route of routes.toml, or of a model, which is then a route alone.

        Raises:
            Refuse: neither, or it contradicts itself.
        """
        from streamapp.models.routing.registered import router_of

        return router_of(self, name)

    def ref(self, manifest: Manifest, receipt: Receipt) -> ModelRef:
        """Who a model is: its main file's sha256, or that of the manifest where it has none."""
        digest = receipt.files.get(manifest.model) or sha256_of_manifest(manifest)
        return ModelRef(manifest.task, manifest.name, manifest.version, digest)

    def ref_of(self, name: str) -> ModelRef:
        """Who a pulled model is.

        Raises:
            Refuse: unknown, not pulled, or a file is not what was pulled.
        """
        manifest = self.manifest(name)
        return self.ref(manifest, verify(manifest, self._folder_of(manifest)))

    def forget(self, full_name: str) -> None:
        """Let a model go: who still has it keeps it, who asks for it next opens it anew."""
        with self._opening:
            for opened in (self._open, self._sessions, self._classifiers, self._extractors):
                opened.pop(full_name, None)

    def close(self) -> None:
        """Close every session."""
        with self._opening:
            for session in self._sessions.values():
                session.close()
            for chat in self._chats.values():
                chat.close()
            self._chats.clear()
            self._sessions.clear()
            self._classifiers.clear()
            self._extractors.clear()

    def kept(self, full_name: str) -> Path:
        """Where a version's files are kept; its manifest may be broken."""
        path, _, version = full_name.partition("@")
        return self._cache / "models" / path / version

    def _folder_of(self, manifest: Manifest) -> Path:
        return self.kept(manifest.full_name)

    def _check(self, manifest: Manifest) -> None:
        check_remote(manifest, self._secret)

    def _opened(self, manifest: Manifest) -> Session:
        folder = self._folder_of(manifest)
        ref = self.ref(manifest, verify(manifest, folder))
        return open_session(manifest, folder, ref, Opening(self.threads, self._secret))

    def status(self, name: str | None = None) -> ModelStatus:
        """What is known of a model; does not hash its files."""
        manifest = self.manifest(name)
        return status_of(self.catalogue, manifest, self._folder_of(manifest))

    def pull(self, name: str | None = None, progress: Progress = quiet) -> ModelStatus:
        """Fetch, verify, build and test a model; does nothing when that was done before.

        A function is opened; a server is not asked, see ``verify``.

        Raises:
            Retry: no source answers.
            Refuse: wrong sha256, or the files do not do what the manifest says; nothing is left
                under their names then.
        """
        manifest = self.manifest(name)
        folder = self._folder_of(manifest)
        how = Opening(self.threads, self._secret)

        def proven(files: Path, receipt: Receipt) -> Receipt:
            return prove(manifest, files, self.ref(manifest, receipt), receipt, how)

        receipt = pull_files(manifest, folder, progress, self._places, proven)
        if not manifest.files:
            proven(folder, receipt)
        return self.status(manifest.full_name)

    def embedder(
        self, name: str | None = None
    ) -> "OnnxEmbedder | HybridEmbedder | SessionEmbedder":
        """The embedder of a name, or the default one; verified, opened once, shared.

        Raises:
            Refuse: unknown, not pulled, or a file is not what was pulled.
        """
        if name is None and self._own:
            return self._opened_own(*self._own)
        manifest = self.manifest_of(EmbedManifest, name)
        if manifest.full_name not in self._open:
            self._open[manifest.full_name] = self._embedder_of(manifest)
        return self._open[manifest.full_name]

    def embedding_dim(self, name: str | None = None) -> int:
        """How many numbers a vector has; reads no weights but a user's own model's."""
        if name is None and self._own:
            return self._opened_own(*self._own).dim
        return self.manifest_of(EmbedManifest, name).dim

    def _embedder_of(
        self, manifest: EmbedManifest
    ) -> "OnnxEmbedder | HybridEmbedder | SessionEmbedder":
        if manifest.format not in OF_FILES:
            from streamapp.models.session_embedder import SessionEmbedder

            return SessionEmbedder(self.session(manifest.full_name), manifest)
        folder = self._folder_of(manifest)
        ref = self.ref(manifest, verify(manifest, folder))
        return open_embedder(manifest, folder, ref, self.threads)

    def _opened_own(
        self, model: Path, tokenizer: Path
    ) -> "OnnxEmbedder | HybridEmbedder | SessionEmbedder":
        if str(model) not in self._open:
            self._open[str(model)] = open_own(model, tokenizer, self.threads)
        return self._open[str(model)]
