"""Lines of CSV to records, types and rows."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from streamapp.core.errors import Refuse
from streamapp.workflow.data.blocks import Block
from streamapp.workflow.data.recovering import Record

COLUMNS_MAX = 16_384

#: What stands for true, and what for false.
TRUE = ("true", "True", "TRUE")
FALSE = ("false", "False", "FALSE")

_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
#: What a value looks like, narrowest first.  A number with a leading zero is a text: it is a code.
_LOOKS = (
    (r"^-?(0|[1-9][0-9]{0,18})$", pa.int64()),
    (r"^-?(0|[1-9][0-9]*)$", pa.string()),  # of so many digits a float would keep 15
    (r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$", pa.float64()),
    (r"^(?i:true|false)$", pa.bool_()),
    (f"^{_DATE}$", pa.date32()),
    (rf"^{_DATE}[T ]{_TIME}$", pa.timestamp("us")),
    (rf"^{_DATE}[T ]{_TIME}(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$", pa.timestamp("us", "UTC")),
)
#: Values that are looked at before all are.
_FIRST = 100

_EXPECTED = re.compile(r"Expected (?P<wanted>\d+) columns, got (?P<got>\d+)")
_CONVERSION = re.compile(
    r"In CSV column #(?P<place>\d+): .*CSV conversion error to (?P<type>[^:]+): (?P<why>.*)"
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written.

    Attributes:
        delimiter: between values.
        quote: around values that have a delimiter, a quote or a line's end in them; doubled inside.
        nulls: what stands for null where it is not quoted.
    """

    delimiter: str
    quote: str
    nulls: tuple[str, ...]

    def whole(self, data: bytes) -> int:
        """A cut after the last line that does not end within quotes."""
        quote = self.quote.encode()
        upto, within = len(data), data.count(quote) % 2 if quote in data else 0
        while upto >= 0:
            last = data.rfind(quote, 0, upto)
            if not within and (end := data.rfind(b"\n", last + 1, upto)) >= 0:
                return end + 1
            upto, within = last, 1 - within
        return 0

    def records(self, block: Block) -> list[Record]:
        """The block's rows as they stand; lines belong together while a quote is open."""
        found: list[Record] = []
        waiting: list[bytes] = []
        start, is_open = block.line, False
        for line, data in enumerate(block.data.splitlines(keepends=True), block.line):
            start = start if waiting else line
            waiting.append(data)
            is_open = _is_open(data, _value(self.delimiter, self.quote), within=is_open)
            if not is_open:
                found.append(Record(start, b"".join(waiting)))
                waiting = []
        found.append(Record(start, b"".join(waiting)))
        return [record for record in found if record.data.strip()]

    def is_regular(self, data: bytes) -> bool:
        """Whether each quote begins a value, ends one, or is doubled within one.

        Where one does not, Arrow's parser may take the rows that follow for a part of a value.
        """
        quote = self.quote.encode()
        if quote not in data:
            return True
        text = np.frombuffer(b"\n" + data.replace(quote * 2, b"") + b"\n", np.uint8)
        places = np.flatnonzero(text == ord(quote))
        if len(places) % 2:
            return False
        beside = np.concatenate([text[places[::2] - 1], text[places[1::2] + 1]])
        return bool(np.isin(beside, list(f"{self.delimiter}\r\n".encode())).all())

    def count(self, data: bytes) -> int:
        """How many values a row has; 0 when it is none, or several."""
        row = data.removesuffix(b"\n").removesuffix(b"\r")
        if self.quote.encode() not in row:
            several = not row or b"\r" in row or b"\n" in row
            return 0 if several else row.count(self.delimiter.encode()) + 1
        value, at = _sound(self.delimiter, self.quote), 0
        for count_ in count(1):
            found = value.match(row, at)
            if found is None or found.end() == len(row):
                return count_ if found else 0
            at = found.end() + 1
        raise AssertionError  # count has no end

    def values(self, data: bytes) -> list[list[str]]:
        """Rows by the standard library, which says what the structure is; for single ones."""
        text = data.decode("utf-8", "replace")
        rows = csv.reader(
            io.StringIO(text, newline=""), delimiter=self.delimiter, quotechar=self.quote,
            strict=True,
        )  # fmt: skip
        return list(rows)

    def parse(self, data: bytes, schema: pa.Schema) -> pa.RecordBatch:
        """Rows of exactly these columns, in this order.

        Raises:
            pa.ArrowException, UnicodeDecodeError: a row has more or fewer, or a value of another
                type.
        """
        if not data or data.isspace():
            return _empty(schema)
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            pa.csv.ReadOptions(
                use_threads=False, block_size=len(data) + 1, column_names=schema.names
            ),
            pa.csv.ParseOptions(
                delimiter=self.delimiter, quote_char=self.quote, newlines_in_values=True
            ),
            pa.csv.ConvertOptions(
                column_types=schema,
                null_values=list(self.nulls),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=list(TRUE),
                false_values=list(FALSE),
            ),
        )
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else _empty(schema)


