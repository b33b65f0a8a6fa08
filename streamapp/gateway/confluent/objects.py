"""JSON objects that follow each other in a stream, each as its own bytes as soon as it is whole."""

import re
from collections.abc import Iterator

#: Nesting beyond this is nobody's record.
DEPTH_MAX = 200
#: A whole text, or a mark; a lone quote begins a text whose end is not here.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
_INSIDE = re.compile(rb'["\\]')
_SPACE = re.compile(rb"[ \t\r\n]*")
_OPEN = b"{["
_QUOTE = 0x22


class BrokenStreamError(ValueError):
    """Where one object ends cannot be told any more."""


class Objects:
    """Splits a stream; what it holds is at most one object and one chunk.

    Args:
        bytes_max: of one object.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._at = 0  # looked through so far
        self._depth = 0
        self._in_text = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The objects that are whole now.

        Raises:
            BrokenStreamError: something else than an object, too deep, or too large.
        """
        self._buffer += chunk
        while (end := self._end()) is not None:
            found = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._at = 0
            yield found
        if len(self._buffer) > self._bytes_max:
            raise BrokenStreamError(f"a record of more than {self._bytes_max:,} bytes")

    def rest(self) -> int:
        """Bytes of an object that has begun; 0 between two."""
        return len(self._buffer)

    def _begin(self) -> None:
        if space := _SPACE.match(self._buffer):
            del self._buffer[: space.end()]
        if self._buffer and self._buffer[0] != _OPEN[0]:
            raise BrokenStreamError("no JSON object begins where one should")

    def _end(self) -> int | None:
        """One past the first object's last byte; None while it is not here."""
        if not self._depth:
            self._begin()
        while True:
            if self._in_text and not self._close_text():
                return None
            end = self._walk()
            if end is not None or not self._in_text:
                return end

    def _walk(self) -> int | None:
        """As far as the end of the object, or into a text that is not whole."""
        for token in _TOKEN.finditer(self._buffer, self._at):
            start, end = token.span()
            mark = self._buffer[start]
            if mark == _QUOTE:
                if end == start + 1:
                    self._at, self._in_text = end, True
                    return None
            elif mark in _OPEN:
                self._depth += 1
                if self._depth > DEPTH_MAX:
                    raise BrokenStreamError(f"a record nested deeper than {DEPTH_MAX}")
            else:
                self._depth -= 1
                if not self._depth:
                    return end
        self._at = len(self._buffer)
        return None

    def _close_text(self) -> bool:
        """To the end of a text that began in an earlier chunk; False while it is not here."""
        while (token := _INSIDE.search(self._buffer, self._at)) is not None:
            at = token.start()
            if self._buffer[at] == _QUOTE:
                self._at, self._in_text = at + 1, False
                return True
            if at + 1 == len(self._buffer):
                self._at = at
                return False
            self._at = at + 2
        self._at = len(self._buffer)
        return False
