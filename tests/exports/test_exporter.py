"""Rows of the enriched topic reach a receiver that verifies them with the public library."""

import asyncio
import json

import msgspec
import pytest
from exporting import SECRET, export_of
from standardwebhooks import Webhook

from streamapp.agents.exports.exporter import Exporter
from streamapp.core.errors import Refuse
from streamapp.core.exports import CONFIG_KEY, CONFIG_TOPIC, Changes
from streamapp.topics.catalogue import ENRICHED
from streamapp.transport.clients import Outgoing


async def committed(log, export, partition=0):
    return (await log.admin.committed(export.group)).get((ENRICHED, partition))


async def until_committed(log, export, offset, partition=0):
    async with asyncio.timeout(30):
        while await committed(log, export, partition) != offset:
            await asyncio.sleep(0.01)


async def test_rows_that_match_are_posted_signed(source, receiver, exporting):
    await exporting(export_of(receiver, where="intent = 'cancel' AND words > 1"))
    await source.send("please cancel", "hello", "cancel")
    await source.send("cancel it all", partition=2)
    await receiver.until(lambda: len(receiver.events()) >= 2)
    assert sorted(receiver.ids()) == ["e0-0", "e2-0"]
    identity, media, body = receiver.deliveries[0]
    assert identity.startswith("msg_")
    assert media == "application/json"
    message = json.loads(body)
    assert (message["type"], message["data"]["export"]) == ("streamapp.events", "default")
    [event] = [one for one in receiver.events() if one["id"] == "e0-0"]
    assert event["payload"] == {"n": 0}
    assert event["time"] == "2025-10-09T08:53:20.000000Z"
    assert (event["source_topic"], event["source_partition"], event["source_offset"]) == (
        "events.raw",
        0,
        0,
    )
    assert "embedding" not in event


async def test_a_tampered_body_does_not_verify(source, receiver, exporting):
    """The receiver of these tests can tell."""
    await exporting(export_of(receiver))
    await source.send("hello")
    await receiver.until(lambda: receiver.deliveries)
    identity, _, body = receiver.deliveries[0]
    headers = {"webhook-id": identity, "webhook-timestamp": "1", "webhook-signature": "v1,AA=="}
    with pytest.raises(Exception, match=r"(?i)timestamp|signature"):
        Webhook(SECRET).verify(body + b" ", headers)


async def test_batches_are_as_large_as_declared_and_in_order(source, receiver, exporting):
    await exporting(export_of(receiver, batch_size=4, interval_ms=50, columns=("words",)))
    sent = await source.send(*(f"text {n}" for n in range(10)))
    await receiver.until(lambda: len(receiver.events()) == 10)
    sizes = [len(json.loads(body)["data"]["events"]) for _, _, body in receiver.deliveries]
    assert sizes == [4, 4, 2]
    assert [event["source_offset"] for event in receiver.events()] == list(range(len(sent)))
    assert set(receiver.events()[0]) == {
        "source_topic",
        "source_partition",
        "source_offset",
        "words",
    }


async def test_an_ontology_makes_it_json_ld(source, receiver, exporting):
    await exporting(export_of(receiver, ontology_iri="https://example.org/shop#"))
    await source.send("hello", kinds=("Order",))
    await receiver.until(lambda: receiver.deliveries)
    _, media, body = receiver.deliveries[0]
    assert media == "application/ld+json"
    document = json.loads(body)
    assert document["@context"] == {"@vocab": "https://example.org/shop#"}
    [event] = document["data"]["events"]
    assert (event["@id"], event["@type"]) == ("urn:streamapp:event:events.raw:0:0", "Order")


async def test_what_is_not_taken_is_posted_again_under_the_same_id(source, receiver, exporting):
    receiver.answers += [500, 404, (302, {"Location": "/elsewhere"}), 204]
    exporter = await exporting(export_of(receiver))
    await source.send("hello")
    await receiver.until(lambda: receiver.deliveries)
    [(identity, _, _)] = receiver.deliveries
    assert receiver.attempts == {identity: 4}
    assert exporter.states == {"default": "on"}


async def test_the_position_is_committed_after_the_receiver_took_it(
    source, receiver, exporting, log
):
    let = asyncio.Event()

    async def held(_request):
        await let.wait()
        return 204

    receiver.answers.append(held)
    export = export_of(receiver)
    await exporting(export)
    await source.send("one")
    await receiver.until(lambda: receiver.attempts)
    assert not await committed(log, export)
    let.set()
    await until_committed(log, export, 1)
    assert receiver.ids() == ["e0-0"]


async def test_a_silent_receiver_is_given_up_in_time(source, receiver, exporting):
    async def silent(_request):
        await asyncio.sleep(60)

    receiver.answers.append(silent)
    await exporting(export_of(receiver, timeout_s=0.1))
    await source.send("hello")
    await receiver.until(lambda: receiver.deliveries)
    assert list(receiver.attempts.values()) == [2]


async def test_410_disables_and_keeps_the_position(source, receiver, exporting, log):
    receiver.answers.append(410)
    export = export_of(receiver, allow=("http://127.0.0.1:1/", receiver.url))
    exporter = await exporting(export)
    await source.send("one")
    await receiver.until(lambda: exporter.states == {"default": "disabled"})
    await source.send("two")
    assert sum(receiver.attempts.values()) == 1
    assert not await committed(log, export)
    other = Changes(webhook_url=f"{receiver.url}/anew")
    await log.producer.send(
        CONFIG_TOPIC, [Outgoing(msgspec.json.encode(other), CONFIG_KEY, partition=0)]
    )
    await receiver.until(lambda: len(receiver.events()) == 2)
    assert receiver.ids() == ["e0-0", "e0-1"]


