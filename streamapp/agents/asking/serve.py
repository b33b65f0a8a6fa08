"""The asking process: start, answer asks until a signal, drain."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from streamapp.agents.asking.asker import Answering, Asker
from streamapp.agents.lanes import Log
from streamapp.agents.member_process import Process
from streamapp.core.metrics import Metrics
from streamapp.models.llm import Llm
from streamapp.topics.catalogue import ASK


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
    process = Process("ask", log, metrics, port, drain_s, prepare)
    await process.run(
        lambda: Asker(log, Answering(llm, labels, metrics), metrics),
        on_ready=partial(on_ready, f"{llm.endpoint.base_url} about {ASK}") if on_ready else None,
        close=llm.close,
    )
