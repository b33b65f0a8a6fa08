"""One client's connection, and what is not put up with before its request reaches the edge.

asyncio calls these methods; what they leave to aiohttp is HTTP.
"""

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.problem import SERVER, ProblemError
from streamapp.gateway.rates import network_of

#: How often slow connections are looked for.
LOOK_EVERY_S = 0.5
#: States of ``Connection.asking_s`` beside a time.
IDLE, BUSY = 0.0, -1.0
#: An answer of this size fits in any socket's buffer whose reader reads.
_SMALL_BYTES = 16 << 10
#: The answer to who is not listened to.
_REFUSAL = (
    f"HTTP/1.1 %b\r\nServer: {SERVER['Server']}\r\nRetry-After: 1\r\n"
    "Content-Length: 0\r\nConnection: close\r\n\r\n"
).encode()


class Connections:
    """All connections of one listener.

    Args:
        server: aiohttp's.
        config: their limits.
        options: aiohttp's, of each connection.
        files_max: a connection is one of these.
    """

    def __init__(
        self, server: web.Server, config: GatewayConfig, options: Any, files_max: float
    ) -> None:
        self._server = server
        self._options = options
        self._headers_s_max = config.headers_s_max
        self._max = max(1, min(config.connections_max, files_max))
        self._per_address_max = config.connections_per_address_max
        self._by_address: Counter[str] = Counter()
        self.all: set[Connection] = set()

    def new(self) -> "Connection":
        """The protocol of a connection that was accepted."""
        loop = asyncio.get_running_loop()
        return Connection(self, self._server, loop=loop, **self._options)

    def enter(self, connection: "Connection", address: str) -> bool:
        """Count it; False when there are, or its address has, as many as may be."""
        if len(self.all) >= self._max:  # now, not when it was accepted: many are at once
            return False
        if self._per_address_max and self._by_address[address] >= self._per_address_max:
            return False
        self._by_address[address] += 1
        self.all.add(connection)
        return True

    def leave(self, connection: "Connection", address: str) -> None:
        """It is over."""
        self.all.discard(connection)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    async def close_slow(self) -> None:
        """Close, until cancelled, who does not get to the end of a request's headers."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(LOOK_EVERY_S, self._headers_s_max / 2))
            begun_before_s = loop.time() - self._headers_s_max
            for connection in [one for one in self.all if 0 < one.asking_s < begun_before_s]:
                connection.refuse("408 Request Timeout")


class Connection(web.RequestHandler):
    """One connection."""

    def __init__(self, all_: Connections, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._all = all_
        self._address: str | None = None
        self._is_tls = False
        self._now_s = asyncio.get_running_loop().time  # to ask for the loop is a system call
        #: When the first byte of the headers came that have not ended; BUSY while the edge answers.
        self.asking_s = IDLE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, or say that there are too many."""
        peer = transport.get_extra_info("peername")
        address = network_of(str(peer[0])) if peer else ""
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        super().connection_made(transport)
        if self._all.enter(self, address):
            self._address = address
        else:
            self.refuse("503 Service Unavailable")

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is over."""
        if self._address is not None:
            self._all.leave(self, self._address)
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        # Whose body is not over is not waited for: what comes is the rest of it.
        if self.asking_s == IDLE and (self._waiter is not None or not self._request_count):
            self.asking_s = self._now_s()
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp leaves it to asyncio
        """Who asked before saying that nothing more comes gets an answer; TLS has no such half."""
        if self._waiter is not None or self._parser is None or self._is_tls:
            return False
        try:
            self._parser.feed_eof()
        except HttpProcessingError:  # in the middle of a body
            return False
        if not self._messages:
            self.close()  # when that is written
        return True

    def resume_reading(self, *arguments: Any, **options: Any) -> None:
        """Read on if reading was paused; aiohttp has its parser look at nothing for each body."""
        if self._reading_paused:
            super().resume_reading(*arguments, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What no handler sees, HTTP that is broken above all, is told as all errors are."""
        super().handle_error(request, status, exc, message)  # logs, and knows what went out already
        ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        told = "the gateway made an error" if ours else _first_line(message)
        response = ProblemError(
            status,
            "gateway.internal" if ours else "request.http",
            told,
            "its log says which" if ours else "send valid HTTP/1.1",
        ).response()
        response.force_close()
        return response

    def refuse(self, status: str) -> None:
        """Say so, and hang up."""
        if self.transport is not None:
            self.transport.write(_REFUSAL % status.encode())
        self.force_close()


def _first_line(message: str | None) -> str:
    return (message or "the request is broken").strip().partition("\n")[0].rstrip(":")[:200]


def may_stall(connection: web.RequestHandler | None, response: web.StreamResponse) -> bool:
    """Whether writing this answer may take as long as its reader likes.

    Asked for every answer, so without aiohttp's properties and abstract classes where it matters.
    """
    if connection is None or (transport := connection.transport) is None:
        return False
    body = getattr(response, "body", None)  # a stream has none
    if type(body) is bytes and len(body) <= _SMALL_BYTES:
        return transport.get_write_buffer_size() > 0
    return not response.prepared


async def write_answer(request: web.Request, response: web.StreamResponse, s_max: float) -> None:
    """Write an answer whose reader may have stopped reading.

    Raises:
        ConnectionResetError: it was not read in time, and the connection is closed.
    """
    try:
        async with asyncio.timeout(s_max):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client does not read its answer") from None
