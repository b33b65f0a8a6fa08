"""Apache Kafka: ``kafka+batch://host:port[,host:port...]``.

``Transport`` is the Faust transport (entry point ``faust.transports``); it is imported on first
use, so that the clients load without Faust.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "Transport":
        from streamapp.transport.kafka.transport import Transport

        return Transport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
