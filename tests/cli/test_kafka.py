"""The verbs that touch the log, on a real Apache Kafka and on one that is not there."""

import asyncio

import pytest
from machine import free_ports

from streamapp.topics.catalogue import load
from streamapp.transport import Outgoing, open_producer

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def nobody(monkeypatch):
    """The URL of a broker that does not run."""
    url = f"kafka+batch://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("STREAMAPP_BROKER", url)
    return url


def test_topics_are_made_listed_and_found_by_the_doctor(run, kafka_without_topics, monkeypatch):
    broker = kafka_without_topics
    for name, value in {
        "BROKER": broker.sasl_url,
        "BROKER_SECURITY": "sasl_plaintext",
        "BROKER_SASL_MECHANISM": "SCRAM-SHA-256",
        "BROKER_USERNAME": "admin",
        "BROKER_PASSWORD": "admin-secret",
        "BROKER_REPLICATION": "1",
    }.items():
        monkeypatch.setenv(f"STREAMAPP_{name}", value)
    names = [topic.name for topic in load()]
    assert run("topics", "apply", "--json").json == dict.fromkeys(names, True)
    assert run("topics", "apply", "--json").json == dict.fromkeys(names, False)
    append(broker.url, "events.raw", [b"{}"] * 3)
    (raw,) = [t for t in run("topics", "ls", "--json").json if t["topic"] == "events.raw"]
    assert (raw["records"], raw["bytes"], len(raw["partitions"])) == (3, None, 4)
    checks = {check["name"]: check for check in run("doctor", "--json").json}
    assert (checks["broker"]["status"], checks["topics"]["status"]) == ("ok", "ok")
    assert "admin-secret" not in run("config", "show").out


def append(url, topic, values):
    async def work():
        producer = open_producer(url)
        await producer.start()
        await producer.send(topic, [Outgoing(value) for value in values])
        await producer.stop()

    asyncio.run(work())


@pytest.mark.parametrize("verb", [("topics", "apply"), ("topics", "ls"), ("gateway",)])
def test_a_broker_that_is_not_there_costs_two_lines(run, nobody, verb):
    result = run(*verb)
    assert result.code == 75
    error, fix = result.err.splitlines()
    assert error.startswith(f"error: {nobody} does not answer: ")
    assert fix.startswith("fix: start it, or name another with STREAMAPP_BROKER")


def test_the_doctor_says_how_to_mend_it(run, nobody):
    (broker,) = [check for check in run("doctor", "--json").json if check["name"] == "broker"]
    assert broker["status"] == "fail"
    assert nobody in broker["detail"]
    assert "STREAMAPP_BROKER" in broker["fix"]


@pytest.mark.parametrize("verb", [("topics", "ls"), ("config", "show"), ("doctor",)])
def test_a_password_in_the_url_is_refused_and_not_repeated(run, monkeypatch, verb):
    monkeypatch.setenv("STREAMAPP_BROKER", "kafka+batch://ann:s3cret@host:9092")
    result = run(*verb)
    assert result.code == 2
    assert "broker_password" in result.err
    assert "s3cret" not in result.out + result.err
