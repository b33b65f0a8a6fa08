import asyncio
import gc
import os
import signal
import socket
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from streamapp.core.config import Settings
from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.core.metrics import Metrics
from streamapp.gateway import GatewayConfig, serve
from streamapp.gateway.app import create_app
from streamapp.gateway.listen import listening
from streamapp.topics import catalogue


@asynccontextmanager
async def serving(producer, **settings):
    """(URL, task) of a gateway in this process; signals are the process's."""
    listens = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            Settings(gateway_port=0, **settings),
            producer,
            catalogue.load(),
            Metrics(),
            on_ready=listens.set_result,
        )
    )
    await asyncio.wait([task, listens], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield (listens.result() if listens.done() else None), task
    finally:
        producer.open.set()
        task.cancel()
        with suppress(BaseException):
            await task


def stop(number=signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_gateway(producer, number):
    async with serving(producer) as (_, task):
        assert producer.log == ["start"]
        stop(number)
        await task
        assert producer.log == ["start", "stop"]


async def test_draining_finishes_what_was_taken_and_takes_nothing_more(producer):
    async with serving(producer) as (url, task), aiohttp.ClientSession() as http:
        async with http.get(url + "/readyz") as answer:  # leaves a connection open
            assert answer.status == 200
        producer.open.clear()
        waits = asyncio.create_task(http.post(url + "/ingest", json={"message": "in flight"}))
        await producer.called.wait()
        async with http.get(url + "/readyz") as answer:
            assert answer.status == 200
        stop()
        async with http.get(url + "/readyz") as answer:
            assert answer.status == 503
        with pytest.raises(aiohttp.ClientConnectorError):
            async with aiohttp.ClientSession() as stranger:
                await stranger.get(url + "/healthz")
        assert not task.done()
        producer.open.set()
        async with await waits as answer:
            assert answer.status == 200
        await task
        assert producer.values == [b'{"message": "in flight"}']
        assert producer.log == ["start", "stop"]


async def test_accepted_events_are_flushed_before_the_end(producer):
    async with serving(producer) as (url, task), aiohttp.ClientSession() as http:
        producer.open.clear()
        producer.failures.append(Retry("log.silent", "not now"))
        async with http.post(url + "/v1/events?wait=accepted", json=[{"a": 1}]) as answer:
            assert answer.status == 202
        stop()
        await producer.called.wait()
        producer.open.set()
        await task
        assert producer.values == [b'{"a": 1}']


async def test_the_drain_ends_in_time_and_says_what_was_lost(producer):
    async with serving(producer, drain_s=1) as (url, task), aiohttp.ClientSession() as http:
        producer.open.clear()
        async with http.post(url + "/v1/events?wait=accepted", json=[{"a": 1}] * 3) as answer:
            assert answer.status == 202
        stop()
        with pytest.raises(Retry, match="3 accepted events are lost"):
            await task
        assert producer.log == ["start", "stop"]


async def test_a_fault_of_the_log_ends_the_process_with_it(producer):
    async with serving(producer) as (url, task), aiohttp.ClientSession() as http:
        producer.failures.append(Halt("log.broken", "offsets went back"))
        async with http.post(url + "/ingest", json={"message": "x"}) as answer:
            assert answer.status == 500
        with pytest.raises(Halt, match="offsets went back"):
            await task
        assert producer.log == ["start", "stop"]


async def test_the_collector_rests_while_the_gateway_serves_and_is_as_it_was_afterwards(producer):
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    async with serving(producer) as (_, task):
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > frozen
        stop()
        await task
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


async def test_a_port_in_use_is_named_with_the_way_out(producer):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refuse, match=f"port {port} on 127.0.0.1 is in use") as refused:
            await serve(Settings(gateway_port=port), producer, catalogue.load(), Metrics())
    assert refused.value.code == "gateway.bind"
    assert "--gateway-port" in refused.value.fix
    assert producer.log == ["start", "stop"]


async def test_an_address_that_is_not_ours_is_refused(producer):
    settings = Settings(gateway_host="192.0.2.1", gateway_port=0)
    with pytest.raises(Refuse, match="cannot be bound"):
        await serve(settings, producer, catalogue.load(), Metrics())


async def test_a_log_that_does_not_start_ends_the_process(producer):
    async def fails() -> None:
        raise Retry("log.silent", "the log does not answer")

    producer.start = fails
    with pytest.raises(Retry, match="does not answer"):
        await serve(Settings(gateway_port=0), producer, catalogue.load(), Metrics())


async def test_an_open_address_without_a_token_is_warned_of(producer, caplog):
    async with serving(producer, gateway_host="0.0.0.0") as (_, task):
        stop()
        await task
    assert "set STREAMAPP_TOKEN" in caplog.text


async def test_connections_are_bounded(producer):
    config = GatewayConfig(port=0, connections_max=1)
    app = create_app(config, producer, catalogue.load(), Metrics())
    async with listening(app, config) as (listener, url), aiohttp.ClientSession() as http:
        async with http.get(url + "/healthz") as answer:  # keeps its connection
            assert answer.status == 200
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        writer.close()
        async with http.get(url + "/healthz") as answer:
            assert answer.status == 200


async def test_connections_that_come_at_once_are_bounded(producer):
    """The listener takes all of them before the first one is made."""
    config = GatewayConfig(port=0, connections_max=2)
    app = create_app(config, producer, catalogue.load(), Metrics())
    async with listening(app, config) as (listener, _):
        address = listener.sockets[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(20)]
        streams = [await asyncio.open_connection(sock=client) for client in clients]
        told = {asyncio.create_task(reader.readline()): writer for reader, writer in streams}
        waiting = set(told)
        async with asyncio.timeout(20):
            while len(waiting) > 2:
                done, waiting = await asyncio.wait(waiting, return_when="FIRST_COMPLETED")
                assert {one.result() for one in done} == {b"HTTP/1.1 503 Service Unavailable\r\n"}
        for one in waiting:
            told[one].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await one == b"HTTP/1.1 200 OK\r\n"
        for writer in told.values():
            writer.close()


async def test_an_idle_connection_is_closed(producer):
    config = GatewayConfig(port=0, keepalive_s=0.05)
    app = create_app(config, producer, catalogue.load(), Metrics())
    async with listening(app, config) as (listener, _):
        address = listener.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: never-ends")
        assert await reader.read() == b""
        writer.close()
