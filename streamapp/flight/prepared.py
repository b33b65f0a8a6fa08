"""Prepared statements: a handle, its SQL, and the parameters bound last."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.flight.statements import Parameters

_PARAMETER_BYTES_MAX = 8 << 20
_STATEMENTS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Prepared:
    """``types`` has the parameters in order by name; "1", "2" for question marks.

    ``answer`` is the answer's schema where no parameter can change it, else None.
    """

    sql: str
    types: Mapping[str, pa.DataType]
    parameters: Parameters = None
    answer: pa.Schema | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names in order."""
        return tuple(self.types)

    def schema(self) -> pa.Schema:
        """One field per parameter.  Others may be bound: DuckDB casts what it can."""
        return pa.schema([pa.field(name, kind) for name, kind in self.types.items()])

    def nulls(self) -> Parameters:
        """A NULL for each parameter."""
        if all(name.isdigit() for name in self.types):
            return [None] * len(self.types)
        return dict.fromkeys(self.types)


class PreparedStatements:
    """The last ``_STATEMENTS_MAX`` that were used; a forgotten one must be prepared again."""

    def __init__(self) -> None:
        self._by_handle: OrderedDict[bytes, Prepared] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, prepared: Prepared) -> bytes:
        """Keep a statement under a new handle, which is returned."""
        handle = secrets.token_bytes(16)
        self._put(handle, prepared)
        return handle

    def get(self, handle: bytes) -> Prepared:
        """The statement.

        Raises:
            Refuse: the handle is unknown, closed, or has been forgotten.
        """
        with self._lock:
            if handle not in self._by_handle:
                raise Refuse("sql.handle", "the prepared statement is gone", "prepare it again")
            self._by_handle.move_to_end(handle)
            return self._by_handle[handle]

    def bind(
        self, handle: bytes, schema: pa.Schema, read: Callable[[], pa.RecordBatch | None]
    ) -> None:
        """Take one row of parameters; ``read`` gives batch after batch, then None.

        Raises:
            Refuse: not exactly one row, too large a one, or not the parameters the statement has.
        """
        prepared = self.get(handle)
        values: dict[str, Any] | None = None
        while (batch := read()) is not None:
            if batch.num_rows + (values is not None) > 1 or batch.nbytes > _PARAMETER_BYTES_MAX:
                raise Refuse(
                    "sql.parameters",
                    "a query takes one row of parameters, 8 MiB at most",
                    "send one",
                )
            if batch.num_rows:
                values = _values(batch)
        if len(values or {}) != len(prepared.names):
            raise Refuse(
                "sql.parameters",
                f"the statement has {len(prepared.names)} parameters, {len(values or {})} came",
                "bind one row with a column for each",
            )
        bound = _parameters(prepared, values, schema)
        self._put(handle, Prepared(prepared.sql, prepared.types, bound))

    def drop(self, handle: bytes) -> None:
        """Forget a statement, if it is known."""
        with self._lock:
            self._by_handle.pop(handle, None)

    def _put(self, handle: bytes, prepared: Prepared) -> None:
        with self._lock:
            self._by_handle[handle] = prepared
            self._by_handle.move_to_end(handle)
            while len(self._by_handle) > _STATEMENTS_MAX:
                self._by_handle.popitem(last=False)


def _values(batch: pa.RecordBatch) -> dict[str, Any]:
    """The first row's values by place and name.

    Raises:
        Refuse: Python has no room for one (nanoseconds, year 290000).
    """
    values = {}
    for number, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
        try:
            values[f"{number}.{name}"] = column[0].as_py()
        except (ValueError, OverflowError) as error:
            what = f"parameter {number + 1} ({column.type}) is out of range: {error}"
            raise Refuse("sql.parameters", what, "send it as text: it is cast") from None
    return values


def _parameters(prepared: Prepared, values: dict[str, Any] | None, schema: pa.Schema) -> Parameters:
    """By position for question marks; by name where the statement and the columns have the same."""
    given = list((values or {}).values())
    if not prepared.names:
        return None
    if all(name.isdigit() for name in prepared.names):
        return given
    if set(schema.names) == set(prepared.names):
        return dict(zip(schema.names, given, strict=True))
    raise Refuse(
        "sql.parameters",
        f"the statement's parameters are {', '.join(prepared.names)}, the columns are "
        f"{', '.join(schema.names)}",
        "name the columns like the parameters, or use ?",
    )
