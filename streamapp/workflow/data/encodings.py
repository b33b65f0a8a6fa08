"""Bytes to text: by the declared encodings, in their order, and by a byte order mark."""

import codecs
from typing import Annotated

from msgspec import Meta

from streamapp.core.errors import Refuse

#: One, or several that are tried one after the other.
Encodings = str | Annotated[tuple[str, ...], Meta(min_length=1, max_length=10)]
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Undecodable(Exception):
    """None of the encodings fits.

    Attributes:
        line: where the first of them stops, from 1.
        reason: one line.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.reason = line, reason


def names(declared: Encodings) -> tuple[str, ...]:
    """The encodings by the names that Python gives them.

    Raises:
        Refuse: one is not known.
    """
    found = []
    for name in (declared,) if isinstance(declared, str) else declared:
        try:
            b"a".decode(name)  # hex, zip and the like are no encodings of text
        except UnicodeDecodeError:
            pass  # as of UTF-16, which has no single bytes
        except (LookupError, ValueError):
            raise Refuse(
                "data.encoding", f"no encoding is called {name!r}", "utf-8, latin-1, cp1252 ..."
            ) from None
        found.append(codecs.lookup(name).name)
    return tuple(found)


def marked(start: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning says."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), None)


def decode(data: bytes, declared: Encodings) -> str:
    """The text; a byte order mark counts for more than what is declared, and is left out.

    Raises:
        Undecodable: no encoding fits the whole.
        Refuse: an encoding is not known.
    """
    mark = marked(data)
    tried = (mark,) if mark else names(declared)
    first: UnicodeDecodeError | None = None
    for name in tried:
        try:
            return data.decode(name)
        except UnicodeDecodeError as error:
            first = first or error
    assert first is not None  # noqa: S101  # there is at least one encoding
    line = data.count(b"\n", 0, first.start) + 1
    raise Undecodable(line, f"byte {first.start} is not {' or '.join(tried)}")
