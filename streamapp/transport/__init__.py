"""Logs: clients by URL for code that is not a Faust agent, and Faust transports for what is.

``streamapp.transport.local`` is the embedded log (``local:///path``).  Importing this package does
not import Faust; :func:`slice_topic` does.
"""

from streamapp.transport.clients import (
    Address,
    Admin,
    Members,
    Outgoing,
    Producer,
    Reader,
    TopicSpec,
)
from streamapp.transport.options import (
    Options,
    StartPositions,
    configure,
    is_configured,
    join,
    options_of,
    record_by_record,
    slice_topic,
)
from streamapp.transport.security import Security
from streamapp.transport.urls import open_admin, open_members, open_producer, open_reader

__all__ = [
    "Address",
    "Admin",
    "Members",
    "Options",
    "Outgoing",
    "Producer",
    "Reader",
    "Security",
    "StartPositions",
    "TopicSpec",
    "configure",
    "is_configured",
    "join",
    "open_admin",
    "open_members",
    "open_producer",
    "open_reader",
    "options_of",
    "record_by_record",
    "slice_topic",
]
