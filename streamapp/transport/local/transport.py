"""Faust on the local log: ``faust.App("name", broker="local:///path")``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from faust.transport import base
from mode.utils.times import want_seconds

from streamapp.core.errors import Refuse
from streamapp.transport.clients import TopicSpec
from streamapp.transport.ending import declaring, end_in_two_lines
from streamapp.transport.local.consumer import Consumer
from streamapp.transport.local.engine import LocalLog, folder_of
from streamapp.transport.local.producer import Producer


class Transport(base.Transport):
    """Makes consumers and producers that share one open log per process."""

    Consumer: ClassVar[type[Consumer]] = Consumer
    Producer: ClassVar[type[Producer]] = Producer

    driver_version = "local"

    def __init__(self, url: Any, app: Any, loop: Any = None) -> None:
        super().__init__(url, app, loop)
        self.log = LocalLog(_folder(url, app))
        self._users = 0
        end_in_two_lines(app)

    async def open_log(self) -> LocalLog:
        """The started log; each user closes it once."""
        self._users += 1
        if self._users == 1:
            await self.log.start()
        return self.log

    async def close_log(self) -> None:
        """Stop the log when its last user has closed it."""
        self._users -= 1
        if self._users == 0:
            await self.log.stop()

    async def declare(
        self,
        topic: str,
        partitions: int | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        retention: Any = None,
        compacting: bool | None = None,
        **_kafka_only: Any,
    ) -> None:
        """Create a topic if there is none; ``config`` has Kafka's names."""
        if self.log.spec(topic) is not None:
            return
        conf, config = self.app.conf, config or {}
        if not conf.topic_allow_declare:
            raise Refuse(
                "topic.unknown",
                f"no topic {topic!r} in {self.log.folder}, and topic_allow_declare is off",
                "create it first",
            )
        retention_ms = config.get("retention.ms") or (
            int(want_seconds(retention) * 1000) if retention else None
        )
        await self.log.create(
            TopicSpec(
                topic,
                partitions or self._declared_partitions(topic),
                int(config.get("max.message.bytes", conf.producer_max_request_size)),
                None if retention_ms is None else int(retention_ms),
                config.get("retention.bytes"),
                compacted=bool(compacting),
            )
        )

    def _declared_partitions(self, topic: str) -> int:
        """The number the app's own topic says, else the app's default."""
        channels = [*self.app.topics, *(agent.channel for agent in self.app.agents.values())]
        for channel in channels:
            if channel.partitions and topic in channel.topics:
                return int(channel.partitions)
        return int(self.app.conf.topic_partitions)


@declaring()
def _folder(url: Any, app: Any) -> Path:
    if len(url) != 1:
        raise Refuse("broker.url", f"a local log has one URL, not {len(url)}", "name one folder")
    if app.conf.processing_guarantee.value == "exactly_once":
        raise Refuse(
            "transport.exactly_once",
            "a local log has no Kafka transactions: processing_guarantee='exactly_once'",
            "leave processing_guarantee at 'at_least_once'",
        )
    return folder_of(str(url[0]))
