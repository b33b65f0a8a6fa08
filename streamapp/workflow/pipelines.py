"""Pipelines from file to file: transforms in order, without a workflow's file.

::

    pipeline = Pipeline("text_preprocessing")
    pipeline.add_transform(FilterTransform("remove_empty", "content", FilterOperator.NOT_EQ, ""))
    service = PipelineService()
    service.register_pipeline(pipeline)
    done = await service.execute_pipeline(
        "text_preprocessing", "input.csv", "csv", ("output.csv", "csv")
    )
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from os import fspath
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec
import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.plugin.calling import CallWork, project_models
from streamapp.services.pipeline.expression import literal, quoted
from streamapp.services.pipeline.run import Run, RunConfig
from streamapp.workflow.data import BadRow, declared_sources, open_input, open_output
from streamapp.workflow.data.plain_rows import json_rows
from streamapp.workflow.data.replacing import Together, replaced
from streamapp.workflow.graph.spec import Input, Output

Location = str | Path
#: A file and its format.
Sink = tuple[Location, str]


class FilterOperator(StrEnum):
    """How a field is compared; null passes ``IS_NULL`` only."""

    EQ = "="
    NOT_EQ = "<>"
    GT = ">"
    GTE = ">="
    LT = "<"
    LTE = "<="
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    IS_NULL = "IS NULL"
    NOT_NULL = "IS NOT NULL"


@dataclass(frozen=True)
class Transform:
    """One step.

    Attributes:
        name: for reports.
        kind: ``filter``, ``map``, ``aggregate``, ``join``, ``window``, ``dedupe``, ``sample`` or
            ``validate``.
        config: of the operation ``pipeline.KIND``.
    """

    name: str
    kind: str
    config: Mapping[str, Any]


class FilterTransform(Transform):
    """Rows whose field is as asked stay.

    Args:
        name: for reports.
        column: that is compared.
        operator: how.
        value: text, number, boolean, or None.
    """

    def __init__(
        self, name: str, column: str, operator: FilterOperator, value: object = None
    ) -> None:
        at = quoted(column)
        if operator in {FilterOperator.IS_NULL, FilterOperator.NOT_NULL}:
            where = f"{at} {operator}"
        elif operator.name in {"CONTAINS", "STARTS_WITH", "ENDS_WITH"}:
            where = f"{operator}({at}, {literal(value)})"
        else:
            where = f"{at} {operator} {literal(value)}"
        super().__init__(name, "filter", {"where": where})


class MapTransform(Transform):
    """Computes columns: name to expression of SQL."""

    def __init__(self, name: str, columns: Mapping[str, str]) -> None:
        super().__init__(name, "map", {"columns": dict(columns)})


class AggregateTransform(Transform):
    """A row for each group: name to expression over its rows, like ``sum(price)``."""

    def __init__(self, name: str, by: Sequence[str], columns: Mapping[str, str]) -> None:
        super().__init__(name, "aggregate", {"by": list(by), "columns": dict(columns)})


class Pipeline:
    """Transforms in order, under a name."""

    def __init__(self, name: str, transforms: Sequence[Transform] = ()) -> None:
        self.name = name
        self.transforms = list(transforms)

    def add_transform(self, transform: Transform) -> "Pipeline":
        """Append one; returns the pipeline."""
        self.transforms.append(transform)
        return self

    def operation(self) -> Run:
        """The operation ``pipeline.run`` of these transforms.

        Raises:
            Refuse: there are none, or one's config is wrong.
        """
        if not self.transforms:
            raise Refuse("pipeline.empty", f"pipeline {self.name!r} has no transforms", "add one")
        steps = tuple({step.kind: dict(step.config)} for step in self.transforms)
        return Run(RunConfig(transforms=steps))


@dataclass(frozen=True)
class Processed:
    """What became of a pipeline's rows.

    Attributes:
        rows_in: that were read.
        rows_out: of the result.
        rejected: rows that could not be read, or broke a rule, or at which an expression failed.
        reasons: why, and how many each.
        transforms: name, rows_in, rows_out, rejected, dropped and seconds of each.
        seconds: all in all.
        table: the result, where it went to no file.
    """

    rows_in: int
    rows_out: int
    rejected: int
    reasons: Mapping[str, int]
    transforms: Sequence[Mapping[str, Any]]
    seconds: float
    table: pa.Table | None = None


def run_pipeline(
    pipeline: Pipeline,
    source: tuple[Location, str | None],
    sink: tuple[Location, str | None] | None = None,
    *,
    rejects: Path | None = None,
    folder: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Processed:
    """Read, transform and write.

    Transforms of single rows go through a file of any size in little memory; others hold its rows.

    Args:
        pipeline: what is done.
        source: a file and its format; None: by its suffix.
        sink: the same of the result; None: it is returned.
        rejects: a file for rejected rows, as JSON lines with their reasons; empty without any.
        folder: where relative paths and ``streamapp.toml`` are looked for; the working directory.
        options: of the source's format, like ``delimiter``.

    Raises:
        Refuse: a file, a format, a config or a row is wrong; nothing is written then.
        Retry: a declared source does not answer.
    """
    folder = folder or Path.cwd()
    started_s = perf_counter()
    operation = pipeline.operation()
    path, form = source
    _check_places(folder, path, sink and sink[0], rejects)
    together = Together()
    with together.held(), _Rejects(rejects and folder / rejects) as aside:
        declared = Input(path=fspath(path), format=form, options=dict(options or {}))
        opened = open_input(declared, folder, name=Path(path).stem, on_bad=aside.bad)
        work = _Work(declared_sources(folder), project_models, folder, rejects=aside)
        schema = operation.schema({opened.name: opened.schema()}, work.sources)
        operation.open(work)
        try:
            found = pa.RecordBatchReader.from_batches(
                schema, _batches(operation, opened.name, opened.read(), schema)
            )
            rows, table = _kept(found, opened.name, sink, folder)
            told = operation.report()
        finally:
            operation.close()
    together.take_places()
    for step, counts in zip(pipeline.transforms, told, strict=True):
        counts["name"] = step.name
    return Processed(
        rows_in=told[0]["rows_in"] + aside.unread,
        rows_out=rows,
        rejected=sum(aside.reasons.values()),
        reasons=dict(aside.reasons),
        transforms=told,
        seconds=perf_counter() - started_s,
        table=table,
    )


def _kept(
    found: pa.RecordBatchReader,
    name: str,
    sink: tuple[Location, str | None] | None,
    folder: Path,
) -> tuple[int, pa.Table | None]:
    """How many rows there are, and the rows where they go to no file."""
    if sink is None:
        table = found.read_all()
        return table.num_rows, table
    to, form = sink
    place = folder / to
    output = Output(source=name, path=place.name, format=form)
    return open_output(output, place.parent, name=place.stem).write(found), None


def _check_places(
    folder: Path, source: Location, sink: Location | None, rejects: Path | None
) -> None:
    """Refuse to write rejected rows where the others are."""
    if rejects is None:
        return
    for place in (source, sink):
        if place is not None and (folder / place).resolve() == (folder / rejects).resolve():
            what = f"{rejects} has rows that are read or written, and would have the rejected ones"
            raise Refuse("file.same", what, "name another file for the rejected rows")


def _batches(
    operation: Run, name: str, rows: pa.RecordBatchReader, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    with rows:
        if operation.scope != "row":
            yield from operation.run({name: rows.read_all()}).to_batches()
            return
        some = False
        for batch in rows:
            some = True
            yield from operation.run({name: pa.Table.from_batches([batch])}).to_batches()
        if not some:
            yield from operation.run({name: rows.schema.empty_table()}).to_batches()
    yield from schema.empty_table().to_batches()


class PipelineService:
    """Pipelines by name."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._pipelines: dict[str, Pipeline] = {}

    def register_pipeline(self, pipeline: Pipeline) -> None:
        """Know a pipeline by its name; one of that name is replaced."""
        self._pipelines[pipeline.name] = pipeline

    async def execute_pipeline(
        self,
        name: str,
        source: Location,
        source_format: str,
        sink: Sink | None = None,
        *,
        rejects: Path | None = None,
    ) -> Processed:
        """Run a registered pipeline over a file, in a thread.

        Raises:
            Refuse: no pipeline is called so; or as ``run_pipeline``.
        """
        pipeline = self._pipelines.get(name)
        if pipeline is None:
            known = ", ".join(sorted(self._pipelines)) or "none"
            what = f"no pipeline is called {name!r}"
            raise Refuse("pipeline.unknown", what, f"register it; there are {known}")
        return await asyncio.to_thread(
            run_pipeline,
            pipeline,
            (source, source_format),
            sink,
            rejects=rejects,
            folder=self._folder,
        )


