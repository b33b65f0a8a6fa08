"""What docs/models.md says of language models runs, and its numbers are the code's."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
import tomllib

import aiohttp
import msgspec
import pyarrow as pa
import pytest
from llm_server import LlmServer
from pages import page
from sinks import DuckSink, record

from streamapp.core.metrics import Metrics
from streamapp.core.scopes import Verb
from streamapp.core.settings import Settings
from streamapp.gateway import GatewayConfig, create_app
from streamapp.gateway.chat.wire import ChatAnswer
from streamapp.gateway.listen import listening
from streamapp.gateway.scopes import rule
from streamapp.models.llm import Endpoint, thinking
from streamapp.models.llm.breaker import Breaker, RetryBudget
from streamapp.models.llm.declared import endpoint_of
from streamapp.models.llm.steps import _PAUSE_S_FIRST, _PAUSE_S_MAX
from streamapp.models.llm.wire import Mode
from streamapp.models.manifest import ChatManifest
from streamapp.sink.answers import ANSWERS, Answers
from streamapp.testing import MemoryLog
from streamapp.topics import catalogue
from streamapp.transport.clients import TopicSpec
from streamapp.workflow import load_workflow

TEXT = page("models").section("Language models")


@pytest.fixture
def llm():
    server = LlmServer().start()
    yield server
    server.stop()


def test_the_commands_run(llm, tmp_path):
    script = TEXT.blocks("bash")[0].replace("http://127.0.0.1:1234/v1", llm.url)
    command = f'streamapp() {{ {shlex.quote(sys.executable)} -P -m streamapp.cli "$@"; }}\n'
    env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMAPP_")}
    done = subprocess.run(
        ["bash", "-eu", "-c", command + script], env={**env, "STREAMAPP_HOME": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "json_schema" in done.stdout
    assert llm.headers[0]["Authorization"] == "Bearer sk-local"
    assert llm.calls[0]["model"] == "qwen3-4b"


def test_the_workflow_is_one(tmp_path):
    text = TEXT.blocks("toml")[0]
    (tmp_path / "workflow.toml").write_text(text)
    workflow = load_workflow(tmp_path / "workflow.toml")
    assert (workflow.ask_below, workflow.ask_types) == (0.4, True)


def test_the_queries_answer(tmp_path):
    columns = {
        "intent": pa.string(),
        "intent_confidence": pa.float32(),
        "intent_source": pa.string(),
    }
    extra = {
        "intent": pa.array(["unknown"] * 3, pa.string()),
        "intent_confidence": pa.array([0.1] * 3, pa.float32()),
        "intent_source": pa.array(["prototype"] * 3, pa.string()),
    }
    row = dict.fromkeys(ANSWERS.names) | {
        "source_topic": "events.raw", "source_partition": 0, "id": "x", "kind": "intent",
        "local": "unknown", "tokens_in": 5, "tokens_out": 2, "answered_at": 0,
    }  # fmt: skip
    rows = [
        row | {"source_offset": 0, "answer": "refund", "source": "llm", "log_offset": 0},
        row | {"source_offset": 1, "answer": "unknown", "source": "fallback", "log_offset": 1},
    ]
    by_source, by_reason = TEXT.blocks("sql")
    with DuckSink(tmp_path).open(columns=columns) as store:
        store.write([record(0, 3, extra=extra)])
        store.write_answers(
            Answers("events.answers", 0, 2, pa.Table.from_pylist(rows, schema=ANSWERS))
        )
        with store.reader() as cursor:
            assert cursor.execute(by_source).fetchall() == [
                ("fallback", "unknown", 1, 0),
                ("llm", "refund", 1, 1),
                ("prototype", "unknown", 1, 0),
            ]
            assert {line[0] for line in cursor.execute(by_reason).fetchall()} == {"llm", "fallback"}


async def test_the_request_is_answered_in_that_form(llm):
    log = MemoryLog()
    asked = re.search(r"-d '(.*?)'", TEXT.blocks("bash")[1])[1]
    shown = msgspec.json.decode(TEXT.blocks("json")[0], type=ChatAnswer)
    assert set(msgspec.json.decode(TEXT.blocks("json")[0])) == set(ChatAnswer.__struct_fields__)
    config = GatewayConfig(port=0, llm=Endpoint(llm.url))
    declared = catalogue.load()
    for topic in declared:
        log.create(TopicSpec(*topic.log_spec()))
    producer = log.producer()
    await producer.start()
    app = create_app(config, producer, declared, Metrics())
    async with listening(app, config) as (_, url), aiohttp.ClientSession() as http:
        orders = [{"type": "Order", "sku": "p1", "count": n} for n in range(3)]
        async with http.post(f"{url}/v1/events", json=orders) as answer:
            assert answer.status == 200
        said = {"Content-Type": "application/json"}
        async with http.post(f"{url}/api/chat", data=asked, headers=said) as answer:
            got = msgspec.json.decode(await answer.read(), type=ChatAnswer)
    assert (got.type, got.slots, got.missing) == (shown.type, shown.slots, shown.missing)
    assert rule("POST", "/api/chat").verb is Verb.PRODUCE
    assert "scope `produce:events.raw`" in TEXT


def test_the_program_runs(llm):
    source = TEXT.blocks("python")[0].replace("http://127.0.0.1:1234/v1", llm.url)
    names = {}
    exec(source, names)
    assert asyncio.run(names["wanted"]("a refund please")) == "refund"


def test_the_manifest_is_one():
    manifest = msgspec.convert(tomllib.loads(TEXT.blocks("toml")[1]), ChatManifest)
    endpoint = endpoint_of(manifest, str)
    assert (endpoint.base_url, endpoint.model) == ("http://127.0.0.1:1234/v1", "qwen3-4b")


def test_the_numbers_are_the_code_s():
    settings = Settings()
    for name, value in (
        ("llm_retry_s", f"({settings.llm_retry_s} s)"),
        ("llm_calls_max", f"({settings.llm_calls_max})"),
        ("llm_answers_max", f"{settings.llm_answers_max:,}"),
        ("ask_port", f"({settings.ask_port})"),
    ):
        assert re.search(rf"`{name}`,?\s*{re.escape(value)}", TEXT), name
    assert f"from {_PAUSE_S_FIRST} to {_PAUSE_S_MAX:g} s" in TEXT
    breaker = Breaker()
    assert f"fails {breaker._failures_max} times in a row" in TEXT
    assert f"left alone for {breaker._cool_s:g} s" in TEXT
    assert breaker._cool_s * 8 == 120  # 2 minutes
    assert (RetryBudget()._share, RetryBudget()._saved) == (0.2, 10)
    assert [mode.told for mode in Mode] == ["json_schema", "json_object", "tool", "prompt"]
    assert len(thinking.DIALECTS) == 1 + 6
    for metric in re.findall(r"`streamapp_(\w+)`", TEXT):
        assert f"streamapp_{metric.removesuffix('_total')}" in Metrics().text().decode()
