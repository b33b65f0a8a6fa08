"""The path of one event, read aloud: REST, topic, batch, stages, enriched topic, store and ring, SQL.

Each step does what its process does, with the same parts, on the embedded log and with the real model.
"""

import pytest

from streamapp import compose
from streamapp.agents.feed import Feed
from streamapp.agents.frames import ring_spec
from streamapp.agents.publish import Standpoint, enriched_records
from streamapp.core.config import load
from streamapp.core.metrics import Metrics
from streamapp.ring import RingReader, RingWriter, SourcePosition
from streamapp.sink import Store, StoredRecord
from streamapp.topics.catalogue import ENRICHED, RAW, TWIN
from streamapp.topics.enriched import decode
from streamapp.topics.wire import decode_slice
from streamapp.transport import Outgoing, open_producer, open_reader
from streamapp.workflow import PartitionState

pytestmark = pytest.mark.models


async def test_one_event_from_the_log_to_sql_and_to_the_ring(tmp_path):
    settings, _ = load({"home": tmp_path}, environ={}, folder=tmp_path)
    await compose.ensure_topics(settings)
    producer, reader = open_producer(settings.broker_url), open_reader(settings.broker_url)
    await producer.start()
    await reader.start()

    # 1, 2: the gateway stamps it and the log has it: JSON value, ce_* headers, key = conversation
    [address] = await producer.send(
        RAW,
        [
            Outgoing(
                b'{"message": "Quero cancelar meu plano", "conversation_id": "c1", "plan": "gold"}',
                key=b"c1",
                headers=[("ce_id", b"e1"), ("ce_source", b"/ingest"), ("ce_type", b"UserMessage")],
            )
        ],
    )

    # 3: one fetch of one partition is a Slice; its records become a Batch, bad ones rejects
    slice_ = await reader.read(RAW, address.partition, 0)
    batch = decode_slice(slice_, event_bytes_max=settings.event_bytes_max)
    assert batch.range == (RAW, address.partition, 0, 1)
    assert batch.strings("text") == ["Quero cancelar meu plano"]

    # 4, 5: the Plan runs the stages, each once per batch, and they add columns
    plan = compose.plan(settings)
    plan.open()
    state = PartitionState(settings.conversations_max)
    raw = {record.offset: record for record in slice_.records}
    enriched, changes = plan.run(batch, state, raw)
    assert enriched.strings("intent") == ["cancel"]
    assert enriched.strings("language") == ["pt"]

    # the enriched topic: one Arrow record with the source range it covers and the states it changed
    standpoint = Standpoint(None, plan.provenance())
    records, rejects = enriched_records(enriched, changes, standpoint, raw, 8 << 20)
    assert rejects == []
    [published] = await producer.send(ENRICHED, records)
    [record] = (await reader.read(ENRICHED, published.partition, published.offset)).records
    stored = StoredRecord(decode(record), ENRICHED, published.partition, published.offset + 1)

    # 6: the store takes rows, ledger and position in one transaction, once
    columns = {field.name: field.type for field in plan.columns()}
    with Store.open(str(tmp_path / "s.duckdb"), columns=columns) as store:
        assert store.write([stored]).rows == 1
        assert store.write([stored]).rows == 0
        sql = "select id, intent, payload->>'plan' as plan, len(embedding) as dim from events"
        cursor = store.reader()
        assert cursor.execute(sql).fetchall() == [("e1", "cancel", "gold", plan.embedding_dim())]
        cursor.close()

    # 6: the terminal agent writes the same rows as frames that a reader on this host maps
    path = tmp_path / "events.ring"
    with RingWriter.open(path, ring_spec(plan.columns(), 8)) as ring:
        feed = Feed(ring, Metrics())
        feed.put([record, record])
        assert ring.sources() == [SourcePosition(RAW, address.partition, 1, published.offset + 1)]
        with RingReader.open(path) as follower:
            [frame] = follower.read()
            assert frame.intent_id == 0
            assert abs(float((frame.semantic**2).sum()) - 1) < 1e-5

    plan.close()
    await reader.stop()
    await producer.stop()


def test_the_two_messages_of_the_readme(machine):
    taken = [
        machine.post({"message": "Quero cancelar meu plano", "type": "UserMessage"}),
        machine.post({"message": "Preciso de ajuda com minha conta", "conversation_id": "test"}),
    ]
    assert [answer["status"] for answer in taken] == ["received", "received"]
    assert taken[0]["event_type"] == "UserMessage"
    machine.wait_rows(2)
    rows = machine.rows("select id, text, intent, language from events order by ingest_time")
    assert {row["id"] for row in rows} == {answer["id"] for answer in taken}
    intents = {row["text"]: row["intent"] for row in rows}
    assert intents["Quero cancelar meu plano"] == "cancel"
    assert intents["Preciso de ajuda com minha conta"] == "account_help"
    machine.wait_for(lambda: len(machine.frames()[0]) == 2, "both frames")
    addresses, lost = machine.frames()
    assert sorted(addresses) == sorted((a["partition"], a["offset"]) for a in taken)
    assert lost == 0
    topics = {path.name for path in (machine.home / "log").glob("*.db")}
    assert topics >= {f"{RAW}.db", f"{ENRICHED}.db"}
    assert f"{TWIN}.db" not in topics  # which STREAMAPP_JSON_TWIN would have made
    assert machine.stop() == 0
