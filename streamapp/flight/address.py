"""Where the server listens, and how it lets go of who does not."""

import os
import socket
from pathlib import Path

from streamapp.core.errors import Refuse
from streamapp.flight.access import is_loopback


def location(host: str, port: int, *, is_open: bool, tls: bool) -> str:
    """The address as a URL, after a try to bind it.

    gRPC would say only that it did not start, and pyarrow would keep what the server was given for
    ever; so a socket is bound first, which knows the reason.

    Args:
        host: name or address to bind.
        port: 0 lets the system choose.
        is_open: no token is asked for.
        tls: of the URL's scheme.

    Raises:
        Refuse: the address cannot be bound, or others could reach it and no token is asked for.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        if is_open and not all(is_loopback(str(entry[4][0])) for entry in found):
            raise Refuse(
                "flight.open",
                f"{host}:{port} can be reached by others, and no token is set",
                "set STREAMAPP_TOKEN (such as `openssl rand -hex 32` gives), or "
                "STREAMAPP_FLIGHT_HOST=127.0.0.1",
            )
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise Refuse(
            "flight.port",
            f"cannot listen at {host}:{port}: {error.strerror}",
            "stop what has the port, or choose another (STREAMAPP_FLIGHT_PORT)",
        ) from None
    return url(host, port, tls=tls)


def url(host: str, port: int, *, tls: bool) -> str:
    """``grpc://host:port``, or ``grpc+tls``; brackets round an IPv6 address."""
    name = f"[{host}]" if ":" in host else host
    return f"grpc{'+tls' if tls else ''}://{name}:{port}"


def hang_up(port: int) -> None:
    """Shut every connection of this process that was made to ``port``."""
    for entry in Path("/dev/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                if connection.getsockname()[1:2] == (port,):
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # no socket, or one that is closed meanwhile, or the listening one
