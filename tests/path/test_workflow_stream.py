"""A workflow on topics gives the rows that it gives as a batch, whatever is killed meanwhile."""

import asyncio
import json
import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from subprocess import TimeoutExpired

import kafka_broker
import pytest
from example_workflow import EXAMPLE, example_folder, run_example

from streamapp.agents.flow.record import mark_of
from streamapp.transport import open_reader

OUTPUT = "text-processing-pipeline.classifications"
OWN = EXAMPLE.replace("operation: infer\n", "operation: infer\n    scale: own\n")


def rows(folder: Path, out: str):
    found = json.loads((folder / "project" / out / "classifications.json").read_text())
    return sorted(found, key=lambda row: row["document_id"])


def records(url: str, topic: str) -> list:
    """What a topic holds now; nothing when it is not there yet."""

    async def read():
        reader = open_reader(url)
        await reader.start()
        try:
            return list((await reader.read(topic, 0, 0)).records)
        finally:
            await reader.stop()

    return asyncio.run(read())


def descendants(pid: int) -> list[int]:
    """The processes below one."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    own = [int(each) for each in text.split()]
    return own + [below for each in own for below in descendants(each)]


@pytest.mark.timeout(900)
def test_the_example_as_a_stream_equals_the_batch_though_a_group_is_killed(tmp_path):
    env = example_folder(tmp_path, 530, text=OWN)
    env |= {"STREAMAPP_BATCH_EVENTS_MAX": "1", "STREAMAPP_BROKER": f"local://{tmp_path}/log"}
    run_example(tmp_path, env, "--out", "batch")
    stream = run_example(
        tmp_path, env, "--stream", "--feed", "--json", "--out", "stream", wait=False
    )
    try:
        killed = _kill_a_group(stream, env["STREAMAPP_BROKER"], "data-enrichment")
        said, _ = stream.communicate(timeout=400)
    finally:
        for pid in [*descendants(stream.pid), stream.pid]:
            _kill(pid)
        stream.wait()
    assert stream.returncode == 0, said
    assert killed
    batch = rows(tmp_path, "batch")
    assert len(batch) == 530
    assert rows(tmp_path, "stream") == batch
    ends = [mark_of(record).end for record in records(env["STREAMAPP_BROKER"], OUTPUT)]
    assert ends.count(True) == 1
    assert ends[-1]


def _kill_a_group(stream, url: str, stage: str) -> int:
    """Kill one of the groups' processes when there is a first record between them; its id."""
    deadline = time.monotonic() + 400
    log = Path(url.removeprefix("local://"))
    topic = f"text-processing-pipeline.{stage}"
    while stream.poll() is None and time.monotonic() < deadline:
        if any(log.glob(f"{topic}*")) and records(url, topic):
            pid = random.choice([p for p in descendants(stream.pid) if b"faust" in _command(p)])
            _kill(pid)
            return pid
        time.sleep(0.02)
    return 0


@pytest.fixture
def broker(request, tmp_path):
    with ExitStack() as stack:
        if request.param == "local":
            yield f"local://{tmp_path}/log"
            return
        kafka_broker.require()
        broker = kafka_broker.brief_broker()
        stack.callback(broker.remove)
        yield broker.start().url.replace("kafka://", "kafka+batch://")


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("broker", ["local", "kafka"], indirect=True)
def test_whole_runs_killed_at_random_end_with_the_same_rows(broker, tmp_path):
    env = example_folder(tmp_path, 6_000, text=OWN)
    env |= {
        "STREAMAPP_BATCH_EVENTS_MAX": "1",
        "STREAMAPP_BROKER": broker,
        "STREAMAPP_SESSION_S": "3",
    }
    run_example(tmp_path, env, "--out", "batch")
    chance = random.Random(0)
    kills = 0
    returned = -signal.SIGKILL
    while returned == -signal.SIGKILL:
        stream = run_example(tmp_path, env, "--stream", "--feed", "--out", "stream", wait=False)
        while (said := _said(stream, chance.uniform(1, 12 + kills))) is None:
            victims = [stream.pid, *descendants(stream.pid)]
            for pid in victims if chance.random() < 0.5 else [chance.choice(victims)]:
                _kill(pid)
            kills += 1
        returned = stream.returncode
    assert returned == 0, said
    assert kills
    assert rows(tmp_path, "stream") == rows(tmp_path, "batch")


def _said(stream, wait_s: float) -> str | None:
    """What a process printed, when it has ended."""
    try:
        return stream.communicate(timeout=wait_s)[0]
    except TimeoutExpired:
        return None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
