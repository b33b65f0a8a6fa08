"""The listening socket and what it puts up with: connections, headers, broken HTTP."""

import asyncio
import contextlib
import errno
import logging
import math
import resource
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from streamapp.core.errors import Refuse
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.connections import Connections
from streamapp.gateway.edge import EDGE
from streamapp.gateway.tls import ServerTls

#: File descriptors kept for the log and whatever else the process opens.
_FILES_KEPT = 128
#: Closing waits this share of the drain for answers to be written, twice at most.
_CLOSE_SHARE = 0.05
_http_log = logging.getLogger("streamapp.gateway.http")


def runner(app: web.Application, config: GatewayConfig) -> web.AppRunner:
    """An aiohttp runner with our limits; ``read_body`` needs ``auto_decompress=False``."""
    if not any(isinstance(known, _OneLine) for known in _http_log.filters):
        _http_log.addFilter(_OneLine())
    shutdown_s = config.drain_s * _CLOSE_SHARE
    return web.AppRunner(app, shutdown_timeout=shutdown_s, **connection_options(config))


def connection_options(config: GatewayConfig) -> dict[str, Any]:
    """aiohttp's, of each connection."""
    return {
        "access_log": None,
        "logger": _http_log,
        "auto_decompress": False,
        "keepalive_timeout": config.keepalive_s,
        "max_line_size": 8190,
        "max_field_size": 8190,
        "max_headers": 100,
    }


@contextlib.asynccontextmanager
async def listening(
    app: web.Application, config: GatewayConfig
) -> AsyncIterator[tuple[asyncio.Server, str]]:
    """Accept connections while the block runs; yields the listener and its URL.

    Raises:
        Refuse: ``gateway.bind``, ``gateway.certificate``.
    """
    tls = ServerTls.of(config)
    web_runner = runner(app, config)
    await web_runner.setup()
    try:
        assert web_runner.server is not None  # noqa: S101  # setup made it
        web_runner.server.request_handler = app[EDGE].run  # type: ignore[assignment]  # app's requests
        options = connection_options(config)
        connections = Connections(web_runner.server, config, options, _files_max())
        listener = await _listen(connections, config, tls)
        sweeping = asyncio.create_task(connections.close_slow())
        host, port = listener.sockets[0].getsockname()[:2]
        scheme = "http" if tls is None else "https"
        try:
            yield listener, f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            sweeping.cancel()
            listener.close()
    finally:
        await web_runner.cleanup()


async def _listen(
    connections: Connections, config: GatewayConfig, tls: ServerTls | None
) -> asyncio.Server:
    def answer() -> asyncio.Protocol:
        if tls is not None:
            tls.refresh()
        return connections.new()

    where = f"port {config.port} on {config.host or 'every address'}"
    fix = "stop what uses it, or set STREAMAPP_GATEWAY_PORT (--gateway-port)"
    try:
        return await asyncio.get_running_loop().create_server(
            answer,
            config.host or None,
            config.port,
            backlog=1024,
            ssl=None if tls is None else tls.context,
            ssl_handshake_timeout=None if tls is None else config.headers_s_max,
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Refuse("gateway.bind", f"{where} is in use", fix) from None
        raise Refuse(
            "gateway.bind",
            f"{where} cannot be bound: {error.strerror}",
            "check STREAMAPP_GATEWAY_HOST and STREAMAPP_GATEWAY_PORT",
        ) from None


def _files_max() -> float:
    """How many connections the process has file descriptors for."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return math.inf if most == resource.RLIM_INFINITY else most - _FILES_KEPT


class _OneLine(logging.Filter):
    """A stranger's broken HTTP, or one who left, is one line in our log, not a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | ConnectionError):
            record.exc_info = None
            record.levelno, record.levelname = logging.INFO, "INFO"
            return _http_log.isEnabledFor(logging.INFO)
        return True