class _Rejects:
    """Counts rejected rows, and keeps them in a file, which is there when all went well."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._open = ExitStack()
        self.reasons: dict[str, int] = {}
        self.unread = 0

    def __enter__(self) -> Self:
        if self._path is not None:
            part = self._open.enter_context(replaced(self._path))
            self._file = self._open.enter_context(part.open("wb"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def bad(self, row: BadRow) -> None:
        """A row that cannot be read."""
        self.unread += 1
        told = {"reason": row.reason, "file": row.origin, "line": row.line, "text": row.text}
        self._keep(row.reason, [msgspec.json.encode(told)])

    def rows(self, table: pa.Table, reason: str) -> None:
        """Rows that a transform sets aside."""
        start = b'{"reason":' + msgspec.json.encode(reason) + b',"row":'
        lines = [start + line + b"}" for batch in table.to_batches() for line in json_rows(batch)]
        self._keep(reason, lines)

    def _keep(self, reason: str, lines: Sequence[bytes]) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + len(lines)
        if self._file is not None:
            self._file.writelines(line + b"\n" for line in lines)


@dataclass
class _Work(CallWork):
    """The work of one pipeline."""

    rejects: _Rejects = field(kw_only=True)

    def quarantine(self, rows: pa.Table, reason: str) -> None:
        self.rejects.rows(rows, reason)
