"""Clients that are slow, on purpose or not, cost what they were going to cost and no more."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@asynccontextmanager
async def connection(gate):
    reader, writer = await asyncio.open_connection(*gate.address)
    try:
        yield reader, writer
    finally:
        writer.close()


async def look_for_slow_ones(gate):
    """What was connected before a slow one was ended, and is still, is not taken for one."""
    async with connection(gate) as (reader, writer):
        writer.write(HEAD)
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_headers_that_trickle_end_the_connection(start):
    """Each byte comes soon enough to look alive, and the last one never."""
    gate = await start(headers_s_max=0.2)
    async with connection(gate) as (reader, writer):
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        writer.write(HEAD)
        while not answer.done():
            writer.write(b"X")
            await asyncio.sleep(0.02)
        assert (await answer).startswith(b"HTTP/1.1 408 ")


async def test_so_do_those_of_a_second_request(start):
    gate = await start(headers_s_max=0.2)
    async with connection(gate) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        got = await reader.readuntil(b'"ok"}')
        assert got.startswith(b"HTTP/1.1 200")
        writer.write(HEAD)
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_waits_is_no_slow_one(start):
    gate = await start(headers_s_max=0.1)
    async with connection(gate) as (reader, writer):
        for _ in range(2):
            await look_for_slow_ones(gate)
            writer.write(HEAD + b"\r\n")
            assert (await reader.readuntil(b'"ok"}')).startswith(b"HTTP/1.1 200")


async def test_nor_is_one_whose_body_came_after_its_answer(start):
    """404 needs no body; what comes of it is no beginning of a next request."""
    gate = await start(headers_s_max=0.1)
    async with connection(gate) as (reader, writer):
        writer.write(b"POST /no HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 404")
        writer.write(b"late")
        await look_for_slow_ones(gate)
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b'"ok"}')).startswith(b"HTTP/1.1 200")
        writer.write(HEAD)  # and slow ones are found as before
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_a_request_that_waits_for_the_log_is_no_slow_one(start, producer):
    gate = await start(headers_s_max=0.1)
    producer.open.clear()
    sending = asyncio.create_task(gate.post("/ingest", {"a": 1}))
    await producer.called.wait()
    await look_for_slow_ones(gate)
    producer.open.set()
    assert (await sending)[0] == 200


async def test_a_body_that_stalls_is_told_in_time(start):
    gate = await start(body_s_max=0.1)
    head = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for how in (b"Content-Length: 9\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"):
        answer = await gate.raw(head + how, until=b"request.timeout")
        assert answer.startswith(b"HTTP/1.1 408 ")
    assert gate.gateway.budget.bytes == 0


async def test_who_does_not_read_a_long_answer_is_hung_up_on(start):
    """The report is longer than what sockets hold, and nobody reads it."""
    gate = await start(answer_s_max=0.2, request_events_max=20_000)
    body = b"".join(b'{"id":"%d%s"}\n' % (n, b"x" * 240) for n in range(20_000))
    request = (
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with small_socket(gate) as client:
        await asyncio.get_running_loop().sock_sendall(client, request + body)
        await until(lambda: len(gate.producer.records) == 20_000)
        await until(lambda: gate.gateway.life.requests == 0)
    assert 'code="499"' in gate.metrics.text().decode()  # not "200": it was not told


async def test_who_asks_on_and_on_without_reading_is_hung_up_on(start):
    """Each answer alone would fit in any socket."""
    gate = await start(answer_s_max=0.2)
    body = b"[]\n" * 80
    request = (
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    with small_socket(gate) as client:
        send = asyncio.get_running_loop().sock_sendall
        with pytest.raises(ConnectionError):
            await send_for_ever(send, client, request * 10)
    await until(lambda: gate.gateway.life.requests == 0)


async def test_an_answer_that_is_read_slowly_but_in_time_is_whole(start):
    gate = await start(answer_s_max=20)
    body = b"{}\n" * 2_000
    request = (
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with small_socket(gate) as client:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, request + body)
        got = b""
        while chunk := await loop.sock_recv(client, 8192):
            got += chunk
            await asyncio.sleep(0)
    assert got.count(b'"received"') == 2_000


async def test_one_address_does_not_take_all_connections(start):
    gate = await start(connections_per_address_max=2)
    async with connection(gate) as (_, first), connection(gate) as (reader, second):
        for writer in (first, second):
            writer.write(HEAD + b"\r\n")
        await reader.readuntil(b'"ok"}')
        async with connection(gate) as (third, _):
            assert (await third.read()).startswith(b"HTTP/1.1 503 ")
        first.close()
        await first.wait_closed()
        second.write(HEAD + b"\r\n")  # the loop has seen the end of the first one by then
        await reader.readuntil(b'"ok"}')
        async with connection(gate) as (fourth, writer):
            writer.write(HEAD + b"\r\n")
            assert (await fourth.readuntil(b'"ok"}')).startswith(b"HTTP/1.1 200")


async def send_for_ever(send, client, data):
    async with asyncio.timeout(30):
        while True:
            await send(client, data)


def small_socket(gate):
    """A client that has room for next to nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(gate.address)
    client.setblocking(False)
    return client
