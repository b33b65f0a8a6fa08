"""Whatever lands on the topic: each bad event becomes a dead letter with its address, all others go through."""

import asyncio
import json

import pytest
from fleet import BASE, Fleet

from streamapp.topics.catalogue import DEAD, RAW
from streamapp.transport import Outgoing, open_producer, open_reader

#: The partition of what is put past the gateway.
PUT = 0
GOOD = b'{"message": "good", "conversation_id": "c"}'
BAD = {
    "event.json": b"\x00\x01garbage",
    "event.utf8": b'{"message": "\xff"}',
    "event.empty": None,
    "event.shape": b"[1, 2, 3]",
    "event.duplicate_key": b'{"message": "a", "message": "b"}',
    "event.depth": b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}",
    "event.field": b'{"message": 7.5}',
    "event.time": b'{"message": "m", "time": "soon"}',
    "event.too_large": b'{"message": "' + b"x" * 1_200_000 + b'"}',
}
BACKWARDS = [b'{"message": "later", "conversation_id": "t", "time": "2026-01-02T00:00:00Z"}',
             b'{"message": "earlier", "conversation_id": "t", "time": "2026-01-01T00:00:00Z"}']  # fmt: skip


async def put(machine, records):
    producer = open_producer(machine.broker)
    await producer.start()
    try:
        return await producer.send(RAW, records)
    finally:
        await producer.stop()


async def dead_letters(machine):
    reader = open_reader(machine.broker)
    await reader.start()
    try:
        return list((await reader.read(DEAD, 0, 0)).records)
    finally:
        await reader.stop()


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """One for both tests: what the gateway takes goes to another partition than what is put."""
    home = tmp_path_factory.mktemp("bad")
    machine = Fleet(home / "fleet", f"local://{home}/log", stage_s=0.0)
    try:
        machine.start(*BASE, "gateway")
        yield machine
        assert machine.terminate(*BASE, "gateway") == {0}
    finally:
        machine.stop()


def test_bad_events_cost_only_themselves(machine):
    values = [value for bad in BAD.values() for value in (GOOD, bad)] + [GOOD, *BACKWARDS]
    records = [Outgoing(v, key=b"k", headers=[("h", b"1")], partition=PUT) for v in values]
    asyncio.run(put(machine, records))
    good = len(values) - len(BAD)
    rows = f"select count(*) as n from events where source_partition = {PUT}"
    machine.wait_for(lambda: machine.rows(rows)[0]["n"] == good, "every good event to be a row")
    dead = machine.rows("select * from dead order by source_offset")
    assert [row["code"] for row in dead] == list(BAD)
    assert [row["source_offset"] for row in dead] == [2 * n + 1 for n in range(len(BAD))]
    assert [row["value"] for row in dead] == list(BAD.values())
    assert all(row["reason"] and row["source_topic"] == RAW for row in dead)
    ids = machine.rows("select id from events where text = 'good' order by source_offset limit 2")
    assert [row["id"] for row in ids] == [f"{RAW}-{PUT}-0", f"{RAW}-{PUT}-2"]
    [kinetics] = machine.rows("select delta_time, velocity from events where text = 'earlier'")
    assert kinetics["delta_time"] == pytest.approx(-6.9078, abs=1e-3)  # never less than 1 ms
    letters = asyncio.run(dead_letters(machine))
    assert [letter.value for letter in letters] == list(BAD.values())
    for offset, letter in zip((row["source_offset"] for row in dead), letters, strict=True):
        headers = dict(letter.headers)
        assert headers["h"] == b"1"
        assert headers["__connect.errors.offset"] == str(offset).encode()
    machine.wait_for(
        lambda: sum(partition == PUT for partition, _ in machine.frames()[0]) == good,
        "every good event to be a frame",
    )


def test_the_gateway_refuses_what_could_not_be_enriched(machine):
    import urllib.error
    import urllib.request

    def post(body):
        url = f"http://127.0.0.1:{machine.ports['gateway']}/ingest"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    for code, value in BAD.items():
        status, answer = post(value or b"")
        assert status in {400, 413}, (code, status, answer)
        assert answer["code"] == code
        assert "Traceback" not in json.dumps(answer)
    status, answer = post(b'{"message": "fine", "conversation_id": "c"}')
    assert status == 200
    assert answer["partition"] != PUT
