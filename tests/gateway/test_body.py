import asyncio
import gzip
import json
import tracemalloc
import zlib
from functools import cache

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.gateway.body import _Body, _Coding, _gzip, _zstd
from streamapp.gateway.budget import Budget
from streamapp.gateway.problem import ProblemError

EVENT = b'{"message":"hi"}'
MIB = 1 << 20
PACK = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("coding", PACK)
async def test_compressed_bodies_are_taken(gate, coding):
    headers = {"Content-Encoding": coding}
    assert (await gate.post("/ingest", PACK[coding](EVENT), headers=headers))[0] == 200
    two = PACK[coding](b"[" + EVENT) + PACK[coding](b"," + EVENT + b"]")
    _, answer = await gate.post("/v1/events", two, headers=headers)
    assert answer["accepted"] == 2
    assert gate.producer.values == [EVENT] * 3


@pytest.mark.parametrize("coding", PACK)
async def test_a_body_of_a_great_many_frames_is_refused(gate, coding):
    """Each is a decompressor of its own, and may be of nothing."""
    for frames, status in ((900, 200), (1_100, 400)):
        body = PACK[coding](b"") * frames + PACK[coding](EVENT)
        assert (await gate.post("/ingest", body, headers={"Content-Encoding": coding}))[0] == status


@cache
def bombs():
    zeros = bytes(MIB)
    gzipped = zlib.compressobj(9, wbits=31)
    zipped = b"".join(gzipped.compress(zeros) for _ in range(512)) + gzipped.flush()
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    return {
        "gzip": zipped,
        "zstd": b"".join(packer.compress(zeros) for _ in range(512)) + packer.flush(),
        # Bombs of many members: each is small, all are not.
        "x-gzip": gzip.compress(zeros) * 48,
    }


@pytest.mark.parametrize("coding", ["gzip", "zstd", "x-gzip"])
async def test_a_bomb_goes_off_at_the_limit(gate, coding):
    body = bombs()[coding]
    assert len(body) < MIB
    status, problem = await gate.post("/ingest", body, headers={"Content-Encoding": coding})
    assert (status, problem["code"]) == (413, "request.too_large")
    assert "decompresses to more" in problem["detail"]
    assert gate.gateway.budget.bytes == 0


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_takes_little_more_memory_than_the_limit(coding):
    budget = Budget(events_max=1, bytes_max=1 << 30)
    with budget.lease() as lease:
        body = _Body(16 * MIB, lease, _Coding(coding, {"gzip": _gzip, "zstd": _zstd}[coding]))
        bomb = bombs()[coding]
        tracemalloc.start()
        with pytest.raises(ProblemError, match="decompresses"):
            body.feed(bomb)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # The limit, the room a growing buffer keeps, and one step of the decompressor, joined.
        assert peak < 48 * MIB


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["truncated", "not compressed", "garbage after"])
async def test_a_broken_compressed_body_is_a_problem(gate, coding, damage):
    whole = PACK[coding](EVENT * 100)
    body = {
        "truncated": whole[:-5],
        "not compressed": EVENT,
        "garbage after": PACK[coding](EVENT) + b"garbage",
    }[damage]
    status, problem = await gate.post("/ingest", body, headers={"Content-Encoding": coding})
    assert (status, problem["code"]) == (400, "request.encoding")
    assert coding in problem["detail"]
    assert gate.producer.records == []


async def test_a_zstd_window_that_would_take_too_much_memory_is_refused(gate):
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = packer.compress(EVENT) + packer.flush()
    status, problem = await gate.post("/ingest", body, headers={"Content-Encoding": "zstd"})
    assert (status, problem["code"]) == (400, "request.encoding")


async def test_a_declared_body_that_is_too_large_is_refused_before_it_is_sent(gate):
    request = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n"
    answer = await gate.raw(request, until=b"request.too_large")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"104,857,600" in answer


@pytest.mark.parametrize("length", [b"9" * 30, b"9" * 5_000, b"-1", b"many"])
async def test_a_length_that_is_none_is_a_bad_request(gate, length):
    request = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: %b\r\n\r\n"
    answer = await gate.raw(request % length)
    assert answer.split()[1] == b"400"


