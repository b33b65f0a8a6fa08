"""A Slice of the source cut into units: consecutive records that become one record each."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.agents.flow.fronts import Fronts
from streamapp.agents.flow.record import Mark, check_schema, decode, mark_of
from streamapp.core.errors import Halt, Reject
from streamapp.core.slice import RecordLike, Slice

_json = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Unit:
    """Records of one run; ``first`` and ``next`` are offsets of the source."""

    first: int
    next: int
    run: int
    end: bool
    records: tuple[RecordLike, ...]

    def halves(self) -> tuple["Unit", "Unit"]:
        """Two units of at least one record each, of one of at least two."""
        middle = len(self.records) // 2
        left, right = self.records[:middle], self.records[middle:]
        return (
            Unit(self.first, right[0].offset, self.run, end=False, records=left),
            Unit(right[0].offset, self.next, self.run, end=self.end, records=right),
        )


def units(slice_: Slice, borders: Collection[int], *, apart: bool = False) -> Iterator[Unit]:
    """The Slice's records, cut at these offsets, where a run begins, and behind each end.

    Offsets that the log skips belong to the unit before them, or to the first.

    Args:
        slice_: of one partition.
        borders: offsets at which a unit begins.
        apart: each record is a unit.
    """
    first, run = slice_.range.first, 0
    held: list[RecordLike] = []
    for record in slice_.records:
        mark = mark_of(record) or Mark(record.offset, record.offset + 1)
        if held and (apart or mark.run != run or record.offset in borders):
            yield Unit(first, record.offset, run, end=False, records=tuple(held))
            first, held = record.offset, []
        held.append(record)
        run = mark.run
        if mark.end:
            yield Unit(first, record.offset + 1, run, end=True, records=tuple(held))
            first, held = record.offset + 1, []
    if held or first < slice_.range.next:
        yield Unit(first, slice_.range.next, run, end=False, records=tuple(held))


class Repeats:
    """Leaves out what came before: a process that was taken for dead may have written it, too.

    Args:
        place: the greatest at which a record before the first one ended.
    """

    def __init__(self, place: tuple[int, int] = (0, 0)) -> None:
        self.place = place

    def copy(self) -> "Repeats":
        """One of its own that stands where this does."""
        return Repeats(self.place)

    def is_new(self, mark: Mark) -> bool:
        """Whether a record's rows are to be taken; asked once for each, in the log's order.

        Raises:
            Halt: it has rows that were taken and others that were not.
        """
        if mark.place <= self.place:
            return False
        if mark.begin < self.place and mark.begin[0] == self.place[0]:
            raise Halt(
                "flow.overlap",
                f"a record of {mark.first} to {mark.next} follows one up to {self.place[1]}",
                "two processes of one group wrote at once; feed the rows again",
            )
        self.place = mark.place
        return True


class Times(NamedTuple):
    """Event time, in microseconds: what was reached before each row came, and with the last."""

    before_us: npt.NDArray[np.int64]
    until_us: int


class Taken(NamedTuple):
    """A unit's rows, and those of others' records that are none of the source, with a reason."""

    rows: pa.Table
    bad: list[tuple[pa.Table, str]]
    times: Times | None


def rows_of(records: Sequence[RecordLike], schema: pa.Schema, seen: Repeats | Fronts) -> Taken:
    """The records' rows, each once.

    Args:
        records: of a unit.
        schema: of the source.
        seen: of its partition; with ``Fronts`` the rows have ``times``.
    """
    tables, bad, before = [schema.empty_table()], [], list[tuple[int, int]]()
    for record in records:
        reached_us, known = seen.reached_us if isinstance(seen, Fronts) else 0, len(tables)
        mark = mark_of(record)
        if mark is None:
            try:
                tables.append(_foreign(record, schema))
            except Reject as error:
                text = bytes(record.value or b"").decode(errors="replace")
                bad.append((pa.table({"value": [text]}), error.message))
        elif seen.is_new(mark):
            tables.append(decode(record).rows)
        before += [(reached_us, table.num_rows) for table in tables[known:]]
    for table in tables:
        check_schema(table, schema, "the topic")
    times = None
    if isinstance(seen, Fronts):
        reached = np.array([at_us for at_us, _ in before], np.int64)
        times = Times(np.repeat(reached, [rows for _, rows in before]), seen.reached_us)
    return Taken(pa.concat_tables(tables), bad, times)


def _foreign(record: RecordLike, schema: pa.Schema) -> pa.Table:
    """Somebody else's record: a JSON object, or an array of them, with the source's columns."""
    try:
        found = _json.decode(record.value or b"")
        rows = found if isinstance(found, list) else [found]
        if not all(isinstance(row, dict) for row in rows):
            raise Reject("flow.row", "not a JSON object with the input's columns")
        _check_whole(rows, schema)
        _check_maps(rows, schema)
        return _table(rows, schema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject("flow.row", f"not a row: {str(error)[:200]}") from None
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise Reject("flow.row", f"not a row of the input: {str(error)[:200]}") from None


def _table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows of JSON, whose times may be texts, as they are in files."""
    texts = {
        field.name
        for field in schema
        if pa.types.is_temporal(field.type)
        and any(isinstance(row.get(field.name), str) for row in rows)
    }
    if not texts:
        return pa.Table.from_pylist(rows, schema=schema)
    read = [field.with_type(pa.string()) if field.name in texts else field for field in schema]
    return pa.Table.from_pylist(rows, schema=pa.schema(read)).cast(schema)


def _check_whole(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Raises ValueError for a fraction where whole numbers are kept; Arrow would cut it off."""
    for field in schema:
        if pa.types.is_integer(field.type) or pa.types.is_temporal(field.type):
            for row in rows:
                value = row.get(field.name)
                if isinstance(value, float) and not value.is_integer():
                    raise ValueError(f"{field.name}: {value} is not {field.type}")


def _check_maps(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Raises ValueError for a map that is no object; of a null in its place Arrow would die."""
    for field in schema:
        if pa.types.is_nested(field.type):
            for row in rows:
                if not _has_maps(row.get(field.name), field.type):
                    raise ValueError(f"{field.name}: a map is not a JSON object")


def _has_maps(value: Any, kind: pa.DataType) -> bool:
    """Whether a value is an object where its type is, or has within it, a map."""
    if pa.types.is_map(kind):
        is_map = isinstance(value, dict)
        return value is None or (
            is_map and all(_has_maps(each, kind.item_type) for each in value.values())
        )
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return all(_has_maps(value.get(each.name), each.type) for each in kind)
    if isinstance(value, list) and (inner := getattr(kind, "value_type", None)) is not None:
        return all(_has_maps(each, inner) for each in value)
    return True
