"""The listening socket and what it puts up with: connections, headers, broken HTTP."""

import asyncio
import contextlib
import errno
import logging
import resource
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from streamapp.core.errors import Refuse
from streamapp.gateway.config import GatewayConfig

#: File descriptors kept for the log and whatever else the process opens.
_FILES_KEPT = 128
#: Closing waits this share of the drain for answers to be written, twice at most.
_CLOSE_SHARE = 0.05
_http_log = logging.getLogger("streamapp.gateway.http")


def runner(app: web.Application, config: GatewayConfig) -> web.AppRunner:
    """An aiohttp runner with our limits; ``read_body`` needs ``auto_decompress=False``."""
    if not any(isinstance(known, _OneLine) for known in _http_log.filters):
        _http_log.addFilter(_OneLine())
    return web.AppRunner(
        app,
        access_log=None,
        logger=_http_log,
        auto_decompress=False,
        keepalive_timeout=config.keepalive_s,
        max_line_size=8190,
        max_field_size=8190,
        max_headers=100,
        shutdown_timeout=config.drain_s * _CLOSE_SHARE,
    )


@contextlib.asynccontextmanager
async def listening(
    app: web.Application, config: GatewayConfig
) -> AsyncIterator[tuple[asyncio.Server, str]]:
    """Accept connections while the block runs; yields the listener and its URL.

    Raises:
        Refuse: ``gateway.bind``.
    """
    web_runner = runner(app, config)
    await web_runner.setup()
    try:
        assert web_runner.server is not None  # noqa: S101  # setup made it
        listener = await _listen(web_runner.server, config)
        host, port = listener.sockets[0].getsockname()[:2]
        try:
            yield listener, f"http://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            listener.close()
    finally:
        await web_runner.cleanup()


async def _listen(server: web.Server, config: GatewayConfig) -> asyncio.Server:
    files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files_max != resource.RLIM_INFINITY:
        connections_max = max(1, min(config.connections_max, files_max - _FILES_KEPT))
    else:
        connections_max = config.connections_max

    def answer() -> asyncio.Protocol:
        return server() if len(server.connections) < connections_max else _Full()

    where = f"port {config.port} on {config.host or 'every address'}"
    fix = "stop what uses it, or set STREAMAPP_GATEWAY_PORT (--gateway-port)"
    try:
        return await asyncio.get_running_loop().create_server(
            answer, config.host or None, config.port, backlog=1024
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Refuse("gateway.bind", f"{where} is in use", fix) from None
        raise Refuse(
            "gateway.bind",
            f"{where} cannot be bound: {error.strerror}",
            "check STREAMAPP_GATEWAY_HOST and STREAMAPP_GATEWAY_PORT",
        ) from None


class _Full(asyncio.Protocol):
    """Answers a connection over the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # of a TCP listener
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nServer: streamapp\r\nRetry-After: 1\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        transport.close()


class _OneLine(logging.Filter):
    """A stranger's broken HTTP, or one who left, is one line in our log, not a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | ConnectionError):
            record.exc_info = None
            record.levelno, record.levelname = logging.INFO, "INFO"
            return _http_log.isEnabledFor(logging.INFO)
        return True
