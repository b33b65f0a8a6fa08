"""A client of the gateway: events sent once, told apart, and repeated until there is an answer.

    from streamapp.client import Client

    with Client("http://127.0.0.1:9382") as client:
        client.send({"message": "hello", "type": "Greeting"})

``AsyncClient`` is the same with ``await``.  Errors are those of :mod:`streamapp.core.errors`:
``Reject`` the event is bad, ``Retry`` the gateway did not answer in time, ``Refuse`` it does not
take the request at all.
"""

from typing import TYPE_CHECKING

from streamapp._lazy import lazy
from streamapp.client.outcomes import Outcome, Received, Rejected, Report
from streamapp.client.steps import Patience
from streamapp.core.errors import Refuse, Reject, Retry

if TYPE_CHECKING:
    from streamapp.client.asynchronous import AsyncClient
    from streamapp.client.blocking import Client

__all__ = [
    "AsyncClient",
    "Client",
    "Outcome",
    "Patience",
    "Received",
    "Refuse",
    "Reject",
    "Rejected",
    "Report",
    "Retry",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "AsyncClient": "streamapp.client.asynchronous",  # which loads aiohttp
        "Client": "streamapp.client.blocking",
    },
)
