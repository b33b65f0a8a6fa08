"""The Faust app that our agents run in: settings, health pages, a drain with a deadline."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
from faust.web import Request, Response, View

from streamapp.core.metrics import Metrics


class App(faust.App):
    """``faust.App`` that cannot hang on shutdown: after ``drain_s`` the process ends with code 70.

    What was not finished by then was not acknowledged either, so the next start takes it up.
    """

    drain_s: float = 20.0

    async def on_first_start(self) -> None:
        self.conf.datadir.mkdir(parents=True, exist_ok=True)  # Faust makes the last folder only
        await super().on_first_start()

    async def on_stop(self) -> None:
        timer = threading.Timer(self.drain_s, _give_up, (self.conf.id, self.drain_s))
        timer.daemon = True
        timer.start()
        try:
            await super().on_stop()
        finally:
            timer.cancel()


def make_app(
    name: str, broker: str, datadir: Path, *, web_bind: str, web_port: int, drain_s: float
) -> App:
    """A Faust app as all three agents want it: small buffers, nothing created behind our back.

    ``stream_wait_empty``: a stopping worker finishes what it has taken.  ``stream_buffer_maxsize``
    counts Slices, not events.  Tables and the leader topic are not used, so no topic is created
    behind the catalogue's back.
    """
    app = App(
        name,
        broker=broker,
        datadir=datadir,
        web_bind=web_bind,
        web_host=web_bind,
        web_port=web_port,
        web_enabled=bool(web_port),
        web_graph_enabled=False,
        web_router_enabled=False,
        web_tables_enabled=False,
        web_metrics_enabled=False,
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=True,
        stream_buffer_maxsize=4,
        broker_commit_interval=1.0,
        logging_config=None,
    )
    app.drain_s = drain_s
    return app


def add_pages(app: App, metrics: Metrics, ready: Callable[[], dict[str, bool]]) -> None:
    """``/healthz`` (the loop turns), ``/readyz`` (what must hold, as JSON), ``/metrics``."""

    @app.page("/healthz", name="healthz")
    async def healthz(view: View, _request: Request) -> Response:
        return view.text("ok")

    @app.page("/readyz", name="readyz")
    async def readyz(view: View, _request: Request) -> Response:
        checks = {**ready(), "not_draining": not app.should_stop}
        return view.json(checks, status=200 if all(checks.values()) else 503)

    @app.page("/metrics", name="metrics")
    async def exposition(view: View, _request: Request) -> Response:
        return view.bytes(metrics.text(), content_type="text/plain; version=0.0.4")


def on_shutdown(app: App, stop: Callable[[], Any]) -> None:
    """Call the coroutine function ``stop`` when the consumer has drained."""

    async def before_shutdown(_app: Any, **_kwargs: Any) -> None:
        await stop()

    app.on_before_shutdown.connect(before_shutdown, weak=False)


def _give_up(name: str, drain_s: float) -> None:
    print(  # the last word of the process
        f"error: {name} did not finish within {drain_s:g} s of being told to stop\n"
        "fix: nothing was lost, the next start goes on; raise STREAMAPP_DRAIN_S if this is often",
        file=sys.__stderr__,
        flush=True,
    )
    os._exit(70)
