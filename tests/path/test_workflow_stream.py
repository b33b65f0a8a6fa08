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
from machine import command_of, descendants, kill

from streamapp.agents.flow.record import mark_of
from streamapp.core.errors import Refuse
from streamapp.transport import open_reader

PIPELINE = "text-processing-pipeline"
OUTPUT = f"{PIPELINE}.classifications"
#: Rows of event time, out of order by less than the grace.
WINDOWS = """
name: sales
inputs: {orders: {path: orders.jsonl}}
stages:
  - name: timed
    service: pipeline
    operation: map
    config: {columns: {sold_at: make_timestamp(sold_at * 1000000)}}
  - name: minutes
    service: pipeline
    operation: window
    depends_on: timed
    config:
      {time: sold_at, kind: tumbling, size: 1m, grace: 10s, by: [shop],
       columns: {sold: count(*), total: sum(price)}}
  - name: hours
    service: pipeline
    operation: window
    depends_on: minutes
    config: {time: window_end, kind: tumbling, size: 1h, grace: 1m, columns: {all: sum(total)}}
outputs:
  minutes: {source: minutes, format: json}
  hours: {source: hours, format: json}
"""
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
        except Refuse:
            return []
        finally:
            await reader.stop()

    return asyncio.run(read())


@pytest.mark.timeout(900)
def test_the_example_as_a_stream_equals_the_batch_though_a_group_is_killed(tmp_path):
    env = example_folder(tmp_path, 530, text=OWN)
    env |= {"STREAMAPP_BATCH_EVENTS_MAX": "1", "STREAMAPP_BROKER": f"local://{tmp_path}/log"}
    run_example(tmp_path, env, "--out", "batch")
    run_with_kills(tmp_path, env, f"{PIPELINE}.data-enrichment", "--json")
    batch = rows(tmp_path, "batch")
    assert len(batch) == 530
    assert rows(tmp_path, "stream") == batch
    ends = [mark_of(record).end for record in records(env["STREAMAPP_BROKER"], OUTPUT)]
    assert ends.count(True) == 1
    assert ends[-1]


def run_with_kills(folder, env, topic: str, *options: str, kills: int = 1) -> None:
    """Run to the end; so many of the groups' processes are killed, each when more is in the topic."""
    stream = run_example(folder, env, "--stream", "--feed", "--out", "stream", *options, wait=False)
    try:
        killed = _kill_groups(stream, env["STREAMAPP_BROKER"], topic, kills)
        said, _ = stream.communicate(timeout=400)
    finally:
        for pid in [*descendants(stream.pid), stream.pid]:
            kill(pid)
        stream.wait()
    assert stream.returncode == 0, said
    assert killed


def _kill_groups(stream, url: str, topic: str, kills: int) -> int:
    """How many were killed."""
    deadline, killed, least = time.monotonic() + 400, 0, 1
    log = Path(url.removeprefix("local://"))
    while stream.poll() is None and time.monotonic() < deadline and killed < kills:
        there = "kafka" in url or any(log.glob(f"{topic}*"))
        if there and (count := len(records(url, topic))) >= least:
            kill(random.choice([p for p in descendants(stream.pid) if b"faust" in command_of(p)]))
            killed, least = killed + 1, count + 3
        time.sleep(0.02)
    return killed


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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("broker", ["local", "kafka"], indirect=True)
def test_windows_by_key_on_three_partitions_equal_the_batch_though_groups_are_killed(
    broker, tmp_path
):
    project, chance = tmp_path / "project", random.Random(1)
    project.mkdir()
    (project / "workflow.yaml").write_text(WINDOWS)
    with (project / "orders.jsonl").open("w") as file:
        for n in range(9_000):
            order = {"sold_at": n - chance.randint(0, 9), "shop": f"shop {n % 7}", "price": n % 13}
            file.write(json.dumps(order) + "\n")
    env = {
        **os.environ,
        "STREAMAPP_HOME": str(tmp_path / "home"),
        "STREAMAPP_BROKER": broker,
        "STREAMAPP_BATCH_EVENTS_MAX": "1",
        "STREAMAPP_SESSION_S": "3",
    }
    run_example(tmp_path, env, "--out", "batch")
    run_with_kills(tmp_path, env, "sales.minutes.keyed", "--partitions", "3", kills=2)
    for name in ("minutes.json", "hours.json"):
        batch, live = (
            sorted(json.loads((project / out / name).read_text()), key=str)
            for out in ("batch", "stream")
        )
        assert live == batch
        assert batch


