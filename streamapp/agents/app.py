"""The Faust app that our agents run in: settings, health pages, a drain with a deadline."""

import atexit
import errno
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import faust
from faust.types import TP
from faust.web import Request, Response, View

from streamapp.agents.outcome import guarded, stop_process
from streamapp.agents.seldom import Seldom
from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.transport import Security

#: aiokafka speaks at every attempt to reach a broker, ten times a second.
_FEW = Seldom("aiokafka")


class App(faust.App):
    """``faust.App`` that ends in two lines, and cannot hang on shutdown.

    An error that Faust would show as a traceback and exit code 1 (a second member of a group, a
    topic that was made anew) ends the process with its own words and exit code.  A shutdown ends
    after ``drain_s`` with code 70; what was not finished by then was not acknowledged either, so
    the next start takes it up.

    ``before_start`` is awaited once, before anything is opened; it raises what must stop the start.
    """

    drain_s: float = 20.0
    before_start: Callable[[], Awaitable[None]] | None = None

    async def start(self) -> None:
        await guarded(self._start())

    async def _start(self) -> None:
        try:
            await super().start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise Refuse(
                "port.taken",
                f"web port {self.conf.web_port} on {self.conf.web_host} is in use",
                "stop what listens there, or give another port (0: no health pages)",
            ) from None

    def _crash(self, reason: BaseException) -> None:
        # Where mode reports that a task of any service below us raised (mode.Service.crash).
        if isinstance(reason, StreamappError):
            stop_process(reason)
        super()._crash(reason)

    async def on_first_start(self) -> None:
        for handler in logging.getLogger().handlers:
            handler.addFilter(_is_no_error_of_ours)
            handler.addFilter(_FEW)
        if self.before_start is not None:
            await self.before_start()
        try:
            # Faust makes the last folder only.
            self.conf.datadir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refuse(
                "home.write",
                f"cannot make {self.conf.datadir}: {error.strerror}",
                "give another home with STREAMAPP_HOME",
            ) from None
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
    name: str,
    broker: str,
    datadir: Path,
    *,
    web_bind: str,
    web_port: int,
    drain_s: float,
    session_s: float = 10.0,
    wait_empty: bool = True,
    security: Security | None = None,
) -> App:
    """A Faust app as all three agents want it: small buffers, nothing created behind our back.

    ``stream_buffer_maxsize`` counts Slices, not events.  Tables and the leader topic are not used,
    so no topic is created behind the catalogue's back.  With ``wait_empty`` all that was taken is
    finished on stopping and on revocation; an agent for which that takes long decides in its own
    ``stop`` what it finishes.
    """
    atexit.register(_empty_duckdb)
    app = App(
        name,
        broker=broker,
        broker_credentials=_credentials(security),
        datadir=datadir,
        web_bind=web_bind,
        web_host=web_bind,
        web_port=web_port or None,  # Faust's own default, which nobody then listens on
        web_enabled=bool(web_port),
        web_graph_enabled=False,
        web_router_enabled=False,
        web_tables_enabled=False,
        web_metrics_enabled=False,
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=wait_empty,
        stream_buffer_maxsize=4,
        broker_commit_interval=1.0,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 5,
        logging_config=None,
    )
    app.drain_s = drain_s
    return app


def _credentials(security: Security | None) -> Any:
    """The same in Faust's words."""
    if security is None or not (security.sasl or security.tls):
        return None
    context = security.ssl_context()
    if not security.sasl:
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=security.username,
        password=security.password,
        mechanism=security.mechanism,
        ssl_context=context,
    )


def add_pages(
    app: App,
    metrics: Metrics,
    ready: Callable[[], dict[str, bool]],
    positions: Callable[[], Mapping[tuple[str, int], int]],
    prefix: str = "",
) -> None:
    """``/healthz`` (the loop turns), ``/readyz`` (what must hold, as JSON), ``/metrics``.

    Args:
        app: not started.
        metrics: of this process.
        ready: what must hold, by name.
        positions: the next offset of each partition that is not done yet; lag is counted from it.
        prefix: of the paths, in an app that has pages of its own.
    """
    named = f"{prefix.removeprefix('/')}:" if prefix else ""

    @app.page(f"{prefix}/healthz", name=f"{named}healthz")
    async def healthz(view: View, _request: Request) -> Response:
        return view.text("ok")

    @app.page(f"{prefix}/readyz", name=f"{named}readyz")
    async def readyz(view: View, _request: Request) -> Response:
        checks = {**ready(), "not_draining": not app.should_stop}
        return view.json(checks, status=200 if all(checks.values()) else 503)

    @app.page(f"{prefix}/metrics", name=f"{named}metrics")
    async def exposition(view: View, _request: Request) -> Response:
        held = positions()
        try:
            ends = await app.consumer.highwaters(*(TP(*key) for key in held)) if held else {}
        except Retry:
            ends = {}  # the log does not answer: lag stays what it was
        for tp, end in ends.items():
            metrics.lag.labels(tp[0], str(tp[1])).set(max(end - held[tp[0], tp[1]], 0))
        return view.bytes(metrics.text(), content_type="text/plain; version=0.0.4")


def on_shutdown(app: App, stop: Callable[[], Any]) -> None:
    """Call the coroutine function ``stop`` when the consumer has drained."""

    async def before_shutdown(_app: Any, **_kwargs: Any) -> None:
        await stop()

    app.on_before_shutdown.connect(before_shutdown, weak=False)


def _is_no_error_of_ours(record: logging.LogRecord) -> bool:
    """False for the traceback of an error that :func:`stop_process` tells in its own words."""
    return not (record.exc_info and isinstance(record.exc_info[1], StreamappError))


def _empty_duckdb() -> None:
    """Last of all: DuckDB's binding lists on stderr which of its types outlive the interpreter.

    In a Faust process that has opened a store all do: something there keeps modules that name
    ``duckdb`` (what it is was not found), and whoever stops a store can do nothing about it.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in {"duckdb", "_duckdb"}:
            vars(module).clear()


def _give_up(name: str, drain_s: float) -> None:
    print(  # the last word of the process
        f"error: {name} did not finish within {drain_s:g} s of being told to stop\n"
        "fix: nothing was lost, the next start goes on; raise STREAMAPP_DRAIN_S if this is often",
        file=sys.__stderr__,
        flush=True,
    )
    os._exit(70)
