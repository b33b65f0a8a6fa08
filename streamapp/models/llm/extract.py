"""A JSON object out of what a model wrote round it."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

#: A string, which may be cut off, or a brace outside of strings.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[{}]', re.DOTALL)
#: The last ones are looked at; who writes more is not answering.
_SPANS_MAX = 64
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text: the whole of it, else each complete one, the last one first.

    Braces within strings are none, an object that is cut off is none, and of one within another
    only the outer one counts.
    """
    whole = _object(text)
    if whole is not None:
        yield whole
        return
    for begin, end in reversed(_spans(text)[-_SPANS_MAX:]):
        found = _object(text[begin:end])
        if found is not None:
            yield found


def is_object(text: str) -> bool:
    """Whether the whole text is one JSON object."""
    return text.lstrip().startswith("{") and _object(text) is not None


def _spans(text: str) -> list[tuple[int, int]]:
    """Begin and end of the outermost pairs of braces, in order."""
    spans: list[tuple[int, int]] = []
    opened: list[int] = []
    first = text.find("{")  # a quotation mark in prose before it begins no string
    for token in _TOKEN.finditer(text, max(first, 0)):
        if token[0] == "{":
            opened.append(token.start())
        elif token[0] == "}" and opened:
            begin = opened.pop()
            while spans and spans[-1][0] > begin:
                spans.pop()
            spans.append((begin, token.end()))
    return spans


def _object(text: str) -> dict[str, Any] | None:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
