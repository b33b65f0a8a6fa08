"""The process: start, serve until a signal, drain."""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from streamapp.core.config import Settings
from streamapp.core.errors import Retry
from streamapp.core.exports import Export
from streamapp.core.metrics import Metrics
from streamapp.gateway.app import GATEWAY, create_app
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.life import Life
from streamapp.gateway.listen import listening
from streamapp.gateway.sources import Source
from streamapp.topics.catalogue import Catalogue
from streamapp.transport.clients import Admin, Members, Producer, Reader

if TYPE_CHECKING:
    from streamapp.models import Registry

#: Share of the drain's time for requests and accepted events; the rest is for closing.
_WORK_SHARE = 0.75
#: Containers made and not freed, and collections of the young ones before older ones are looked at.
_COLLECT_AFTER = (10_000, 10, 10)
_log = logging.getLogger("streamapp.gateway")


async def serve(
    settings: Settings,
    producer: Producer,
    catalogue: Catalogue,
    metrics: Metrics,
    *,
    admin: Admin | None = None,
    reader: Reader | None = None,
    members: Members | None = None,
    webhooks: Mapping[str, Source] | None = None,
    export: Export | None = None,
    on_ready: Callable[[str], None] | None = None,
    models: "Callable[[], Registry] | None" = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once.

    Starts the producer (and the other clients), and stops them.

    Args:
        settings: see ``GatewayConfig.of``.
        producer: not started.
        catalogue: topics.
        metrics: of this process.
        admin: not started, as ``reader`` and ``members``; see ``create_app``.
        reader: of the log.
        members: of the log's consumer groups.
        webhooks: see ``sources.declared_sources``.
        export: whose values clients may change.
        on_ready: called with the gateway's URL when it listens.
        models: see ``create_app``.

    Raises:
        Refuse: ``gateway.bind`` the address cannot be bound, or the certificate or the file of
            tokens cannot be used.
        Retry: the log did not answer at the start, or ``gateway.drain``: accepted events were lost
            because it did not answer within ``drain_s`` at the end.
        Halt: what the log raised.
    """
    config = GatewayConfig.of(settings, webhooks, export)
    app = create_app(
        config,
        producer,
        catalogue,
        metrics,
        admin=admin,
        reader=reader,
        members=members,
        models=models,
    )
    gateway = app[GATEWAY]
    drain = _Drain(gateway)
    async with contextlib.AsyncExitStack() as stack:
        for client in (producer, admin, reader, members):
            if client is not None:
                await client.start()
                stack.push_async_callback(drain.stop, client)
        listener, url = await stack.enter_async_context(listening(app, config))
        stack.enter_context(_signals(gateway.life))
        stack.enter_context(_collected_seldom())
        _warn_if_open(config, url)
        if on_ready is not None:
            on_ready(url)
        await gateway.life.stopping.wait()
        listener.close()
        await drain.work()
    drain.verdict()


def _warn_if_open(config: GatewayConfig, url: str) -> None:
    if not config.is_local and config.is_open:
        _log.warning(
            "%s takes events from its whole network: set STREAMAPP_TOKEN, or run"
            " `streamapp token create`",
            url,
        )


@contextlib.contextmanager
def _collected_seldom() -> Iterator[None]:
    """Python's cycle collector passes over what the start made, and waits for more garbage.

    A body of 1,000 events makes some ten thousand containers, none of them in a cycle; by default
    they are looked through again and again while the body is read.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextlib.contextmanager
def _signals(life: Life) -> Iterator[None]:
    """The first SIGTERM or SIGINT drains; then the system's own handlers are back."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def restore() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    def stop() -> None:
        restore()
        life.stop()

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        restore()


class _Drain:
    """The way down, against one deadline that starts when ``work`` does."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._drain_s = gateway.config.drain_s
        self._end_s = float("inf")
        self._lost = 0

    async def work(self) -> None:
        """Let requests finish and accepted events reach the log."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        self._end_s = started_s + self._drain_s
        gateway = self._gateway
        try:
            async with asyncio.timeout_at(started_s + self._drain_s * _WORK_SHARE):
                await gateway.life.idle()
                await gateway.delivery.flush()
        except TimeoutError:
            _log.warning("%d requests are cut off unanswered", gateway.life.requests)
            self._lost = await gateway.delivery.abandon()

    async def stop(self, client: Producer | Admin | Reader | Members) -> None:
        """Stop a client of the log in the time that is left."""
        now_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(self._end_s, now_s + self._drain_s)):
                await client.stop()
        except TimeoutError:
            _log.error("the log did not close in time")  # no traceback

    def verdict(self) -> None:
        """Raise what the process must end with, if anything."""
        if self._gateway.life.fault is not None:
            raise self._gateway.life.fault
        if self._lost:
            raise Retry(
                "gateway.drain",
                f"{self._lost} accepted events are lost: the log did not answer "
                f"within {self._drain_s:g} s",
                "raise STREAMAPP_DRAIN_S, or send without wait=accepted",
            )
