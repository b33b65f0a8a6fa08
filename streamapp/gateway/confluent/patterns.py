"""Patterns of topic names, in the part of regular expressions that ends in time."""

import re
from collections.abc import Callable

from streamapp.gateway.confluent.errors import unprocessable

_PATTERN = re.compile(r"(?:[A-Za-z0-9_-]|\\.|\.\*)+")
#: Of a topic's name.
CHARS_MAX = 249


def matcher(pattern: str) -> Callable[[str], bool]:
    r"""Whether a topic's name is what the pattern says.

    A pattern is a name with ``\.`` for a dot and ``.*`` for anything; the rest of regular
    expressions can be made to run for ever.

    Raises:
        ConfluentError: 422 another pattern.
    """
    bare = pattern.removeprefix("^").removesuffix("$")
    if len(bare) > CHARS_MAX or not _PATTERN.fullmatch(bare):
        raise unprocessable("topic_pattern: use letters, digits, _ and -, \\. and .* only")
    first, *rest = bare.replace("\\.", "\0").split(".*")
    pieces = [piece.replace("\0", ".") for piece in (first, *rest)]

    def matches(name: str) -> bool:
        if len(pieces) == 1:
            return name == pieces[0]
        if not name.startswith(pieces[0]):
            return False
        at = len(pieces[0])
        for piece in pieces[1:-1]:
            found = name.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        return len(name) - at >= len(pieces[-1]) and name.endswith(pieces[-1])

    return matches
