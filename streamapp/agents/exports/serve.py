"""The exporter's process: start, run until a signal, drain, and answer an operator's tools."""

import asyncio
import contextlib
import errno
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pyarrow as pa
from aiohttp import web

from streamapp.agents.exports.exporter import Exporter, Log
from streamapp.agents.outcome import persist
from streamapp.core.errors import Refuse
from streamapp.core.exports import Export
from streamapp.core.metrics import Metrics
from streamapp.topics.catalogue import ENRICHED

_HOST = "127.0.0.1"
#: Of the drain: for attempts that are under way; the rest is for leaving groups and closing.
_WORK_SHARE = 0.75
logger = logging.getLogger("streamapp")


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
    stopping = _stop_signal()
    await persist("export", prepare, metrics)
    async with contextlib.AsyncExitStack() as stack:
        for client in (log.producer, log.reader, log.admin, log.members):
            await persist("export", client.start, metrics)
            stack.push_async_callback(client.stop)
        exporter = Exporter(exports, columns, log, metrics)
        stack.push_async_callback(exporter.stop, drain_s * _WORK_SHARE)
        if port:
            await stack.enter_async_context(_pages(exporter, metrics, port))
        running = asyncio.create_task(exporter.run())
        if on_ready is not None:
            on_ready(f"{', '.join(sorted(exports))} from {ENRICHED}")
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait([running, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if running.done():
            running.result()
        running.cancel()


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the next one ends the process at once."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
        stopping.set()

    for number in signals:
        loop.add_signal_handler(number, stop)
    return stopping


@contextlib.asynccontextmanager
async def _pages(exporter: Exporter, metrics: Metrics, port: int) -> AsyncIterator[None]:
    """``/healthz``, ``/readyz`` and ``/metrics`` on the loopback."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        ready = exporter.ready
        body = {"ready": all(ready.values()), "checks": ready, "exports": exporter.states}
        return web.json_response(body, status=200 if all(ready.values()) else 503)

    async def exposition(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=metrics.text(), headers=headers)

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", exposition)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, _HOST, port).start()
        yield
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise Refuse(
            "port.taken",
            f"export_port {port} on {_HOST} is in use",
            "stop what listens there, or give --export-port (0: no health pages)",
        ) from None
    finally:
        await runner.cleanup()
