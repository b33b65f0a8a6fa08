"""A graph as the YAML of its file."""

from io import StringIO
from typing import Any

import msgspec
from ruamel.yaml import YAML

from streamapp.workflow.graph.spec import Graph

_WIDTH = 100


def yaml_of(graph: Graph) -> str:
    """The file of a graph, without what is there by default; read again it is an equal graph."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = _WIDTH
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # keys stay in order
    text = StringIO()
    yaml.dump(minimal(graph.declared()), text)
    return text.getvalue()


def minimal(part: Any) -> Any:
    """Plain values of a part of a graph, without what is there by default."""
    if isinstance(part, msgspec.Struct):
        fields = msgspec.structs.fields(type(part))
        return {
            field.name: minimal(value)
            for field in fields
            if (value := getattr(part, field.name)) != _default(field)
        }
    if isinstance(part, dict):
        return {name: minimal(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [minimal(value) for value in part]
    return part


def _default(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default_factory
    return field.default if made is msgspec.NODEFAULT else made()
