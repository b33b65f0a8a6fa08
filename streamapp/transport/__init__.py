"""Logs: clients by URL for code that is not a Faust agent, and Faust transports for what is.

``streamapp.transport.local`` is the embedded log (``local:///path``).  Importing this package does
not import Faust; :func:`slice_topic` does.
"""

from streamapp.transport.clients import Address, Admin, Outgoing, Producer, Reader, TopicSpec
from streamapp.transport.options import Options, StartPositions, configure, options_of, slice_topic
from streamapp.transport.urls import open_admin, open_producer, open_reader

__all__ = [
    "Address",
    "Admin",
    "Options",
    "Outgoing",
    "Producer",
    "Reader",
    "StartPositions",
    "TopicSpec",
    "configure",
    "open_admin",
    "open_producer",
    "open_reader",
    "options_of",
    "slice_topic",
]
