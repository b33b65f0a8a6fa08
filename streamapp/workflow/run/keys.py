"""What a result depends on, as one digest, and what changed since the last time."""

import hashlib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import (
    PackageNotFoundError,
    packages_distributions,
    requires,
    version,
)
from pathlib import Path
from typing import Any, cast

import msgspec

from streamapp import plugin
from streamapp.plugin import Operation
from streamapp.plugin.bridge.operation import FunctionOperation
from streamapp.plugin.bridge.place import python_place
from streamapp.workflow.data import Opened
from streamapp.workflow.run.binding import Bound
from streamapp.workflow.run.messages import Part

#: A file that changed this lately may change again within one tick of its clock.
RACY_NS = 2_000_000_000
#: Our package, and the room of it that operations and readers may import.
OURS = "streamapp"
PLUGIN = Path(plugin.__file__).parent
#: What rows are computed with, by us and by most: another version of it may give others.
COMPUTING = (
    "duckdb", "numpy", "onnxruntime", "polars", "py3langid", "pyarrow", "rapidfuzz", "scipy",
    "splink", "yake",
)  # fmt: skip
_NAME = re.compile(r"[\w.-]+")


class Key(msgspec.Struct, frozen=True):
    """All that a stage's result depends on.

    Args:
        operation: ``service.operation@version``.
        code: digest of the files that it is written in.
        config: as it is given, secrets as references.
        inputs: digests of the content of what it takes, by name, in order.
        sources: the same of declared sources.
        variables: of its ``foreach``.
    """

    operation: str
    code: str
    config: dict[str, Any]
    inputs: dict[str, str]
    sources: dict[str, str] = {}
    variables: dict[str, Any] = {}

    @property
    def digest(self) -> str:
        """In hex; the order of ``inputs`` counts."""
        return _digest(
            self.operation, self.code, self.config, list(self.inputs.items()), self.sources,
            self.variables,
        )  # fmt: skip


def key_of(call: Bound, inputs: dict[str, str], sources: dict[str, str]) -> Key:
    """The key of one call, of the digests of what it takes."""
    label = f"{call.operation}@{call.kind.version}"
    return Key(label, code_of(call.kind), call.config, inputs, sources, call.variables)


def cut_key(key: str, cut: tuple[int, int]) -> str:
    """The key of one call of a stage of scope ``row``."""
    return _digest(key, cut)


def content_of(parts: Sequence[Part]) -> str:
    """The digest of a table that is in parts."""
    return parts[0].digest if len(parts) == 1 else _digest([part.digest for part in parts])


def opened_key(source: Opened, now_ns: int) -> str | None:
    """The key of an input's or a source's rows; None where that cannot be known before reading.

    A file is known by its path, size and time; one that changed in the last two seconds is not.
    """
    if not source.files:
        return None
    stamps = []
    for path in source.files:
        stat = path.stat()
        if now_ns - stat.st_mtime_ns < RACY_NS:
            return None
        stamps.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    code = _installed_code(type(source.reader))
    return _digest("read", code, source.identity, stamps)


def why_again(last: Key | None, now: Key) -> str:
    """Why a stage runs, in a few words."""
    if last is None:
        return "it has not run before"
    if last.operation != now.operation:
        return f"{now.operation} took the place of {last.operation}"
    if last.code != now.code:
        return "its code changed"
    if last.config != now.config or last.variables != now.variables:
        keys = sorted(
            k for k in {*last.config, *now.config} if last.config.get(k) != now.config.get(k)
        )
        return f"config changed: {', '.join(keys)}" if keys else "its variables changed"
    for name in {**now.inputs, **now.sources}:
        before = {**last.inputs, **last.sources}.get(name)
        if before != {**now.inputs, **now.sources}[name]:
            return f"{name} changed" if before else f"{name} is new"
    return "its result is no longer in the cache"


def code_of(operation: type[Operation]) -> str:
    """A digest of the files that an operation is made of, and of the versions of what they use.

    Of another's package these are all of its files, of ours those of the operation's folder and of
    the plugin's, which is all of ours that it may import.  Versions are those of the package and of
    what it requires, like pyarrow and polars.

    A function of the project (service ``python``) is known by the files beside its module, as they
    are now; what it imports from elsewhere is not in it.
    """
    if FunctionOperation in operation.__mro__:
        function = cast("type[FunctionOperation]", operation)
        return _digest_of(_files_of(function.target, function.folder), function.target)
    return _installed_code(operation)


@cache
def _installed_code(kind: type[Any]) -> str:
    file = Path(inspect.getfile(kind))
    package, *inner = (sys.modules[kind.__module__].__package__ or "").split(".")
    if not package:
        files = [file]
    elif package == OURS:
        files = sorted(file.parent.glob("*.py")) + _files_below(PLUGIN)
    else:
        files = _files_below(file.parents[len(inner)])
    return _digest_of(files, _releases(package))


@cache
def _files_below(folder: Path) -> list[Path]:
    """Python files of a package, sorted."""
    return sorted(folder.rglob("*.py"))


def _files_of(target: str, folder: Path) -> list[Path]:
    """Python files of the folder that ``module:function`` is in."""
    inner = Path(*target.partition(":")[0].split("."))
    for path in python_place(folder).paths:
        module = Path(path) / inner
        for file in (module.with_suffix(".py"), module / "__init__.py"):
            if file.is_file():
                return sorted(file.parent.glob("*.py"))
    return []


def _digest_of(files: Sequence[Path], more: str) -> str:
    digest = hashlib.blake2b(more.encode(), digest_size=20)
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _releases(package: str) -> str:
    """The versions of what rows are computed with, of a package and of what it requires."""
    names = {OURS, *COMPUTING}
    for own in _distributions(package) if package not in ("", OURS) else ():
        needed = [line for line in requires(own) or () if "extra ==" not in line]
        names |= {own, *(line[: found.end()] for line in needed if (found := _NAME.match(line)))}
    return " ".join(f"{name}={_release(name)}" for name in sorted(names))


def _distributions(package: str) -> Sequence[str]:
    """What was installed to bring a package."""
    return (package,) if _release(package) else packages_distributions().get(package, ())


def _release(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def why_models(models: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Why a result is not used for the models that it got."""
    for what, found in models.items():
        name = what.partition(":")[2] or "the default model"
        if not found:
            return f"whether {name} changed cannot be seen"
        if now.get(what) != found:
            return f"{name} changed"
    return ""


def same_models(models: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether what a result got of the models is what it would get now."""
    return all(found and now.get(name) == found for name, found in models.items())


def _digest(*values: Any) -> str:
    # The order of a config's keys stays: it may be that of columns.
    return hashlib.blake2b(msgspec.json.encode(values), digest_size=20).hexdigest()