async def test_every_row_once_when_ranges_were_published_twice(source, receiver, exporting):
    await exporting(export_of(receiver))
    await source.send("a", "b")
    source.next[0] = 1  # as a worker that lost its partition and did not know
    await source.send("b", "c")
    await receiver.until(lambda: len(receiver.events()) == 3)
    assert receiver.ids() == ["e0-0", "e0-1", "e0-2"]


async def test_a_new_export_begins_with_what_comes(source, receiver, exporting, log):
    await source.send("before")
    export = export_of(receiver, begin="now")
    await exporting(export)
    await until_committed(log, export, 1)
    await source.send("after")
    await receiver.until(lambda: receiver.deliveries)
    assert receiver.ids() == ["e0-1"]


async def test_two_exports_have_positions_of_their_own(source, receiver, exporting, log):
    first, second = export_of(receiver), export_of(receiver, "crm", where="words = 2")
    await exporting(first, second)
    await source.send("one", "two words")
    await until_committed(log, first, 1)
    await until_committed(log, second, 1)
    by_export = {}
    for _, _, body in receiver.deliveries:
        data = json.loads(body)["data"]
        by_export.setdefault(data["export"], []).extend(e["id"] for e in data["events"])
    assert by_export == {"default": ["e0-0", "e0-1"], "crm": ["e0-1"]}


async def test_two_exporters_share_the_partitions(source, receiver, exporting, log):
    one, other = [await exporting(export_of(receiver)) for _ in range(2)]
    await receiver.until(lambda: all(one.ready.values()) and all(other.ready.values()))
    for partition in range(4):
        await source.send("a", "b", partition=partition)
    await receiver.until(lambda: len(set(receiver.ids())) == 8)


@pytest.mark.parametrize(
    "where",
    ["nothing > 1", "true) OR (true", "true; select 1", "words >", "read_text('/etc/passwd') = ''"],
)
async def test_a_condition_that_cannot_be_is_refused_at_the_start(where, receiver, exporting):
    with pytest.raises(Refuse, match=r"exports\.default") as refused:
        await exporting(export_of(receiver, where=where))
    assert refused.value.code == "export.where"


async def test_a_column_that_is_not_there_is_refused(receiver, exporting):
    with pytest.raises(Refuse, match="there is no 'colour'"):
        await exporting(export_of(receiver, columns=("colour",)))


async def set_config(log, **values):
    record = Outgoing(msgspec.json.encode(Changes(**values)), CONFIG_KEY, partition=0)
    await log.producer.send(CONFIG_TOPIC, [record])


async def test_clients_change_the_default_export(source, receiver, exporting, log, caplog):
    export = export_of(receiver, allow=(receiver.url,))
    await exporting(export, export_of(receiver, "crm", where="false"))
    await set_config(log, ontology_iri="https://example.org/#", webhook_url=f"{receiver.url}/b")
    sent = []
    async with asyncio.timeout(30):
        while not any(media == "application/ld+json" for _, media, _ in receiver.deliveries):
            sent += await source.send(f"text {len(sent)}")
            await receiver.until(lambda last=sent[-1]: receiver.ids()[-1:] == [last])
    assert receiver.ids() == sent
    assert receiver.paths[-1] == "/hook/b"
    assert "clients changed it: webhook_url, ontology_iri set" in caplog.text
    assert "/hook/b" not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/hook",
        "http://user:secret@127.0.0.1/hook",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
    ],
)
async def test_a_url_that_is_not_allowed_is_not_posted_to(
    url, source, receiver, exporting, log, caplog
):
    await exporting(export_of(receiver, allow=("https://hooks.example.com/in",)))
    await set_config(log, webhook_url=url)
    await receiver.until(lambda: "a change is not taken up" in caplog.text)
    assert "secret" not in caplog.text
    sent = await source.send("hello")
    await receiver.until(lambda: receiver.ids() == sent)


async def test_an_event_changes_the_default_export_and_a_webhook_s_does_not(
    source, receiver, exporting, log
):
    await exporting(export_of(receiver, where="words > 0", batch_size=7))
    wanted = [{"batch_size": 2}, {"batch_size": 5}]
    payload = [json.dumps(one) for one in wanted]
    await source.send(
        "x", "y", kinds=("SystemConfig",), payload=payload, source=["/ingest", "/webhooks/acme"]
    )
    async with asyncio.timeout(30):
        while not (found := (await log.reader.read(CONFIG_TOPIC, 0, 0)).records):
            await asyncio.sleep(0.01)
    assert [json.loads(record.value) for record in found] == [{"batch_size": 2}]
    await receiver.until(lambda: len(receiver.events()) == 2)


async def test_an_event_keeps_what_another_process_changed(
    source, receiver, exporting, log, monkeypatch
):
    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(Exporter, "_follow_config", never)
    await exporting(export_of(receiver))
    await set_config(log, batch_size=3)
    payload = [json.dumps(one) for one in ({"colour": 1}, {"interval_ms": 7})]
    await source.send("x", "y", kinds=("SystemConfig",), payload=payload)
    async with asyncio.timeout(30):
        while len(found := (await log.reader.read(CONFIG_TOPIC, 0, 0)).records) < 2:
            await asyncio.sleep(0.01)
    assert [json.loads(record.value) for record in found] == [
        {"batch_size": 3},
        {"batch_size": 3, "interval_ms": 7},
    ]
