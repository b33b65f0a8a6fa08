"""The asking process: start, answer asks until a signal, drain."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from streamapp.agents.asking.asker import Answering, Asker, Log
from streamapp.agents.outcome import persist
from streamapp.agents.process import health_pages, run_until, stop_signal
from streamapp.core.metrics import Metrics
from streamapp.models.llm import Llm
from streamapp.topics.catalogue import ASK

#: Of the drain: for questions that are under way; the rest is for leaving the group and closing.
_WORK_SHARE = 0.75


async def serve(
    llm: Llm,
    labels: Mapping[str, Sequence[str]],
    log: Log,
    metrics: Metrics,
    *,
    port: int,
    drain_s: float,
    prepare: Callable[[], Awaitable[object]],
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Answer asks until SIGTERM or SIGINT.

    Args:
        llm: who is asked; it is closed.
        labels: intents, with descriptions.
        log: clients, not started; they are stopped.
        metrics: of this process.
        port: for health and metrics; 0: none.
        drain_s: what stopping may take.
        prepare: awaited first, until it does not raise Retry: makes the topics.
        on_ready: told who is asked, once it runs.

    Raises:
        Refuse: the port is taken, or a topic is missing.
    """
    stopping = stop_signal()
    await persist("ask", prepare, metrics)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(llm.close)
        for client in (log.producer, log.reader, log.admin, log.members):
            await persist("ask", client.start, metrics)
            stack.push_async_callback(client.stop)
        asker = Asker(log, Answering(llm, labels, metrics), metrics)
        stack.push_async_callback(asker.stop, drain_s * _WORK_SHARE)
        if port:
            pages = health_pages(lambda: asker.ready, metrics, port, "ask_port")
            await stack.enter_async_context(pages)
        if on_ready is not None:
            on_ready(f"{llm.endpoint.base_url} about {ASK}")
        await run_until(stopping, asker.run())
