"""``pipeline.window``: one definition, for a table, for a topic, and as a query of the store."""

from collections.abc import Mapping
from typing import Any, ClassVar

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.plugin import Config, Halt, Keyed, Refuse, Sources, column
from streamapp.plugin.operation import Parallel
from streamapp.services.pipeline.base import Transform
from streamapp.services.pipeline.database import (
    ROW,
    BadRows,
    check_apart,
    given,
    planner,
    selected,
    typed,
)
from streamapp.services.pipeline.expression import parse, quoted, resolved
from streamapp.services.pipeline.window import sql
from streamapp.services.pipeline.window.spec import Spans, WindowConfig

Times = npt.NDArray[np.int64]


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept between batches beside the rows of open windows."""

    latest_us: int
    closed_us: int
    late: int
    late_partly: int
    rows: bytes


class Window(Transform):
    """A row for each window and key: start and end, the key, and what is computed of its rows.

    Rows come in the order of the windows' ends, then of their starts and keys.
    """

    Config: ClassVar[type[Config]] = WindowConfig
    scope = "window"
    parallel: ClassVar[Parallel] = "none"

    config: WindowConfig

    def __init__(self, config: WindowConfig) -> None:
        super().__init__(config)
        self.spans = Spans(config)
        self.late = self.late_partly = 0
        self._told = 0, 0
        self._parsed = {
            name: parse(text, f"config.columns.{name}", groups=True)
            for name, text in config.columns.items()
        }
        self.sql: dict[str, str] = {}
        self._reads: list[str] = []
        self._schema: pa.Schema  # known once it was planned
        self._latest_us = self._closed_us = sql.FIRST_US
        self._open: pa.Table | None = None

    def plan(self, inputs: Mapping[str, pa.Schema], _sources: Sources) -> pa.Schema:
        """Start, end, key and computed columns.

        Raises:
            Refuse: the time is no timestamp, or an expression does not fit the columns.
        """
        [(origin, schema)] = inputs.items()
        time = column(schema, self.config.time, origin, "config.time")
        if not pa.types.is_timestamp(time.type):
            raise Refuse(
                "operation.type",
                f"config.time: column {time.name!r} of {origin!r} is {time.type}, not a timestamp",
                "make one of it by pipeline.map, like strptime(at, '%Y-%m-%d %H:%M:%S')",
            )
        moment = pa.timestamp("us", "UTC" if time.type.tz else None)
        fields = [pa.field(self.config.start, moment), pa.field(self.config.end, moment)]
        fields += [column(schema, name, origin, "config.by") for name in self.config.by]
        for name, expression in self._parsed.items():
            self.sql[name], kind = typed(expression, schema, origin)
            fields.append(pa.field(name, kind))
        names = [field.name for field in fields]
        if twice := [name for name in names if names.count(name) > 1]:
            what = f"config: there would be two columns {twice[0]!r}"
            raise Refuse("operation.column", what, "give one of them another name")
        reads = [resolved(each, schema, origin) for each in self._parsed.values()]
        self._reads = [*self.config.by, *(name for names in reads for name in names)]
        self._check_names()
        self._check_groups(schema)
        self._schema = pa.schema(fields)
        return self._schema

    def _check_names(self) -> None:
        """Refuse names that are ours in a query, or of which two are one to SQL."""
        for name in (*self.sql, *self._reads):
            if name.startswith(" "):
                what = f"config: a column is called {name!r}, with a space at its beginning"
                raise Refuse("operation.column", what, "rename it before, by pipeline.map")
        check_apart(self.sql)
        check_apart(self._reads)

    def _check_groups(self, schema: pa.Schema) -> None:
        """Refuse what is neither of the key nor over the rows of a window."""
        rows = given(schema.empty_table(), self._reads)
        by = ", ".join(map(quoted, self.config.by)) or "()"
        for name, text in self.sql.items():
            try:
                planner().types(f"SELECT {text} AS x FROM rows GROUP BY {by}", rows=rows)  # noqa: S608
            except duckdb.Error:
                raise Refuse(
                    "operation.expression",
                    f"config.columns.{name}: {self.config.columns[name]!r} is not over the rows of "
                    "a window",
                    "write an aggregate, like sum(price), or name the column in by",
                ) from None

    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        [table] = inputs.values()
        timed, times = self._timed(table)
        rows = self._marked(timed, times, _reached(times, sql.FIRST_US))
        return self._windows(rows, sql.FIRST_US, sql.LAST_US)

    def feed(self, rows: pa.Table) -> pa.Table:
        """The windows that these rows close.

        Raises:
            Refuse: more rows than ``rows_max`` are in open windows, or an expression fails at one.
        """
        self.prepare({"rows": rows})
        timed, times = self._timed(rows)
        return self._fed(rows, timed, times, _reached(times, self._latest_us))

    @property
    def keyed(self) -> Keyed:
        """Windows are of the rows of a key, at their time."""
        return Keyed(self.config.by, self.config.time)

    def feed_at(self, rows: pa.Table, before_us: Times, until_us: int) -> pa.Table:
        """The windows that are closed when that time is reached everywhere.

        Args:
            rows: perhaps none.
            before_us: for each row, the time that was reached before it came.
            until_us: the time that is reached with them.

        Raises:
            Refuse: as ``feed``.
        """
        self.prepare({"rows": rows})
        reached = np.append(before_us, until_us)
        if rows.num_rows:
            has_time = rows.column(self.config.time).is_valid().to_numpy()
            reached = reached[np.append(has_time, True)]
        return self._fed(rows, *self._timed(rows), reached)

    def _fed(self, rows: pa.Table, timed: pa.Table, times: Times, reached: Times) -> pa.Table:
        marked = self._marked(timed, times, reached)
        self._latest_us = latest_us = int(reached[-1])
        kept = marked if self._open is None else pa.concat_tables([self._open, marked])
        if kept.num_rows > self.config.rows_max:
            raise Refuse(
                "operation.window",
                f"config.rows_max: {kept.num_rows:,} rows are in open windows, which is more than "
                f"{self.config.rows_max:,}",
                "raise it, or take a shorter window or grace",
            )
        until_us = max(latest_us - self.spans.grace_us, self._closed_us)
        found = self._closing(kept, until_us)
        self.tally.rows_in += rows.num_rows
        self.tally.rows_out += found.num_rows
        self.work.advance(rows.num_rows)
        return found

    def flush(self) -> pa.Table:
        """The windows that are still open; what comes after that begins anew."""
        if self._planned is None:
            why = "pipeline.window: flush() before it knew its input's columns"
            raise Halt("operation.scope", why, "call schema() or feed() first")
        found = self._schema.empty_table()
        if self._open is not None:
            found = self._closing(self._open, sql.LAST_US)
        self._latest_us = self._closed_us = sql.FIRST_US
        self._open = None
        self.tally.rows_out += found.num_rows
        return found

    def state(self) -> bytes:
        """The rows of open windows, how far they were closed, and what was late."""
        sink = pa.BufferOutputStream()
        if self._open is not None:
            rows = self._open.combine_chunks()
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
                writer.write_table(rows)
        return msgspec.msgpack.encode(
            _Kept(
                latest_us=self._latest_us,
                closed_us=self._closed_us,
                late=self.late,
                late_partly=self.late_partly,
                rows=sink.getvalue().to_pybytes(),
            )
        )

    def restore(self, state: bytes) -> None:
        """Go on from there.

        Raises:
            Halt: it is no state of a window.
        """
        try:
            kept = msgspec.msgpack.decode(state, type=_Kept)
            self._open = pa.ipc.open_stream(kept.rows).read_all() if kept.rows else None
        except (msgspec.DecodeError, pa.ArrowInvalid) as error:
            why = f"pipeline.window: its state cannot be read: {error}"
            raise Halt("operation.state", why, "start the stage anew") from error
        self._latest_us, self._closed_us = kept.latest_us, kept.closed_us
        self.late, self.late_partly = self._told = kept.late, kept.late_partly

    def backfill(self, relation: str, order_by: str) -> str:
        """The same windows as one query of DuckDB, over rows that a table of it has.

        It gives the rows that ``feed`` and ``flush`` give for the same rows in that order; call it
        after ``schema``.

        Args:
            relation: a table or view with the columns, as SQL writes it.
            order_by: its column by which rows came, like ``source_offset``.
        """
        rows = sql.of_relation(self.spans, relation, self.config.time, order_by)
        query = sql.windows(self.spans, self.config.by, self.sql, rows=rows)
        shift = 1 if self.spans.kind == "sliding" else 0
        zone = " AT TIME ZONE 'UTC'" if self._schema.field(0).type.tz else ""
        named = {
            self.config.start: f"make_timestamp({quoted(sql.START)} - {shift}){zone}",
            self.config.end: f"make_timestamp({quoted(sql.END)} - {shift}){zone}",
            **{name: quoted(sql.KEY + name) for name in self.config.by},
            **{name: quoted(name) for name in self.sql},
        }
        return f"SELECT {selected(named)} FROM ({query})"  # noqa: S608  # each was checked

    def report(self) -> list[dict[str, Any]]:
        """With ``late``: rows in no window; ``late_partly``: rows in fewer than they belong to."""
        [told] = super().report()
        late, partly = self._told
        self._told = self.late, self.late_partly
        return [told | {"late": self.late - late, "late_partly": self.late_partly - partly}]

    def _closing(self, rows: pa.Table, until_us: int) -> pa.Table:
        """The windows that end by then; rows of later ones are kept."""
        found = self._schema.empty_table()
        if rows.num_rows and until_us >= self._next_end(rows):
            found = self._windows(rows, self._closed_us, until_us)
            rows = self._still_open(rows, until_us)
        self._open = rows
        self._closed_us = until_us
        return found

    def _next_end(self, rows: pa.Table) -> int:
        """Before that time no window ends that was not closed."""
        times: Times = rows.column(sql.TIME).to_numpy()
        if self.spans.kind == "session":
            return int(times.min()) + self.spans.gap_us
        if self.spans.kind == "sliding":
            open_ones = times[times >= self._closed_us]
            return int(open_ones.min()) + 1 if len(open_ones) else sql.LAST_US
        every, size = self.spans.every_us, self.spans.size_us
        after = np.maximum(times, self._closed_us)
        return int(((after - size) // every * every + every + size).min())

    def _timed(self, table: pa.Table) -> tuple[pa.Table, Times]:
        """The rows that have a time, and their times."""
        values = table.column(self.config.time)
        if values.null_count:
            self.set_aside(table.filter(values.is_null()), f"{self.config.time} is null")
            table = table.filter(values.is_valid())
            values = table.column(self.config.time)
        return table, pc.cast(values, pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy()

    def _marked(self, table: pa.Table, times: Times, reached: Times) -> pa.Table:
        """The rows that are not late, with their times and marks.

        Args:
            table: rows that have a time.
            times: theirs.
            reached: the time that was reached before each row, and after the last.
        """
        marks = np.maximum(reached[:-1] - self.spans.grace_us, self._closed_us)
        late = self._count_late(times, marks)
        if late.any():
            self.drop(int(late.sum()))
            if self.config.late == "quarantine":
                self.work.quarantine(table.filter(pa.array(late)), "late")
        fine = pa.array(~late)
        more = {sql.TIME: pa.array(times[~late]), sql.MARK: pa.array(marks[~late])}
        return given(table.filter(fine), self._reads, **more)

    def _count_late(self, times: Times, marks: Times) -> npt.NDArray[np.bool_]:
        """Which rows are in no window that is open."""
        if self.spans.kind in {"sliding", "session"}:
            late = times < marks
        else:
            every, size = self.spans.every_us, self.spans.size_us
            last_end = times // every * every + size
            first_end = last_end - (last_end - 1 - times) // every * every
            late = last_end <= marks
            gap = last_end <= times  # with an ``every`` longer than the size: between two windows
            self.late_partly += int((~late & (first_end <= marks)).sum())
            self.late += int((late & ~gap).sum())
            return late | gap
        self.late += int(late.sum())
        return late

    def _windows(self, rows: pa.Table, after_us: int, until_us: int) -> pa.Table:
        rows = rows.unify_dictionaries()
        found = self._query(
            sql.windows(self.spans, self.config.by, self.sql, after_us, until_us), rows
        )
        start, end = (found.column(name).to_numpy() for name in (sql.START, sql.END))
        if self.spans.kind == "sliding":
            start, end = start - 1, end - 1
        arrays = [pa.array(start), pa.array(end)]
        arrays = [array.cast(self._schema.field(at).type) for at, array in enumerate(arrays)]
        arrays += [rows.column(name).take(found.column(ROW)) for name in self.config.by]
        arrays += [found.column(name) for name in self.sql]
        return pa.table(arrays, schema=self._schema)

    def _still_open(self, rows: pa.Table, until_us: int) -> pa.Table:
        """The rows that a later window needs."""
        if self.spans.kind == "session":
            kept = self._query(sql.still_open(self.spans, self.config.by, until_us), rows)
            return rows.take(kept.column(0))
        times: Times = rows.column(sql.TIME).to_numpy()
        if self.spans.kind == "sliding":
            needed = times > until_us - self.spans.size_us
        else:
            needed = (
                times // self.spans.every_us * self.spans.every_us + self.spans.size_us > until_us
            )
        return rows.filter(pa.array(needed))

    def _query(self, text: str, rows: pa.Table) -> pa.Table:
        places = pa.array(np.arange(rows.num_rows, dtype=np.int64))
        try:
            return self.database.query(text, rows=rows.append_column(ROW, places))
        except BadRows as error:
            raise Refuse(
                "operation.rows",
                f"config.columns: an expression fails at a row: {error}",
                "set such rows aside by pipeline.map or pipeline.validate before",
            ) from None


def _reached(times: Times, latest_us: int) -> Times:
    """The greatest time before each row, and after the last."""
    return np.maximum.accumulate(np.concatenate([np.array([latest_us], np.int64), times]))
