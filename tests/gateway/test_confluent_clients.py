"""Unmodified clients of Confluent's and Strimzi's REST proxies against a gateway process."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.transport import open_reader

pytestmark = pytest.mark.timeout(300)
KAFKA_REST = "0.0.5"


@pytest.fixture
def gateway(log_url):
    """The URL of a gateway process on a log of its own."""
    command = [sys.executable, "-m", "streamapp.cli", "gateway", "--gateway-port", "0"]
    env = {**os.environ, "STREAMAPP_BROKER": log_url}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        yield re.search(r"http://\S+", process.stderr.readline())[0]
        process.terminate()
        said = process.stderr.read()
        assert (process.wait(60), "Traceback" in said) == (0, False), said


def run(*command, **environment):
    """What a client's program printed, as JSON, line by line."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def stored(log_url, topic):
    reader = open_reader(log_url)
    await reader.start()
    found = [list((await reader.read(topic, p, 0)).records) for p in (0, 1)]
    await reader.stop()
    return found[0] + found[1]


BRIDGE_PRODUCER = """
import json, logging, sys
from kafka_bridge_client import KafkaBridgeProducer, Message
from kafka_bridge_client import exceptions

logging.disable()
producer = KafkaBridgeProducer(sys.argv[1], timeout=30)
print(json.dumps([
    producer.send("plain", Message(key="k1", value="one")),
    producer.sends("plain", [Message(key="k2", value={"n": n}) for n in range(3)]),
    producer.send("plain", Message(key="k3", value=b"\\x00\\xff"), binary=True),
]))
for topic, record in (
    ("nowhere", Message(key="k", value="v")),
    ("plain", Message(key="k", value="v", partition="x")),
    ("events.raw", Message(key="k", value="no event")),
    ("events.enriched", Message(key="k", value="v")),
):
    try:
        producer.send(topic, record)
    except Exception as error:
        print(json.dumps(type(error).__name__))
"""


BRIDGE_CONSUMER = """
import asyncio, base64, json, sys
from kafka_bridge_client import KafkaBridgeConsumer

def consumer(url, proxy, name):
    return KafkaBridgeConsumer(
        "plain", bootstrap_server=url, group_id="bridge-" + proxy, auto_offset_reset="earliest",
        enable_auto_commit=False, consumer_name=name, sleep_interval_seconds=0, proxy=proxy,
    )

async def read(them, count):
    found = []
    async for record in them.get_records(max_bytes=100000, timeout=1000):
        found.append(base64.b64decode(record["value"]).hex())
        if len(found) == count:
            return found

async def main(url, proxy):
    first = consumer(url, proxy, "first")
    async with first:
        print(json.dumps(sorted(await read(first, 5))))
    async with first:  # nothing was committed: all of it again
        print(json.dumps(sorted(await read(first, 5))))
        await first.commit()
    second = consumer(url, proxy, "second")
    async with second:
        print(json.dumps(len(await second.poll_records(max_bytes=100000, timeout=1000))))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kafka_bridge_client(gateway, log_url):
    """It commits the offsets it read: to Strimzi's bridge that is the next one to read."""
    sent, *errors = await asyncio.to_thread(run, sys.executable, "-c", BRIDGE_PRODUCER, gateway)
    assert sent == [True, True, True]
    assert errors == [
        "KafkaBridgeTopicNotFoundError", "ValidationError", "ValidationError",
        "KafkaBridgeResourceException",
    ]  # fmt: skip
    records = await stored(log_url, "plain")
    ends = [record for record in records if record.offset == 0]  # one of each partition in use
    assert sorted((record.key, record.value) for record in records) == [
        (b'"k1"', b'"one"'), (b'"k2"', b'{"n": 0}'), (b'"k2"', b'{"n": 1}'),
        (b'"k2"', b'{"n": 2}'), (b"k3", b"\x00\xff"),
    ]  # fmt: skip
    values = sorted(record.value.hex() for record in records)
    for proxy, again in (("strimzi", len(ends)), ("confluent", 0)):
        command = (sys.executable, "-W", "ignore", "-c", BRIDGE_CONSUMER, gateway, proxy)
        assert await asyncio.to_thread(run, *command) == [values, values, again]


@pytest.fixture(scope="session")
def kafka_rest():
    """The folder of npm's kafka-rest, installed once."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("npm kafka-rest: node and npm are not on this machine")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "streamapp" / "npm" / f"kafka-rest-{KAFKA_REST}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
        done = subprocess.run(
            [*command, f"kafka-rest@{KAFKA_REST}"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip("npm kafka-rest: it could not be installed")
        (folder / "installed").touch()
    return folder / "node_modules" / "kafka-rest"


NODE = """
const Client = require(process.argv[2]), kafka = new Client({url: process.argv[3]});
const say = (x) => console.log(JSON.stringify(x));
const call = (object, name, ...given) => new Promise((done, fail) =>
  object[name](...given, (error, result) => error ? fail(error) : done(result)));
(async () => {
  const topics = await call(kafka.topics, 'list');
  say(topics.map((topic) => topic.name));
  const topic = kafka.topic('plain');
  await call(topic, 'get');
  say(topic.raw.partitions.length);
  say((await call(topic.partitions, 'list')).map((p) => [p.raw.partition, p.raw.leader]));
  say((await call(kafka.brokers, 'list')).map((broker) => broker.id));
  say((await call(topic, 'produce', {key: 'k', value: 'one', partition: 1}, 'two')).offsets.length);
  say((await call(topic.partition(0), 'produce', ['three'])).offsets[0].partition);
  try { await call(kafka.topic('nowhere'), 'produce', 'x'); } catch (e) { say([e.status, e.data.error_code]); }
  const config = {format: 'binary', 'auto.offset.reset': 'earliest', 'auto.commit.enable': 'false'};
  const instance = await call(kafka.consumer('npm'), 'join', config);
  const stream = instance.subscribe('plain'), found = [];
  stream.on('data', async (messages) => {
    found.push(...messages.map((m) => m.value.toString()));
    if (found.length < 3) return;
    say(found.sort());
    await new Promise((done, fail) => instance.commit((error) => error ? fail(error) : done()));
    instance.shutdown((error) => { say(String(error || 'shut down')); });
  });
})().catch((error) => { console.error(error); process.exit(1); });
"""


async def test_npm_kafka_rest(gateway, log_url, kafka_rest, tmp_path):
    program = tmp_path / "client.js"
    program.write_text(NODE)
    node = ("node", "--no-deprecation", program, kafka_rest, gateway)
    got = await asyncio.to_thread(run, *node)
    assert "plain" in got[0]
    assert got[1:] == [
        2, [[0, 0], [1, 0]], [0], 2, 0, [404, 40401], ["one", "three", "two"], "shut down",
    ]  # fmt: skip
    records = await stored(log_url, "plain")
    assert {record.value: record.key for record in records} == {
        b"one": b"k", b"two": None, b"three": None,
    }  # fmt: skip
