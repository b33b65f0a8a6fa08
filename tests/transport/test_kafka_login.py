"""Who comes in at a broker that asks, over SASL and over TLS."""

import shutil
from dataclasses import replace

import kafka_broker
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from kafka_security import Authority

from streamapp.core.errors import Refuse, Retry
from streamapp.transport import Outgoing, Security, TopicSpec
from streamapp.transport.kafka import connection, frames, uncopied

pytestmark = pytest.mark.timeout(300)


def login(name, word, protocol="sasl_plaintext", mechanism="PLAIN"):
    return Security(protocol, mechanism, name, word)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Who signs the broker's certificate, and its clients'."""
    kafka_broker.require()
    if shutil.which("openssl") is None:
        pytest.skip("TLS to Kafka: no openssl on this machine")
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def guarded(authority):
    """A broker that asks who comes."""
    broker = kafka_broker.brief_broker(sasl=True, authority=authority).start()
    yield broker
    broker.remove()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_who_may_comes_in_and_others_do_not(guarded, opened, mechanism):
    url, topic = guarded.sasl_url, f"t-{mechanism}"
    admin, producer, reader = await opened(url, login("admin", "admin-secret", mechanism=mechanism))
    await admin.create(TopicSpec(topic, 1, 1000))
    await producer.send(topic, [Outgoing(b"v")])
    assert (await reader.read(topic, 0, 0)).records[0].value == b"v"
    with pytest.raises(Refuse) as refused:
        await opened(url, login("admin", "wr0ng-secret", mechanism=mechanism))
    assert refused.value.code == "broker.login"
    assert "wr0ng-secret" not in str(refused.value)
    _, producer, _ = await opened(url, login("guest", "guest-secret", mechanism=mechanism))
    with pytest.raises(Refuse) as refused:
        await producer.send(topic, [Outgoing(b"v")])
    assert refused.value.code == "log.forbidden"


async def test_clients_that_do_not_say_who_they_are_learn_how(guarded, opened, monkeypatch):
    monkeypatch.setattr(connection, "PATIENCE_S_MAX", 2.0)
    with pytest.raises(Retry, match="does not answer") as silent:
        await opened(guarded.sasl_url)
    assert "STREAMAPP_BROKER_SECURITY" in silent.value.message
    with pytest.raises(Refuse) as refused:
        await opened(guarded.url, login("admin", "admin-secret"))
    assert refused.value.code == "broker.login"


async def test_tls_is_spoken_with_those_whose_certificate_is_trusted(guarded, authority, opened):
    url, topic = guarded.tls_url, "t-tls"
    admin, producer, reader = await opened(url, Security("ssl", ca_file=authority.pem))
    await admin.create(TopicSpec(topic, 1, 1000))
    await producer.send(topic, [Outgoing(b"v")])
    assert (await reader.read(topic, 0, 0)).records[0].value == b"v"
    with pytest.raises(Refuse) as refused:
        await opened(url, Security("ssl"))
    assert refused.value.code == "broker.certificate"
    assert "STREAMAPP_BROKER_CA_FILE" in refused.value.fix


def certified(authority, issued):
    return Security(
        "ssl",
        ca_file=authority.pem,
        cert_file=issued.certificate,
        key_file=issued.key,
    )


async def test_a_client_s_certificate_says_who_it_is(guarded, authority, opened):
    url, topic = guarded.mutual_url, "t-mutual"
    ann = await opened(url, certified(authority, authority.issue("admin")))
    await ann[0].create(TopicSpec(topic, 1, 1000))
    await ann[1].send(topic, [Outgoing(b"v")])
    assert (await ann[2].read(topic, 0, 0)).records[0].value == b"v"
    _, producer, _ = await opened(url, certified(authority, authority.issue("guest")))
    with pytest.raises(Refuse) as refused:
        await producer.send(topic, [Outgoing(b"v")])
    assert refused.value.code == "log.forbidden"


@pytest.mark.parametrize("kind", ["none", "expired", "of another authority"])
async def test_a_client_whose_certificate_is_not_taken_is_told_so(
    guarded, authority, opened, tmp_path, kind
):
    other = Authority(tmp_path, "other")
    security = {
        "none": lambda: Security("ssl", ca_file=authority.pem),
        "expired": lambda: certified(authority, authority.issue("admin", days=-1)),
        "of another authority": lambda: certified(authority, other.issue("admin")),
    }[kind]()
    with pytest.raises(Refuse) as refused:
        await opened(guarded.mutual_url, security)
    assert refused.value.code == "broker.certificate"
    assert "STREAMAPP_BROKER_CERT_FILE" in refused.value.fix


async def test_tls_and_a_login_together(guarded, authority, opened):
    security = Security("sasl_ssl", "SCRAM-SHA-512", "admin", "admin-secret", ca_file=authority.pem)
    admin, producer, reader = await opened(guarded.sasl_tls_url, security)
    await admin.create(TopicSpec("t-both", 1, 1000))
    await producer.send("t-both", [Outgoing(b"v")])
    assert (await reader.read("t-both", 0, 0)).records[0].value == b"v"
    for wrong in (
        replace(security, password="wr0ng-secret"),
        replace(security, username="nobody"),
    ):
        with pytest.raises(Refuse) as refused:
            await opened(guarded.sasl_tls_url, wrong)
        assert refused.value.code == "broker.login"
        assert "secret" not in str(refused.value)


async def test_tls_on_a_port_in_the_clear_and_the_other_way_round(guarded, authority, opened):
    with pytest.raises((Refuse, Retry)) as silent:
        await opened(guarded.url, Security("ssl", ca_file=authority.pem))
    assert guarded.bootstrap in silent.value.message
    with pytest.raises(Retry) as silent:
        await opened(guarded.tls_url)
    assert "STREAMAPP_BROKER_SECURITY" in silent.value.message


@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-512", "tls"])
async def test_a_consumer_reads_in_place_whoever_it_has_to_be(guarded, authority, opened, way):
    """aiokafka logs in as before; what it then fetches lies where the socket (or TLS) put it."""
    security, url = Security("ssl", ca_file=authority.pem), guarded.tls_url
    if way != "tls":
        security = login("admin", "admin-secret", mechanism=way)
        url = guarded.sasl_url
    admin, producer, _ = await opened(url, security)
    topic, values = f"in-place-{way}", [bytes([n]) * (900_000 if n % 4 else 9) for n in range(30)]
    await admin.create(TopicSpec(topic, 1, 1 << 20))
    for value in values:
        await producer.send(topic, [Outgoing(value, b"k", [("h", b"v")])])
    consumer = AIOKafkaConsumer(
        bootstrap_servers=url.partition("://")[2],
        max_partition_fetch_bytes=8 << 20,
        auto_offset_reset="earliest",
        **security.client_options(),
    )
    uncopied.connect_by_frames(consumer._client)
    await consumer.start()
    try:
        uncopied.keep_batches(consumer._fetcher)
        consumer.assign([TopicPartition(topic, 0)])
        found = []
        while len(found) < len(values):
            for result in consumer._fetcher._records.values():
                assert isinstance(result._partition_records._records, uncopied.Batches)
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
        [connection] = set(consumer._client._conns.values())
        assert isinstance(connection, frames.Connection)
    finally:
        await consumer.stop()
    assert [record.value for record in found] == values
