"""One operation on tables at hand, without a workflow.

The Python API, ``streamapp stdio`` and the gateway's ``/v1/services`` share it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.plugin.operation import Cancelled, Operation, Source, Sources
from streamapp.plugin.registered import make

if TYPE_CHECKING:
    from streamapp.plugin.stage import Models

#: What an operation may hold beside its inputs and its result, unless the caller says otherwise.
MEMORY_BYTES_MAX = 1 << 30


@dataclass(frozen=True)
class TableSource:
    """A table as a declared source."""

    name: str
    table: pa.Table

    def schema(self) -> pa.Schema:
        return self.table.schema

    def read(self) -> pa.RecordBatchReader:
        return self.table.to_reader()


@dataclass(frozen=True)
class TableSources:
    """Tables as declared sources, before those of another declaration.

    Args:
        tables: by name.
        others: asked for what is not among them.
    """

    tables: Mapping[str, pa.Table]
    others: Sources | None = None

    def source(self, name: str) -> Source:
        """See :class:`Sources`."""
        if name in self.tables:
            return TableSource(name, self.tables[name])
        if self.others is not None:
            return self.others.source(name)
        raise Refuse(
            "source.unknown",
            f"no source is called {name!r}",
            f"there are {', '.join(sorted(self.tables)) or 'none'}",
        )


@dataclass
class CallWork:
    """The ``Work`` of one call.

    Args:
        sources: what the operation may read beside its inputs.
        make_models: the registry, made when it is first asked for.
        folder: where relative paths begin.
        threads: how many the operation may keep busy.
        memory_bytes_max: what it may hold beside its inputs and its result.
        stop: set by who does not wait any longer.
        aside: bad rows that the operation set aside, with the reason.
    """

    sources: Sources
    make_models: "Callable[[], Models]"
    folder: Path = field(default_factory=Path.cwd)
    threads: int = 1
    memory_bytes_max: int = MEMORY_BYTES_MAX
    stop: Event = field(default_factory=Event)
    aside: list[tuple[pa.Table, str]] = field(default_factory=list)
    _asked: dict[str, Source] = field(default_factory=dict, init=False)

    @cached_property
    def models(self) -> "Models":
        """Made when first asked for."""
        return self.make_models()

    def source(self, name: str) -> Source:
        if name not in self._asked:  # which learns its columns once in a call
            self._asked[name] = self.sources.source(name)
        return self._asked[name]

    def advance(self, rows: int) -> None:  # noqa: ARG002  # the contract's
        if self.stop.is_set():
            raise Cancelled

    def quarantine(self, rows: pa.Table, reason: str) -> None:
        self.aside.append((rows, reason))


def run_operation(
    name: str, config: Mapping[str, Any], inputs: Mapping[str, pa.Table], work: CallWork
) -> pa.Table:
    """The result of one operation; what it set aside is in ``work.aside``.

    Args:
        name: ``service.operation``.
        config: as in a workflow's file.
        inputs: tables by name, in the order that the operation takes them.
        work: what it may use.

    Raises:
        Refuse: there is no such operation, the config or the tables do not fit it.
        Retry: something outside does not answer.
        Cancelled: ``work.stop`` was set.
    """
    operation = make(name, config, work.folder)
    check_inputs(name, operation, list(inputs))
    operation.schema({key: table.schema for key, table in inputs.items()}, work)
    try:
        operation.open(work)
        return operation.run(inputs)
    finally:
        operation.close()


def check_inputs(name: str, operation: Operation, given: Sequence[str]) -> None:
    """Refuse fewer or more inputs than the operation takes."""
    least, most = operation.inputs
    if len(given) < least or (most is not None and len(given) > most):
        counts = f"{least}" if most == least else f"{least} to {most or 'any number'}"
        raise Refuse(
            "operation.inputs",
            f"{name} takes {counts} inputs, not {len(given)}",
            "give as many tables as it takes",
        )


def table_of(value: Any, name: str) -> pa.Table:
    """Whatever speaks Arrow's C stream or array interface, or rows as dicts, as a table.

    Arrow data of other libraries (polars, pandas, DuckDB) is not copied, but texts and bytes in the
    layout of views, which few of Arrow's functions take.

    Raises:
        Refuse: it is none of these.
    """
    if isinstance(value, pa.Table):
        return _without_views(value)
    if isinstance(value, pa.RecordBatchReader):
        return _without_views(value.read_all())
    try:
        if hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__"):
            return _without_views(pa.table(value))
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return _of_rows(value, name)
    except (pa.ArrowException, TypeError, AttributeError, OverflowError) as error:
        raise Refuse(
            "operation.table", f"{name} is no table: {error}", "give columns of one type each"
        ) from None
    raise Refuse(
        "operation.table",
        f"{name} is a {type(value).__name__}, no table",
        "give a pyarrow.Table, anything with __arrow_c_stream__, or a list of dicts",
    )


def _of_rows(rows: Sequence[Mapping[str, Any]], name: str) -> pa.Table:
    """Every column that any of the rows has; null where a row has it not.

    Raises:
        Refuse: there are rows, and none has a column: a table cannot hold them.
    """
    names = dict.fromkeys(chain.from_iterable(rows))
    if rows and not names:
        what = f"the {len(rows):,} rows of {name} have no columns"
        raise Refuse("operation.table", what, "give them a column, or send no rows")
    return pa.table({each: [row.get(each) for row in rows] for each in names})


def _without_views(table: pa.Table) -> pa.Table:
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    if not any(field.type in plain for field in table.schema):
        return table
    fields = [field.with_type(plain.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def project_models() -> "Models":
    """The models that this project declares."""
    from streamapp.core.config import load
    from streamapp.plugin.declared import declared_registry

    return declared_registry(load()[0])
