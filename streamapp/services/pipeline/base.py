"""What every transform is: an operation that counts what comes in, goes out, and is set aside."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from time import perf_counter
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta

from streamapp.plugin import BaseOperation, Config, Refuse, Sources
from streamapp.plugin.operation import Parallel
from streamapp.services.pipeline.database import (
    ROW,
    BadRows,
    Database,
    check_apart,
    given,
    idle,
    numbered,
    selected,
    typed,
)
from streamapp.services.pipeline.expression import parse, quoted, resolved

Name = Annotated[str, Meta(min_length=1)]
Sql = Annotated[str, Meta(min_length=1)]
#: What becomes of a row at which an expression fails.
OnError = Literal["quarantine", "null", "fail"]


@dataclass
class Tally:
    """What one transform did.

    Attributes:
        name: of the transform.
        rows_in: of all inputs.
        rows_out: of the result.
        rejected: set aside, with a reason.
        dropped: left out as asked: by a filter, as a repeat, not in the sample, or late.
        seconds: of work.
    """

    name: str
    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    dropped: int = 0
    seconds: float = 0.0


class Transform(BaseOperation):
    """An operation of this service; subclasses say ``plan`` and ``apply``."""

    parallel: ClassVar[Parallel] = "threads"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.tally = Tally(type(self).__name__.lower())
        self._lock = Lock()
        self._database: Database | None = None
        self._planned: pa.Schema | None = None

    @property
    def database(self) -> Database:
        """One of its own, from when it is first asked to ``close``."""
        with self._lock:
            if self._database is None:
                self._database = idle.take(self.work.memory_bytes_max)
            return self._database

    def close(self) -> None:
        if self._database is not None:
            idle.give(self.work.memory_bytes_max, self._database)
            self._database = None

    @abstractmethod
    def plan(self, inputs: Mapping[str, pa.Schema], sources: Sources) -> pa.Schema:
        """What ``schema`` says; also what ``apply`` needs to know of its inputs."""

    def schema(self, inputs: Mapping[str, pa.Schema], sources: Sources) -> pa.Schema:
        """See the subclass's ``plan``."""
        self._planned = self.plan(inputs, sources)
        return self._planned

    def prepare(self, inputs: Mapping[str, pa.Table]) -> None:
        """Plan, where another instance was planned."""
        with self._lock:
            if self._planned is None:
                schemas = {name: table.schema for name, table in inputs.items()}
                self._planned = self.plan(schemas, self.work)

    @abstractmethod
    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The result."""

    def run(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The result, counted.

        Raises:
            Refuse: an expression fails at a row, and it was asked to ``fail``.
        """
        started_s = perf_counter()
        self.prepare(inputs)
        result = self.apply(inputs)
        rows = sum(table.num_rows for table in inputs.values())
        with self._lock:
            self.tally.rows_in += rows
            self.tally.rows_out += result.num_rows
            self.tally.seconds += perf_counter() - started_s
        self.work.advance(rows)
        return result

    def report(self) -> list[dict[str, Any]]:
        """What was counted since it was last asked, one for each transform."""
        with self._lock:
            told, self.tally = self.tally, Tally(self.tally.name)
        return [asdict(told)]

    def set_aside(self, rows: pa.Table, reason: str) -> None:
        """Quarantine rows, and count them."""
        if rows.num_rows:
            self.work.quarantine(rows, reason)
            with self._lock:
                self.tally.rejected += rows.num_rows

    def drop(self, rows: int) -> None:
        """Count rows that are left out as asked."""
        with self._lock:
            self.tally.dropped += rows


class Evaluator:
    """Named expressions of a row, and what becomes of rows at which they fail.

    Args:
        named: name to SQL.
        key: of the config that has them.
        on_error: what becomes of a row at which one fails.
        keyed: whether messages have the name after the key.

    Raises:
        Refuse: see ``expression.parse``.
    """

    def __init__(
        self, named: Mapping[str, str], key: str, on_error: OnError, *, keyed: bool = True
    ) -> None:
        self._on_error = on_error
        self._expressions = {
            name: parse(sql, f"{key}.{name}" if keyed else key) for name, sql in named.items()
        }
        self._sql: dict[str, str] = {}
        self._columns: list[str] = []

    def types(self, schema: pa.Schema, origin: str) -> dict[str, pa.DataType]:
        """The types of what they give; must be called before ``values``.

        Raises:
            Refuse: they read columns that are not there, or of types that they cannot take.
        """
        found = {
            name: typed(expression, schema, origin)
            for name, expression in self._expressions.items()
        }
        self._sql = {name: sql for name, (sql, _) in found.items()}
        self._columns = [
            column
            for expression in self._expressions.values()
            for column in resolved(expression, schema, origin)
        ]
        check_apart(self._columns)
        return {name: kind for name, (_, kind) in found.items()}

    def values(self, transform: Transform, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The rows at which nothing fails, and the values there.

        Raises:
            Refuse: one fails, and it was asked to ``fail``.
        """
        if not self._sql:
            return rows, rows.select([])
        reads = given(rows, self._columns)
        sql = f"SELECT {selected(self._sql)} FROM rows"  # noqa: S608  # each was checked
        try:
            return rows, transform.database.query(sql, rows=reads)
        except BadRows as error:
            if self._on_error == "fail":
                raise self._refused(transform, reads, str(error)) from None
        return self._tried(transform, rows, reads)

    def _tried(
        self, transform: Transform, rows: pa.Table, reads: pa.Table
    ) -> tuple[pa.Table, pa.Table]:
        """As ``values``, of rows some of which fail."""
        # A list of one null is no null: what is null in place of a list failed.
        tried = {name: f"TRY([{sql}])" for name, sql in self._sql.items()}
        lists = transform.database.query(
            f"SELECT {selected(tried)} FROM rows",  # noqa: S608
            rows=reads,
        ).combine_chunks()
        if self._on_error == "quarantine":
            good = None
            for name in lists.column_names:
                fails = lists.column(name).is_null()
                if good is not None:
                    fails = pc.and_(fails, good)
                bad = rows.filter(fails)
                transform.set_aside(bad, f"{self._expressions[name].key} fails")
                fine = lists.column(name).is_valid()
                good = fine if good is None else pc.and_(good, fine)
            rows, lists = rows.filter(good), lists.filter(good)
        firsts = [_first(lists.column(name)) for name in lists.column_names]
        return rows, pa.table(firsts, names=lists.column_names)

    def _refused(self, transform: Transform, reads: pa.Table, why: str) -> Refuse:
        """Says which expression fails, and at which row."""
        for name, sql in self._sql.items():
            found = transform.database.query(
                f"SELECT {quoted(ROW)} FROM rows WHERE TRY([{sql}]) IS NULL LIMIT 1",  # noqa: S608
                rows=numbered(reads, reads.column_names),
            )
            if found.num_rows:
                [number] = found.column(0).to_pylist()
                key = self._expressions[name].key
                return Refuse(
                    "operation.rows",
                    f"{key}: {self._expressions[name].sql!r} fails at row {number + 1}: {why}",
                    "mend the row, or write on_error: quarantine",
                )
        return Refuse("operation.rows", f"an expression fails: {why}", "see its config")


def _first(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    """The one value of each list, null where there is no list."""
    found: pa.ChunkedArray = pc.list_element(lists, 0)
    return found
