"""schemathesis over our OpenAPI, every check on: what is described is taken, nothing else is.

It reads the document as a stranger would, sends what its schemas allow and what they do not, and
holds each answer against what the document says of it.
"""

from collections import Counter
from itertools import count

import msgspec
import pyarrow as pa
import pytest
import schemathesis
from gateway_thread import PLAIN, GatewayThread
from hypothesis import strategies as st
from schemathesis import openapi
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from streamapp.gateway import arrow
from streamapp.gateway.app import GATEWAY
from streamapp.gateway.forms import FORM
from streamapp.gateway.idempotency import IDEMPOTENCY_KEY_CHARS_MAX
from streamapp.gateway.openapi import openapi as described
from streamapp.topics.catalogue import RAW

LINES = "application/x-ndjson"
#: Other names of a route that is tested: left to the long form.
ALIASES = [
    ("POST", "/events"),
    ("POST", "/v1/events"),
    ("POST", "/topics/{topic}/partitions/{partition}"),
    ("GET", "/consumers/{group}/instances/{instance}/topics/{topic}"),
    ("POST", "/consumers/{group}/instances/{instance}/positions/end"),
]
#: Confluent answers 200 or 207 and reports each bad record in its place.
REPORTED = ["/v3/clusters/{cluster}/topics/{topic}/records"]
REPORTED += [REPORTED[0] + ":batch"]
#: Which columns and config an operation takes is the operation's own, and said in words.
OWN_WORDS = ["/v1/services/{service}/{operation}"]


def table(texts):
    sink = pa.BufferOutputStream()
    rows = pa.table({"message": texts})
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write(rows)
    return sink.getvalue().to_pybytes()


def lines(objects):
    return b"\n".join(map(msgspec.json.encode, objects))


def whole(value):
    """JSON Schema takes 3.0 for an integer, our decoders do not, and no client writes it."""
    if isinstance(value, dict):
        return {name: whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def unspeakable(value):
    """What JSON Schema has no words for: of two spellings of a field the second is payload, whatever
    it is, and the ids of a batch are distinct.
    """
    if isinstance(value, list):
        return any(map(unspeakable, value))
    if not isinstance(value, dict):
        return False
    names = value.keys()
    twice = {"message", "text"} <= names or {"conversation", "conversation_id"} <= names
    entries = value.get("entries")
    if isinstance(entries, list):
        ids = [each["id"] for each in entries if isinstance(each, dict) and "id" in each]
        twice |= any(ids.count(one) > 1 for one in ids)
    return twice or unspeakable(value.get("data"))


@pytest.fixture(autouse=True, scope="module")
def _how_to_send():
    """Bodies that a schema cannot describe, and keys that are not another body's."""
    texts = st.lists(st.text(max_size=5), min_size=1, max_size=3)
    objects = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)
    openapi.media_type(arrow.MEDIA, texts.map(table))
    openapi.media_type(LINES, st.lists(objects, min_size=1, max_size=3).map(lines))
    numbers = count()

    @schemathesis.serializer(arrow.MEDIA, LINES)
    def _raw(_context, value):
        return value if isinstance(value, bytes) else str(value).encode(errors="replace")

    @schemathesis.hook
    def map_body(context, body):
        return whole(body)

    @schemathesis.hook
    def filter_case(context, case):
        if case.operation.path == "/consumers/{group}" and isinstance(case.body, dict):
            names = (case.body.get(key) for key in ("id", "name"))
            return all(name.isprintable() for name in names if isinstance(name, str))
        topic = (case.path_parameters or {}).get("topic")
        if case.method == "POST" and topic == RAW and case.operation.path.startswith("/topics/"):
            return False  # it takes any record that is an event, which is said in words
        return not unspeakable(case.body)

    @schemathesis.hook
    def before_call(context, case, kwargs):
        key = (case.headers or {}).get("Idempotency-Key")
        if isinstance(key, str) and case.meta.generation.mode.is_positive:
            number = str(next(numbers))
            case.headers["Idempotency-Key"] = (
                key[: IDEMPOTENCY_KEY_CHARS_MAX - len(number)] + number
            )

    yield
    schemathesis.hooks.unregister_all()


