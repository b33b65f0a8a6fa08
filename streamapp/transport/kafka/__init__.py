"""Apache Kafka: ``kafka+batch://host:port[,host:port...]``.

``Transport`` is the Faust transport (entry point ``faust.transports``); it is imported on first
use, so that the clients load without Faust.
"""

from streamapp._lazy import lazy

__getattr__, __dir__ = lazy(__name__, {"Transport": "streamapp.transport.kafka.transport"})
