"""A request's body in memory: bounded, timed, decompressed."""

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import zstandard
from aiohttp import HttpVersion11, hdrs, web

from streamapp.gateway.budget import Lease
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.life import LIFE
from streamapp.gateway.problem import ProblemError, stopping

#: RFC 9659: a zstd frame sent as a content coding needs a window of 8 MB at most.
ZSTD_WINDOW_BYTES_MAX = 8 << 20
#: Compressed bytes inflated between two looks at the limit.  zstd's densest block is 4 bytes for
#: 128 KiB, so one step can overshoot by 8 MiB; zlib's by 0.3 MiB.
_STEP_BYTES = 256
#: Each opens a decompressor, and may be of nothing.
_FRAMES_MAX = 1_000
_UTF8_NAMES = frozenset({"utf-8", "utf8", "us-ascii"})


async def read_body(
    request: web.Request, config: GatewayConfig, lease: Lease, bytes_max: int | None = None
) -> bytes:
    """The whole body, decompressed; ``bytes_max`` of a request that needs less than others.

    Raises:
        ProblemError: 413 too large as sent or as decompressed (answered without reading the rest),
            415 unknown Content-Encoding, 417 unknown Expect, 408 too slow, 400 broken, 429, 503 the
            gateway stops.
    """
    headers, content = request.headers, request.content
    coded = headers.get(hdrs.CONTENT_ENCODING, "")
    limit = min(config.body_bytes_max, bytes_max or config.body_bytes_max)
    is_here = content.is_eof() and content.exception() is None  # small ones come with their headers
    if is_here and not coded and content.total_bytes <= limit and hdrs.EXPECT not in headers:
        lease.take(nbytes=content.total_bytes)
        return content.read_nowait()
    life, coding = request.app[LIFE], _coding(coded)
    body = _Body(limit, lease, coding)
    declared = headers.get(hdrs.CONTENT_LENGTH)  # digits: the parser has seen to that
    if declared is not None and int(declared) > limit:
        raise body.too_large(f"the body has {int(declared):,} bytes")
    if hdrs.EXPECT in headers:
        await answer_expect(request)
    try:
        async with life.body(config.body_s_max):
            while chunk := await content.readany():
                body.feed(chunk)
    except TimeoutError:
        if life.draining:
            raise stopping() from None
        raise ProblemError(
            408,
            "request.timeout",
            f"the body did not end within {config.body_s_max:g} s",
            "send it faster or in parts",
        ) from None
    except web.RequestPayloadError:
        raise ProblemError(
            400, "request.body", "the body's transfer coding is broken", "send valid HTTP/1.1"
        ) from None
    return body.end()


async def defer_continue(_: web.Request) -> None:
    """The routes' Expect handler: ``100 Continue`` waits until ``read_body`` wants the body."""


async def answer_expect(request: web.Request) -> None:
    """Say ``100 Continue`` to who waits for it, 417 to who expects anything else.

    HTTP/1.0 knows neither (RFC 9110, section 10.1.1).
    """
    if request.version < HttpVersion11:
        return
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        raise ProblemError(
            417, "request.expect", "only Expect: 100-continue is known", "leave Expect out"
        )
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # as aiohttp's own handler: no part of the answer


@lru_cache(maxsize=256)
def media_type(content_type: str) -> str:
    """The lower-case media type of a Content-Type header, "" for none.

    Raises:
        ProblemError: 415 for a charset that is not UTF-8.
    """
    media, _, parameters = content_type.partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "charset" and value.strip('"').lower() not in _UTF8_NAMES:
            raise ProblemError(
                415, "request.charset", f"charset {value[:40]!r} is not UTF-8", "encode as UTF-8"
            )
    return media.strip().lower()


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class _Coding:
    """A content coding; frames (members) may follow each other, each is a stream of its own."""

    def __init__(self, name: str, open_: Callable[[], _Inflater]) -> None:
        self.name = name
        self._open = open_
        self._inflater = open_()
        self._frames = 1

    def inflate(self, data: bytes) -> bytes:
        """Decompress a few bytes; the caller keeps steps small, for the output knows no bound."""
        pieces = []
        while data:
            if self._inflater.eof:
                self._next()
            try:
                pieces.append(self._inflater.decompress(data))
            except (zlib.error, zstandard.ZstdError) as error:
                raise ProblemError(
                    400,
                    "request.encoding",
                    f"the body is not {self.name}: {error}",
                    "compress it again, or send it without Content-Encoding",
                ) from None
            data = self._inflater.unused_data
        return b"".join(pieces)

    def _next(self) -> None:
        self._frames += 1
        if self._frames > _FRAMES_MAX:
            raise ProblemError(
                400,
                "request.encoding",
                f"the body has more than {_FRAMES_MAX:,} {self.name} frames",
                "compress it as one",
            )
        self._inflater = self._open()

    def end(self) -> None:
        if not self._inflater.eof:
            raise ProblemError(
                400,
                "request.encoding",
                f"the {self.name} body is cut off",
                "send all of it",
            )


class _Body:
    """Collects a body's chunks within a limit that holds before and after decompression."""

    def __init__(self, bytes_max: int, lease: Lease, coding: _Coding | None) -> None:
        self._bytes_max = bytes_max
        self._lease = lease
        self._coding = coding
        self._received = 0
        self._data = bytearray()  # many small chunks must not cost an object each

    def feed(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received > self._bytes_max:
            raise self.too_large("the body is larger")
        if self._coding is None:
            self._keep(chunk)
            return
        for at in range(0, len(chunk), _STEP_BYTES):
            self._keep(self._coding.inflate(chunk[at : at + _STEP_BYTES]))

    def end(self) -> bytes:
        if self._coding is not None:
            self._coding.end()
        return bytes(self._data)

    def too_large(self, what: str) -> ProblemError:
        return ProblemError(
            413,
            "request.too_large",
            f"{what}; {self._bytes_max:,} bytes are taken at most",
            "send less at a time; STREAMAPP_BODY_BYTES_MAX and _EVENT_BYTES_MAX set the limits",
        )

    def _keep(self, data: bytes) -> None:
        if len(self._data) + len(data) > self._bytes_max:
            raise self.too_large("the body decompresses to more")
        self._lease.take(nbytes=len(data))
        self._data += data


def _gzip() -> _Inflater:
    return zlib.decompressobj(wbits=31)


def _zstd() -> _Inflater:
    return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).decompressobj()


_CODINGS: dict[str, Callable[[], _Inflater]] = {"gzip": _gzip, "x-gzip": _gzip, "zstd": _zstd}


def _coding(header: str) -> _Coding | None:
    name = header.strip().lower()
    if name in {"", "identity"}:
        return None
    if name not in _CODINGS:
        raise ProblemError(
            415,
            "request.encoding",
            f"Content-Encoding {name[:40]!r} is not known",
            "use gzip or zstd, or none",
            {"Accept-Encoding": "gzip, zstd"},  # RFC 9110, section 12.5.3
        )
    return _Coding(name, _CODINGS[name])
