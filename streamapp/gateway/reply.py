"""What a request of one event is answered, whichever door it came by."""

from aiohttp import web
from msgspec import UNSET

from streamapp.core.errors import Reject
from streamapp.gateway.problem import json_response
from streamapp.gateway.schemas import DeadLettered
from streamapp.gateway.stamp import Stamped
from streamapp.gateway.wire import DeadLetter, Received
from streamapp.transport.clients import Address


def received(stamped: Stamped, outcome: Address | Reject) -> web.Response:
    """The answer when the log has answered: 200, or 202 when it went to the dead letters.

    Raises:
        Reject: the log refuses the event.
    """
    if isinstance(outcome, DeadLettered):
        topic, partition, offset = outcome.address
        said = outcome.code, outcome.message, outcome.fix
        letter = DeadLetter(
            "dead-lettered", stamped.type, stamped.id, topic, partition, offset, *said
        )
        return json_response(letter, 202)
    if isinstance(outcome, Reject):
        raise outcome
    return json_response(
        Received(
            status="received",
            event_type=stamped.type,
            id=stamped.id,
            partition=outcome.partition,
            offset=outcome.offset,
            violation=stamped.violation or UNSET,
        )
    )
