"""The embedded log: ``local:///path``, one SQLite file per topic, one machine, several processes.

``Transport`` is the Faust transport (entry point ``faust.transports``); it is imported on first
use, so that the clients load without Faust.
"""

from streamapp._lazy import lazy

__getattr__, __dir__ = lazy(__name__, {"Transport": "streamapp.transport.local.transport"})
