"""Operations over HTTP: results, limits, scopes, and what is not told."""

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from demo_operations import demo_everywhere  # noqa: F401  # a fixture
from gateway_thread import GatewayThread
from machine import command_of

from streamapp.gateway.arrow import MEDIA
from streamapp.gateway.services import calls, processes

pytestmark = pytest.mark.usefixtures("demo_everywhere")
WORDS, FAILS = "/v1/services/demo/words", "/v1/services/demo/fails"
TEXTS = [{"id": 1, "text": "one two"}, {"id": 2, "text": None}, {"id": 3, "text": "three"}]
PARTIAL = [{"id": 1, "text": "one two", "words": 2}, {"id": 3, "text": "three", "words": 1}]
DEEP = json.loads("[" * 60 + "]" * 60)


class Answer(NamedTuple):
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def arrow(self):
        assert self.headers["Content-Type"] == MEDIA
        return pa.ipc.open_stream(self.body).read_all().to_pylist()


@pytest.fixture(scope="module")
def post(demo_everywhere):  # noqa: F811
    """``post(path, body)``: what a gateway answers that lives as long as these tests."""

    def send(path, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {"Content-Type": "application/json", **named}
        request = urllib.request.Request(gateway.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())

    with GatewayThread() as gateway:
        yield send


def stream(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return sink.getvalue().to_pybytes()


def test_an_operation_runs_on_the_rows_of_a_request(post):
    answer = post(WORDS, {"rows": TEXTS})
    assert (answer.status, answer.json["rows"]) == (200, PARTIAL)
    assert answer.json["aside"] == [{"reason": "no text", "rows": [{"id": 2, "text": None}]}]
    assert post(WORDS, {"rows": TEXTS[:1], "config": {"least": 3}}).json["rows"] == []


def test_arrow_in_gives_arrow_out_and_either_can_be_asked_for(post):
    body = stream(pa.Table.from_pylist(TEXTS))
    got = post(f"{WORDS}?config=%7B%22least%22:2%7D", body, Content_Type=MEDIA)
    assert (got.arrow, got.headers["Streamapp-Aside"]) == (PARTIAL[:1], "1")
    got = post(WORDS, body, Content_Type=MEDIA, Accept="application/json")
    assert got.json["rows"] == PARTIAL
    assert len(post(WORDS, {"rows": TEXTS}, Accept=MEDIA).arrow) == 2
    empty = stream(pa.schema([("text", pa.string())]).empty_table())
    assert post(WORDS, empty, Content_Type=MEDIA).arrow == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "said"),
    [
        ("demo/wrods", {"rows": []}, 404, "workflow.operation", "'words'"),
        ("dem/words", {"rows": []}, 404, "workflow.service", "demo"),
        ("demo/words", {"rows": TEXTS, "config": {"lest": 1}}, 400, "operation.config", "least"),
        ("demo/words", {"rows": TEXTS, "config": {"least": "x"}}, 400, "operation.config", "least"),
        ("demo/words", {"rows": [], "config": {"a": [{"b": -(2**64)}]}}, 400, "operation.config", "config.a[].b"),
        ("demo/words", {"rows": [], "config": {"a": DEEP}}, 400, "operation.config", "deeper than 50"),
        ("demo/words", {"rows": [{"n": 1}]}, 400, "operation.column", "config.text"),
        ("demo/words", {"rows": [{"n": 1}, {"n": "x"}]}, 400, "operation.table", "rows"),
        ("demo/words", {"rows": [{"n": 2**70}]}, 400, "operation.table", "too large"),
        ("demo/words", {"row": []}, 400, "service.json", "row"),
        ("demo/words", {}, 400, "operation.inputs", "1 inputs, not 0"),
        ("demo/words", {"rows": [], "inputs": {"b": []}}, 400, "operation.inputs", "not 2"),
        ("demo/lookup", {"rows": []}, 400, "source.unknown", "names"),
        ("demo/fails", {"rows": []}, 400, "operation.rows", "cannot be read"),
        ("python/os:system", {"rows": []}, 403, "service.python", "over HTTP"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(post, path, body, status, code, said):
    answer = post(f"/v1/services/{path}", body)
    problem = answer.json
    assert (answer.status, problem["code"]) == (status, code)
    assert said in problem["detail"] + problem["fix"]


@pytest.mark.parametrize(("how", "status"), [("outside", 503), ("retry", 503), ("bug", 500)])
def test_our_insides_are_not_told(post, how, status):
    answer = post(FAILS, {"rows": [], "config": {"how": how}})
    assert answer.status == status
    assert b"secret" not in answer.body


def test_a_call_that_takes_all_memory_or_its_process_with_it_is_named(post, monkeypatch):
    found = [
        (answer.status, answer.json["code"])
        for how in ("hoard", "die")
        for answer in [post(FAILS, {"rows": [], "config": {"how": how}})]
    ]
    assert found == [(413, "service.memory"), (503, "service.crashed")]
    assert post(WORDS, {"rows": TEXTS}).json["rows"] == PARTIAL
    monkeypatch.setattr(processes, "PROCESS_BYTES_MAX", 1)
    assert post(WORDS, {"rows": TEXTS}).json["code"] == "service.memory"


async def test_sources_come_with_the_request_or_from_the_project_for_admins(start, tmp_path):
    (tmp_path / "streamapp.toml").write_text(
        '[sources.names]\nformat = "jsonl"\npath = "n.jsonl"\n'
    )
    (tmp_path / "n.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    gate = await start(token="s3cret", project=tmp_path)
    admin = {"Authorization": "Bearer s3cret"}
    asked = {"rows": [], "sources": {"names": [{"a": 1}]}}
    assert (await gate.post("/v1/services/demo/lookup", asked))[0] == 401
    _, answer = await gate.post("/v1/services/demo/lookup", asked, headers=admin)
    assert answer["rows"] == [{"rows": 1}]
    _, answer = await gate.post("/v1/services/demo/lookup", {"rows": []}, headers=admin)
    assert answer["rows"] == [{"rows": 2}]


def callees():
    """The processes that work for gateways of this process."""
    lists = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    pids = {pid for pids in lists for pid in pids}
    return {pid for pid in pids if b"streamapp.workflow.callee" in command_of(pid)}


async def test_rows_time_and_calls_are_limited(start, monkeypatch):
    monkeypatch.setattr(calls, "CALLS_MAX", 3)
    gate = await start(service_rows_max=2, service_s_max=1.0)
    status, problem = await gate.post(WORDS, {"rows": TEXTS})
    assert (status, problem["code"]) == (413, "request.too_large")
    body = stream(pa.Table.from_pylist(TEXTS))
    assert (await gate.post(WORDS, body, headers={"Content-Type": MEDIA}))[0] == 413
    before = callees()
    asked = [gate.post("/v1/services/demo/endless", {"rows": []}) for _ in range(5)]
    codes = [problem["code"] for _, problem in await asyncio.gather(*asked)]
    assert codes.count("service.busy") == 2
    assert codes.count("service.timeout") == 3
    assert callees() == before  # nobody works on what nobody waits for


async def test_operations_are_listed(gate, demo_everywhere):  # noqa: F811
    _, listed = await gate.get("/v1/services")
    assert {f"{each['service']}.{each['operation']}" for each in listed} >= set(demo_everywhere)
    _, document = await gate.get("/openapi.json")
    assert "/v1/services/{service}/{operation}" in document["paths"]
