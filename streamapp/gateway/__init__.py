"""The REST edge: requests in, events on the log, and an answer only when the log has them.

Every protocol is one module with a ``routes(gateway)`` function, listed in ``app.PROTOCOLS``; what
protocols share (limits, bodies, stamping, delivery, errors) they get from the modules beside it.
"""

from streamapp.gateway.app import create_app
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.server import serve

__all__ = ["GatewayConfig", "create_app", "serve"]
