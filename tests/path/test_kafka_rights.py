"""On a Kafka that asks who comes and what they may: nothing but the rights that the docs name."""

import asyncio
import shutil
import urllib.request
from pathlib import Path

import kafka_broker
import pytest
from fleet import Fleet
from kafka_security import USERS, Authority, allow
from machine import wait_for

from streamapp.transport import Security

pytestmark = pytest.mark.timeout(400)
SECRET = USERS["guest"]
#: What the docs say of topics.
TOPICS = ("create", "describe_configs", "read", "write")
COUNT = "SELECT count(*) AS n FROM events"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    kafka_broker.require()
    if shutil.which("openssl") is None:
        pytest.skip("TLS to Kafka: no openssl on this machine")
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def broker(authority):
    broker = kafka_broker.brief_broker(sasl=True, authority=authority).start()
    yield broker
    broker.remove()


def by_login(broker, authority):
    """The URL, who we are there, and what of it is secret."""
    login = "SCRAM-SHA-512", "guest", USERS["guest"]
    return broker.sasl_tls_url, Security("sasl_ssl", *login, ca_file=authority.pem)


def by_certificate(broker, authority, name="ann"):
    mine = authority.issue(name)
    files = {"ca_file": authority.pem, "cert_file": mine.certificate, "key_file": mine.key}
    return broker.mutual_url, Security("ssl", **files)


def settings(security):
    said = {
        "security": security.protocol,
        "sasl_mechanism": security.mechanism,
        "username": security.username,
        "password": security.password,
        "ca_file": security.ca_file or "",
        "cert_file": security.cert_file or "",
        "key_file": security.key_file or "",
    }
    return {f"broker_{name}": value for name, value in said.items() if value}


@pytest.fixture
def fleet_of(tmp_path):
    made = []

    def make(url, security):
        made.append(Fleet(tmp_path / "fleet", url, broker_replication=1, **settings(security)))
        return made[-1]

    yield make
    for fleet in made:
        fleet.stop()


def _page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


@pytest.mark.parametrize(("way", "user"), [(by_login, "guest"), (by_certificate, "ann")])
def test_the_rights_that_the_docs_name_are_enough_and_no_secret_is_told(
    broker, authority, fleet_of, way, user
):
    rights = {"topic": [("events.*", *TOPICS), ("system.*", *TOPICS)]}
    rights |= {"group": [("streamapp-*", "read")]}
    asyncio.run(allow(broker.bootstrap, user, **rights))
    fleet = fleet_of(*way(broker, authority))
    fleet.start("gateway", "store", "worker", "terminal")
    for number in range(20):
        fleet.post({"id": f"e-{number}", "message": "hi"})
    wait_for(lambda: fleet.rows(COUNT) == [{"n": 20}], "20 rows")
    assert "events.raw" in fleet.run("topics", "ls")
    for name, process in fleet.processes.items():
        assert SECRET not in _page(fleet.ports[name])
        assert SECRET.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert SECRET not in fleet.tail(name, 10_000)
    assert fleet.terminate(*fleet.processes) == {0}


def test_a_group_that_we_may_not_read_as_ends_the_process_in_two_lines(broker, authority, fleet_of):
    asyncio.run(allow(broker.bootstrap, "alone", topic=[("*", *TOPICS)]))
    url, security = by_certificate(broker, authority, "alone")
    fleet = fleet_of(url, security)
    fleet.launch("worker")
    assert fleet.processes["worker"].wait(90) == 2, fleet.tail("worker")
    text = fleet.tail("worker", 10_000)
    assert "Traceback" not in text
    assert f"error: {url} does not allow it: reading as group 'streamapp-enrich'" in text
    assert "fix: allow us Read on the consumer group" in text
