"""Declarations in TOML files to manifests: read, held against themselves, and told in words."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from streamapp.core.errors import Refuse
from streamapp.models import manifest as kinds
from streamapp.models.manifest import (
    OF_FILES,
    REMOTE,
    AnyManifest,
    ClassifyManifest,
    EntitiesManifest,
    Manifest,
)
from streamapp.models.small import read_short_toml

Declared = TypeVar("Declared")

#: How the source of a file begins that lies beside the manifest.
BESIDE = "file:./"
#: What is wrong with a key that there is not.
UNKNOWN_KEY = "is not one of its keys"
_SESSIONS = ("onnx", "openvino", "v2", "function")
#: Task to the formats that can serve it.
FORMATS = {
    "embed": (*_SESSIONS, "openai"),
    "entities": (*_SESSIONS, "spacy"),
    "classify": _SESSIONS,
    "head": _SESSIONS,
    "tensor": _SESSIONS,
    "chat": ("openai",),
}
#: What the patterns of manifests mean.
_MEANT = {
    kinds.NAME: "lower-case letters, digits, - . and _, a letter or digit first",
    kinds.SHA256: "64 hex digits",
    kinds.MAYBE_SHA256: "64 hex digits",
    kinds.FILE: "the name of a file, without a folder",
    kinds.MAYBE_FILE: "the name of a file, without a folder",
    kinds.URL: "http://..., https://... or env:NAME",
    kinds.FUNCTION: "module:name",
}
_TYPES = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false",
    "array": "a list", "object": "a table", "null": "nothing",
}  # fmt: skip
_EXPECTED = re.compile(
    r"^Expected `(?P<type>[^`]+)`(?P<bound>[^`]*?)(?:, got `(?P<got>[^`]+)`)?$", re.DOTALL
)
_PATTERN = re.compile(r"^ matching regex '(.*)'$", re.DOTALL)


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file, of the kind that its task says.

    Raises:
        Refuse: not TOML (file:line:column), a key is missing, unknown or of a wrong type, or it
            contradicts itself.
    """
    manifest: Manifest = converted(read_short_toml(path), AnyManifest, path)  # type: ignore[arg-type]
    if why := contradiction(manifest):
        raise Refuse("models.declaration", f"{path}: {why}", "correct the manifest")
    return _anchored(manifest, path.parent.absolute())


def converted(
    content: Any,
    kind: type[Declared],
    where: Path | str,
    fix: Callable[[str, str], str] | None = None,
) -> Declared:
    """Plain data as ``kind``.

    Args:
        content: as TOML has it.
        kind: a type of msgspec.
        where: what the message begins with.
        fix: the way out for a key, "" for none, and what is wrong with it; default: to look at
            those that there are.

    Raises:
        Refuse: a key is missing, unknown or of a wrong type.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        key, why = told(str(error))
        way = fix(key, why) if fix else "see the manifests in models/ for every key"
        raise Refuse("models.declaration", f"{where}: {why}", way) from None


def told(error: str) -> tuple[str, str]:
    """Which key a message of msgspec is about ("" when none alone), and what is wrong, in words."""
    said, _, place = error.partition(" - at ")
    key = place.strip("`").removeprefix("$").removeprefix(".").replace("[...]", ".*")
    if match := re.match(r"Object (missing required|contains unknown) field `(.*)`$", said):
        name = f"{key}.{match[2]}" if key else match[2]
        why = "is missing" if "missing" in match[1] else UNKNOWN_KEY
        return name, f"{name!r} {why}"
    if match := _EXPECTED.match(said):
        said = f"must be {_wanted(match['type'], match['bound'])}"
        got = match["got"]
        said += f", not {_TYPES.get(got, got)}" if got else ""
    else:
        said = "cannot be " + said.removeprefix("Invalid ").replace("enum value", "").strip()
        said = said.replace("cannot be value ", "cannot be ")
    return key, f"{key!r} {said}" if key else said


def contradiction(manifest: Manifest) -> str:
    """What types cannot say is wrong with a manifest; empty when nothing is."""
    formats = FORMATS[manifest.task]
    if manifest.format not in formats:
        return (
            f"format {manifest.format!r} cannot serve {manifest.task}, which takes "
            f"{', '.join(formats)}"
        )
    names = [file.name for file in manifest.files]
    outputs = manifest.build.outputs if manifest.build else []
    wanted = _wanted_files(manifest)
    missing = [key for key, name in wanted.items() if name not in [*names, *outputs]]
    if len({*names, *outputs}) != len(names) + len(outputs):
        return "names a file twice"
    if missing:
        name = wanted[missing[0]]
        return f"no file is called {name!r}" if name else f"names no {missing[0]}"
    if manifest.build and manifest.build.source not in names:
        return f"builds from {manifest.build.source!r}, which it does not fetch"
    return _format_lacks(manifest)


def _wanted_files(manifest: Manifest) -> dict[str, str]:
    """Key to the name of a file that must be among those of the manifest."""
    of_file = manifest.format in OF_FILES
    wanted = {"model": manifest.model} if manifest.model or of_file else {}
    tokenizer = getattr(manifest, "tokenizer", None)
    if tokenizer is None:
        return wanted
    reads_tokens = of_file and not isinstance(manifest, ClassifyManifest)  # some take texts
    is_gliner = isinstance(manifest, EntitiesManifest) and manifest.format != "spacy"
    if tokenizer or reads_tokens or is_gliner:
        wanted["tokenizer"] = tokenizer
    return wanted


def _format_lacks(manifest: Manifest) -> str:
    if manifest.format == "spacy" and not manifest.model:
        return "format 'spacy' needs model = the pipeline's wheel"
    if manifest.format in REMOTE and manifest.remote is None:
        return f"format {manifest.format!r} needs [remote] with a url"
    if manifest.remote and names_user(manifest.remote.url):
        return "[remote] url names a user, and addresses are shown: write token = 'env:NAME'"
    if manifest.format == "function" and not manifest.function:
        return "format 'function' needs function = 'module:name'"
    return ""


def names_user(url: str) -> bool:
    """Whether a web address has a user, and perhaps a password, before its host."""
    return re.match(r"https?://[^/?#]*@", url, re.IGNORECASE) is not None


def _anchored(manifest: Manifest, folder: Path) -> Manifest:
    """``file:./NAME`` lies beside the manifest."""
    files = [
        msgspec.structs.replace(
            file,
            sources=[
                f"file:{folder}/{source.removeprefix(BESIDE)}"
                if source.startswith(BESIDE)
                else source
                for source in file.sources
            ],
        )
        for file in manifest.files
    ]
    return msgspec.structs.replace(manifest, files=files)


def _wanted(types: str, bound: str) -> str:
    """``int`` and `` >= 1`` as words."""
    if match := _PATTERN.match(bound):
        pattern = match[1].replace("\\\\", "\\")  # it is told as Python would
        return _MEANT.get(pattern, f"a text that matches {pattern}")
    names = " or ".join(_TYPES.get(one, one) for one in types.split(" | "))
    return f"{names}{bound}"
