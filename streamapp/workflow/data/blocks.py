"""Files as blocks of whole records of UTF-8, whatever they are packed and encoded in."""

import codecs
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.workflow.data.encodings import Encodings, marked, names

BLOCK_BYTES = 2 << 20
#: From which a file's columns are learned.
START_BLOCKS = 2
#: A record that does not end before is taken to be broken.
RECORD_BYTES_MAX = 16 << 20
#: Where a block may end: after that many bytes; 0 when no record ends in it.
Cut = Callable[[bytes], int]


class Block(NamedTuple):
    """Whole records, and the line that the first of them begins on, from 1."""

    line: int
    data: bytes


def blocks(path: Path, encodings: Encodings, cut: Cut) -> Generator[Block]:
    """The file in blocks of about ``BLOCK_BYTES``.

    Lines that end in CR alone, as of old, end in LF here.

    Raises:
        Refuse: none of several encodings fits it, or a line has more than ``RECORD_BYTES_MAX``.
        OSError: it cannot be read or unpacked.
    """
    rest, line = b"", 1
    ends_in_cr: bool | None = None
    for piece in _pieces(path, encodings):
        if ends_in_cr is None:
            ends_in_cr = b"\r" in piece and b"\n" not in piece
        rest += piece.replace(b"\r", b"\n") if ends_in_cr else piece
        if len(rest) < BLOCK_BYTES:
            continue
        end = cut(rest)
        if not end and len(rest) > RECORD_BYTES_MAX:
            end = rest.rfind(b"\n") + 1
            if not end:
                raise Refuse(
                    "data.line",
                    f"{path}:{line}: a line of more than {RECORD_BYTES_MAX:,} bytes",
                    "check its format, and that its lines end",
                )
        if end:
            yield Block(line, rest[:end])
            line += int(np.count_nonzero(np.frombuffer(rest, np.uint8, end) == ord("\n")))
            rest = rest[end:]
    if rest:
        yield Block(line, rest)


def start_of(path: Path, encodings: Encodings, cut: Cut) -> Block:
    """The first ``START_BLOCKS`` in one, which is empty of an empty file."""
    with closing(blocks(path, encodings, cut)) as found:
        return Block(1, b"".join(block.data for block in islice(found, START_BLOCKS)))


def after_line(data: bytes) -> int:
    """A cut after the last line."""
    return data.rfind(b"\n") + 1


def _pieces(path: Path, encodings: Encodings) -> Iterator[bytes]:
    encoding = _chosen(path, encodings)
    if encoding in ("utf-8", "utf-8-sig"):  # a byte that is not is its row's fault alone
        with pa.input_stream(str(path), compression="detect") as stream:
            first = stream.read(BLOCK_BYTES)
            yield first.removeprefix(codecs.BOM_UTF8)
            while piece := stream.read(BLOCK_BYTES):
                yield piece
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    with pa.input_stream(str(path), compression="detect") as stream:
        try:
            while piece := stream.read(BLOCK_BYTES):
                yield decoder.decode(piece).encode()
            yield decoder.decode(b"", final=True).encode()
        except UnicodeError as error:
            raise Refuse(
                "data.encoding",
                f"{path} is not {encoding}: {getattr(error, 'reason', error)}",
                "set the option encoding, to one or to several that are tried",
            ) from None


def _chosen(path: Path, encodings: Encodings) -> str:
    """The encoding that a byte order mark says, else the first that fits the whole file."""
    known = names(encodings)
    with pa.input_stream(str(path), compression="detect") as stream:
        if mark := marked(stream.read(4)):
            return mark
    if len(known) == 1:
        return known[0]
    for name in known:
        if _fits(path, name):
            return name
    raise Refuse(
        "data.encoding",
        f"{path} is in none of {', '.join(known)}",
        "add its encoding to the option encoding; latin-1 fits anything",
    )


def _fits(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with pa.input_stream(str(path), compression="detect") as stream:
        try:
            while piece := stream.read(BLOCK_BYTES):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
        except UnicodeError:
            return False
    return True
