"""What a working process does: copies inputs, calls operations, writes outputs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, local
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamapp.core.errors import Halt, Refuse
from streamapp.core.project import read_secret
from streamapp.plugin import Cancelled, Operation, Source
from streamapp.plugin.calling import TableSource
from streamapp.plugin.registered import config_of, operation_class
from streamapp.workflow.data import BadRow, declared_sources, open_input, open_output
from streamapp.workflow.data.replacing import Together
from streamapp.workflow.graph.expressions import fill
from streamapp.workflow.run.asked import AskedModels, make_models
from streamapp.workflow.run.messages import Aside, Call, Done, Job, Place, Read, Setup, Write
from streamapp.workflow.run.parts import read_parts, write_part, write_table
from streamapp.workflow.run.secrets import Redactor

if TYPE_CHECKING:
    from streamapp.plugin import Models

#: Rows of one input that cannot be read; with more it is not what it was declared as.
BAD_ROWS_MAX = 100_000
BAD_ROWS = pa.schema(
    [("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())]
)


class Jobs:
    """The jobs of one process.

    Args:
        setup: of this process.
        advanced: told of rows that are done, by job.
    """

    def __init__(self, setup: Setup, advanced: Callable[[int, int], None]) -> None:
        self.stop = Event()
        self._setup, self._advanced = setup, advanced
        self._cache, self._folder = Path(setup.cache), Path(setup.folder)
        self._opening = Lock()
        self._opened: _Opened | None = None
        self._outputs = Together()

    def do(self, job: Job) -> Done:
        """Raises what the work raises: our errors, ``Cancelled``, or anything."""
        if self.stop.is_set():
            raise Cancelled
        if isinstance(job, Read):
            return self._read(job)
        if isinstance(job, Write):
            return self._write(job)
        if isinstance(job, Place):
            self._outputs.take_places()
            return Done(job.id, None, 0)
        return self._call(job)

    def _read(self, job: Read) -> Done:
        bad: list[BadRow] = []

        def on_bad(row: BadRow) -> None:
            bad.append(row)
            if len(bad) > BAD_ROWS_MAX:
                why = f"{row.origin}: more than {BAD_ROWS_MAX} rows cannot be read: {row.reason}"
                raise Refuse("data.rows", why, "check its format and its options")

        if job.declared is None:
            source: Any = declared_sources(self._folder, on_bad=on_bad).source(job.name)
        else:
            source = open_input(job.declared, self._folder, name=job.name, on_bad=on_bad)
        with source.read() as reader:
            part = write_part(self._cache, reader.schema, self._counted(reader, job.id))
        return Done(job.id, part, part.rows, self._bad_rows(bad))

    def _counted(self, reader: pa.RecordBatchReader, job: int) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            if self.stop.is_set():
                raise Cancelled
            yield batch
            self._advanced(job, batch.num_rows)

    def _bad_rows(self, bad: list[BadRow]) -> tuple[Aside, ...]:
        return (Aside("", write_table(self._cache, _table_of(bad))),) if bad else ()

    def _write(self, job: Write) -> Done:
        with self._outputs.held():
            folder = Path(job.folder_out)
            writer = open_output(job.declared, folder, name=job.name, home=self._folder)
            table = read_parts(self._cache, job.parts)
            before = len(self._outputs)
            rows = writer.write(table.to_reader())
            return Done(job.id, None, rows, waits=len(self._outputs) > before)

    def _call(self, job: Call) -> Done:
        opened = self._open(job)
        work = opened.work
        work.begin(job.id)
        inputs = {name: read_parts(self._cache, parts) for name, parts in job.inputs.items()}
        if job.cut is not None:
            first = next(iter(job.inputs))
            inputs[first] = read_parts(self._cache, job.inputs[first], job.cut)
        with opened.redactor.watching():
            result = opened.operation.run(inputs)
        schema = pa.ipc.read_schema(pa.py_buffer(job.schema))
        result = _checked(result, schema, job.operation, job.variables)
        part = write_table(self._cache, result)
        kept = tuple(
            Aside(opened.redactor.text(reason), write_table(self._cache, rows))
            for reason, rows in work.end().items()
        )
        told: list[dict[str, Any]] = getattr(opened.operation, "report", list)()
        return Done(job.id, part, part.rows, kept, dict(work.models.asked), told)

    def _open(self, job: Call) -> "_Opened":
        with self._opening:
            if self._opened is not None and self._opened.token == job.token:
                return self._opened
            if self._opened is not None:
                self._opened.operation.close()
                self._opened = None
            redactor = Redactor()
            with redactor.watching():
                kind = operation_class(job.operation, self._folder)
                secret = redactor.reading(lambda name: read_secret(name, self._folder))
                config = config_of(kind.Config, fill(job.config, {}, secret), job.operation)
                work = RunWork(self, job, AskedModels(self._models))
                operation = kind(config)
                try:
                    operation.schema(self._schemas(job), work)
                    operation.open(work)
                except BaseException:
                    operation.close()
                    raise
            self._opened = _Opened(job.token, operation, work, redactor)
            return self._opened

    def _schemas(self, job: Call) -> dict[str, pa.Schema]:
        """Of what the operation is given: it may note what it needs in ``schema``."""
        return {
            name: read_parts(self._cache, parts[:1]).schema for name, parts in job.inputs.items()
        }

    def _models(self) -> "Models":
        return make_models(self._setup.models, self._folder, self._setup.environ)


@dataclass(frozen=True, slots=True)
class _Opened:
    token: str
    operation: Operation
    work: "RunWork"
    redactor: Redactor


@dataclass
class _Current:
    """What one call under way has set aside."""

    job: int
    asides: dict[str, list[pa.Table]] = field(default_factory=dict)


class RunWork:
    """The ``Work`` of an opened operation; of several calls at once where it runs in threads."""

    def __init__(self, jobs: Jobs, call: Call, models: AskedModels) -> None:
        self._jobs, self._call, self.models = jobs, call, models
        self.folder = jobs._folder  # noqa: SLF001  # one thing in two classes
        self.threads, self.memory_bytes_max = call.threads, call.memory_bytes_max
        self._mine = local()
        self._last: _Current | None = None

    def begin(self, job: int) -> None:
        """The thread that calls begins a call."""
        self._mine.current = self._last = _Current(job)

    def end(self) -> Mapping[str, pa.Table]:
        """What the call set aside, by reason."""
        current: _Current = self._mine.current
        return {reason: pa.concat_tables(rows) for reason, rows in current.asides.items()}

    def source(self, name: str) -> Source:
        """The copy that the run made of a declared source."""
        if name not in self._call.sources:
            raise Halt(
                "operation.source",
                f"{self._call.operation} reads source {name!r}, which its schema() did not ask for",
                "ask for it in schema()",
            )
        return TableSource(name, read_parts(self._jobs._cache, self._call.sources[name]))  # noqa: SLF001

    def advance(self, rows: int) -> None:
        if self._jobs.stop.is_set():
            raise Cancelled
        self._jobs._advanced(self._now().job, rows)  # noqa: SLF001

    def quarantine(self, rows: pa.Table, reason: str) -> None:
        if rows.num_rows:
            line = " ".join(reason.split())
            self._now().asides.setdefault(line, []).append(rows)

    def _now(self) -> _Current:
        """The call of this thread; of a thread of the operation's own, the one that began last."""
        found: _Current | None = getattr(self._mine, "current", None) or self._last
        assert found is not None  # noqa: S101  # rows come within calls
        return found


