"""The broker that tests and benchmarks run on: it answers, keeps its data and dies with its parent."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kafka_broker as plugin
import kafka_prepared
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from machine import wait_for

pytestmark = pytest.mark.timeout(300)


async def test_it_takes_a_topic_and_a_record_and_knows_them_after_stop_and_kill(kafka_broker):
    broker = kafka_broker().start()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("kept", 2, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all") as producer:
        await producer.send_and_wait("kept", b"value", partition=1)
    for down in (broker.stop, broker.kill):
        down()
        assert not broker.running
        broker.start()
        async with AIOKafkaConsumer(
            "kept", bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest"
        ) as consumer:
            record = await consumer.getone()
        assert (record.partition, record.offset, record.value) == (1, 0, b"value")


@pytest.mark.parametrize("turn", ["first", "second"])
def test_the_session_broker_is_started_again_for_the_next_test(kafka, turn):
    assert kafka.running
    kafka.kill()


def test_brokers_share_what_is_prepared_and_nothing_else(kafka, kafka_broker):
    other = kafka_broker(sasl=True).start()
    for broker in (kafka, other):
        assert f"{kafka_prepared.CACHE}/classes/" in Path(f"/proc/{broker.pid}/maps").read_text()
    identities = [broker.folder / "data" / "meta.properties" for broker in (kafka, other)]
    clusters = {re.search("cluster.id=(.{22})\n", path.read_text())[1] for path in identities}
    assert len(clusters) == 2


def test_what_is_prepared_is_made_once_and_whole(tmp_path):
    """Also by two at the same time, and after one that failed."""
    made = []

    def make(text, *, fails=False):
        with kafka_prepared.once(tmp_path / "kept") as part:
            if part:
                made.append(text)
                part.write_text("half")
                assert not fails
                part.write_text(text)
        return (tmp_path / "kept").read_text()

    with pytest.raises(AssertionError):
        make("failed", fails=True)
    assert not (tmp_path / "kept").exists()
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, "abcdefgh"))) == 1
    assert len(made) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "kept.lock"}


def test_it_dies_with_whoever_started_it(tmp_path):
    plugin.require()
    code = (
        "import sys, time, kafka_broker\n"
        "broker = kafka_broker.Broker(sys.argv[1], brief=True).start()\n"
        "print(broker.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "broker")],
        env={**os.environ, "PYTHONPATH": str(Path(plugin.__file__).parent)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with parent:
        java = int(parent.stdout.readline())
        assert b"kafka.Kafka" in Path(f"/proc/{java}/cmdline").read_bytes()
        parent.kill()
    wait_for(lambda: not _runs(java), "Java to end")


def test_the_program_prints_the_url_and_removes_its_data_on_a_signal(tmp_path):
    plugin.require()
    env = {**os.environ, "TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    program = subprocess.Popen(
        [sys.executable, plugin.__file__, "run", "--port", "0"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with program:
        assert program.stdout.readline().startswith("kafka+batch://127.0.0.1:")
        assert list(tmp_path.glob("streamapp-kafka-*/data"))
        program.send_signal(signal.SIGINT)
        assert program.wait(60) == 0
    assert not list(tmp_path.glob("streamapp-kafka-*"))


def test_without_maven_the_reason_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("REQUIRE_KAFKA", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Maven or Java"):
        plugin.require()
    monkeypatch.setenv("REQUIRE_KAFKA", "1")
    with pytest.raises(pytest.fail.Exception, match="no Maven or Java"):
        plugin.require()


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
