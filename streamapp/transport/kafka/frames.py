"""A broker's connection whose socket is read straight into the memory of each answer.

aiokafka reads through ``asyncio.StreamReader``, which collects what the socket gives in a buffer,
copies an answer out of it, and copies each partition's records out of that again.  An answer's size
comes before it, so here is memory of that size, which the socket (or TLS) writes into, and records
stay there.  Everything else, the login too, is aiokafka's.
"""

import asyncio
import io
import mmap
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from aiokafka.conn import AIOKafkaConnection

from streamapp.transport.kafka.rebound import rebound

#: A larger answer gets pages of its own, large ones where there are, since a fault for each small
#: one costs as much as a copy; they go back to the system when the answer's records are gone.
_SMALL_BYTES = 1 << 18
#: Of an answer, a larger share is not copied: what is held keeps the whole answer.
_SHARE = 8


class Frames(asyncio.BufferedProtocol):
    """Stands for the ``StreamReader`` of a connection, and takes its place below the transport.

    Args:
        below: the protocol of the connection's writer, which is told all but the data.
        transport: of the connection; it has read nothing yet.
    """

    def __init__(self, below: Any, transport: asyncio.Transport) -> None:
        self._below, self._transport = below, transport
        self._rest = memoryview(b"")
        self._read: asyncio.Future[None] | None = None
        self._lost: Exception | None = None
        transport.pause_reading()
        transport.set_protocol(self)

    async def readexactly(self, size: int) -> bytes | memoryview:
        """The next bytes, as a view when there are many.

        Raises:
            IncompleteReadError: the broker hung up; what else ended the connection comes as it was.
            ValueError: the size is negative.
        """
        if size < 0:
            raise ValueError(f"an answer has no negative size ({size})")
        if self._lost is not None:
            raise self._lost
        frame = self._rest = memoryview(_memory(size))
        if size:
            self._read = asyncio.get_running_loop().create_future()
            self._transport.resume_reading()
            await self._read
        self._rest = memoryview(b"")
        return bytes(frame) if size <= _SMALL_BYTES else frame

    def at_eof(self) -> bool:
        return self._lost is not None

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._rest

    def buffer_updated(self, nbytes: int) -> None:
        self._rest = self._rest[nbytes:]
        if not self._rest:
            self._transport.pause_reading()
            self._end(None)

    def eof_received(self) -> bool:
        self._end(asyncio.IncompleteReadError(b"", len(self._rest)))
        return bool(self._below.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or asyncio.IncompleteReadError(b"", len(self._rest)))
        self._below.connection_lost(exc)

    def pause_writing(self) -> None:
        self._below.pause_writing()

    def resume_writing(self) -> None:
        self._below.resume_writing()

    def _end(self, error: Exception | None) -> None:
        self._lost = self._lost or error
        if self._read is not None and not self._read.done():
            if error is None:
                self._read.set_result(None)
            else:
                self._read.set_exception(error)


def _memory(size: int) -> bytearray | mmap.mmap:
    if size <= _SMALL_BYTES:
        return bytearray(size)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


class _Reading:
    """Of ``io.BytesIO`` what decoding an answer needs, without a copy of what is large."""

    def __init__(self, frame: memoryview) -> None:
        self._frame, self._at = frame, 0

    def read(self, size: int) -> bytes | memoryview:
        found = self._frame[self._at : self._at + size]
        self._at += len(found)
        return found if len(found) * _SHARE >= len(self._frame) else bytes(found)


def _opened(frame: bytes | memoryview) -> Any:
    return io.BytesIO(frame) if isinstance(frame, bytes) else _Reading(frame)


class Connection(AIOKafkaConnection):
    """aiokafka's, on :class:`Frames`."""

    def _create_reader_task(self) -> Any:
        self._reader = Frames(self._protocol, self._writer.transport)
        return super()._create_reader_task()

    _handle_frame = rebound(
        AIOKafkaConnection._handle_frame,  # noqa: SLF001
        io=SimpleNamespace(BytesIO=_opened),
    )


async def connect(host: str, port: int, **options: Any) -> Connection:
    """As ``aiokafka.conn.create_conn``."""
    connection = Connection(host, port, **options)
    await connection.connect()
    return connection
