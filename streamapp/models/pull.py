"""Pull: fetch what a manifest names, build what is run, prove all of it, and remember that.

Everything is put together in a folder of its own beside the files, ``.pull``, and moved to its
name when all of it is proven, so a model is there as a whole or not at all.  A pull that was cut
off goes on with what it finds in that folder; a second pull does nothing.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from streamapp.core.errors import Refuse, Retry
from streamapp.models import builders
from streamapp.models.manifest import FileSpec, Manifest
from streamapp.models.receipt import (
    NOTHING,
    Receipt,
    are_proven,
    is_current,
    read_receipt,
    sha256_of,
    write_receipt,
    wrong_sha256,
)
from streamapp.models.source import Places, SourceError, check_source, fetch

#: Called with file name, bytes done, bytes in all.
Progress = Callable[[str, int, int], None]
#: Holds a folder with all files under their names against the manifest; gives what it measured.
Prove = Callable[[Path, Receipt], Receipt]

_log = logging.getLogger("streamapp.models")

LOCK_S_MAX = 3600
STAGE = ".pull"
ANYWHERE = Places()


def quiet(_name: str, _done: int, _total: int) -> None:
    """Progress for nobody."""


def unproven(_folder: Path, receipt: Receipt) -> Receipt:
    """For models of which only the sha256 is known."""
    return receipt


def pull_files(
    manifest: Manifest,
    folder: Path,
    progress: Progress = quiet,
    places: Places = ANYWHERE,
    prove: Prove = unproven,
) -> Receipt:
    """Make the folder hold every file that is run, proven; returns its receipt.

    Raises:
        Retry: no source answered, or another process holds the folder for too long.
        Refuse: what a source gave has not the declared sha256 and no other has it, a build failed
            or ``prove`` refuses what is there, or the folder cannot be written.
    """
    for file in manifest.files:
        for source in file.sources:
            check_source(source)
    if not manifest.files:
        return NOTHING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            return _Pull(manifest, folder, progress, places).run(prove)
    except OSError as error:
        raise Refuse(
            "models.cache",
            f"cannot write to {folder}: {error.strerror or error}",
            "make room or make it writable, or name another with STREAMAPP_MODELS_CACHE",
        ) from error


class _Pull:
    """One pull; its process holds the folder's lock."""

    def __init__(
        self, manifest: Manifest, folder: Path, progress: Progress, places: Places
    ) -> None:
        self._manifest, self._folder = manifest, folder
        self._progress, self._places = progress, places
        self._stage = folder / STAGE

    def run(self, prove: Prove) -> Receipt:
        """Do what is left to do."""
        manifest, stage = self._manifest, self._stage
        receipt = read_receipt(self._folder)
        if receipt and is_current(manifest, receipt) and are_proven(self._folder, receipt):
            return receipt
        stage.mkdir(exist_ok=True)
        for file in manifest.files:
            self._ensure(file)
        receipt = Receipt(
            sources={file.name: file.sha256 for file in manifest.files},
            builder=builders.version_of(manifest),
            files={},
        )
        if manifest.build:
            receipt = self._built(receipt)
        digests = {name: sha256_of(stage / name) for name in manifest.files_run}
        receipt = prove(stage, msgspec.structs.replace(receipt, files=digests))
        for name in manifest.files_run:
            (stage / name).replace(self._folder / name)
        write_receipt(self._folder, receipt)
        shutil.rmtree(stage)
        return receipt

    def _ensure(self, file: FileSpec) -> None:
        """Have the file in the stage with the declared sha256, from the first source that has it.

        One that is here already, put there by a person perhaps, is taken where it is.
        """
        target, here = self._stage / file.name, self._folder / file.name
        for path in (target, here):
            if path.is_file() and sha256_of(path) == file.sha256:
                self._progress(file.name, file.bytes, file.bytes)
                if path is here:
                    target.unlink(missing_ok=True)
                    os.link(here, target)
                return
        self._progress(file.name, 0, file.bytes)
        self._from_sources(target, file)

    def _from_sources(self, target: Path, file: FileSpec) -> None:
        """The file from the first source that has it; each that has not is named in the log."""
        failed: list[str] = []
        refused: Refuse | None = None
        for source in file.sources:
            if failed:
                _log.warning("%s; the next source is tried", failed[-1])
            try:
                self._fetch(source, target, file)
            except SourceError as error:
                failed.append(f"{source}: {error}")
            except Refuse as error:
                refused = refused or error
                failed.append(f"{source}: {error.message}")
            else:
                return
        if refused is not None:  # more can be done than to wait
            raise Refuse(refused.code, "; ".join(failed), refused.fix)
        here = self._folder / file.name
        raise Retry(
            "models.fetch",
            f"no source of {self._manifest.full_name} gave {file.name}: {'; '.join(failed)}",
            f"check the network and pip's index, or put the file at {here} yourself",
        )

    def _fetch(self, source: str, target: Path, file: FileSpec) -> None:
        def arrived(done: int) -> None:
            self._progress(file.name, done, file.bytes)

        fetch(source, target, file.bytes, arrived, self._places)
        if (got := sha256_of(target)) != file.sha256:
            target.unlink()
            raise wrong_sha256(file.name, file.sha256, got)

    def _built(self, receipt: Receipt) -> Receipt:
        """Build what is run; nothing of a build that failed stays."""
        manifest, build = self._manifest, self._manifest.build
        assert build is not None  # noqa: S101  # the caller looked
        self._progress(manifest.model, 0, 1)
        try:
            built = builders.build(manifest, self._stage / build.source, self._stage)
        except BaseException:
            for name in build.outputs:
                (self._stage / name).unlink(missing_ok=True)
            raise
        self._progress(manifest.model, 1, 1)
        return msgspec.structs.replace(
            receipt, difference=built.difference, rows=built.rows, built_with=built.by
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the kernel frees the lock when its holder dies."""
    with (folder / ".lock").open("w") as lock:
        for _ in range(LOCK_S_MAX * 5):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.2)
        else:
            raise Retry(
                "models.locked",
                f"another process has been pulling into {folder} for {LOCK_S_MAX} s",
                "wait for it, or end it",
            )
        yield
