"""DuckDB files: tables and queries, which cannot reach outside of the file."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa

from streamapp.core.errors import Refuse, Retry
from streamapp.workflow.data.contract import BATCH_ROWS, Key, Options, Place
from streamapp.workflow.data.databases import Counted, quoted
from streamapp.workflow.data.replacing import make_folder

#: Nothing is fetched, and a query reads no other file.
_CONFINED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
}


class DuckdbReader:
    """Rows of a table or a query of a DuckDB file, which is only read."""

    Options: ClassVar[type[Options]] = Options
    suffixes: ClassVar[tuple[str, ...]] = (".duckdb",)
    takes: ClassVar[frozenset[Key]] = frozenset({"path", "table", "query"})

    def __init__(self, place: Place, options: Any) -> None:
        self.place, self.options = place, options
        self._sql = place.query or f"SELECT * FROM {quoted(place.table)}"  # noqa: S608

    def schema(self) -> pa.Schema:
        """As ``Reader.schema``."""
        with closing(self._rows(limit=0)) as rows:
            schema: pa.Schema = next(rows)
            return schema

    def read(self) -> pa.RecordBatchReader:
        """As ``Reader.read``."""
        rows = self._rows()
        return pa.RecordBatchReader.from_batches(next(rows), rows)

    def _rows(self, limit: int | None = None) -> Generator[Any]:
        """The schema and then the batches."""
        connection = _connect(self.place.paths[0], self.place.shown, read_only=True)
        with closing(connection):
            try:
                found = connection.sql(self._sql)
                if found is None:
                    raise Refuse(
                        "data.query", f"{self.place.shown}: the query gives no rows", "SELECT ..."
                    )
                reader = (found if limit is None else found.limit(limit)).to_arrow_reader(
                    BATCH_ROWS
                )
                yield reader.schema
                yield from reader
            except (duckdb.Error, pa.ArrowException) as error:
                raise _refuse(self.place.shown, error) from None


class DuckdbWriter:
    """One table of a DuckDB file; the file's other tables stay as they are."""

    Options: ClassVar[type[Options]] = Options
    suffixes: ClassVar[tuple[str, ...]] = (".duckdb",)
    takes: ClassVar[frozenset[Key]] = frozenset({"path", "table"})

    def __init__(self, place: Place, options: Any) -> None:
        self.place, self.options, self.path = place, options, place.paths[0]

    def write(self, rows: pa.RecordBatchReader) -> int:
        """As ``Writer.write``."""
        make_folder(self.path)
        counted = Counted(rows, nested=True)
        with closing(_connect(self.path, self.place.shown)) as connection:
            table = quoted(self.place.table)
            try:
                connection.register("streamapp_rows", counted.reader())
                connection.begin()
                connection.execute(
                    f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM streamapp_rows"  # noqa: S608
                )
                connection.commit()
            except (duckdb.Error, pa.ArrowException) as error:
                if counted.error is not None:
                    raise counted.error from None
                raise _refuse(self.place.shown, error) from None
        return counted.rows


def _connect(path: Path, shown: str, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(path, read_only=read_only, config=_CONFINED)
    except duckdb.IOException as error:
        if "lock" in str(error):
            raise Retry(
                "data.busy", f"{shown} is held by another process", "end it, or wait for it"
            ) from None
        raise _refuse(shown, error) from None
    except duckdb.Error as error:
        raise _refuse(shown, error) from None


def _refuse(shown: str, error: Exception) -> Refuse:
    reason = str(error).partition("\n")[0]
    return Refuse("data.database", f"{shown}: {reason}", "check its path, table and query")
