"""Good rows out of bad company: what does not parse is halved until the bad row is alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa


class Record(NamedTuple):
    """A row as it stands in its file: the line it begins on (or its number), and its bytes."""

    line: int
    data: bytes


#: Records to as many rows; raises pa.ArrowException or UnicodeDecodeError.
Parse = Callable[[Sequence[Record]], pa.RecordBatch]
#: Takes a record that is bad alone, and why.
Bad = Callable[[Record, str], None]


def recover(records: Sequence[Record], parse: Parse, bad: Bad) -> Iterator[pa.RecordBatch]:
    """Rows of the good records, in order; the others go to ``bad``."""
    if not records:
        return
    try:
        batch = parse(records)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        if len(records) == 1:
            bad(records[0], plain(error))
            return
    else:
        yield batch
        return
    middle = len(records) // 2
    yield from recover(records[:middle], parse, bad)
    yield from recover(records[middle:], parse, bad)


def plain(error: Exception) -> str:
    """What Arrow says of one row, in a line without the row's place, which is ours to say."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    reason = str(error).partition("\n")[0]
    if "Invalid UTF8" in reason:
        return "it is not UTF-8"
    reason = reason.removeprefix("JSON parse error: ").removeprefix("CSV parse error: ")
    return reason.partition(" in row ")[0]
