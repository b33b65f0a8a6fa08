"""Reader and Writer, the contracts: rows of one format in, rows of one format out.

A format is a name, like ``csv``; its reader is a class in the entry points ``streamapp.readers``,
its writer one in ``streamapp.writers``.  Both are made of a :class:`Place` (what is read
or written) and of their own ``Options``, which msgspec has checked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import msgspec
import pyarrow as pa

from streamapp.core.errors import Refuse

#: The keys by which a place is declared, of which a format takes some.
Key = Literal["path", "pattern", "url", "table", "query"]

#: How much of its rows a reader hands over at once; a single row may be more.
BATCH_ROWS = 65_536
BATCH_BYTES = 16 << 20


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what a format takes beside its place; a struct of msgspec."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row of an otherwise good source that cannot be read.

    Attributes:
        origin: the file, or the source's name.
        line: where it begins, from 1, the header counted; of an array of JSON or a database the
            number of the row; None where nothing counts.
        reason: one line.
        text: the row as it came, cut to 10,000 characters.
    """

    origin: str
    line: int | None
    reason: str
    text: str


#: Called with each bad row, in no promised order, by the thread that takes the batches.
OnBad = Callable[[BadRow], None]


def refuse_bad(row: BadRow) -> None:
    """What is done with a bad row where nobody takes them: nothing is left out in silence.

    Raises:
        Refuse: always.
    """
    place = row.origin if row.line is None else f"{row.origin}:{row.line}"
    raise Refuse("data.row", f"{place}: {row.reason}", "correct the row")


@dataclass(frozen=True, slots=True)
class Place:
    """What a reader reads, or a writer writes.

    Attributes:
        name: of the input, the source or the output, for messages.
        folder: where its relative paths began.
        paths: of files, sorted; a writer has exactly one.  Empty for what is no file.
        url: of what is no file, its secrets filled in; never shown.
        shown: the same without secrets, or the first path; for messages.
        table: of a database.
        query: SQL, instead of a table.
        secret: what ``env:NAME`` or ``file:PATH`` holds, for options that refer to a secret.
        on_bad: takes bad rows.
    """

    name: str
    folder: Path = Path()
    paths: tuple[Path, ...] = ()
    url: str = ""
    shown: str = ""
    table: str = ""
    query: str = ""
    secret: Callable[[str], str] = str
    on_bad: OnBad = refuse_bad


class Reader(Protocol):
    """Rows of a place.  It may be asked for them several times, each time from the beginning."""

    #: Its options; every field has a default.
    Options: ClassVar[type[Options]]
    #: How files of this format end, like ``.csv``; empty for what is no file.
    suffixes: ClassVar[tuple[str, ...]]
    #: The keys that it takes; one that says where is needed, and a table or a query.
    takes: ClassVar[frozenset[Key]]

    def __init__(self, place: Place, options: Any) -> None: ...
    def schema(self) -> pa.Schema:
        """The columns of every batch that ``read`` yields.

        Reads what it must to know, which for files is their beginnings.

        Raises:
            Refuse: it cannot be read as declared.
            Retry: it does not answer now.
        """
        ...

    def read(self) -> pa.RecordBatchReader:
        """All rows, in their order, with bounded memory; close it to stop early.

        Raises:
            Refuse: as ``schema``; also by the batches that follow.
            Retry: it does not answer, or died while it was read: what came so far is void.
        """
        ...


class Writer(Protocol):
    """Takes rows to a place: all of them, or none."""

    #: Its options; every field has a default.
    Options: ClassVar[type[Options]]
    #: How files of this format end, like ``.csv``; empty for what is no file.
    suffixes: ClassVar[tuple[str, ...]]
    #: The keys that it takes; one that says where is needed, and a table or a query.
    takes: ClassVar[frozenset[Key]]

    def __init__(self, place: Place, options: Any) -> None: ...
    def write(self, rows: pa.RecordBatchReader) -> int:
        """Write all rows and return their number.

        What stood there before stays until all is written and durable, and is then replaced at
        once; after an error, or a kill, it is as it was.

        Raises:
            Refuse: the format cannot hold a column (its name and type are said), or the place
                cannot be written.
            Retry: it does not answer now.
        """
        ...
