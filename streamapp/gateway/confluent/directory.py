"""Which topics the log has, asked seldom enough that clients cannot make the log busy."""

import asyncio
from collections.abc import Mapping

from streamapp.core.errors import Refuse
from streamapp.gateway.confluent.errors import NO_PARTITION, ConfluentError
from streamapp.gateway.gateway import Gateway
from streamapp.transport.clients import Admin, Cluster, Copies, TopicSpec

#: A list younger than this is believed, also for what is not on it.
FRESH_S = 1.0
#: A topic that was there so long ago is believed to be there still.
KNOWN_S = 10.0


class Directory:
    """The log's topics, and who keeps it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._topics: Mapping[str, TopicSpec] = {}
        self._asked_s = float("-inf")
        self._cluster: Cluster | None = None
        self._asking = asyncio.Lock()

    @property
    def admin(self) -> Admin:
        """The log's admin client.

        Raises:
            Refuse: this gateway has none.
        """
        admin = self._gateway.admin
        if admin is None:
            raise Refuse("gateway.admin", "this gateway has no admin client", "give it one")
        return admin

    async def topics(self, age_s_max: float = FRESH_S) -> Mapping[str, TopicSpec]:
        """All topics by name."""
        now_s = self._gateway.clock.monotonic_s
        if now_s() - self._asked_s > age_s_max:
            async with self._asking:
                if now_s() - self._asked_s > age_s_max:
                    self._topics = await self.admin.topics()
                    self._asked_s = now_s()
        return self._topics

    async def topic(self, name: str) -> TopicSpec:
        """One topic.

        Raises:
            Refuse: ``topic.unknown``.
        """
        found = (await self.topics(KNOWN_S)).get(name) or (await self.topics()).get(name)
        if found is None:
            raise Refuse("topic.unknown", f"no topic is called {name[:120]!r}", "create it first")
        return found

    async def partition(self, topic: str, number: str) -> int:
        """The partition that a path names.

        Raises:
            ConfluentError: 40402.
            Refuse: ``topic.unknown``.
        """
        spec = await self.topic(topic)
        if not number.isascii() or not number.isdecimal() or len(number) > 9:
            raise no_partition()
        if int(number) >= spec.partitions:
            raise no_partition()
        return int(number)

    async def copies(self, topic: str) -> list[Copies]:
        """Who keeps each partition of a topic.

        Raises:
            Refuse: ``topic.unknown``.
        """
        found = (await self.admin.copies([(await self.topic(topic)).name])).get(topic)
        if not found:  # deleted meanwhile
            raise Refuse("topic.unknown", f"no topic is called {topic[:120]!r}", "create it first")
        return found

    async def cluster(self) -> Cluster:
        """Who keeps the log; its id never changes."""
        if self._cluster is None:
            self._cluster = await self.admin.cluster()
        return self._cluster


def no_partition() -> ConfluentError:
    """404: the topic has no such partition."""
    return ConfluentError(NO_PARTITION, "Partition not found.")
