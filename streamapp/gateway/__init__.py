"""The REST edge: requests in, events on the log, and an answer only when the log has them.

Every protocol is one module with a ``routes(gateway)`` function, listed in ``app.PROTOCOLS``; what
protocols share (limits, bodies, stamping, delivery, errors) they get from the modules beside it.
"""

from typing import TYPE_CHECKING

from streamapp._lazy import lazy

if TYPE_CHECKING:
    from streamapp.gateway.app import create_app
    from streamapp.gateway.config import GatewayConfig
    from streamapp.gateway.server import serve

__all__ = ["GatewayConfig", "create_app", "serve"]

#: Loaded when asked for: the store takes batches as the gateway does, and serves no HTTP.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "GatewayConfig": "streamapp.gateway.config",
        "create_app": "streamapp.gateway.app",
        "serve": "streamapp.gateway.server",
    },
)