@cache
def _value(delimiter: str, quote: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """A value from its beginning to a delimiter, and the rest of one that is within quotes."""
    mark, end = (re.escape(one).encode() for one in (quote, delimiter))
    rest = b"(?:[^%b]++|%b%b)*+(?P<closed>%b?)[^%b]*" % (mark, mark, mark, mark, end)
    return re.compile(b"%b%b|[^%b]*" % (mark, rest, end)), re.compile(rest)


@cache
def _sound(delimiter: str, quote: str) -> re.Pattern[bytes]:
    """A value up to a delimiter or the end of its row, where its quotes are those around it."""
    mark, end = (re.escape(one).encode() for one in (quote, delimiter))
    within = b"%b(?:[^%b]++|%b%b)*+%b" % (mark, mark, mark, mark, mark)
    return re.compile(rb"(?:%b|(?!%b)[^%b\r\n]*)(?=%b|\Z)" % (within, mark, end, end))


def _is_open(
    line: bytes, value: tuple[re.Pattern[bytes], re.Pattern[bytes]], *, within: bool
) -> bool:
    """Whether a line ends within quotes; those that do not begin a value are a part of it."""
    at, (first, rest) = 0, value
    while at <= len(line):
        found = (rest if within else first).match(line, at)
        assert found is not None  # noqa: S101  # both match nothing, too
        if found["closed"] == b"":
            return True
        at, within = found.end() + 1, False
    return False


def header(dialect: Dialect, record: Record, origin: str) -> list[str]:
    """The names of the columns; one without a name is called by its place.

    Raises:
        Refuse: two have one name, there are more than ``COLUMNS_MAX``, or it is no line of CSV.
    """
    try:
        names = dialect.values(record.data)[0]
    except (csv.Error, IndexError) as error:
        raise Refuse("data.header", f"{origin}:{record.line}: {error}", "correct it") from None
    if len(names) > COLUMNS_MAX:
        raise Refuse(
            "data.columns_max",
            f"{origin}:{record.line}: there are {len(names):,} columns, more than {COLUMNS_MAX:,}",
            "write a row for each value instead",
        )
    names = [name.strip() or f"column_{place}" for place, name in enumerate(names, 1)]
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name in seen:
            raise Refuse(
                "data.duplicate",
                f"{origin}:{record.line}: columns {names.index(name) + 1} and {place + 1} are "
                f"both called {name!r}",
                "rename one of them",
            )
        seen.add(name)
    return names


def guess_delimiter(record: Record, quote: str) -> str:
    """The one of comma, tab, semicolon and bar that the first line has most of."""
    outside = b"".join(record.data.split(quote.encode())[::2])
    return max(",\t;|", key=lambda one: (outside.count(one.encode()), one == ","))


def learn_types(rows: pa.Table) -> pa.Schema:
    """The narrowest types that hold all values of these columns of text."""
    return pa.schema(
        [
            pa.field(name, _learn(column))
            for name, column in zip(rows.schema.names, rows.columns, strict=True)
        ]
    )


def _learn(values: pa.ChunkedArray) -> pa.DataType:
    # the first ones say of most looks that they are none, and are soon looked at
    first = pc.unique(values[:_FIRST].drop_null())
    looks = [(look, kind) for look, kind in _LOOKS if _all_look(look, first)]
    known = pc.unique(values.drop_null()) if looks else first
    if not len(known):
        return pa.string()
    for look, kind in looks:
        if _all_look(look, known):
            try:
                # Dates that there are none of are texts.
                known.cast(kind)
            except pa.ArrowException:
                continue
            if not pa.types.is_temporal(kind) or _is_of_calendar(known, kind):
                return kind
    return pa.string()


def _is_of_calendar(times: pa.Array, kind: pa.DataType) -> bool:
    """Whether none is before the year 1, where Python's calendar begins; a zone shifts it."""
    least: str = pc.min(times).as_py()
    return least >= ("0001-01-02" if getattr(kind, "tz", None) else "0001")


def _all_look(look: str, values: pa.Array) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, look)).as_py())


def explain(reason: str, names: Sequence[str]) -> str:
    """What Arrow says of a row, with columns by their names."""
    if match := _EXPECTED.search(reason):
        return f"it has {match['got']} values, not {match['wanted']}"
    if match := _CONVERSION.search(reason):
        why = " and is not UTF-8" if "UTF8" in match["why"] else ""
        value = match["why"].partition("invalid value ")[2]
        return f"column {names[int(match['place'])]!r} is {match['type']}{why}" + (
            f", not {value}" if value else ""
        )
    return reason


def widest(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """What holds values of both: numbers are numbers, all else is text."""
    if left == right:
        return left
    if {left, right} == {pa.int64(), pa.float64()}:
        return pa.float64()
    return pa.string()


def texts(names: Sequence[str]) -> pa.Schema:
    """A schema in which every column is text."""
    return pa.schema([pa.field(name, pa.string()) for name in names])


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], kind) for kind in schema.types], schema=schema)
