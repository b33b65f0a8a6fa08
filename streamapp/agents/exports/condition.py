"""Which rows are exported: a DuckDB condition on the rows of a record."""

import json
from typing import Any

import duckdb
import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.errors import Refuse, Reject
from streamapp.core.sql import without_arguments

#: What the store's table ``events`` has in front of a row, so that conditions fit both.
ADDRESS = (pa.field("source_topic", pa.string()), pa.field("source_partition", pa.int32()))
_ROW = "__row"
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "memory_limit": "512MB",
    "python_enable_replacements": False,
}


class Condition:
    """A condition that was checked against the columns there are; use it from one thread at a time.

    Args:
        name: of the export, for messages.
        where: as after WHERE, or of ``streamapp tail --where``.
        columns: of the workflow, beside those of every event.

    Raises:
        Refuse: ``export.where`` it is no one condition on these columns.
    """

    def __init__(self, name: str, where: str, columns: pa.Schema) -> None:
        self._name = name
        self._connection = duckdb.connect(":memory:", config=_SETTINGS)
        for setting in ("enable_external_access = false", "lock_configuration = true"):
            self._connection.execute(f"SET {setting}")
        self._sql = f"SELECT {_ROW} FROM rows WHERE (\n{where}\n) ORDER BY {_ROW}"  # noqa: S608  # checked below
        self._require_one(where)
        fields = [*ADDRESS, *EVENT_SCHEMA, *columns]
        try:
            self._matching(pa.schema(fields).empty_table())
        except duckdb.Error as error:
            raise self._refused(str(error).partition("\n")[0]) from None

    def matching(self, rows: pa.Table) -> tuple[list[int], list[tuple[int, Reject]]]:
        """Rows of which it is true, rising; and those for which it cannot be told, with the reason.

        Args:
            rows: at most some thousands.
        """
        try:
            return self._matching(rows), []
        except duckdb.Error as error:
            if rows.num_rows > 1:
                return self._halves(rows)
            reason = str(error).partition("\n")[0]
            return [], [(0, Reject("export.where", f"[exports.{self._name}] where: {reason}"))]

    def close(self) -> None:
        """Free its memory."""
        self._connection.close()

    def _matching(self, rows: pa.Table) -> list[int]:
        numbered = rows.append_column(_ROW, pa.array(range(rows.num_rows), pa.int32()))
        self._connection.register("rows", numbered)
        try:
            found: list[tuple[int]] = self._connection.execute(self._sql).fetchall()
        finally:
            self._connection.unregister("rows")
        return [row for (row,) in found]

    def _halves(self, rows: pa.Table) -> tuple[list[int], list[tuple[int, Reject]]]:
        middle = rows.num_rows // 2
        found, bad = self.matching(rows.slice(0, middle))
        more, worse = self.matching(rows.slice(middle))
        return [*found, *(middle + row for row in more)], [
            *bad,
            *((middle + row, error) for row, error in worse),
        ]

    def _require_one(self, where: str) -> None:
        """One expression, and nothing that gets out of the parentheses round it."""
        given, plain = (
            self._parsed(f"SELECT list_value(\n{where}\n)"),
            self._parsed("SELECT list_value(true)"),
        )
        if without_arguments(given) != without_arguments(plain):
            raise self._refused(f"{where[:200]!r} is not one condition")

    def _parsed(self, sql: str) -> dict[str, Any]:
        try:
            ((text,),) = self._connection.execute(
                "SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]
            ).fetchall()
            tree: dict[str, Any] = json.loads(text)
        except (duckdb.Error, RecursionError) as error:
            raise self._refused(str(error).partition("\n")[0]) from None
        if tree["error"]:
            raise self._refused(str(tree["error_message"]))
        if len(tree["statements"]) != 1:
            raise self._refused(f"these are {len(tree['statements'])} statements")
        return tree

    def _refused(self, why: str) -> Refuse:
        return Refuse(
            "export.where",
            f"[exports.{self._name}] where: {why}",
            "write what could stand after WHERE: intent = 'cancel' AND sentiment < 0",
        )
