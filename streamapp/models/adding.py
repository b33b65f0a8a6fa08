"""A model file to a declared model: look into it, write its manifest, and prove it by a pull.

The manifest appears when the file went through what every pull goes through; before that nothing
of it is in the catalogue.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models import aliases
from streamapp.models.declaration import UNKNOWN_KEY, contradiction, converted
from streamapp.models.entities.config import guessed_of_gliner
from streamapp.models.formats.onnx import OnnxSession
from streamapp.models.hybrid import guessed_of_hybrid
from streamapp.models.manifest import (
    TASKS,
    AnyManifest,
    EmbedManifest,
    EntitiesManifest,
    FileSpec,
    Lineage,
    Manifest,
)
from streamapp.models.pull import Progress, quiet
from streamapp.models.receipt import sha256_of
from streamapp.models.registry import Registry
from streamapp.models.session import DTYPES, STRING, Tensor
from streamapp.models.toml import write_toml

#: Inputs of encoders, which take texts through a tokenizer: an example of ids says nothing.
_TOKENS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_EXAMPLE_NUMBERS_MAX = 4096
#: Keys that have an option of their own, and what it is given.
_FLAGS = {
    "name": " NAME",
    "version": " N",
    "about": " TEXT",
    "licence": " NAME",
    "tokenizer": " tokenizer.json",
}
_EXAMPLES = {
    "dim": "384",
    "labels": '\'["yes", "no"]\'',
    "embedder": "embed/NAME@1",
    "batch_invariant": "true",
}
#: Tasks that a file can be added for; what serves others is on a server.
ADDED = tuple(task for task in TASKS if task != "chat")
#: Kinds whose batch invariance a pull tries.
_TRIED = (EmbedManifest, EntitiesManifest)


#: Of weights whose licence nobody said.
LICENCE = "not declared"


@dataclass(frozen=True, slots=True)
class Offer:
    """What is added.

    ``files`` are those that the graph needs beside it, the tokenizer among them; ``sources`` are
    where others get the model file from, tried before this disk; ``values`` are further keys of
    the manifest.
    """

    task: str
    name: str
    model: Path
    tokenizer: Path | None = None
    files: Sequence[Path] = ()
    version: int | None = None
    about: str = ""
    licence: str = LICENCE
    sources: Sequence[str] = ()
    lineage: Lineage | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def add(registry: Registry, own: Path, offer: Offer, progress: Progress = quiet) -> Manifest:
    """Declare a model in ``own`` and pull it.

    Raises:
        Refuse: a file is missing or no ONNX graph, the manifest would be wrong, the version is
            there, or the model does not do what its manifest says.
    """
    path = f"{offer.task}/{offer.name}"
    known = registry.catalogue.numbers(path)
    gone = aliases.removed(own / offer.task / offer.name)
    next_ = 1 + max((*known, *gone), default=0)
    version = offer.version or next_
    if version in known or version in gone:
        raise Refuse(
            "models.exists",
            f"{path}@{version} {'is' if version in known else 'was'} there, and a version does "
            "not change",
            f"leave out the version: it becomes {next_}",
        )
    manifest = declared(offer, version)
    target = own / offer.task / offer.name / str(version)
    try:
        own.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=own, prefix=".add-") as scratch:
            place = Path(scratch) / offer.task / offer.name / str(version)
            place.mkdir(parents=True)
            manifest = _proven(registry, Path(scratch), place, (manifest, offer), progress)
            target.parent.mkdir(parents=True, exist_ok=True)
            place.rename(target)
    except OSError as error:
        raise Refuse(
            "models.add",
            f"cannot write {target}: {error.strerror or error}",
            "make the folder writable, or set models_dir to one that is",
        ) from None
    return manifest


def declared(offer: Offer, version: int) -> Manifest:
    """The manifest of what is offered, as far as the file itself tells.

    Raises:
        Refuse: a file is missing or no graph, or a key is missing or wrong.
    """
    files = [offer.model, *([offer.tokenizer] if offer.tokenizer else []), *offer.files]
    if offer.task not in ADDED:
        raise Refuse(
            "models.declaration", f"no file is a model for {offer.task!r}", _way_out("task")
        )
    for path in files:
        if not path.is_file():
            raise Refuse("models.add", f"no file {path}", "check the path")
        if not path.stat().st_size:
            raise Refuse("models.add", f"{path} is empty", "check how it was written")
    inputs, outputs = inspect(offer.model)
    said: dict[str, Any] = {
        "task": offer.task,
        "name": offer.name,
        "version": version,
        "about": offer.about or f"from {offer.model.name}",
        "licence": offer.licence or LICENCE,
        "model": offer.model.name,
        "inputs": {tensor.name: str(tensor) for tensor in inputs},
        "outputs": {tensor.name: str(tensor) for tensor in outputs},
        "example": example_for(inputs),
        "files": [_spec(path, offer) for path in files],
        "lineage": offer.lineage,
        **_guessed(offer, outputs),
        **offer.values,
    }
    where = f"{offer.task}/{offer.name}"
    manifest: Manifest = converted(msgspec.to_builtins(said), AnyManifest, where, _way_out)  # type: ignore[arg-type]
    if why := contradiction(manifest):
        key = why.removeprefix("names no ") if why.startswith("names no ") else ""
        raise Refuse("models.declaration", f"{manifest.full_name} {why}", _way_out(key))
    return manifest


def _way_out(key: str, why: str = "") -> str:
    """How ``streamapp models add`` is told a key of the manifest."""
    if why.endswith(UNKNOWN_KEY):
        return "leave it out; the manifests in models/ have every key"
    if key == "task":
        return f"give --task one of {', '.join(ADDED)}"
    if key in _FLAGS:
        return f"give it with --{key}{_FLAGS[key]}"
    if not key:
        return "name the files that it needs: --tokenizer, --with, --set KEY=VALUE"
    return f"give it with --set {key}={_EXAMPLES.get(key, 'VALUE')}"


def inspect(path: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and outputs of an ONNX file.

    Raises:
        Refuse: onnxruntime cannot load it.
    """
    session = OnnxSession(ModelRef("tensor", path.stem, 0, ""), path)
    try:
        return session.inputs, session.outputs
    finally:
        session.close()