def settings(url, *, examples, stateful):
    produced = {"parameters": {"path.topic": PLAIN.name}}
    reports = {"checks": {"negative_data_rejection": {"enabled": False}}}
    return {
        "seed": 1,
        "base-url": url,
        "continue-on-failure": True,
        "headers": {"Authorization": "Bearer s3cret"},
        "generation": {
            "max-examples": examples,
            "deterministic": True,
            "no-shrink": True,
            "database": "none",
        },
        "suppress-health-check": ["all"],
        "phases": {"stateful": {"enabled": stateful}},
        "operations": [
            {"include-name": "POST /topics/{topic}", **produced},
            {"include-path": REPORTED, **produced, **reports},
            {"include-path": OWN_WORDS, "checks": {"positive_data_acceptance": {"enabled": False}}},
        ],
    }


def document_of(gateway):
    """As it is served, but the example of NDJSON, which schemathesis would want as bytes, and forms,
    whose files go where their event has no attachments of its own (``test_attachments.py``).
    """
    document = msgspec.json.decode(msgspec.json.encode(described(gateway.app[GATEWAY])))
    for methods in document["paths"].values():
        for operation in methods.values():
            contents = operation.get("requestBody", {}).get("content", {})
            contents.get(LINES, {}).pop("example", None)
            contents.pop(FORM, None)
    return document


def run(gateway, document, leave_out=(), **options):
    """Cases of each operation, names of the checks that ran, and what they found."""
    config = SchemathesisConfig.from_dict(settings(gateway.url, **options))
    schema = openapi.from_dict(document, config=config)
    for method, path in leave_out:
        schema = schema.exclude(method=method, path=path)
    cases, checks, found = Counter(), set(), []
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError):
            found.append(f"{event.label}: {event.value}")
        assert not isinstance(event, events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            recorder = event.recorder
            cases[recorder.label] += len(recorder.cases)
            for name, outcomes in recorder.checks.items():
                checks.update(each.name for each in outcomes)
                found += [
                    f"{recorder.label}: {each.name}: {each.failure_info.failure}"
                    f" {recorder.cases[name].value.as_curl_command()}"
                    for each in outcomes
                    if each.status is Status.FAILURE
                ]
    return cases, checks, found


@pytest.fixture
def gateway(tmp_path):
    kept = str(tmp_path / "attachments")
    with GatewayThread(
        f"local://{tmp_path / 'log'}", token="s3cret", attachments_url=kept
    ) as running:
        yield running


def labels(gateway):
    document = described(gateway.app[GATEWAY])
    return {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }


@pytest.mark.timeout(300)
def test_what_is_described_is_so(gateway):
    cases, checks, found = run(gateway, document_of(gateway), ALIASES, examples=2, stateful=False)
    assert "\n".join(found) == ""
    expected = labels(gateway) - {" ".join(alias) for alias in ALIASES}
    assert {label for label, number in cases.items() if number} == expected
    assert cases.total() > 1000
    assert {"positive_data_acceptance", "response_schema_conformance", "ignored_auth"} <= checks
    assert checks <= set(CHECKS.get_all_names())


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_what_is_described_is_so_for_long(gateway):
    cases, _, found = run(gateway, document_of(gateway), examples=200, stateful=True)
    assert "\n".join(found) == ""
    assert cases.total() > 5000


def test_a_document_that_lies_is_found_out(gateway):
    document = document_of(gateway)
    path = document["paths"]["/brokers"]
    for content in path["get"]["responses"]["200"]["content"].values():
        content["schema"] = {"type": "array"}
    path["get"]["responses"].pop("401")
    lying = {**document, "paths": {"/brokers": path}}
    _, _, found = run(gateway, lying, examples=1, stateful=False)
    assert any("response_schema_conformance" in each for each in found)
    assert any("status_code_conformance" in each for each in found)
