"""What processes without Faust have in common: an end by signals, and an operator's pages."""

import asyncio
import contextlib
import errno
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

from aiohttp import web

from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics

_HOST = "127.0.0.1"


def stop_signal() -> asyncio.Event:
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


async def run_until(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` until it ends or is to be stopped; whatever it raises is raised."""
    running = asyncio.create_task(work)
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait([running, stop], return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if running.done():
        running.result()
    running.cancel()


@contextlib.asynccontextmanager
async def health_pages(
    ready: Callable[[], Mapping[str, bool]],
    metrics: Metrics,
    port: int,
    setting: str,
    told: Callable[[], Mapping[str, Any]] = dict,
) -> AsyncIterator[None]:
    """``/healthz``, ``/readyz`` and ``/metrics`` on the loopback.

    Args:
        ready: what must hold, by name.
        metrics: of this process.
        port: to listen on.
        setting: what names the port.
        told: what ``/readyz`` says besides.

    Raises:
        Refuse: ``port.taken``.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        checks = dict(ready())
        body = {"ready": all(checks.values()), "checks": checks, **told()}
        return web.json_response(body, status=200 if all(checks.values()) else 503)

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
            f"{setting} {port} on {_HOST} is in use",
            f"stop what listens there, or give --{setting.replace('_', '-')} (0: no health pages)",
        ) from None
    finally:
        await runner.cleanup()
