"""Plain data as TOML 1.0, for manifests that a program writes and people read."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from streamapp.core.errors import Halt

_WIDTH = 100


def write_toml(content: Mapping[str, Any]) -> str:
    """Tables, arrays of tables, strings, numbers, booleans and lists; None is left out.

    Values come before tables, as TOML wants it; both keep their order.

    Raises:
        Halt: a value of another kind.
    """
    return "\n".join(_table((), content)).lstrip("\n") + "\n"


def _table(path: tuple[str, ...], content: Mapping[str, Any]) -> Iterator[str]:
    values = {name: value for name, value in content.items() if value is not None}
    inner = {name: value for name, value in values.items() if _is_table(value)}
    for name, value in values.items():
        if name not in inner:
            yield f"{_key(name)} = {_value(value)}"
    for name, value in inner.items():
        below = (*path, name)
        title = ".".join(map(_key, below))
        if isinstance(value, Mapping):
            yield from ("", f"[{title}]", *_table(below, value))
            continue
        for one in value:
            yield from ("", f"[[{title}]]", *_table(below, one))


def _is_table(value: Any) -> bool:
    """A table, or an array of them."""
    is_list = isinstance(value, list | tuple)
    return isinstance(value, Mapping) or (
        is_list and bool(value) and all(isinstance(one, Mapping) for one in value)
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        items = [_value(one) for one in value]
        line = f"[{', '.join(items)}]"
        lines = "".join(f"    {item},\n" for item in items)
        return line if len(line) < _WIDTH else f"[\n{lines}]"
    raise Halt("models.toml", f"{type(value).__name__} {value!r} is nothing that TOML has", "")


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if plain else _string(name)


def _string(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, and TOML wants DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
