"""The published schema and the decoder agree on every key and on what it takes."""

import json

import pytest

from streamapp.core.errors import Reject
from streamapp.core.event import KEY_CHARS_MAX, parse_event
from streamapp.topics.catalogue import RAW, defaults, load

SCHEMA = json.loads((defaults("topics") / "schemas" / load()[RAW].schema).read_text())
VALUES = {"string": "2026-01-01T00:00:00Z", "integer": 7, "number": 1.5, "null": None,
          "boolean": True, "array": [1], "object": {"a": 1}}  # fmt: skip


def taken(key, value):
    try:
        return key not in json.loads(parse_event(json.dumps({key: value}).encode()).payload)
    except Reject:
        return False


@pytest.mark.parametrize("key", SCHEMA["properties"])
def test_a_declared_key_is_a_field_of_the_declared_types(key):
    declared = SCHEMA["properties"][key]
    types = set(declared.get("type", VALUES))
    if "number" in types:
        types.add("integer")
    assert {name for name, value in VALUES.items() if taken(key, value)} == types
    if "maxLength" in declared:
        assert declared["maxLength"] == KEY_CHARS_MAX
        assert not taken(key, "x" * (KEY_CHARS_MAX + 1))


def test_any_other_key_is_payload():
    assert not taken("anything_else", 1)
