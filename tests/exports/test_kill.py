"""The exporter's process is killed at random moments: nothing is lost, and repeats are the same."""

import asyncio
import os
import random
import signal
import sys
from collections import defaultdict

import pytest
from exporting import SECRET

from streamapp.topics.catalogue import ENRICHED

ROWS, RECORDS = 3, 40


class Process:
    """``streamapp export`` in a project of its own."""

    def __init__(self, folder, log_url, url, **options):
        self.folder = folder
        (folder / "streamapp.toml").write_text(
            "[exports.default]\n"
            f'webhook_url = "{url}"\nsecrets = ["env:HOOK_SECRET"]\nbegin = "beginning"\n'
            + "".join(f"{name} = {value}\n" for name, value in options.items())
        )
        self.env = {
            **os.environ,
            "HOOK_SECRET": SECRET,
            "STREAMAPP_BROKER": log_url,
            "STREAMAPP_HOME": str(folder / "home"),
            "STREAMAPP_EXPORT_PORT": "0",
        }
        self.process = None

    async def start(self):
        with (self.folder / "out").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "streamapp.cli", "export",
                env=self.env, cwd=self.folder, stdout=output, stderr=output,
            )  # fmt: skip

    async def end(self, number=signal.SIGKILL):
        assert self.process.returncode is None, (self.folder / "out").read_text()
        self.process.send_signal(number)
        return await self.process.wait()


@pytest.fixture
async def process(tmp_path, log_url, receiver):
    made = []

    def make(**options):
        made.append(Process(tmp_path, log_url, receiver.url, **options))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.returncode is None:
            await one.end()


async def fill(source, records=RECORDS):
    sent = []
    for n in range(records):
        sent += await source.send(*(f"text {n}.{row}" for row in range(ROWS)), partition=n % 4)
    return set(sent)


async def kill_at_random(process, source, receiver, seed, kills):
    chance = random.Random(seed)
    delays = chance.choices([0, 0.001, 0.02], k=10_000)

    async def slow(_request):
        await asyncio.sleep(delays.pop())
        return chance.choices([204, 500], [9, 1])[0]

    receiver.answers += [slow] * 10_000
    sent = await fill(source)
    share = len(sent) // (kills + 1)
    await process.start()
    for n in range(kills):
        goal = share * n + chance.randrange(1, share)
        await receiver.until(lambda goal=goal: len(set(receiver.ids())) >= goal)
        await process.end()
        await process.start()
    await receiver.until(lambda: set(receiver.ids()) >= sent)
    assert await process.end(signal.SIGTERM) == 0
    return sent


def messages_of(receiver):
    """Event id to the ids of the messages that held it; message id to its bodies."""
    import json

    messages, bodies = defaultdict(set), defaultdict(set)
    for identity, _, body in receiver.deliveries:
        bodies[identity].add(body)
        for event in json.loads(body)["data"]["events"]:
            messages[event["id"]].add(identity)
    return messages, bodies


async def test_nothing_is_lost_and_a_repeat_has_its_first_id(process, source, receiver, log):
    sent = await kill_at_random(process(batch_size=4, interval_ms=20), source, receiver, 1, 2)
    messages, bodies = messages_of(receiver)
    assert set(messages) == sent
    assert {len(ids) for ids in messages.values()} == {1}
    assert {len(one) for one in bodies.values()} == {1}
    done = await log.admin.committed("streamapp-export-default")
    assert done == {(ENRICHED, partition): RECORDS // 4 for partition in range(4)}


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 8))
async def test_nothing_is_lost_however_often(seed, process, source, receiver):
    sent = await kill_at_random(process(batch_size=5, interval_ms=10), source, receiver, seed, 8)
    messages, _ = messages_of(receiver)
    assert set(messages) == sent
    assert {len(ids) for ids in messages.values()} == {1}