async def test_an_endless_body_without_length_is_refused_at_the_limit(start):
    gate = await start(drain_s=1)
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 100 * MIB:
            sent += 65_536
            yield b" " * 65_536

    status, problem = await gate.post("/ingest", endless())
    assert (status, problem["code"]) == (413, "request.too_large")
    assert gate.gateway.budget.bytes == 0


async def test_a_chunked_body_is_taken(gate):
    async def pieces():
        for at in range(len(EVENT)):
            yield EVENT[at : at + 1]

    assert (await gate.post("/ingest", pieces()))[0] == 200
    assert gate.producer.values == [EVENT]


async def test_a_large_body_is_taken_whole(start):
    gate = await start()
    events = [{"message": "x" * 500_000, "id": str(n)} for n in range(20)]
    status, answer = await gate.post("/v1/events", json.dumps(events).encode())
    assert (status, answer["accepted"]) == (200, 20)


async def test_continue_is_sent_only_when_the_body_is_wanted(gate):
    head = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n"
    wanted = await gate.raw(head % 16 + b"\r\n", until=b"\r\n\r\n")
    assert wanted.startswith(b"HTTP/1.1 100 Continue")
    refused = await gate.raw(head % (100 * MIB) + b"\r\n", until=b"too_large")
    assert refused.startswith(b"HTTP/1.1 413")


async def test_http_1_0_knows_no_continue(gate):
    """RFC 9110, section 10.1.1: the expectation is ignored, and whoever sent it waits for none."""
    head = b"POST /ingest HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    answer = await gate.raw(head + b'Content-Length: 16\r\n\r\n{"message": "x"}')
    assert answer.startswith(b"HTTP/1.0 200 OK")


async def test_a_client_that_is_too_slow_is_told_so(start):
    gate = await start(body_s_max=0.05)
    request = b'POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"mess'
    answer = await gate.raw(request, until=b"request.timeout")
    assert answer.startswith(b"HTTP/1.1 408")


async def begin_body(gate, headers: bytes):
    """A request whose handler is known to wait for its body."""
    reader, writer = await asyncio.open_connection(*gate.address)
    head = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    writer.write(head + headers + b"\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    return reader, writer


@pytest.mark.parametrize("start_of_body", [b"", b"1\r\n{\r\n"])
async def test_a_broken_chunk_is_a_problem(start, start_of_body):
    # aiohttp does not tell a handler that its body broke, so the body's time limit must.
    gate = await start(body_s_max=0.05, drain_s=1)
    reader, writer = await begin_body(gate, b"Transfer-Encoding: chunked")
    writer.write(start_of_body + b"nonsense\r\n")
    answer = await reader.read(65_536)
    writer.close()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400", b"HTTP/1.1 408"))
    assert b"Traceback" not in answer
    assert gate.producer.records == []


async def test_a_client_that_leaves_in_the_middle_costs_nothing(gate):
    _, writer = await begin_body(gate, b"Content-Length: 100")
    writer.write(b"{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    gate.gateway.life.draining = True
    await gate.gateway.life.idle()
    gate.gateway.life.draining = False
    assert (await gate.post("/ingest", EVENT))[0] == 200
    assert gate.producer.values == [EVENT]
    assert gate.gateway.budget.bytes == 0


@given(
    st.lists(st.binary(max_size=2_000), min_size=1, max_size=4),
    st.sampled_from(["gzip", "zstd"]),
    st.integers(1, 700),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_members_in_any_chunks_inflate_to_what_was_packed(members, coding, step):
    packed = b"".join(PACK[coding](member) for member in members)
    with Budget(events_max=1, bytes_max=1 << 30).lease() as lease:
        body = _Body(MIB, lease, _Coding(coding, {"gzip": _gzip, "zstd": _zstd}[coding]))
        for at in range(0, len(packed), step):
            body.feed(packed[at : at + step])
        assert body.end() == b"".join(members)
