"""Clients that shut their side down when they have asked, as ``nc -N`` does."""

import asyncio

import pytest

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
EVENT = b'{"message": "hi"}'
POST = (
    b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
CHUNKED = POST.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked")


async def asked(gate, *parts):
    """What comes until the gateway hangs up; the last part goes with our FIN, or nothing does."""
    reader, writer = await asyncio.open_connection(*gate.address)
    try:
        for part in parts:
            writer.write(part)
        writer.write_eof()
        async with asyncio.timeout(20):  # and so before the keep-alive ends
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("times", range(3))
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET, b"200"),
        (POST % len(EVENT) + EVENT, b"200"),
        (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT), b"200"),
        (GET.replace(b"healthz", b"nowhere"), b"404"),
    ],
)
async def test_they_get_their_answer_and_the_connection_ends(start, request_, status, times):
    gate = await start(keepalive_s=60)
    assert (await asked(gate, request_)).startswith(b"HTTP/1.1 " + status)


async def test_each_of_several_requests_gets_one(start):
    gate = await start(keepalive_s=0.2)
    assert (await asked(gate, GET, GET, GET)).count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize("rest", [b"", GET[:-2], POST % 100 + EVENT, CHUNKED + b"5\r\nhal"])
async def test_who_has_not_asked_to_the_end_gets_nothing(start, rest):
    gate = await start(keepalive_s=60)
    assert await asked(gate, rest) == b""
