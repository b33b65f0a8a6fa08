"""A log with dead letters, as a worker leaves them, on the embedded log or on Kafka."""

import asyncio
import itertools
import os
import pty
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest

from streamapp.agents.publish import dead_letter
from streamapp.core.ranges import OffsetRange
from streamapp.topics.wire import rejected
from streamapp.transport import Outgoing, TopicSpec, open_admin, open_producer, open_reader

VALUE = b'{"id": "e1", "message": "hello", "price": 1.50, "conversation_id": "c"}'
_numbers = itertools.count()


class Place:
    """Topics of its own: ``raw`` with two partitions, ``dead`` with one."""

    def __init__(
        self, url, dead_partitions=1, raw_bytes_max=1 << 20, raw=None, dead=None, compacted=False
    ):
        number = next(_numbers)
        self.url, self.raw, self.dead = url, raw or f"raw-{number}", dead or f"dead-{number}"
        specs = [
            TopicSpec(self.raw, 2, raw_bytes_max),
            TopicSpec(self.dead, dead_partitions, 2 << 20, compacted=compacted),
        ]

        async def create(client):
            for spec in specs:
                await client.create(spec)

        self.do(open_admin, create)

    @property
    def flags(self):
        return ("--broker", self.url, "--dead-topic", self.dead)

    def do(self, opening, work):
        async def run():
            async with AsyncExitStack() as stack:
                client = opening(self.url)
                await client.start()
                stack.push_async_callback(client.stop)
                return await work(client)

        return asyncio.run(run())

    def send(self, topic, *records):
        return self.do(open_producer, lambda producer: producer.send(topic, records))

    def read(self, topic, partition=0):
        async def all_of_it(reader):
            at, end = await reader.bounds(topic, partition)
            records = []
            while at < end:
                slice_ = await reader.read(topic, partition, at)
                records += slice_.records
                at = slice_.range.next
            return records

        return self.do(open_reader, all_of_it)

    def die(self, value, *, key=b"conv", headers=(), stage="picky", code="picky.bad", to=1,
            at_ms=1_760_000_000_000, reason="it is bad", in_=None, failed_ms=None):  # fmt: skip
        """An event that came, and its dead letter; the letter's address."""
        sent = Outgoing(value, key, headers, partition=to, timestamp_ms=at_ms)
        (address,) = self.send(self.raw, sent)
        return self.bury(address.offset, sent, stage, code, reason, in_, failed_ms)

    def bury(self, offset, sent, stage="picky", code="picky.bad", reason="it is bad", in_=None,
             failed_ms=None):  # fmt: skip
        """The dead letter of what was sent there; it failed when it came, or then."""
        where = OffsetRange(self.raw, sent.partition, offset, offset + 1)
        record = _Record(offset, sent.timestamp_ms, sent.key, sent.value, sent.headers)
        letter = dead_letter(where, rejected(record, stage, code, reason))
        letter = letter._replace(partition=in_, timestamp_ms=failed_ms or sent.timestamp_ms)
        (address,) = self.send(self.dead, letter)
        return f"{address.partition}:{address.offset}"


class _Record:
    def __init__(self, *values):
        self.offset, self.timestamp, self.key, self.value, self.headers = values


@pytest.fixture(params=["local", "kafka"])
def place(request, tmp_path):
    """Topics on either log."""
    if request.param == "kafka":
        return Place(request.getfixturevalue("kafka").url)
    return Place(f"local://{tmp_path}/log")


@pytest.fixture
def local(tmp_path):
    return Place(f"local://{tmp_path}/log")


def addresses(listing):
    return [letter["address"] for letter in listing["shown"]]


def refused(result, code, *words):
    """One error and its way out, no traceback."""
    assert result.code == code, result.err
    error, fix = result.err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert fix.startswith("fix: ")
    for word in words:
        assert word in result.err
    assert "Traceback" not in result.out + result.err


def on_a_terminal(arguments, answer, **env):
    """What a real terminal shows of a command that gets this answer."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "streamapp.cli", "dlq", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **env},
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # the other side is closed
        pass
    process.wait(60)
    os.close(ours)
    return said
