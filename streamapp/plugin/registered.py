"""The operations that are installed, by name: entry points of the group ``streamapp.operations``.

``python.MODULE:FUNCTION`` is no entry point: it is a function of the project, which runs in a
process of its own (:mod:`streamapp.plugin.bridge`).
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from streamapp.core.errors import Refuse
from streamapp.plugin.installed import imported, installed, suggest
from streamapp.plugin.operation import Config, Operation

GROUP = "streamapp.operations"
#: Of the service whose operations are functions of the project.
PYTHON = "python."
#: How deep a config may be nested: as deep as a workflow's file.
DEPTH_MAX = 50
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"unknown field `(.*?)`")
_ENUM = re.compile(r"Invalid enum value '(.*?)'")
_MISSING = re.compile(r"missing required field `(.*?)`")


def known() -> tuple[str, ...]:
    """Every installed ``service.operation``, sorted."""
    return tuple(sorted(_points()))


def operation_class(name: str, folder: Path = Path()) -> type[Operation]:
    """The class of an operation.

    Args:
        name: ``service.operation``, or ``python.MODULE:FUNCTION``.
        folder: of the workflow's file, from where the project's functions are looked for.

    Raises:
        Refuse: ``operation.unknown``, with the nearest name, or ``operation.import``.
    """
    if name.startswith(PYTHON):
        from streamapp.plugin.bridge.operation import of_function

        return of_function(name.removeprefix(PYTHON), folder)
    point = _points().get(name)
    if point is None:
        fix = suggest(name, known(), "there are")
        raise Refuse("operation.unknown", f"no operation is called {name!r}", fix)
    found: type[Operation] = imported(point, "operation")
    return found


def make(name: str, config: Mapping[str, Any], folder: Path = Path()) -> Operation:
    """An operation with its config checked, not yet opened.

    Args:
        name: as ``operation_class`` takes it.
        config: as in a workflow's file.
        folder: as there.

    Raises:
        Refuse: as ``operation_class``; ``operation.config`` names the key as ``config.KEY``.
    """
    found = operation_class(name, folder)
    return found(config_of(found.Config, config, name))


def config_of(kind: type[Config], config: Mapping[str, Any], name: str) -> Config:
    """A config as its operation declares it.

    Raises:
        Refuse: ``operation.config``; the message begins with ``config.KEY``.
    """
    check_values(config)
    try:
        return msgspec.convert(dict(config), kind)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PATH.search(text)
        path = ["config", *([place[1]] if place and place[1] else [])]
        fields = [field.encode_name for field in msgspec.structs.fields(kind)]
        if (wrong := _UNKNOWN.search(text)) and not (place and place[1]):
            where, fix = ".".join([*path, wrong[1]]), suggest(wrong[1], fields, "there are")
            what = f"{name} knows no such key"
        elif missing := _MISSING.search(text):
            where, what = ".".join([*path, missing[1]]), "is missing"
            fix = f"{name} needs it"
        else:
            where, what = ".".join(path), _PATH.sub("", text)
            fix = f"see what {name} takes: {', '.join(fields)}"
            if choice := _ENUM.search(text):
                offered = _choices(kind, path[-1])
                fix = suggest(choice[1], offered, "there are") if offered else fix
        raise Refuse("operation.config", f"{where}: {what}", fix) from None


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse what cannot be handed to another process: JSON and YAML have no limits, messages do.

    Raises:
        Refuse: ``operation.config``: an integer beyond 64 bits, or a value nested too deeply.
    """
    todo: list[tuple[str, Any, int]] = [("config", config, 0)]
    while todo:
        where, value, depth = todo.pop()
        if depth > DEPTH_MAX:
            key = ".".join(where.split(".")[:2]).partition("[")[0]
            what = f"{key}: it is nested deeper than {DEPTH_MAX}"
            raise Refuse("operation.config", what, "write it flatter")
        if isinstance(value, Mapping):
            todo += [(f"{where}.{key}", each, depth + 1) for key, each in value.items()]
        elif isinstance(value, list | tuple):
            inside = f"{where}[]"
            todo += [(inside, each, depth + 1) for each in value]
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            what = "the number does not fit into 64 bits"
            raise Refuse("operation.config", f"{where}: {what}", "give a smaller one, or a text")


def _choices(kind: type[Config], field: str) -> list[str]:
    """The texts that a field may be, as its annotation says."""
    todo, found = [get_type_hints(kind, include_extras=True).get(field)], list[str]()
    while todo:
        each = todo.pop()
        if get_origin(each) is Literal:
            found += [value for value in get_args(each) if isinstance(value, str)]
        else:
            todo += get_args(each)
    return found


@cache
def _points() -> dict[str, EntryPoint]:
    return installed(GROUP, "operation")
