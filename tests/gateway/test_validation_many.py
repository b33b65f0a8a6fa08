"""Many events against their topic's schema: what it takes stays packed, each line has its report."""

import json
import shutil

import pytest

from streamapp.gateway.schemas.rules import HEADER
from streamapp.topics import catalogue
from streamapp.transport.bundle import Bundle

SCHEMA = {"type": "object", "properties": {"total": {"minimum": 0}}}


def topics(path, policy):
    """A catalogue with the topic ``orders``, which validates."""
    folder = shutil.copytree(catalogue.defaults("topics"), path / "topics")
    (folder / "schemas" / "event.orders.v1.json").write_text(json.dumps(SCHEMA))
    (folder / "orders.toml").write_text(
        'name = "orders"\nabout = ""\npartitions = 1\nrecord_bytes_max = 100_000\n'
        f'schema = "event.orders.v1.json"\nvalidate = "{policy}"\ndead_letter = "events.dead"\n'
    )
    return catalogue.load(folder)


@pytest.mark.parametrize("policy", ["reject", "dead-letter", "observe"])
@pytest.mark.parametrize("bad", [[], [0], [999], [3, 600, 601]])
async def test_only_what_breaks_a_rule_leaves_the_bundle(start, tmp_path, policy, bad, monkeypatch):
    gate = await start(declared=topics(tmp_path, policy))
    sent, send = {}, gate.producer.send

    async def kept(topic, records):
        assert topic not in sent
        sent[topic] = records
        return await send(topic, records)

    monkeypatch.setattr(gate.producer, "send", kept)
    events = [{"total": -1 if n in bad else n, "id": f"o-{n}"} for n in range(1_000)]
    body = b"\n".join(json.dumps(event).encode() for event in events)
    status, answer = await gate.post(
        "/v1/events/orders", body, headers={"Content-Type": "application/x-ndjson"}
    )
    fine = "received"
    as_told = {"reject": "rejected", "dead-letter": "dead-lettered", "observe": fine}[policy]
    assert status == (207 if bad and as_told != fine else 200)
    assert [(one["line"], one["status"]) for one in answer["events"]] == [
        (n + 1, as_told if n in bad else fine) for n in range(1_000)
    ]
    assert isinstance(sent["orders"], Bundle)
    stay = [n for n in range(1_000) if as_told == fine or n not in bad]
    assert [record.key for record in sent["orders"]] == [b"o-%d" % n for n in stay]
    assert [answer["events"][n]["offset"] for n in stay] == list(range(len(stay)))
    letters = sent.get("events.dead", [])
    assert [letter.key for letter in letters] == [
        b"o-%d" % n for n in bad if policy == "dead-letter"
    ]
    notes = [dict(record.headers).get(HEADER) for record in sent["orders"]]
    noted = [n for n, note in zip(stay, notes, strict=True) if note]
    assert noted == [n for n, one in enumerate(answer["events"]) if "violation" in one]
    assert noted == (bad if policy == "observe" else [])
