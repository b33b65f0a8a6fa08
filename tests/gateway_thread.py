"""A gateway in a thread of its own: for clients that block."""

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import Any, Self

from streamapp.core.metrics import Metrics
from streamapp.gateway import GatewayConfig, create_app
from streamapp.gateway.listen import listening
from streamapp.testing.log import MemoryLog
from streamapp.topics import catalogue
from streamapp.transport import open_admin, open_members, open_producer, open_reader
from streamapp.transport.clients import TopicSpec

PLAIN = TopicSpec("plain", 2, 100_000)


class GatewayThread:
    """``with GatewayThread() as gateway``: it listens at ``gateway.url``, and its log has the topics
    of the catalogue and ``plain`` (two partitions, any bytes).

    Args:
        broker: of the log; empty: ``gateway.log``, in memory, without consumer groups.
        models: makes the registry that ``/v2`` serves.
        config: keywords of GatewayConfig.
    """

    def __init__(self, broker: str = "", models: Any = None, **config: Any) -> None:
        self._models = models
        self.log = MemoryLog()
        self.config = GatewayConfig(port=0, **config)
        self.app: Any = None
        self.url = ""
        self._broker = broker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway")
        self._stack = AsyncExitStack()

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def run(self, work: Any) -> Any:
        """The outcome of a coroutine in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        producer, admin, reader, members = clients = self._clients()
        for client in filter(None, clients):
            await client.start()
            self._stack.push_async_callback(client.stop)
        declared = catalogue.load()
        for spec in (*(TopicSpec(*topic.log_spec()) for topic in declared), PLAIN):
            await admin.create(spec)
        self.app = create_app(
            self.config,
            producer,
            declared,
            Metrics(),
            admin=admin,
            reader=reader,
            members=members,
            models=self._models,
        )
        _, self.url = await self._stack.enter_async_context(listening(self.app, self.config))

    def _clients(self) -> Any:
        if not self._broker:
            return self.log.producer(), self.log.admin(), self.log.reader(), None
        makers = open_producer, open_admin, open_reader, open_members
        return [make(self._broker) for make in makers]
