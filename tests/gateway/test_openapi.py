"""The document says what the app has, no more and no less."""

from functools import partial

import jsonschema_rs
import msgspec
import pytest
from gateway_thread import GatewayThread
from jsonschema import Draft202012Validator

from streamapp.core.errors import Reject
from streamapp.gateway import openapi
from streamapp.gateway.app import GATEWAY
from streamapp.gateway.cloudevents import stamp_envelope
from streamapp.gateway.confluent import records3, v2, wire, wire3
from streamapp.gateway.stamp import stamp

SCHEMAS = "#/components/schemas/"


@pytest.fixture(scope="module")
def running():
    with GatewayThread(token="s3cret") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def document(running):
    return openapi.openapi(running.app[GATEWAY])


def operations(document):
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def walk(value):
    """Every object of a JSON value."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from walk(each)


def test_every_route_is_described_and_none_is_made_up(running, document):
    there = {
        (route.method, route.resource.canonical)
        for route in running.app.router.routes()
        if route.method != "HEAD"  # the router's own, beside a GET
    }
    described = [(method, path) for method, path, _ in operations(document)]
    assert len(described) == len(openapi.operations()), "one is there twice"
    assert set(described) == there


def test_names_are_unique_and_references_lead_somewhere(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in document["tags"]}
    assert {tag for _, _, operation in operations(document) for tag in operation["tags"]} == tags
    for each in walk(document):
        if "$ref" in each:
            found = document
            for step in each["$ref"].removeprefix("#/").split("/"):
                found = found[step]


def test_every_schema_is_one(document):
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_example_is_what_its_schema_says(document):
    checked = 0
    for each in walk(document["paths"]):
        for content in each.get("content", {}).values():
            if "example" in content:
                schema = {**content["schema"], "components": document["components"]}
                Draft202012Validator(schema).validate(content["example"])
                checked += 1
    assert checked >= 8


def test_every_path_parameter_is_there(document):
    for _, path, operation in operations(document):
        said = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
        assert [f"{{{name}}}" in path for name in said] == [True] * path.count("{")


def test_a_guarded_operation_says_its_scope_and_an_open_one_none(document):
    asked = {(m, p): o.get("security") for m, p, o in operations(document)}
    assert asked["POST", "/v1/events/{topic}"] == [{"token": ["produce:{topic}"]}]
    assert asked["GET", "/v3/clusters"] == [{"token": []}]
    assert asked["GET", "/healthz"] is None
    assert asked["POST", "/webhooks/{source}"] is None
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_a_gateway_without_tokens_says_so():
    with GatewayThread() as gateway:
        document = openapi.openapi(gateway.app[GATEWAY])
    assert "securitySchemes" not in document["components"]
    assert not any("security" in operation for _, _, operation in operations(document))


@pytest.mark.parametrize(
    ("described", "decoded"),
    [
        (wire.JsonRecord, v2._Record),
        (wire.TextRecord, v2._Record),
        (wire.BinaryRecord, v2._Record),
        (wire.HeaderV2, v2._Header),
        (wire3.RecordV3, records3.Record),
        (wire3.EntryV3, records3.Entry),
        (wire3.HeaderV3, records3.Header),
    ],
)
def test_what_is_described_has_the_fields_that_are_read(described, decoded):
    """Decoders keep keys and values as they were sent; the description says what they may be."""

    def names(kind):
        return {field.encode_name for field in msgspec.structs.fields(kind)}

    assert names(described) == names(decoded)


def is_described(document, name, value):
    schema = {"$ref": SCHEMAS + name, "components": document["components"]}
    # JSON Schema's "$" is the end, as here; Python's is also before a last newline.
    return jsonschema_rs.Draft202012Validator(schema).is_valid(value)


def is_taken(value):
    """As one event, or as one CloudEvent in the JSON event format."""
    one = partial(stamp, source="/s", received_us=0, bytes_max=10_000)
    try:
        if "specversion" in value:
            stamp_envelope(one, msgspec.json.encode(value), 10_000)
        else:
            one(msgspec.json.encode(value))
    except Reject:
        return False
    return True


@pytest.mark.parametrize("name", ["id", "type", "source"])
@pytest.mark.parametrize("spoilt", ["\0", "a\n", "\x1f", "\x7f", "\x9f", "\ufdd0", "\uffff", " é\u2028", "😀\ufffd", "x" * 512, "x" * 513])  # fmt: skip
def test_texts_that_become_attributes_are_described_as_they_are_taken(document, name, spoilt):
    event = {name: spoilt}
    assert is_described(document, "Event", event) == is_taken(event)
    cloud = {"specversion": "1.0", "id": "1", "source": "/s", "type": "T", **event}
    assert is_described(document, "CloudEvent", cloud) == is_taken(cloud) == is_taken(event)


@pytest.mark.parametrize("name", ["shop", "partitionkey"])
@pytest.mark.parametrize("said", [1 << 31, (1 << 31) - 1, -(1 << 31), -(1 << 31) - 1, True, None, 1.5, "a\x1b", "x" * 513])  # fmt: skip
def test_extensions_are_described_as_they_are_taken(document, name, said):
    cloud = {"specversion": "1.0", "id": "1", "source": "/s", "type": "T", name: said}
    assert is_described(document, "CloudEvent", cloud) == is_taken(cloud)


async def test_the_document_and_the_page_are_open(start):
    guarded = await start(token="s3cret")
    async with guarded.http.get(guarded.url + "/openapi.json") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert (await answer.json())["openapi"].startswith("3.1")
    async with guarded.http.get(guarded.url + "/docs") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")


def test_what_any_guarded_route_may_answer_is_said_of_each(document):
    for method, path, operation in operations(document):
        if "security" in operation:
            missing = {"401", "403", "429", "503"} - operation["responses"].keys()
            assert not missing, f"{method} {path}"