def _table_of(rows: list[BadRow]) -> pa.Table:
    columns = [
        [row.origin for row in rows], [row.line for row in rows], [row.reason for row in rows],
        [row.text for row in rows],
    ]  # fmt: skip
    return pa.table(columns, schema=BAD_ROWS)


def _checked(
    result: Any, schema: pa.Schema, operation: str, variables: Mapping[str, Any]
) -> pa.Table:
    """The result with the planned schema, which its own must be but for metadata and variables."""
    said = [(field.name, field.type) for field in schema if field.name not in variables]
    given = [(field.name, field.type) for field in result.schema] if _is_table(result) else None
    if given != said:
        shown = ", ".join(f"{name}: {kind}" for name, kind in given or ())
        wanted = ", ".join(f"{name}: {kind}" for name, kind in said)
        what = f"columns {shown}" if given is not None else f"a {type(result).__name__}"
        raise Halt(
            "operation.schema",
            f"{operation} returned {what}; its schema() said {wanted}",
            "this is a mistake in the operation",
        )
    kinds = {name: schema.field(name).type for name in variables}
    constant = [
        pa.repeat(pa.scalar(value, kinds[name]), result.num_rows)
        for name, value in variables.items()
    ]
    return pa.Table.from_arrays([*result.columns, *constant], schema=schema)


def _is_table(result: Any) -> bool:
    return isinstance(result, pa.Table)
