"""Operations and runs of workflows over HTTP: results, limits, scopes, and what is not told."""

import asyncio
import json

import pyarrow as pa
import pytest
from demo_operations import demo  # noqa: F401  # a fixture

from streamapp.gateway.arrow import MEDIA

pytestmark = pytest.mark.usefixtures("demo")
WORDS = "/v1/services/demo/words"
TEXTS = [{"id": 1, "text": "one two"}, {"id": 2, "text": None}, {"id": 3, "text": "three"}]
PARTIAL = [{"id": 1, "text": "one two", "words": 2}, {"id": 3, "text": "three", "words": 1}]


def stream(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return sink.getvalue().to_pybytes()


async def test_an_operation_runs_on_the_rows_of_a_request(gate):
    status, answer = await gate.post(WORDS, {"rows": TEXTS})
    assert (status, answer["rows"]) == (200, PARTIAL)
    assert answer["aside"] == [{"reason": "no text", "rows": [{"id": 2, "text": None}]}]
    _, answer = await gate.post(WORDS, {"rows": TEXTS[:1], "config": {"least": 3}})
    assert answer["rows"] == []


async def test_arrow_in_gives_arrow_out_and_either_can_be_asked_for(gate):
    body = stream(pa.Table.from_pylist(TEXTS))
    url = f"{gate.url}{WORDS}"
    arrow = {"Content-Type": MEDIA}
    async with gate.http.post(
        url, params={"config": '{"least": 2}'}, data=body, headers=arrow
    ) as got:
        assert got.headers["Content-Type"] == MEDIA
        assert got.headers["Streamapp-Aside"] == "1"
        assert pa.ipc.open_stream(await got.read()).read_all().to_pylist() == PARTIAL[:1]
    async with gate.http.post(
        url, data=body, headers={**arrow, "Accept": "application/json"}
    ) as got:
        assert (await got.json())["rows"] == PARTIAL
    async with gate.http.post(url, json={"rows": TEXTS}, headers={"Accept": MEDIA}) as got:
        assert pa.ipc.open_stream(await got.read()).read_all().num_rows == 2
    empty = stream(pa.schema([("text", pa.string())]).empty_table())
    async with gate.http.post(url, data=empty, headers=arrow) as got:
        assert pa.ipc.open_stream(await got.read()).read_all().num_rows == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "said"),
    [
        ("demo/wrods", {"rows": []}, 404, "workflow.operation", "'words'"),
        ("dem/words", {"rows": []}, 404, "workflow.service", "demo"),
        ("demo/words", {"rows": TEXTS, "config": {"lest": 1}}, 400, "operation.config", "least"),
        ("demo/words", {"rows": TEXTS, "config": {"least": "x"}}, 400, "operation.config", "least"),
        ("demo/words", {"rows": [{"n": 1}]}, 400, "operation.column", "config.text"),
        ("demo/words", {"rows": [{"n": 1}, {"n": "x"}]}, 400, "operation.table", "rows"),
        ("demo/words", {"row": []}, 400, "service.json", "row"),
        ("demo/words", {}, 400, "operation.inputs", "1 inputs, not 0"),
        ("demo/words", {"rows": [], "inputs": {"b": []}}, 400, "operation.inputs", "not 2"),
        ("demo/lookup", {"rows": []}, 400, "source.unknown", "names"),
        ("demo/fails", {"rows": []}, 400, "operation.rows", "cannot be read"),
        ("python/os:system", {"rows": []}, 403, "service.python", "over HTTP"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said(gate, path, body, status, code, said):
    got, problem = await gate.post(f"/v1/services/{path}", body)
    assert (got, problem["code"]) == (status, code)
    assert said in problem["detail"] + problem["fix"]


@pytest.mark.parametrize(("how", "status"), [("outside", 503), ("retry", 503), ("bug", 500)])
async def test_our_insides_are_not_told(gate, how, status):
    got, problem = await gate.post("/v1/services/demo/fails", {"rows": [], "config": {"how": how}})
    assert got == status
    assert "secret" not in json.dumps(problem)


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


async def test_rows_time_and_calls_are_limited(start):
    gate = await start(service_rows_max=2, service_s_max=0.05)
    status, problem = await gate.post(WORDS, {"rows": TEXTS})
    assert (status, problem["code"]) == (413, "request.too_large")
    body = stream(pa.Table.from_pylist(TEXTS))
    assert (await gate.post(WORDS, body, headers={"Content-Type": MEDIA}))[0] == 413
    calls = [gate.post("/v1/services/demo/endless", {"rows": []}) for _ in range(20)]
    codes = [problem["code"] for _, problem in await asyncio.gather(*calls)]
    assert codes.count("service.busy") == 4
    assert codes.count("service.timeout") == 16
    for _ in range(1000):  # those that nobody waits for stop by themselves
        status, _ = await gate.post(WORDS, {"rows": TEXTS[:1]})
        if status == 200:
            break
    assert status == 200


async def test_operations_are_listed(gate, demo):  # noqa: F811
    _, listed = await gate.get("/v1/services")
    assert {f"{each['service']}.{each['operation']}" for each in listed} >= set(demo)
    _, document = await gate.get("/openapi.json")
    assert "/v1/services/{service}/{operation}" in document["paths"]
