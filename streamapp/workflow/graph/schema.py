"""JSON Schema of a workflow's file, for editors: keys, operations and their configs as installed.

In an editor with YAML's language server: ``# yaml-language-server: $schema=workflow.schema.json``.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from streamapp.core.errors import Refuse
from streamapp.plugin.registered import known, operation_class
from streamapp.workflow.data import reader_of, readers, writer_of, writers
from streamapp.workflow.graph.names import ALIASES
from streamapp.workflow.graph.spec import Document, Input, Output, Step

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"
_ARGUMENT = re.compile(
    r"^ {4}(?: {4})?(\w+): (.*?)(?=^ {4}(?: {4})?\w+: |\Z)", re.MULTILINE | re.DOTALL
)
_TYPES = {"file", "source"}


def json_schema() -> dict[str, Any]:
    """The schema; operations and formats whose packages are missing have no keys checked."""
    operations = _loaded(known(), lambda name: operation_class(name).Config)
    reads = _loaded(readers(), lambda name: reader_of(name).Options)
    writes = _loaded(writers(), lambda name: writer_of(name).Options)
    own = (Document, Input, Step, Output)
    kinds = list(dict.fromkeys([*own, *operations.values(), *reads.values(), *writes.values()]))
    found, parts = msgspec.json.schema_components(kinds, ref_template=_REF)
    refs = dict(zip(kinds, found, strict=True))
    for kind in _structs(kinds):
        part = parts.get(_name(refs[kind]) if kind in refs else kind.__name__)
        if part is not None:
            _describe(part, kind)
    document, entry, step, exit_ = (parts[_name(refs[kind])] for kind in own)
    _be_lenient(document, step)
    step["properties"]["service"]["enum"] = sorted(
        {name.partition(".")[0] for name in known()} | {*ALIASES, "python"}
    )
    step["allOf"] = [
        *(_service(name) for name in sorted({name.partition(".")[0] for name in known()})),
        *(_operation(name, refs[kind]) for name, kind in operations.items()),
    ]
    for kind in dict.fromkeys(operations.values()):
        _take_templates(parts[_name(refs[kind])])
    entry["properties"]["type"]["enum"] = sorted(_TYPES | set(readers()))
    for part, formats in ((entry, readers()), (exit_, writers())):
        part["properties"]["format"] |= {"anyOf": [{"enum": list(formats)}, {"type": "null"}]}
    entry["allOf"] = _options(reads, refs, ("format", "type"))
    exit_["allOf"] = _options(writes, refs, ("format",))
    about: dict[str, Any] = {"$schema": _DIALECT, "title": "A workflow of streamapp"}
    return {**about, **refs[Document], "$defs": parts}


def _loaded(names: tuple[str, ...], kind: Any) -> dict[str, Any]:
    """The structs of those that can be imported here."""
    found = {}
    for name in names:
        try:
            found[name] = kind(name)
        except Refuse:  # its package is not installed; ``validate`` says so where it is used
            continue
    return found


def _service(service: str) -> dict[str, Any]:
    """A stage of this service names one of its operations."""
    operations = [name.partition(".")[2] for name in known() if name.partition(".")[0] == service]
    return {
        "if": {"properties": {"service": {"enum": _names(service)}}, "required": ["service"]},
        "then": {"properties": {"operation": {"enum": operations}}},
    }


def _names(service: str) -> list[str]:
    return [service, *(alias for alias, plain in ALIASES.items() if plain == service)]


def _operation(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A stage that names this operation has this config."""
    service, _, operation = name.partition(".")
    return {
        "if": {
            "properties": {
                "service": {"enum": _names(service)},
                "operation": {"const": operation},
            },
            "required": ["service", "operation"],
        },
        "then": {"properties": {"config": config}},
    }


def _options(
    formats: Mapping[str, type], refs: Mapping[type, Any], keys: tuple[str, ...]
) -> list[dict[str, Any]]:
    """An input or output that names a format by one of the keys has that format's options."""
    return [
        {
            "if": {"properties": {key: {"const": name}}, "required": [key]},
            "then": {"properties": {"options": refs[kind]}},
        }
        for name, kind in formats.items()
        for key in keys
    ]


def _take_templates(config: dict[str, Any]) -> None:
    """Any value of a config may be ``${...}``, whatever its type is."""
    for name, declared in config.get("properties", {}).items():
        if declared.get("type") != "string":
            config["properties"][name] = _or(declared, {"type": "string", "pattern": r"\$\{"})


def _be_lenient(document: dict[str, Any], step: dict[str, Any]) -> None:
    """What the file may say more shortly than the graph does."""
    document["properties"]["version"] = {"type": ["string", "number"], "default": "1"}
    for key in ("depends_on", "inputs"):
        step["properties"][key] = _or(step["properties"][key], {"type": "string"})
    step["properties"]["retry"] = _or(
        step["properties"]["retry"], {"type": "integer", "minimum": 0, "maximum": 100}
    )


def _or(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: one[key] for key in ("default", "description") if key in one}
    return {**kept, "anyOf": [{k: v for k, v in one.items() if k not in kept}, other]}


def _describe(part: dict[str, Any], kind: type) -> None:
    """Take the words of each key from the class's docstring, which an editor then shows."""
    text = kind.__doc__ or ""
    arguments = re.split(r"(?:Args|Attributes):\n", text)[-1]
    part["description"] = " ".join(text.partition("\n\n")[0].split())
    for name, about in _ARGUMENT.findall(arguments):
        if name in part.get("properties", {}):
            part["properties"][name]["description"] = " ".join(about.split())


def _structs(kinds: list[type]) -> list[type]:
    """These and those of their fields."""
    found: dict[type, None] = {}
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in found:
            found[kind] = None
            waiting += [one for field in msgspec.structs.fields(kind) for one in _types(field.type)]
    return list(found)


def _types(declared: Any) -> list[Any]:
    arguments = getattr(declared, "__args__", ())
    return [declared, *(inner for one in arguments for inner in _types(one))]


def _name(reference: Mapping[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
