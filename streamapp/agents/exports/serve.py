"""The exporter's process: start, run until a signal, drain, and answer an operator's tools."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import pyarrow as pa

from streamapp.agents.exports.exporter import Exporter
from streamapp.agents.lanes import Log
from streamapp.agents.member_process import Process
from streamapp.core.errors import Refuse
from streamapp.core.exports import Export
from streamapp.core.metrics import Metrics
from streamapp.topics.catalogue import ENRICHED


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
    process = Process("export", log, metrics, port, drain_s, prepare)
    names = f"{', '.join(sorted(exports))} from {ENRICHED}"
    await process.run(
        lambda: Exporter(exports, columns, log, metrics),
        on_ready=partial(on_ready, names) if on_ready else None,
        told=lambda exporter: {"exports": exporter.states},
    )
