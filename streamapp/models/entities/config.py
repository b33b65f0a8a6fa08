"""``gliner_config.json``: what a GLiNER model says of itself, held against the manifest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamapp.core.errors import Refuse
from streamapp.models.manifest import EntitiesManifest
from streamapp.models.small import GARBLED, read_json

#: Span modes of the reference that are exported with one logit per span of the grid.
_MODES = {"token_level": "token"}
FILE = "gliner_config.json"


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that decide how the model is called, with the reference's defaults."""

    span_mode: str = "markerV0"
    max_width: int = 12
    max_len: int = 384
    ent_token: str = "<<ENT>>"  # noqa: S105  # a mark, no secret
    sep_token: str = "<<SEP>>"  # noqa: S105
    subtoken_pooling: str = "first"
    words_splitter_type: str = "whitespace"
    represent_spans: bool = False
    labels_encoder: str | None = None
    relations_layer: str | None = None


def check_config(folder: Path, manifest: EntitiesManifest) -> None:
    """Nothing when the manifest names no ``config``.

    Raises:
        Refuse: the file and the manifest say different things, or the model is of a kind that is
            not understood.
    """
    if not manifest.config:
        return
    path = folder / manifest.config
    for name, theirs in _said(path).items():
        if getattr(manifest, name) != theirs:
            raise Refuse(
                "models.config",
                f"{manifest.full_name}: {name} is {getattr(manifest, name)!r} in the manifest, and "
                f"{theirs!r} by the model's {manifest.config}",
                f"write {name} = {theirs!r} in the manifest",
            )


def guessed_of_gliner(files: Sequence[Path]) -> dict[str, Any]:
    """What a manifest should say, by the ``gliner_config.json`` among the files; else nothing.

    Raises:
        Refuse: as ``check_config``.
    """
    path = next((path for path in files if path.name == FILE), None)
    return {"config": path.name, **_said(path)} if path else {}


def _said(path: Path) -> dict[str, Any]:
    """Keys of a manifest with their values."""
    try:
        config = read_json(path, _Config)
    except (OSError, *GARBLED) as error:
        raise Refuse(
            "models.config", f"{path}: {error}", "give the model's own gliner_config.json"
        ) from None
    if unknown := _not_understood(config):
        raise Refuse(
            "models.config", f"{path}: {unknown}", "give a GLiNER with one encoder for both"
        )
    mode = _MODES.get(config.span_mode, "span")
    said = {
        "mode": mode,
        "words_max": config.max_len,
        "entity_mark": config.ent_token,
        "separator_mark": config.sep_token,
        "pooling": config.subtoken_pooling,
    }
    return {**said, "width_max": config.max_width} if mode == "span" else said


def _not_understood(config: _Config) -> str:
    if config.labels_encoder:
        return "labels have an encoder of their own (bi-encoder)"
    if config.relations_layer:
        return "it extracts relations"
    if config.represent_spans and config.span_mode == "token_level":
        return "it scores spans after tokens (represent_spans)"
    if config.words_splitter_type != "whitespace":
        return f"it splits words by {config.words_splitter_type!r}, only 'whitespace' is understood"
    return ""
