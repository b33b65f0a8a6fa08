"""What databases share: quoted names, tables replaced at once, errors by what to do next."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
from adbc_driver_manager import DatabaseError, OperationalError

from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.workflow.data.contract import Place
from streamapp.workflow.data.plain_rows import flat_schema, flattened

if TYPE_CHECKING:
    from adbc_driver_manager import dbapi

Value = TypeVar("Value")
#: Classes and codes of SQLSTATE of a server that is away, too busy, or about to stop.
_AWAY = ("08", "53", "57", "40", "55P03")
_GONE = ("could not connect", "connection", "server closed", "database is locked", "timeout")


def quoted(name: str) -> str:
    """A table's name as SQL: each part between dots in double quotes."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def guarded(place: Place, step: Callable[[], Value]) -> Value:
    """What ``step`` returns.

    Raises:
        Retry: the database is away or died.
        Refuse: it says no.
    """
    try:
        return step()
    except (DatabaseError, pa.ArrowException, OSError) as error:
        reason = _reason(error, place)
        if is_away(error):
            raise Retry("source.died", f"{place.shown}: {reason}", "is it running?") from None
        raise Refuse("data.database", f"{place.shown}: {reason}", "see its message") from None


def is_away(error: Exception) -> bool:
    """Whether another try may go well."""
    state = (getattr(error, "sqlstate", None) or "").strip("\0")
    if state:
        return state.startswith(_AWAY)
    text = str(error).lower()
    return isinstance(error, OperationalError | OSError) and any(word in text for word in _GONE)


def write_table(
    place: Place, connect: "Callable[[], dbapi.Connection]", rows: pa.RecordBatchReader
) -> int:
    """Replace a table by these rows, in one transaction; return their number."""
    schema, _, table = place.table.rpartition(".")
    counted = Counted(rows)
    connection = guarded(place, connect)
    with closing(connection), closing(connection.cursor()) as cursor:
        try:
            guarded(
                place,
                lambda: cursor.adbc_ingest(
                    table, counted.reader(), mode="replace", db_schema_name=schema or None
                ),
            )
            guarded(place, connection.commit)
        except StreamappError:
            with suppress(DatabaseError):  # where the database has done so, as on a full disk
                connection.rollback()
            if counted.error is not None:
                raise counted.error from None
            raise
    return counted.rows


class Counted:
    """Rows counted on their way, and the error that they ended in (a driver keeps its text).

    Args:
        rows: on their way to a database.
        nested: whether it takes lists and structs; else they are JSON.
    """

    def __init__(self, rows: pa.RecordBatchReader, *, nested: bool = False) -> None:
        self.rows = 0
        self.error: Exception | None = None
        self._source, self._nested = rows, nested

    def reader(self) -> pa.RecordBatchReader:
        """The rows, once."""
        schema = self._source.schema if self._nested else flat_schema(self._source.schema)
        return pa.RecordBatchReader.from_batches(schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._source:
                self.rows += batch.num_rows
                yield batch if self._nested else flattened(batch)
        except Exception as error:
            self.error = error
            raise


def _reason(error: Exception, place: Place) -> str:
    """The message in one line, without what was secret in the URL."""
    text = " ".join(str(error).split())
    return text.replace(place.url, place.shown) if place.url else text
