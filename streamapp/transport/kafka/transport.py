"""Faust on Apache Kafka by the batch: ``faust.App("name", broker="kafka+batch://host:9092")``.

Everything but the consumer is Faust's own aiokafka driver: its producer, its topic creation, its
credentials (``broker_credentials``, ``ssl_context``) and its settings.
"""

from typing import Any, ClassVar

from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers import aiokafka as driver

from streamapp.core.errors import Refuse
from streamapp.transport.ending import declaring, end_in_two_lines
from streamapp.transport.kafka.address import hosts_of
from streamapp.transport.kafka.connection import Connection
from streamapp.transport.kafka.consumer import Consumer
from streamapp.transport.kafka.credentials import joined, security_of


class Transport(driver.Transport):
    """Makes consumers that deliver Slices of the topics that the app asked to have coalesced."""

    Consumer: ClassVar[type[Consumer]] = Consumer

    def __init__(self, url: Any, app: Any, loop: Any = None) -> None:
        _check(url, app)
        super().__init__(url, app, loop)
        end_in_two_lines(app, self._ours)

    async def _ours(self, error: Exception) -> Exception:
        """Our error for aiokafka's when no broker answers at the start."""
        if not isinstance(error, KafkaConnectionError):
            return error
        return await Connection(joined(self.url), security_of(self.app)).why("a first connection")


@declaring()
def _check(url: Any, app: Any) -> None:
    hosts_of(joined(url))
    if app.conf.processing_guarantee.value == "exactly_once":
        raise Refuse(
            "transport.exactly_once",
            "kafka+batch:// has no transactions: processing_guarantee='exactly_once'",
            "leave processing_guarantee at 'at_least_once', or use kafka://",
        )
