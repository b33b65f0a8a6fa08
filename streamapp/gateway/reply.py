"""What a request of one event is answered, whichever door it came by."""

from email.utils import formatdate
from functools import lru_cache

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from msgspec import UNSET

from streamapp.core.clock import now_ms
from streamapp.core.errors import Reject
from streamapp.gateway.problem import JSON, json_response
from streamapp.gateway.schemas import DeadLettered
from streamapp.gateway.stamp import Stamped
from streamapp.gateway.wire import DeadLetter, Received
from streamapp.transport.clients import Address

_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    + b"".join(f"{name}: {value}\r\n".encode() for name, value in JSON.items())
    + b"Content-Length: %d\r\nDate: %b\r\n\r\n%b"
)
_encode = msgspec.json.Encoder().encode


def received(stamped: Stamped, outcome: Address | Reject) -> web.StreamResponse:
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
    return Answer(
        Received(
            status="received",
            event_type=stamped.type,
            id=stamped.id,
            partition=outcome.partition,
            offset=outcome.offset,
            violation=stamped.violation or UNSET,
        )
    )


class Answer(web.StreamResponse):
    """200 with JSON, which may be written in one piece.

    aiohttp makes and writes a head from a dict of headers, for each answer anew.
    """

    def __init__(self, said: msgspec.Struct) -> None:
        super().__init__()
        self.body = _encode(said)

    def write_whole(self, request: web.Request) -> None:
        """Write head and body if the connection goes on; else aiohttp does, when it is asked to."""
        transport = request.transport
        if (
            transport is None
            or transport.is_closing()
            or not request.keep_alive
            or self._keep_alive is False
            or request.version != HttpVersion11
        ):
            return
        data = _HEAD % (len(self.body), _date(now_ms() // 1000), self.body)
        request.writer.output_size += len(data)  # as aiohttp, which looks whether there was any
        transport.write(data)
        self._keep_alive = self._eof_sent = True

    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self.headers.update(JSON)
        self.content_length = len(self.body)
        return await super()._start(request)

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data or self.body)


@lru_cache(maxsize=1)
def _date(now_s: int) -> bytes:
    return formatdate(now_s, usegmt=True).encode()