def example_for(inputs: Sequence[Tensor]) -> dict[str, Any]:
    """One row of zeros for each input; none where that would be no input, or a very long one."""
    example: dict[str, Any] = {}
    for tensor in inputs:
        shape = [size if size > 0 else 1 for size in tensor.shape]
        if tensor.name in _TOKENS or np.prod(shape) > _EXAMPLE_NUMBERS_MAX:
            return {}
        zeros = np.zeros(shape, DTYPES[tensor.dtype])
        example[tensor.name] = (
            np.full(shape, "text").tolist() if tensor.dtype == STRING else zeros.tolist()
        )
    return example


def manifest_toml(manifest: Manifest) -> str:
    """A manifest as TOML, without what it leaves at its default."""
    kind = type(manifest)
    said = msgspec.to_builtins(manifest)
    shown: dict[str, Any] = {"task": manifest.task}
    for one in msgspec.structs.fields(kind):
        value = said[one.name]
        if value not in ({}, [], None, "") and value != one.default:
            shown[one.name] = value
    return write_toml(shown)


def _proven(
    registry: Registry,
    folder: Path,
    place: Path,
    offered: tuple[Manifest, Offer],
    progress: Progress,
) -> Manifest:
    """Write the manifest and pull; what a model that is refused left in the cache goes.

    Whether an encoder is batch invariant is measured, unless it was said.
    """
    manifest, offer = offered
    while True:
        (place / "manifest.toml").write_text(manifest_toml(manifest))
        alone = registry.beside(folder)
        try:
            alone.pull(manifest.full_name, progress)
        except BaseException as error:
            measurable = isinstance(manifest, _TRIED) and manifest.batch_invariant
            varies = isinstance(error, Refuse) and error.code == "models.batch_invariance"
            if varies and measurable and "batch_invariant" not in offer.values:
                manifest = msgspec.structs.replace(manifest, batch_invariant=False)
                continue
            shutil.rmtree(alone.folder(manifest.full_name), ignore_errors=True)
            raise
        return manifest


def _spec(path: Path, offer: Offer) -> FileSpec:
    remote = list(offer.sources) if path == offer.model else []
    return FileSpec(
        name=path.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        sources=[*remote, f"file:{path.resolve()}"],
    )


def _guessed(offer: Offer, outputs: Sequence[Tensor]) -> dict[str, Any]:
    """What a kind of manifest needs and the graph tells."""
    guessed: dict[str, Any] = {}
    if offer.tokenizer:
        guessed["tokenizer"] = offer.tokenizer.name
    if offer.task == "embed":
        pooled = [one for one in outputs if len(one.shape) == 2]
        vector = (pooled or list(outputs))[0]
        guessed["pooling"] = "graph" if pooled else "mean"
        guessed["batch_invariant"] = True
        if vector.shape[-1] > 0:
            guessed["dim"] = vector.shape[-1]
        guessed |= guessed_of_hybrid([one.name for one in outputs], offer.files)
    elif offer.task == "entities":
        guessed |= guessed_of_gliner(offer.files)
    elif offer.task in ("classify", "head"):
        guessed["output"] = outputs[-1].name
    return guessed
