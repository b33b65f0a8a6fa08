"""Arrow Flight and Flight SQL on the store's own DuckDB, read only; and a client for it."""

from streamapp.flight.client import query
from streamapp.flight.server import FlightServer
from streamapp.flight.statements import Limits

__all__ = ["FlightServer", "Limits", "query"]
