"""The exporter's process: start, run until a signal, drain, and answer an operator's tools."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping

import pyarrow as pa

from streamapp.agents.exports.exporter import Exporter, Log
from streamapp.agents.outcome import persist
from streamapp.agents.process import health_pages, run_until, stop_signal
from streamapp.core.errors import Refuse
from streamapp.core.exports import Export
from streamapp.core.metrics import Metrics
from streamapp.topics.catalogue import ENRICHED

#: Of the drain: for attempts that are under way; the rest is for leaving groups and closing.
_WORK_SHARE = 0.75


async def serve(
    exports: Mapping[str, Export],
    columns: pa.Schema,
    log: Log,
    metrics: Metrics,
    *,
    port: int,
    drain_s: float,
    prepare: Callable[[], Awaitable[object]],
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Export until SIGTERM or SIGINT.

    Args:
        exports: by name.
        columns: of the workflow.
        log: clients, not started; they are stopped.
        metrics: of this process.
        port: for health and metrics; 0: none.
        drain_s: what stopping may take.
        prepare: awaited first, until it does not raise Retry: makes the topics.
        on_ready: told the names of the exports once they run.

    Raises:
        Refuse: nothing is declared, a declaration is wrong, or the port is taken.
        Halt: the enriched topic holds what is not ours.
    """
    if not exports:
        raise Refuse(
            "export.none",
            "no exports are declared here",
            "write [exports.NAME] into streamapp.toml, see docs/gateway.md, Exports",
        )
    stopping = stop_signal()
    await persist("export", prepare, metrics)
    async with contextlib.AsyncExitStack() as stack:
        for client in (log.producer, log.reader, log.admin, log.members):
            await persist("export", client.start, metrics)
            stack.push_async_callback(client.stop)
        exporter = Exporter(exports, columns, log, metrics)
        stack.push_async_callback(exporter.stop, drain_s * _WORK_SHARE)
        if port:
            told = lambda: {"exports": exporter.states}  # noqa: E731  # what a page adds
            pages = health_pages(lambda: exporter.ready, metrics, port, "export_port", told)
            await stack.enter_async_context(pages)
        if on_ready is not None:
            on_ready(f"{', '.join(sorted(exports))} from {ENRICHED}")
        await run_until(stopping, exporter.run())
