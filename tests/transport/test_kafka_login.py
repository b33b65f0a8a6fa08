"""Who comes in at a broker that asks, over SASL and over TLS."""

import shutil
import subprocess

import kafka_broker
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamapp.core.errors import Refuse, Retry
from streamapp.transport import Outgoing, Security, TopicSpec
from streamapp.transport.kafka import connection, frames, uncopied

pytestmark = pytest.mark.timeout(300)


def login(name, word, protocol="sasl_plaintext", mechanism="PLAIN"):
    return Security(protocol, mechanism, name, word)


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """Key and certificate of 127.0.0.1, signed by itself."""
    kafka_broker.require()
    if shutil.which("openssl") is None:
        pytest.skip("TLS to Kafka: no openssl on this machine")
    path = tmp_path_factory.mktemp("tls") / "broker.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", path, "-out", path.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.fixture(scope="module")
def guarded(pem):
    """A broker that asks who comes."""
    kafka_broker.require()
    broker = kafka_broker.brief_broker(sasl=True, tls_pem=pem).start()
    yield broker
    broker.remove()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
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


async def test_tls_is_spoken_with_those_whose_certificate_is_trusted(guarded, pem, opened):
    url, topic = guarded.tls_url, "t-tls"
    admin, producer, reader = await opened(url, Security("ssl", ca_file=pem))
    await admin.create(TopicSpec(topic, 1, 1000))
    await producer.send(topic, [Outgoing(b"v")])
    assert (await reader.read(topic, 0, 0)).records[0].value == b"v"
    with pytest.raises(Refuse) as refused:
        await opened(url, Security("ssl"))
    assert refused.value.code == "broker.certificate"
    assert "STREAMAPP_BROKER_CA_FILE" in refused.value.fix


async def test_tls_on_a_port_in_the_clear_and_the_other_way_round(guarded, pem, opened):
    with pytest.raises((Refuse, Retry)) as silent:
        await opened(guarded.url, Security("ssl", ca_file=pem))
    assert guarded.bootstrap in silent.value.message
    with pytest.raises(Retry) as silent:
        await opened(guarded.tls_url)
    assert "STREAMAPP_BROKER_SECURITY" in silent.value.message


@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-256", "tls"])
async def test_a_consumer_reads_in_place_whoever_it_has_to_be(guarded, pem, opened, way):
    """aiokafka logs in as before; what it then fetches lies where the socket (or TLS) put it."""
    security, url = Security("ssl", ca_file=pem), guarded.tls_url
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