#: A stage that takes two inputs, and one that looks at all rows of it.
WHOLE = """
name: sold
inputs: {orders: {path: orders.jsonl}, prices: {path: prices.jsonl}}
stages:
  - {name: kept, service: pipeline, operation: filter, inputs: orders, config: {where: n % 5 != 1}}
  - name: priced
    service: pipeline
    operation: join
    depends_on: kept
    inputs: prices
    config: {on: [shop], how: full}
  - name: totals
    service: pipeline
    operation: aggregate
    depends_on: priced
    config: {by: [shop], columns: {sold: count(*), all: sum(n * price), ns: list(n)}}
outputs:
  priced: {source: priced, format: jsonl}
  totals: {source: totals, format: jsonl}
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("broker", "partitions"), [("local", 1), ("local", 3), ("kafka", 3)], indirect=["broker"]
)
def test_stages_of_all_rows_equal_the_batch_though_they_are_killed(tmp_path, broker, partitions):
    project, log = tmp_path / "project", tmp_path / "log"
    project.mkdir()
    (project / "workflow.yaml").write_text(WHOLE)
    orders = [{"n": n, "shop": f"shop {n * n % 7}"} for n in range(9_000)]
    prices = [{"shop": f"shop {n}", "price": n + 2} for n in range(9)]
    for name, found in (("orders", orders), ("prices", prices)):
        lines = "".join(json.dumps(row) + "\n" for row in found)
        (project / f"{name}.jsonl").write_text(lines)
    env = {
        **os.environ,
        "STREAMAPP_HOME": str(tmp_path / "home"),
        "STREAMAPP_BROKER": broker,
        "STREAMAPP_SESSION_S": "3",
    }
    run_example(tmp_path, env, "--out", "batch")
    spool = tmp_path / "home/flows/sold/whole/priced"
    moments = [  # it reads, it has read one input, it sends
        lambda: any(spool.glob("*/kept")),
        lambda: any(spool.glob("*/prices")),
        lambda: (
            ("kafka" in broker or any(log.glob("sold.priced*"))) and records(broker, "sold.priced")
        ),
    ]
    options = ("--feed", "--out", "stream", "--partitions", str(partitions))
    stream = run_example(tmp_path, env, "--stream", *options, wait=False)
    try:
        killed = [_kill_group(stream, "priced", moment) for moment in moments]
        said, _ = stream.communicate(timeout=400)
    finally:
        for pid in [*descendants(stream.pid), stream.pid]:
            kill(pid)
        stream.wait()
    assert stream.returncode == 0, said
    assert any(killed)
    for name in ("priced.jsonl", "totals.jsonl"):
        batch, live = ((project / out / name).read_text() for out in ("batch", "stream"))
        assert live == batch
        assert batch


def _kill_group(stream, name: str, moment) -> bool:
    """Kill a group's process as soon as a moment has come; whether that was before the end."""
    deadline, own = time.monotonic() + 400, f"STREAMAPP_FLOW_GROUP={name}".encode()
    while stream.poll() is None and time.monotonic() < deadline:
        if moment():
            pids = [pid for pid in descendants(stream.pid) if own in _environ(pid)]
            for pid in pids:
                kill(pid)
            return bool(pids)
        time.sleep(0.002)
    return False


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


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
                kill(pid)
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
