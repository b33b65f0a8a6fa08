"""The end of a run: outputs, and beside them the rows that were set aside."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa

from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.errors import StreamappError
from streamapp.workflow.data.plain_rows import python_rows
from streamapp.workflow.data.replacing import replaced
from streamapp.workflow.graph.check import place
from streamapp.workflow.run.binding import failure
from streamapp.workflow.run.cache import Entry
from streamapp.workflow.run.context import Context
from streamapp.workflow.run.events import Advance, PartStarted
from streamapp.workflow.run.messages import Aside, Done, Place, Write
from streamapp.workflow.run.parts import disk, read_parts
from streamapp.workflow.run.pool import Worker
from streamapp.workflow.run.report import Problem, StageReport, Written

ROWS = 10_000


async def write_outputs(context: Context, folder_out: Path) -> None:
    """Write every output whose rows are there, and note them.

    Files take their places when all outputs are written; tables change one by one.

    Raises:
        StreamappError: one could not be written; files are as they were.
    """
    ready = {}
    for name, output in context.graph.outputs.items():
        entry = context.results[output.source].entry
        if entry is None:
            why = f"{output.source} gave nothing"
            context.ended("output", StageReport(name, "output", "skipped", why=why))
        else:
            ready[name] = entry
    if not ready:
        return
    worker = await context.pool.take()
    waiting: list[Written] = []
    try:
        for name, entry in ready.items():
            answer = await _write(context, worker, name, entry, folder_out)
            output = context.graph.outputs[name]
            where = output.path or output.url or f"{name}.{output.format}"
            shown = where if output.url else str(folder_out / where)
            kept = waiting if answer.waits else context.written
            kept.append(Written(name, shown, answer.rows))
        await worker.do(Place)
    except BaseException:
        context.pool.retire(worker)
        raise
    context.pool.give_back(worker)
    context.written += waiting


async def _write(
    context: Context, worker: Worker, name: str, entry: Entry, folder_out: Path
) -> Done:
    output = context.graph.outputs[name]
    started_s = monotonic_s()
    context.tell(PartStarted("output", name, entry.rows, 1, "", now_us()))
    try:
        answer = await worker.do(
            lambda job: Write(job, name, output, entry.parts, str(folder_out.absolute()))
        )
    except StreamappError as error:
        said = place(context.graph, failure(error, f"output {name!r}"), "outputs", name)
        final = type(error)(error.code, said.message, error.fix)
        context.ended("output", StageReport(name, "output", "failed", error=Problem.of(final)))
        raise final from None
    context.tell(Advance("output", name, entry.rows))
    context.ended(
        "output",
        StageReport(
            name, "output", "ran", output.format or "",
            rows_in=entry.rows, rows_out=answer.rows, seconds=monotonic_s() - started_s,
        ),
    )  # fmt: skip
    return answer


def write_quarantine(context: Context, folder_out: Path) -> tuple[Written, ...]:
    """Write ``quarantine/NAME.jsonl`` for each part that set rows aside: a reason, then the row.

    A file of an earlier run, of a part that now sets none aside, is removed.
    """
    folder = folder_out / "quarantine"
    written = []
    for node, result in context.results.items():
        name = node.replace(":", "-")
        asides = result.entry.asides if result.entry else ()
        path = folder / f"{name}.jsonl"
        if not asides:
            if path.exists():
                with disk(path):
                    path.unlink(missing_ok=True)
            continue
        write_lines(path, _lines(context, asides))
        written.append(Written(name, str(path), sum(aside.part.rows for aside in asides)))
    return tuple(written)


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write a file, of lines without their ends, that is whole or not there.

    Raises:
        Refuse: as ``replaced``.
    """
    with replaced(path) as part, part.open("wb") as file:
        for line in lines:
            file.write(line + b"\n")


def _lines(context: Context, asides: Iterable[Aside]) -> Iterator[bytes]:
    for aside in asides:
        table = read_parts(context.cache.folder, (aside.part,))
        yield from aside_lines(aside.reason, table)


def aside_lines(reason: str, table: pa.Table) -> Iterator[bytes]:
    """A line for each row that was set aside: the reason, then the row.

    Without a reason the rows have their own; else theirs is ``row.reason``.
    """
    for batch in table.to_batches(max_chunksize=ROWS):
        for row in python_rows(batch):
            own = row.pop("reason", None)
            line = {"reason": reason or own, **row}
            if reason and own is not None:
                line["row.reason"] = own
            yield msgspec.json.encode(line, enc_hook=str)
