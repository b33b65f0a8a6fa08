"""PostgreSQL, by ADBC; the package comes with ``streamapp[postgres]``."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
from adbc_driver_manager import dbapi
from adbc_driver_postgresql.dbapi import connect

from streamapp.workflow.data.contract import Key, Options, Place
from streamapp.workflow.data.databases import guarded, quoted, write_table


class PostgresReader:
    """Rows of a table or a query, in a transaction that only reads."""

    Options: ClassVar[type[Options]] = Options
    suffixes: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[frozenset[Key]] = frozenset({"url", "table", "query"})

    def __init__(self, place: Place, options: Any) -> None:
        self.place, self.options = place, options
        self._sql = place.query or f"SELECT * FROM {quoted(place.table)}"  # noqa: S608

    def schema(self) -> pa.Schema:
        """As ``Reader.schema``; the server plans the query and runs nothing."""
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            return guarded(self.place, lambda: cursor.adbc_execute_schema(self._sql))

    def read(self) -> pa.RecordBatchReader:
        """As ``Reader.read``."""
        rows = self._rows()
        return pa.RecordBatchReader.from_batches(next(rows), rows)

    def _rows(self) -> Iterator[Any]:
        """The schema and then the batches."""
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            guarded(self.place, lambda: cursor.execute(self._sql))
            reader = guarded(self.place, cursor.fetch_record_batch)
            yield reader.schema
            while (batch := guarded(self.place, lambda: next(reader, None))) is not None:
                yield batch

    def _connect(self) -> dbapi.Connection:
        opened = partial(connect, self.place.url)
        connection: dbapi.Connection = guarded(self.place, opened)
        with closing(connection.cursor()) as cursor:
            guarded(self.place, lambda: cursor.execute("SET TRANSACTION READ ONLY"))
        return connection


class PostgresWriter:
    """One table, replaced in one transaction."""

    Options: ClassVar[type[Options]] = Options
    suffixes: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[frozenset[Key]] = frozenset({"url", "table"})

    def __init__(self, place: Place, options: Any) -> None:
        self.place, self.options = place, options

    def write(self, rows: pa.RecordBatchReader) -> int:
        """As ``Writer.write``; lists and structs are JSON."""
        return write_table(self.place, partial(connect, self.place.url), rows)
