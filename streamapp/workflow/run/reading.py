"""Inputs and declared sources, copied into the cache once."""

import asyncio
from itertools import count

from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.errors import StreamappError
from streamapp.workflow.data import Opened
from streamapp.workflow.graph.spec import Input, RetryPolicy
from streamapp.workflow.run.binding import failure
from streamapp.workflow.run.cache import Entry
from streamapp.workflow.run.calling import entry_of
from streamapp.workflow.run.context import Context, Failure, Result
from streamapp.workflow.run.events import Advance, Kind, PartStarted, Waiting
from streamapp.workflow.run.keys import opened_key
from streamapp.workflow.run.messages import Read
from streamapp.workflow.run.report import Problem, StageReport
from streamapp.workflow.run.retry import delay_s, is_tried_again
from streamapp.workflow.run.sizing import PROCESS_BYTES

#: Of what is outside; a stage says its own.
RETRY = RetryPolicy(max=2)


async def read_input(context: Context, name: str) -> Result:
    """The rows of an input."""
    declared = context.graph.inputs[name]
    return await _read(context, "input", name, context.binding.inputs[name], declared)


async def read_source(context: Context, name: str) -> Result:
    """The rows of a declared source."""
    return await _read(context, "source", name, context.binding.sources[name], None)


async def _read(
    context: Context, kind: Kind, name: str, opened: Opened, declared: Input | None
) -> Result:
    started_s = monotonic_s()
    key = opened_key(opened, now_us() * 1_000)
    pin = f"{kind}:{name}"
    entry = context.cache.find(key) if key else context.record.pinned.get(pin)
    state, why = "cached", "it did not change" if key else "the run that is resumed had read it"
    if entry is None:
        state = "ran"
        why = "it was not read before" if key else "whether it changed cannot be seen"
        context.tell(PartStarted(kind, name, None, 1, why, now_us()))
        try:
            entry = await _copy(context, kind, name, declared)
        except StreamappError as error:
            what = failure(error, f"{kind} {name!r}")
            problem = Problem.of(what)
            report = StageReport(name, kind, "failed", opened.format, why, error=problem)
            context.ended(kind, report)
            raise Failure(what) from None
        if key and opened_key(opened, now_us() * 1_000) == key:
            context.cache.keep(key, entry)
        if not opened.files:
            context.record.pinned[pin] = entry
            context.keep()
    result = Result.of(entry)
    report = StageReport(
        name, kind, "ran" if state == "ran" else "cached", opened.format, why,
        rows_out=entry.rows, rejected=entry.rejected, seconds=monotonic_s() - started_s,
        result=result.content,
    )  # fmt: skip
    context.ended(kind, report)
    return result


async def _copy(context: Context, kind: Kind, name: str, declared: Input | None) -> Entry:
    """Read all of it, again where it died."""
    for attempt in count(1):
        try:
            async with context.budget.admitted(1, PROCESS_BYTES):
                return await _copy_once(context, kind, name, declared)
        except StreamappError as error:
            if not is_tried_again(RETRY, error, attempt):
                raise
            wait_s = delay_s(RETRY, attempt)
            context.tell(Waiting(name, attempt, wait_s, error.message))
            await asyncio.sleep(wait_s)
    raise AssertionError  # count has no end


async def _copy_once(context: Context, kind: Kind, name: str, declared: Input | None) -> Entry:
    worker = await context.pool.take()
    try:
        answer = await worker.do(
            lambda job: Read(job, name, declared),
            lambda rows: context.tell(Advance(kind, name, rows)),
        )
    except StreamappError:
        context.pool.give_back(worker)
        raise
    except BaseException:
        context.pool.retire(worker)
        raise
    context.pool.give_back(worker)
    return entry_of(answer)
