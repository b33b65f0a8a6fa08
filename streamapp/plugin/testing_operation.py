"""What every operation must do, whatever it computes: for tests of ours, and of yours.

::

    from streamapp.testing import check_operation

    def test_shout():
        check_operation(Shout, {"column": "text"}, {"documents": pa.table({"text": ["a", "b"]})})
"""

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.plugin.calling import TableSources
from streamapp.plugin.operation import (
    BEFORE_ALL_US,
    Config,
    KeyedOperation,
    LiveOperation,
    Operation,
    Parallel,
    Scope,
    Source,
)
from streamapp.plugin.registered import config_of
from streamapp.plugin.stage import Models
from streamapp.plugin.testing import HashModels


def check_operation(
    kind: type[Operation],
    config: Mapping[str, Any],
    inputs: Mapping[str, pa.Table],
    *,
    sources: Mapping[str, pa.Table] | None = None,
    models: Models | None = None,
    tolerance: float = 0.0,
) -> None:
    """Check one operation against its contract.

    Args:
        kind: its class.
        config: that it is tried with, as in a workflow's file.
        inputs: that it is tried on, of at least two rows each.
        sources: declared sources that it may read.
        models: that it may use; without weights when None.
        tolerance: how far numbers may be off where rows are cut otherwise.

    Raises:
        AssertionError: a promise is broken; it says which.
    """
    checks = _Checks(kind, config, dict(inputs), dict(sources or {}), models, tolerance)
    with tempfile.TemporaryDirectory() as folder:
        checks.folder = Path(folder)
        checks.it_says_what_it_is()
        checks.its_schema_is_that_of_its_result()
        checks.it_gives_the_same_again_however_its_input_lies()
        checks.a_missing_column_is_refused()
        checks.it_can_be_closed_whatever_happened()
        made = kind(checks.converted())
        if made.scope == "row":
            checks.any_cut_gives_the_same()
        if made.scope == "window" and hasattr(made, "feed"):
            checks.pieces_give_the_same()
        if made.scope == "window" and hasattr(made, "feed_at"):
            checks.keys_apart_give_the_same()


@dataclass
class _Work:
    """A Work that notes what it is asked for."""

    sources: TableSources
    models: Models
    folder: Path
    threads: int = 2
    memory_bytes_max: int = 1 << 30
    aside: list[tuple[pa.Table, str]] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def source(self, name: str) -> Source:
        self.asked.add(name)
        return self.sources.source(name)

    def advance(self, rows: int) -> None:
        assert rows >= 0, "advance() was told of fewer than no rows"

    def quarantine(self, rows: pa.Table, reason: str) -> None:
        assert reason.strip(), "quarantine() was given no reason"
        assert "\n" not in reason, "a reason is one line, so that it can be counted"
        self.aside.append((rows, reason))


