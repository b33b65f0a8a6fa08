"""How records' rows become rows of table ``events``: found out once for each of their schemas."""

from collections import Counter
from typing import NamedTuple

import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.errors import Halt
from streamapp.topics.enriched import Enriched

#: No event has a NULL there.
_FILLED = [field.name for field in EVENT_SCHEMA if not field.nullable]


class Origin(NamedTuple):
    """The columns that are the same in all rows of a record."""

    source_topic: str
    source_partition: int
    provenance: int


class _Place(NamedTuple):
    """Where rows of some schema have a column of the table; ``at`` None: nowhere."""

    name: str
    kind: pa.DataType
    at: int | None
    is_same: bool


class Layout:
    """The columns of table ``events``, and where records have them.

    Nearly all records of a store have one schema; what was found of it is kept until rows of
    another come.  For one thread at a time.

    Args:
        schema: the columns of table ``events``.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._names = {name.lower() for name in schema.names}
        self._checked: pa.Schema | None = None
        self._given: pa.Schema | None = None
        self._places: list[_Place] = []
        self._left_out: list[str] = []

    def check(self, enriched: Enriched) -> None:
        """As :func:`check_columns` and :func:`check_filled`."""
        if enriched.rows.schema != self._checked:
            check_columns(enriched)
            self._checked = enriched.rows.schema
        check_filled(enriched)

    def align(self, origin: Origin, rows: pa.RecordBatch, left_out: Counter[str]) -> pa.RecordBatch:
        """The rows with the columns of the table; ``left_out`` counts values that have no place."""
        if rows.schema != self._given:
            self._find(rows.schema)
        for name in self._left_out:
            left_out[name] += rows.num_rows
        constants, given = origin._asdict(), rows.columns
        arrays = []
        for name, kind, at, is_same in self._places:
            if name in constants:
                arrays.append(pa.repeat(pa.scalar(constants[name], kind), rows.num_rows))
            elif at is None:
                arrays.append(pa.nulls(rows.num_rows, kind))
            elif is_same:
                arrays.append(given[at])
            else:
                arrays.append(_cast(given[at], name, kind, left_out))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _find(self, given: pa.Schema) -> None:
        indexes = {name.lower(): index for index, name in enumerate(given.names)}
        self._left_out = sorted(indexes.keys() - self._names)
        self._places = []
        for target in self.schema:
            index = indexes.get(target.name.lower())
            is_same = index is not None and given.types[index].equals(target.type)
            self._places.append(_Place(target.name, target.type, index, is_same))
        self._given = given


def check_columns(enriched: Enriched) -> None:
    """Halt when the record's rows are no events."""
    given = dict(zip(enriched.rows.schema.names, enriched.rows.schema.types, strict=True))
    for field in EVENT_SCHEMA:
        kind = given.get(field.name)
        if kind != field.type:
            found = "none" if kind is None else f"one of {kind}"
            raise _strange(enriched, f"a column {field.name!r} of {field.type} and has {found}")


def check_filled(enriched: Enriched) -> None:
    """Halt when the record's rows have a NULL where no event has one."""
    for name in _FILLED:
        if enriched.rows.column(name).null_count:
            raise _strange(enriched, f"a value in each row of column {name!r} and has a NULL")


def _strange(enriched: Enriched, should: str) -> Halt:
    return Halt(
        "store.record",
        f"the enriched record of {enriched.cover.range} should have {should}",
        "it was written by something else than streamapp, or by another version",
    )


def _cast(column: pa.Array, name: str, kind: pa.DataType, left_out: Counter[str]) -> pa.Array:
    """The column as the table has it; counted NULLs when an older stage wrote another type."""
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        left_out[name] += len(column)
        return pa.nulls(len(column), kind)
