"""Where in a TOML file something stands, for messages: ``tomllib`` does not tell."""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_KEYS = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"[ \t]*\[{{1,2}}[ \t]*(?P<keys>{_KEYS})[ \t]*\]")
_VALUE = re.compile(rf"[ \t]*(?P<keys>{_KEYS})[ \t]*=")


def line_of(text: str, keys: Sequence[str]) -> int:
    """The line, from 1, of a key, or of the innermost table of its path that has a line."""
    table: tuple[str, ...] = ()
    found, depth = 1, 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            here = table = _path(header["keys"])
        elif value := _VALUE.match(line):
            here = (*table, *_path(value["keys"]))
        else:
            continue
        if len(here) > depth and here == tuple(keys[: len(here)]):
            found, depth = number, len(here)
    return found


def _path(keys: str) -> tuple[str, ...]:
    """``a."b.c"`` as TOML understands it; none where it does not."""
    try:
        inner: Any = tomllib.loads(f"{keys} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(inner, dict):
        ((key, inner),) = inner.items()
        path.append(key)
    return tuple(path)