class _Checks:
    def __init__(
        self,
        kind: type[Operation],
        config: Mapping[str, Any],
        inputs: dict[str, pa.Table],
        sources: dict[str, pa.Table],
        models: Models | None,
        tolerance: float,
    ) -> None:
        self._kind, self._config, self._inputs = kind, config, inputs
        self._sources, self._models = TableSources(sources), models or HashModels()
        self._tolerance = tolerance
        self.folder = Path()

    def converted(self) -> Config:
        return config_of(self._kind.Config, self._config, self._kind.__name__)

    def it_says_what_it_is(self) -> None:
        kind = self._kind
        assert issubclass(kind.Config, Config), "its Config is no Config of streamapp.plugin"
        assert kind.version >= 1, "versions begin with 1"
        made = kind(self.converted())
        assert made.scope in get_args(Scope), f"its scope is {made.scope!r}"
        assert made.parallel in get_args(Parallel), f"its parallel is {made.parallel!r}"
        least, most = made.inputs
        assert least >= 0, "it takes fewer than no inputs"
        assert most is None or most >= max(least, 1), "it takes fewer inputs at most than at least"
        try:
            config_of(kind.Config, {**self._config, "no such key": 1}, kind.__name__)
        except Refuse as error:
            assert error.code == "operation.config"  # noqa: PT017  # no pytest in this module
        else:
            raise AssertionError("it takes a key that it does not have")

    def its_schema_is_that_of_its_result(self) -> None:
        made = self._kind(self.converted())
        noted = _Work(self._sources, self._models, self.folder)
        schema = made.schema(self._schemas(), noted)
        assert schema.equals(made.schema(self._schemas(), noted)), "schema() differs when repeated"
        assert len(set(schema.names)) == len(schema.names), "two columns have one name"
        work = _Work(self._sources, self._models, self.folder)
        result = self._run(self._inputs, work)
        given = [(f.name, f.type) for f in result.schema]
        said = [(f.name, f.type) for f in schema]
        assert given == said, f"run() returned {given}, schema() said {said}"
        result.validate(full=True)
        more = work.asked - noted.asked
        assert not more, f"it reads sources {sorted(more)} that schema() did not ask for"

    def it_gives_the_same_again_however_its_input_lies(self) -> None:
        whole = self._run(self._inputs)
        self._same(self._run(self._inputs), whole, "a second run")
        apart = {name: _apart(table) for name, table in self._inputs.items()}
        self._same(self._run(apart), whole, "the same rows in other chunks")

    def a_missing_column_is_refused(self) -> None:
        first = next(iter(self._inputs), None)
        if first is None:
            return
        for column in self._inputs[first].column_names:
            schemas = self._schemas()
            schemas[first] = self._inputs[first].drop_columns([column]).schema
            made = self._kind(self.converted())
            try:
                made.schema(schemas, self._sources)
            except Refuse as error:
                named = column in error.message
                assert named, f"without {column!r} it says {error.message!r}"  # noqa: PT017

    def it_can_be_closed_whatever_happened(self) -> None:
        self._kind(self.converted()).close()

    def any_cut_gives_the_same(self) -> None:
        """Of scope ``row``: cuts of the first input, joined, are the whole; none gives none."""
        first, rows = next(iter(self._inputs.items()))
        work = _Work(self._sources, self._models, self.folder)
        whole = self._run(self._inputs, work)
        for step in {1, max(1, rows.num_rows // 2)}:
            cuts = [rows.slice(at, step) for at in range(0, rows.num_rows, step)]
            cut_work = _Work(self._sources, self._models, self.folder)
            parts = self._each([{**self._inputs, first: cut} for cut in cuts], cut_work)
            self._same(pa.concat_tables(parts), whole, f"cuts of {step}")
            counted = [sum(t.num_rows for t, _ in w.aside) for w in (work, cut_work)]
            assert counted[0] == counted[1], f"cuts of {step} set other rows aside: {counted}"
        none = self._run({**self._inputs, first: rows.slice(0, 0)})
        assert none.num_rows == 0, "no rows gave rows"
        assert none.schema.names == whole.schema.names, "no rows gave other columns"
        if self._kind(self.converted()).parallel == "threads":
            self._in_threads(first, rows, whole)

    def _in_threads(self, first: str, rows: pa.Table, whole: pa.Table) -> None:
        half = rows.num_rows // 2
        cuts = [rows.slice(0, half), rows.slice(half)]
        made = self._opened(_Work(self._sources, self._models, self.folder))
        try:
            with ThreadPoolExecutor(2) as pool:
                parts = list(pool.map(lambda cut: made.run({**self._inputs, first: cut}), cuts))
        finally:
            made.close()
        self._same(pa.concat_tables(parts), whole, "two threads at once")

    def pieces_give_the_same(self) -> None:
        """Of a live operation: what it feeds back, also over a restart, equals the whole."""
        (_, rows), *_ = self._inputs.items()
        whole = self._run(self._inputs)
        for at in {1, rows.num_rows // 2}:
            made = self._live()
            given = [made.feed(rows.slice(0, at))]
            state = made.state()
            made.close()
            other = self._live()
            other.restore(state)
            given += [other.feed(rows.slice(at)), other.flush()]
            again = [other.feed(rows), other.flush()]
            other.close()
            self._same(pa.concat_tables(given), whole, f"two pieces, cut at {at}", ordered=False)
            self._same(pa.concat_tables(again), whole, "all again after flush()", ordered=False)

    def keys_apart_give_the_same(self) -> None:
        """Of a keyed operation: the rows of each key by themselves, told of the others' times."""
        (_, rows), *_ = self._inputs.items()
        by, time = cast("KeyedOperation", self._live()).keyed
        places: dict[str, list[int]] = {}
        for place, row in enumerate(rows.to_pylist()):
            places.setdefault(repr([row[name] for name in by]), []).append(place)
        times = rows.column(time).cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        known = times.fill_null(BEFORE_ALL_US).to_numpy()
        reached = np.maximum.accumulate(np.concatenate([[BEFORE_ALL_US], known]))
        given = []
        for each in places.values():
            made = cast("KeyedOperation", self._live())
            closed = made.feed_at(rows.take(each), reached[each], int(reached[-1]))
            given += [closed, made.flush()]
            made.close()
        self._same(pa.concat_tables(given), self._run(self._inputs), "keys apart", ordered=False)

    def _live(self) -> LiveOperation:
        work = _Work(self._sources, self._models, self.folder)
        return cast("LiveOperation", self._opened(work))

    def _schemas(self) -> dict[str, pa.Schema]:
        return {name: table.schema for name, table in self._inputs.items()}

    def _opened(self, work: _Work) -> Operation:
        made = self._kind(self.converted())
        made.schema(self._schemas(), work)
        made.open(work)
        return made

    def _run(self, inputs: Mapping[str, pa.Table], work: _Work | None = None) -> pa.Table:
        work = work or _Work(self._sources, self._models, self.folder)
        return self._each([inputs], work)[0]

    def _each(self, calls: list[Mapping[str, pa.Table]], work: _Work) -> list[pa.Table]:
        made = self._opened(work)
        try:
            return [made.run(inputs) for inputs in calls]
        finally:
            made.close()

    def _same(self, given: pa.Table, whole: pa.Table, what: str, *, ordered: bool = True) -> None:
        assert given.num_rows == whole.num_rows, (
            f"{what}: {given.num_rows} rows, not {whole.num_rows}"
        )
        rows, wanted = given.to_pylist(), whole.to_pylist()
        if not ordered:
            rows, wanted = sorted(rows, key=repr), sorted(wanted, key=repr)
        for number, (row, other) in enumerate(zip(rows, wanted, strict=True)):
            for name, value in row.items():
                same = _near(value, other[name], self._tolerance)
                assert same, f"{what}: row {number}: {name} is {value!r}, not {other[name]!r}"


def _near(value: Any, other: Any, tolerance: float) -> bool:
    if isinstance(value, float) and isinstance(other, float):
        both_nan = value != value and other != other  # noqa: PLR0124  # only NaN differs from itself
        return both_nan or abs(value - other) <= tolerance * max(1.0, abs(other))
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(
            _near(value[key], other[key], tolerance) for key in value
        )
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(
            _near(one, two, tolerance) for one, two in zip(value, other, strict=True)
        )
    return bool(value == other)


def _apart(table: pa.Table) -> pa.Table:
    """The same rows in two chunks, of which neither begins where its memory does."""
    padded = pa.concat_tables([table.slice(0, 1), table, table.slice(0, 1)]).combine_chunks()
    half = table.num_rows // 2
    return pa.concat_tables([padded.slice(1, half), padded.slice(1 + half, table.num_rows - half)])
