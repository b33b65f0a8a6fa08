"""Callers of one partition share batches, whoever comes first; alone nobody waits."""

import asyncio
from types import SimpleNamespace

import pytest

from streamapp.core.errors import Halt
from streamapp.transport.clients import Outgoing
from streamapp.transport.kafka import lane as module
from streamapp.transport.kafka.lane import Lane, Piece


class Leader:
    """Answers a batch when it is told to; knows how many came."""

    url = "kafka://leader"

    def __init__(self):
        self.batches, self.offset = 0, 0
        self.open = asyncio.Event()
        self.open.set()

    async def persist(self, attempt, _):
        return await attempt()

    async def ask(self, _):
        return SimpleNamespace(error_code=0, producer_id=1, producer_epoch=0)

    async def ask_leader(self, topic, partition, _):
        self.batches += 1
        await self.open.wait()
        self.offset += 100
        return SimpleNamespace(topics=[(topic, [(partition, 0, self.offset)])])


@pytest.fixture
def leader():
    return Leader()


@pytest.fixture
def lane(leader, monkeypatch):
    monkeypatch.setattr(module, "COMPANY_S_MAX", 30.0)  # whoever waits for it is seen to
    return Lane(leader, "t", 0, lambda _: None)


def send(lane):
    piece = Piece([Outgoing(b"x")], 1, asyncio.get_running_loop().create_future())
    lane.append(piece)
    return piece.offset


async def together(lane, leader, count):
    """That many callers in one batch."""
    leader.open.clear()
    first = send(lane)
    while not leader.batches:
        await asyncio.sleep(0)
    rest = [send(lane) for _ in range(count)]
    leader.open.set()
    await asyncio.gather(first, *rest)
    assert leader.batches == 2


async def test_one_caller_after_the_other_never_waits(lane, leader):
    async with asyncio.timeout(10):
        for _ in range(5):
            await send(lane)
    assert leader.batches == 5


async def test_callers_that_were_answered_together_go_together_again(lane, leader):
    await together(lane, leader, 4)
    async with asyncio.timeout(10):
        offsets = []
        for _ in range(4):  # each a moment after the other
            offsets.append(send(lane))
            for _ in range(20):
                await asyncio.sleep(0)
        found = await asyncio.gather(*offsets)
    assert leader.batches == 3
    assert [offset - found[0] for offset in found] == [0, 1, 2, 3]


async def test_who_does_not_come_again_is_waited_for_once(lane, leader, monkeypatch):
    await together(lane, leader, 4)
    monkeypatch.setattr(module, "COMPANY_S_MAX", 0.001)
    await send(lane)
    monkeypatch.setattr(module, "COMPANY_S_MAX", 30.0)
    async with asyncio.timeout(10):
        await send(lane)
    assert leader.batches == 4


async def test_a_lane_that_is_closed_tells_those_who_wait_for_company(lane, leader):
    await together(lane, leader, 4)
    offset = send(lane)
    await asyncio.sleep(0)
    lane.abandon()
    with pytest.raises(Halt, match="closed"):
        await offset
