"""HTTP connections whose every exchange ends in time, however slowly its bytes come.

A socket's own timeout begins again with each byte, so that a server which drips is never given up.
"""

import io
import socket
import ssl
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

#: Seconds until the deadline, more than 0.
#:
#: Raises:
#:     TimeoutError: it has passed.
Left = Callable[[], float]


class TimedConnection(HTTPConnection):
    """A connection; ``left`` is to be set before each exchange.

    Args:
        host: name or address.
        port: None: that of the scheme.
        tls: for https.
        left: until when it may connect, ask, and read the answer.
    """

    def __init__(self, host: str, port: int | None, tls: ssl.SSLContext | None, left: Left) -> None:
        self.default_port = 443 if tls else 80
        super().__init__(host, port or self.default_port)
        self.left = left
        self._tls = tls

    def connect(self) -> None:
        """By the first address that answers; the lookup of a name has its own limit."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        failed: OSError = OSError(f"{self.host} has no address")
        for *_, address in found:
            try:
                opened = socket.create_connection(address[:2], self.left())  # type: ignore[arg-type]
                break
            except OSError as error:
                failed = error
        else:
            raise failed
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.settimeout(self.left())
            if self._tls is not None:
                opened = self._tls.wrap_socket(opened, server_hostname=self.host)
        except BaseException:
            opened.close()
            raise
        self.sock = _Timed(opened, self)


class _Timed:
    """As much of a socket as ``http.client`` asks for."""

    def __init__(self, opened: socket.socket, connection: TimedConnection) -> None:
        self._socket, self._connection = opened, connection

    def sendall(self, data: Any) -> None:
        """Everything before the deadline."""
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(self._connection.left())
            rest = rest[self._socket.send(rest) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What reads an answer."""
        return io.BufferedReader(_Reader(self._socket, self._connection.left))

    def close(self) -> None:
        """Close it once nobody reads from it."""
        self._socket.close()


class _Reader(io.RawIOBase):
    """Reads until the deadline of its exchange."""

    def __init__(self, opened: socket.socket, left: Left) -> None:
        self._socket, self._left = opened, left
        self._raw = opened.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int | None:
        self._socket.settimeout(self._left())
        return self._raw.readinto(into)

    def close(self) -> None:
        self._raw.close()
        super().close()
