"""A connection that is read in place gives what one that is read through a stream gives."""

import asyncio
import io
import ssl
import subprocess
from types import SimpleNamespace

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher

from streamapp.transport.kafka import frames, uncopied
from streamapp.transport.kafka.rebound import rebound

LARGE = frames._SMALL_BYTES + 1
SIZES = [4, 1, 0, LARGE - 1, LARGE, 4, 3 << 20, 7]


def content(size):
    return (b"%d:" % size * (size // 2 + 1))[:size]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """TLS for both sides."""
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", "/CN=x",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", f"{pem}.crt"],
        check=False, capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl on this machine")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{pem}.crt", pem)
    return server, ssl.create_default_context(cafile=f"{pem}.crt")


@pytest.fixture(params=["plain", "tls"])
async def connected(request):
    """Frames on a connection, and the writer on its other side."""
    serve, call = request.getfixturevalue("contexts") if request.param == "tls" else (None, None)
    accepted = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(
        lambda _, writer: accepted.set_result(writer), "127.0.0.1", 0, ssl=serve
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=call)
    protocol = writer.transport.get_protocol()
    found = frames.Frames(protocol, writer.transport)
    yield SimpleNamespace(frames=found, writer=writer, far=await accepted, reader=reader)
    writer.close()
    (await accepted).close()
    server.close()


async def test_every_size_comes_whole_and_in_order(connected):
    connected.far.write(b"".join(map(content, SIZES)))
    for size in SIZES:
        frame = await asyncio.wait_for(connected.frames.readexactly(size), 30)
        assert bytes(frame) == content(size)
        assert isinstance(frame, memoryview if size >= LARGE else bytes)


async def test_what_comes_in_drops_is_one_frame(connected):
    for half in (b"ab", b"cd", b"e"):
        connected.far.write(half)
        await connected.far.drain()
        await asyncio.sleep(0)
    assert await asyncio.wait_for(connected.frames.readexactly(4), 30) == b"abcd"
    assert await asyncio.wait_for(connected.frames.readexactly(1), 30) == b"e"


async def test_nothing_is_read_that_nobody_asked_for(connected):
    """A frame that nobody takes waits in the socket, however much there is."""
    connected.far.write(bytes(64 << 20))
    await connected.frames.readexactly(1)
    assert not connected.writer.transport.is_reading()
    assert connected.frames.get_buffer(-1).nbytes == 0


@pytest.mark.parametrize("waits", [True, False])
async def test_a_broker_that_hangs_up_is_noticed(connected, waits):
    task = asyncio.create_task(connected.frames.readexactly(9)) if waits else None
    connected.far.write(b"torn")
    connected.far.close()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asyncio.wait_for(task or connected.frames.readexactly(9), 30)
    assert connected.frames.at_eof()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await connected.frames.readexactly(1)


async def test_a_size_below_zero_is_refused(connected):
    with pytest.raises(ValueError, match="negative"):
        await connected.frames.readexactly(-1)


async def test_who_writes_is_told_to_wait_as_before(connected):
    told = []
    below = connected.writer.transport.get_protocol()._below
    below.pause_writing, below.resume_writing = (lambda w=w: told.append(w) for w in ("p", "r"))
    protocol = connected.writer.transport.get_protocol()
    protocol.pause_writing()
    protocol.resume_writing()
    assert told == ["p", "r"]


def test_of_a_large_answer_only_what_is_small_is_copied():
    data = bytes(range(256)) * 4096
    ours, theirs = frames._opened(memoryview(data)), io.BytesIO(data)
    for size in [4, 0, 100_000, len(data) // 4, 1, 2 * len(data), 3]:
        expected = theirs.read(size)
        found = ours.read(size)
        assert bytes(found) == expected
        assert isinstance(found, memoryview) == (len(expected) * 8 >= len(data))
    assert isinstance(frames._opened(data), io.BytesIO)


def test_what_is_rebound_is_there_and_aiokafka_keeps_its_own():
    """Were aiokafka to rename these, nothing would be replaced any more; this says so."""
    for function, name in [
        (AIOKafkaConnection._handle_frame, "io"),
        (AIOKafkaClient._get_conn, "create_conn"),
        (Fetcher._proc_fetch_request, "MemoryRecords"),
    ]:
        assert name in function.__code__.co_names
        copy = rebound(function, **{name: uncopied})
        assert copy.__globals__[name] is uncopied
        assert function.__globals__[name] is not uncopied
    with pytest.raises(ValueError, match="no_such_name"):
        rebound(Fetcher._proc_fetch_request, no_such_name=1)
    with pytest.raises(TypeError, match="no function in Python"):
        rebound(len)
