"""What a pull proved: ``built.json`` in a model's cache folder."""

import hashlib
from pathlib import Path

import msgspec

from streamapp.core.errors import Refuse
from streamapp.models import builders
from streamapp.models.manifest import Manifest
from streamapp.models.small import GARBLED, read_json

FILE = "built.json"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull proved.

    ``sources``: file to sha256 as the manifest had it; ``files``: file to sha256 of what is run;
    ``cosine_min``: smallest cosine between a text's vector alone and in a batch of 32;
    ``difference``: largest between an output of a built model and of its original, on ``rows``
    rows; ``built_with``: what built it.  None, 0 or empty where there was nothing to measure.
    """

    sources: dict[str, str]
    builder: str = ""
    files: dict[str, str]
    cosine_min: float | None = None
    difference: float | None = None
    rows: int = 0
    built_with: str = ""


#: Of a model that has no files here.
NOTHING = Receipt(sources={}, files={})


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_manifest(manifest: Manifest) -> str:
    """Hex sha256 of what a manifest says, for models that are no file of ours."""
    return hashlib.sha256(msgspec.json.encode(manifest, order="deterministic")).hexdigest()


def read_receipt(folder: Path) -> Receipt | None:
    """The receipt in a model's cache folder; None when there is none that can be read."""
    try:
        return read_json(folder / FILE, Receipt)
    except (OSError, *GARBLED):
        return None


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Put the receipt in place, at once."""
    part = folder / f".{FILE}"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(receipt)))
    part.replace(folder / FILE)


def is_current(manifest: Manifest, receipt: Receipt | None) -> bool:
    """True when the receipt was made from this manifest by this version's builder."""
    return receipt is not None and (receipt.sources, receipt.builder) == (
        {file.name: file.sha256 for file in manifest.files},
        builders.version_of(manifest),
    )


def verify(manifest: Manifest, folder: Path) -> Receipt:
    """The receipt, after every file that is run was hashed again.

    Raises:
        Refuse: never pulled, pulled from another manifest, or a file changed since.
    """
    if not manifest.files:
        return NOTHING
    again = f"run `streamapp models pull {manifest.full_name}`"
    receipt = read_receipt(folder)
    if receipt is None:
        raise Refuse("models.not_pulled", f"{manifest.full_name} is not in {folder}", again)
    if not is_current(manifest, receipt):
        raise Refuse("models.stale", f"{folder} holds another {manifest.full_name}", again)
    for name, expected in receipt.files.items():
        if not (folder / name).is_file():
            raise Refuse("models.not_pulled", f"{folder / name} is missing", again)
        if (got := sha256_of(folder / name)) != expected:
            raise wrong_sha256(folder / name, expected, got)
    return receipt


def are_proven(folder: Path, receipt: Receipt) -> bool:
    """Whether every file that is run is what was proven."""
    return all(
        (folder / name).is_file() and sha256_of(folder / name) == digest
        for name, digest in receipt.files.items()
    )


def wrong_sha256(what: Path | str, expected: str, got: str) -> Refuse:
    """The error for a file that is another."""
    return Refuse(
        "models.sha256",
        f"{what}: sha256 is {got}, expected {expected}",
        "the file is damaged or was replaced: delete it and pull again; "
        "if it was replaced on purpose, change the manifest",
    )
