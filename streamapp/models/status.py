"""What is known of a model that is declared, without opening or hashing it."""

from dataclasses import dataclass
from pathlib import Path

from streamapp.models.catalogue import Catalogue
from streamapp.models.manifest import Manifest
from streamapp.models.receipt import is_current, read_receipt


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What is known of a model without opening it.

    ``aliases`` point to it, ``used`` says what else leads to it; ``cosine_min`` and
    ``difference``: see ``receipt.Receipt``.
    """

    name: str
    pulled: bool
    default: bool
    bytes: int
    folder: Path
    cosine_min: float | None
    difference: float | None
    aliases: tuple[str, ...]
    used: tuple[str, ...]


def status_of(catalogue: Catalogue, manifest: Manifest, folder: Path) -> ModelStatus:
    """The status of a model whose files are kept in ``folder``."""
    receipt = read_receipt(folder)
    current = receipt is not None and is_current(manifest, receipt)
    files = [folder / file for file in receipt.files] if receipt else []
    there = [file.stat().st_size for file in files if file.is_file()]
    routed = catalogue.routed(manifest.full_name)
    return ModelStatus(
        name=manifest.full_name,
        pulled=not manifest.files or (current and len(there) == len(files)),
        default=f"default of {manifest.task}" in routed,
        bytes=sum(there),
        folder=folder,
        cosine_min=receipt.cosine_min if receipt else None,
        difference=receipt.difference if receipt else None,
        aliases=tuple(catalogue.aliases_of(manifest.full_name)),
        used=tuple(routed),
    )
