"""Arrow Flight and Flight SQL on the store's own DuckDB; and a client for it."""

from streamapp.flight.actions import Action
from streamapp.flight.certificate import Certificate
from streamapp.flight.client import Client, query
from streamapp.flight.server import FlightServer
from streamapp.flight.statements import Limits

__all__ = ["Action", "Certificate", "Client", "FlightServer", "Limits", "query"]
