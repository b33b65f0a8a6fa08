"""A process that is a member of groups: start, work until a signal, drain, and say how it is."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from streamapp.agents.lanes import Log
from streamapp.agents.outcome import persist
from streamapp.agents.process import health_pages, run_until, stop_signal
from streamapp.core.metrics import Metrics

#: Of the drain: for what is under way; the rest is for leaving groups and closing.
_WORK_SHARE = 0.75


class Worker(Protocol):
    """What the process does."""

    @property
    def ready(self) -> Mapping[str, bool]: ...
    async def run(self) -> None: ...
    async def stop(self, wait_s_max: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Process:
    """How it runs.

    ``what``: its name, for waits and for the setting of its port; ``port`` for health and metrics,
    0: none; ``drain_s``: what stopping may take; ``prepare``: awaited first, until it does not
    raise Retry.
    """

    what: str
    log: Log
    metrics: Metrics
    port: int
    drain_s: float
    prepare: Callable[[], Awaitable[object]]

    async def run(
        self,
        make: Callable[[], Worker],
        *,
        on_ready: Callable[[], None] | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
        told: Callable[[Any], Mapping[str, Any]] = lambda _: {},
    ) -> None:
        """Run until SIGTERM or SIGINT.

        Args:
            make: makes the worker, when the log's clients are started.
            on_ready: called once it runs.
            close: awaited at the end.
            told: what ``/readyz`` says of the worker besides.

        Raises:
            Refuse: the port is taken, or the worker refuses its declaration.
        """
        stopping, log = stop_signal(), self.log
        await persist(self.what, self.prepare, self.metrics)
        async with contextlib.AsyncExitStack() as stack:
            if close is not None:
                stack.push_async_callback(close)
            for client in (log.producer, log.reader, log.admin, log.members):
                await persist(self.what, client.start, self.metrics)
                stack.push_async_callback(client.stop)
            worker = make()
            stack.push_async_callback(worker.stop, self.drain_s * _WORK_SHARE)
            if self.port:
                pages = health_pages(
                    lambda: worker.ready,
                    self.metrics,
                    self.port,
                    f"{self.what}_port",
                    lambda: told(worker),
                )
                await stack.enter_async_context(pages)
            if on_ready is not None:
                on_ready()
            await run_until(stopping, worker.run())
