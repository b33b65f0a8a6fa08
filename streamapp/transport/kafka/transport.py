"""Faust on Apache Kafka by the batch: ``faust.App("name", broker="kafka+batch://host:9092")``.

Everything but the consumer is Faust's own aiokafka driver: its producer, its topic creation, its
credentials (``broker_credentials``, ``ssl_context``) and its settings.
"""

from typing import Any, ClassVar

from faust.transport.drivers import aiokafka as driver

from streamapp.core.errors import Refuse
from streamapp.transport.kafka.address import hosts_of
from streamapp.transport.kafka.consumer import Consumer


class Transport(driver.Transport):
    """Makes consumers that deliver Slices of the topics that the app asked to have coalesced."""

    Consumer: ClassVar[type[Consumer]] = Consumer

    def __init__(self, url: Any, app: Any, loop: Any = None) -> None:
        hosts_of(",".join(str(each) for each in url).replace(",kafka+batch://", ","))
        super().__init__(url, app, loop)
        if app.conf.processing_guarantee.value == "exactly_once":
            raise Refuse(
                "transport.exactly_once",
                "kafka+batch:// has no transactions: processing_guarantee='exactly_once'",
                "leave processing_guarantee at 'at_least_once', or use kafka://",
            )
