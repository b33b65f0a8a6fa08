"""One rule for repeats, across processes: the same request has the same ids, and one row each."""

import asyncio
import contextlib
import hashlib
import hmac
import io
import json
import os
import re
import shutil
import signal
import sys

import aiohttp
import pyarrow as pa
import pyarrow.ipc
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from streamapp.core.errors import Reject
from streamapp.gateway.idempotency import Bodies, idempotency_key
from streamapp.gateway.problem import ProblemError
from streamapp.sink import Store, StoredRecord
from streamapp.topics.enriched import Cover, Enriched
from streamapp.topics.wire import decode_slice
from streamapp.transport import open_reader

LINES = {"Content-Type": "application/x-ndjson"}
CE = {"ce-specversion": "1.0", "ce-id": "ce", "ce-source": "/shop", "ce-type": "T"}
SECRET = "s3cret"
PROJECT = '[webhooks.repo]\nkind = "github"\nsecrets = ["env:HOOK"]\n'


def arrow_body():
    sink = io.BytesIO()
    table = pa.table({"message": ["p", "q"], "id": [None, "arrow-own"]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue()


def hook():
    body = b'{"zen":"x"}'
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return body, {
        "X-GitHub-Event": "push", "X-GitHub-Delivery": "delivery",
        "X-Hub-Signature-256": "sha256=" + signature,
    }  # fmt: skip


#: path, body, headers, and the ids that every attempt is answered with.
REQUESTS = [
    ("/ingest", b'{"message":"a"}', {"Idempotency-Key": '"one"'}, ["one"]),
    ("/ingest", b'{"message":"a","id":"body"}', {}, ["body"]),
    ("/v1/events", b'{"message":"b"}\n\n{"message":"c","id":"own"}\n{"message":"d"}',
     LINES | {"Idempotency-Key": "many"}, ["many-1", "own", "many-4"]),
    ("/v1/events", b'[{"message":"e"},{"message":"f"}]', {"Idempotency-Key": "array"}, ["array-1", "array-2"]),
    ("/v1/events", arrow_body(), {"Content-Type": "application/vnd.apache.arrow.stream", "Idempotency-Key": "arrow"},
     ["arrow-1", "arrow-own"]),
    ("/events", b'{"message":"g"}', CE, ["ce"]),
    ("/events", json.dumps({"specversion": "1.0", "id": "ce2", "source": "/shop", "type": "T"}).encode(),
     {"Content-Type": "application/cloudevents+json"}, ["ce2"]),
    ("/webhooks/repo", *hook(), ["delivery"]),
]  # fmt: skip
IDS = sorted(id_ for *_, ids in REQUESTS for id_ in ids)


@contextlib.asynccontextmanager
async def gateway(home):
    """A gateway process on the home's log; its URL."""
    environment = {
        **os.environ, "STREAMAPP_HOME": str(home), "STREAMAPP_GATEWAY_PORT": "0", "HOOK": SECRET,
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "streamapp.cli", "gateway",
        cwd=home, env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            said = b""
            while not (found := re.search(rb"listening on (\S+)", said)):
                line = await process.stderr.readline()
                assert line, said.decode()
                said += line
        yield found[1].decode()
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = await process.communicate()
        assert process.returncode == 0, rest.decode()
        assert SECRET.encode() not in said + rest


async def ids_of(http, url, path, body, headers):
    kind = {} if "Content-Type" in headers else {"Content-Type": "application/json"}
    async with http.post(url + path, data=io.BytesIO(body), headers=headers | kind) as answer:
        said = await answer.json(content_type=None)
        assert answer.status == 200, said
    return [one["id"] for one in said["events"]] if "events" in said else [said["id"]]


async def rows_of(home, path):
    """What the store has of the raw log, and how many records that log has."""
    reader = open_reader(f"local://{home / 'log'}")
    await reader.start()
    records = 0
    with Store.open(str(path), columns={}) as store:
        for partition in range(4):
            slice_ = await reader.read("events.raw", partition, 0)
            batch = decode_slice(slice_, event_bytes_max=1 << 20)
            if not batch.rows.num_rows:
                continue
            records += batch.rows.num_rows
            _, _, first, next_ = batch.range
            cover = Cover(
                topic="events.raw", partition=partition, first=first, next=next_, rows=batch.rows.num_rows, lost=0,
            )  # fmt: skip
            store.write(
                [
                    StoredRecord(
                        Enriched(cover, batch.rows, (), (), "[]"), "events.enriched", partition, 1
                    )
                ]
            )
        cursor = store.reader()
        rows = cursor.execute("select id, text from events order by id").fetchall()
        cursor.close()
    await reader.stop()
    return rows, records


@pytest.mark.timeout(180)
async def test_repeats_at_another_process_and_after_a_restart_are_one_row(
    log_with_topics, tmp_path
):
    shutil.copytree(log_with_topics, tmp_path / "log")
    (tmp_path / "streamapp.toml").write_text(PROJECT)
    async with aiohttp.ClientSession() as http:
        async with gateway(tmp_path) as one, gateway(tmp_path) as other:
            assert one != other
            for url in (one, other, one):
                for path, body, headers, ids in REQUESTS:
                    assert await ids_of(http, url, path, body, headers) == ids
        async with gateway(tmp_path) as again:
            for path, body, headers, ids in REQUESTS:
                assert await ids_of(http, again, path, body, headers) == ids
    rows, records = await rows_of(tmp_path, tmp_path / "store.duckdb")
    assert records == 4 * len(IDS)
    assert [id_ for id_, _ in rows] == IDS
    assert dict(rows)["many-4"] == "d"
    assert dict(rows)["arrow-1"] == "p"


@pytest.mark.parametrize("path", ["/ingest", "/v1/events"])
async def test_a_key_with_another_body_is_told_where_it_is_known(gate, path):
    headers = {"Idempotency-Key": "k"}
    assert (await gate.post(path, {"message": "a"}, headers=headers))[0] == 200
    status, problem = await gate.post(path, {"message": "b"}, headers=headers)
    assert (status, problem["code"]) == (422, "request.idempotency_key")
    assert (await gate.post(path, {"message": "a"}, headers=headers))[0] == 200
    assert (await gate.post(path, {"message": "b"}, headers={"Idempotency-Key": "l"}))[0] == 200
    assert len(gate.producer.records) == 3


@pytest.mark.parametrize("path", ["/ingest", "/v1/events"])
async def test_a_key_whose_body_was_refused_may_come_with_a_better_one(gate, path):
    headers = {"Idempotency-Key": "k"}
    assert (await gate.post(path, b"{", headers=headers))[0] == 400
    assert (await gate.post(path, {"message": "b"}, headers=headers))[0] == 200


async def test_of_two_bodies_at_once_one_has_the_key(gate):
    headers = {"Idempotency-Key": "k", **LINES}
    bodies = [b'{"message":"%d"}\n' % n * 1_000 for n in range(2)]
    answers = await asyncio.gather(
        *(gate.post("/v1/events", body, headers=headers) for body in bodies)
    )
    assert sorted(status for status, _ in answers) == [200, 422]
    assert len(gate.producer.records) == 1_000


async def test_a_key_with_another_event_of_the_same_body_is_told(gate):
    """In binary mode the body is the same, and the event is another."""
    headers = {"Idempotency-Key": "k", **CE}
    other = {**headers, "ce-id": "another"}
    for path in ("/events", "/ingest"):
        assert (await gate.post(path, {"message": "a"}, headers=headers))[0] == 200
        assert (await gate.post(path, {"message": "a"}, headers=headers))[0] == 200
        assert (await gate.post(path, {"message": "a"}, headers=other))[0] == 422
    assert {record.key for _, record in gate.producer.records} == {b"ce"}


V2 = "application/vnd.kafka.json.v2+json"
RAW = "/v3/clusters/any/topics/events.raw/records"
STREAM = {"Content-Type": "application/json", "Idempotency-Key": "s"}


async def test_confluents_v2_has_the_rule_and_the_memory(rest):
    async def send(*messages, key="k"):
        body = {"records": [{"value": {"message": message}} for message in messages]}
        said = await rest.call(
            "POST", "/topics/events.raw", body, Content_Type=V2, Idempotency_Key=key
        )
        return said[0]

    assert [await send("a", "b"), await send("a", "b")] == [200, 200]
    assert await send("a", "c") == 422
    assert await send("a", "c", key="l") == 200
    ids = await ids_in_log(rest)
    assert sorted(ids) == ["k-1", "k-1", "k-2", "k-2", "l-1", "l-2"]


async def test_confluents_v3_has_the_rule_and_for_batches_the_memory(rest):
    def entry(n, message):
        return {"id": str(n), "value": {"type": "JSON", "data": {"message": message}}}

    async def batch(*messages):
        body = {"entries": [entry(n, message) for n, message in enumerate(messages)]}
        return (
            await rest.call(
                "POST", RAW + ":batch", body, Content_Type="application/json", Idempotency_Key="k"
            )
        )[0]

    assert [await batch("a", "b"), await batch("a", "b")] == [207, 207]
    assert await batch("a", "c") == 422
    stream = b"".join(
        b'{"value":{"type":"JSON","data":{"n":%d}}}' % n if n != 1 else b"{}" for n in range(3)
    )
    for _ in range(2):
        async with rest.http.post(
            rest.url + RAW, data=io.BytesIO(stream), headers=STREAM
        ) as answer:
            assert answer.status == 200
            await answer.read()
    ids = await ids_in_log(rest)
    assert sorted(ids) == ["k-1", "k-1", "k-2", "k-2", "s-1", "s-1", "s-3", "s-3"]


async def test_in_a_stream_numbers_go_on_from_turn_to_turn(rest):
    stream = b"".join(b'{"value":{"type":"JSON","data":{"n":%d}}}' % n for n in range(1_203))
    async with rest.http.post(rest.url + RAW, data=io.BytesIO(stream), headers=STREAM) as answer:
        await answer.read()
    assert len(set(await ids_in_log(rest))) == 1_203
    assert "s-1203" in await ids_in_log(rest)


async def ids_in_log(rest):
    records = [record for p in range(4) for record in await rest.records("events.raw", p)]
    return [dict(record.headers)["ce_id"].decode() for record in records]


async def test_two_routes_are_two_names_for_a_key(gate):
    headers = {"Idempotency-Key": "k"}
    assert (await gate.post("/ingest", {"message": "a"}, headers=headers))[0] == 200
    assert (await gate.post("/v1/events", {"message": "b"}, headers=headers))[0] == 200
    assert [gate.producer.headers(n)["ce_source"] for n in (0, 1)] == ["/ingest", "/v1/events"]


def test_the_memory_of_bodies_has_an_end():
    bodies = Bodies(keys_max=2)
    for key in ("a", "b", "c"):
        bodies.check("/", key, b"1").keep()
    bodies.check("/", "a", b"2")
    for key in ("b", "c"):
        with pytest.raises(ProblemError):
            bodies.check("/", key, b"2")
    bodies.check("/", "b", b"1").keep()  # the newest again
    bodies.check("/", "d", b"1").keep()
    bodies.check("/", "c", b"2")
    with pytest.raises(ProblemError):
        bodies.check("/", "b", b"2")


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("bare", "bare"),
        ('"quoted"', "quoted"),
        (r'"a\"b\\c"', r"a\"b\\c".replace('\\"', '"').replace("\\\\", "\\")),
        (r'"\\"', "\\"),
        ('"', '"'),
        ("x" * 500, "x" * 500),
    ],
)
def test_a_key_is_read_as_a_structured_field_or_as_it_is(sent, key):
    assert idempotency_key(CIMultiDictProxy(CIMultiDict({"Idempotency-Key": sent}))) == key


@pytest.mark.parametrize("sent", [["a", "b"], [""], ['""'], ["a\tb"], ["\udcff"], ["x" * 501]])
def test_a_key_that_does_not_do_is_told(sent):
    headers = CIMultiDict([("Idempotency-Key", one) for one in sent])
    with pytest.raises(Reject):
        idempotency_key(CIMultiDictProxy(headers))


async def test_the_longest_key_makes_ids_that_an_event_may_have(gate):
    body = b"\n" * 9_998 + b'{"message":"x"}'
    headers = LINES | {"Idempotency-Key": "k" * 500}
    assert (await gate.post("/v1/events", body, headers=headers))[0] == 200
    assert len(gate.producer.headers()["ce_id"]) == 505
