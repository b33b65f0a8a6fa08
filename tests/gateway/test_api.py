"""``/api/events`` and ``/api/config``."""

import json

import msgspec
import pytest

from streamapp.core.exports import CONFIG_KEY, CONFIG_TOPIC, Changes, Export
from streamapp.gateway.schemas.configured import changeable_export
from streamapp.gateway.schemas.recent import RECENT_MAX
from streamapp.transport.clients import Outgoing

JSON = {"Content_Type": "application/json"}
EXPORT = Export(
    "default", (b"k" * 24,), "https://example.com/hook", allow=("https://hooks.example.com/a",)
)


@pytest.fixture
async def configured(serve_rest, log_url):
    return await serve_rest(log_url, export=EXPORT)


async def events(rest, query=""):
    status, answer = await rest.call("GET", f"/api/events{query}")
    assert status == 200, answer
    return answer["events"]


async def set_(rest, values):
    return await rest.call("POST", "/api/config", values, **JSON)


async def test_the_newest_events_come_first(rest):
    for n in range(3):
        await rest.call("POST", "/ingest", {"id": f"e{n}", "type": f"T{n % 2}"}, **JSON)
    found = await events(rest)
    assert [(one["id"], one["type"], one["status"]) for one in found] == [
        ("e2", "T0", "received"),
        ("e1", "T1", "received"),
        ("e0", "T0", "received"),
    ]
    assert [one["id"] for one in await events(rest, "?limit=1")] == ["e2"]
    assert [one["id"] for one in await events(rest, "?type=T1")] == ["e1"]
    newest = found[0]
    record = (await rest.records("events.raw", newest["partition"]))[newest["offset"]]
    assert dict(record.headers)["ce_id"] == b"e2"


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "99999999999999999999", "%D9%A1"])
async def test_a_limit_that_is_none(rest, limit):
    status, problem = await rest.call("GET", f"/api/events?limit={limit}")
    assert (status, problem["code"]) == (400, "request.limit")


async def test_memory_of_events_is_bounded(rest):
    for _ in range(3):
        batch = [{"type": "T"} for _ in range(RECENT_MAX // 2)]
        await rest.call("POST", "/v1/events", batch, **JSON)
    assert len(await events(rest, f"?limit={RECENT_MAX}")) == RECENT_MAX


async def test_events_of_other_topics_are_not_told(rest):
    await rest.v2("/topics/plain", [{"value": {"type": "T"}}])
    assert await events(rest) == []


# ---------------------------------------------------------------- configuration


async def test_a_change_is_on_the_log_and_holds(configured):
    status, told = await set_(configured, {"batch_size": 7, "ontology_iri": "https://schema.org/"})
    assert (status, told["status"]) == (200, "published")
    assert told["changed"] == {"batch_size": 7, "ontology_iri": "https://schema.org/"}
    status, told = await set_(configured, {"webhook_url": "https://hooks.example.com/a/b"})
    [_, second] = await configured.records(CONFIG_TOPIC)
    assert second.key == CONFIG_KEY
    assert dict(second.headers)["ce_type"] == b"SystemConfig"
    assert json.loads(second.value) == {  # the whole, for compaction keeps one record
        "webhook_url": "https://hooks.example.com/a/b",
        "ontology_iri": "https://schema.org/",
        "batch_size": 7,
    }
    _, config = await configured.call("GET", "/api/config")
    assert config["changed"] == json.loads(second.value)
    assert config["declared"]["webhook_url"] == EXPORT.webhook_url
    assert config["effective"]["batch_size"] == 7
    assert config["effective"]["interval_ms"] == EXPORT.interval_ms


async def test_null_is_as_declared_again(configured):
    await set_(configured, {"batch_size": 7, "interval_ms": 5})
    _, told = await set_(configured, {"batch_size": None})
    assert told["changed"] == {"interval_ms": 5}
    _, config = await configured.call("GET", "/api/config")
    assert config["effective"]["batch_size"] == EXPORT.batch_size


async def test_another_gateway_and_a_later_one_know_it(configured, serve_rest, log_url):
    other = await serve_rest(log_url, export=EXPORT)
    await set_(configured, {"batch_size": 7})
    await set_(other, {"interval_ms": 9})
    for rest in (configured, other, await serve_rest(log_url, export=EXPORT)):
        _, config = await rest.call("GET", "/api/config")
        assert config["changed"] == {"batch_size": 7, "interval_ms": 9}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"webhook_url": "https://elsewhere.example.com/"}, "export.url_not_allowed"),
        ({"webhook_url": "http://169.254.169.254/latest"}, "export.url_not_allowed"),
        ({"webhook_url": "file:///etc/passwd"}, "export.config"),
        ({"batch_size": 0}, "export.config"),
        ({"batch_size": "7"}, "export.config"),
        ({"interval_ms": -1}, "export.config"),
        ({"ontology_iri": "no iri"}, "export.config"),
        ({"batchsize": 7}, "export.config"),
        ({}, "export.config"),
        ([], "export.config"),
        (b"{", "export.config"),
        (b"\xff", "export.config"),
        (b"[" * 5_000, "export.config"),
    ],
)
async def test_a_change_that_makes_no_sense(configured, values, code):
    status, problem = await set_(configured, values)
    assert (status, problem["code"]) == (403 if code.endswith("not_allowed") else 400, code)
    assert await configured.records(CONFIG_TOPIC) == []


async def test_what_the_file_does_not_allow_any_more_does_not_hold(configured):
    gone = msgspec.json.encode(Changes(webhook_url="https://gone.example.com/"))
    await configured.producer.send(CONFIG_TOPIC, [Outgoing(gone, CONFIG_KEY, partition=0)])
    _, config = await configured.call("GET", "/api/config")
    assert config["effective"]["webhook_url"] == EXPORT.webhook_url
    assert config["changed"]["webhook_url"] == "https://gone.example.com/"
    status, _ = await set_(configured, {"webhook_url": None})
    assert status == 200


async def test_a_record_of_a_later_version_is_passed_over(configured):
    await set_(configured, {"batch_size": 7})
    odd = Outgoing(b'{"batch_size": [7]}', CONFIG_KEY, partition=0)
    await configured.producer.send(CONFIG_TOPIC, [odd])
    _, config = await configured.call("GET", "/api/config")
    assert config["changed"] == {"batch_size": 7}


async def test_a_project_that_exports_nothing(rest):
    for method in ("GET", "POST"):
        body = {"batch_size": 1} if method == "POST" else None
        status, problem = await rest.call(method, "/api/config", body, **JSON)
        assert (status, problem["code"]) == (404, "config.none")


async def test_a_gateway_without_a_reader_of_the_log(start):
    gate = await start(export=EXPORT)
    status, problem = await gate.post("/api/config", {"batch_size": 7})
    assert (status, problem["code"]) == (503, "config.log")


async def test_another_media_type(configured):
    status, problem = await configured.call(
        "POST", "/api/config", b"batch_size: 7", Content_Type="application/yaml"
    )
    assert (status, problem["code"]) == (415, "request.content_type")


async def test_a_secret_of_the_export_is_not_the_gateways_to_know(tmp_path):
    (tmp_path / "streamapp.toml").write_text(
        '[exports.default]\nwebhook_url = "https://example.com/h"\nsecrets = ["env:NOT_HERE"]\n'
        '[exports.other]\nwebhook_url = "https://example.com/o"\nsecrets = ["env:NOR_THIS"]\n'
    )
    assert changeable_export(tmp_path).webhook_url == "https://example.com/h"
    (tmp_path / "streamapp.toml").write_text("")
    assert changeable_export(tmp_path) is None
