"""The JSON Schema for editors takes what the loader takes, and marks what it refuses."""

from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from streamapp.plugin.registered import known
from streamapp.workflow.data import readers, writers
from streamapp.workflow.graph.names import ALIASES
from streamapp.workflow.graph.schema import json_schema

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def stage(**keys):
    return {
        "name": "w",
        "stages": [{"name": "s", "service": "text", "operation": "analyze", **keys}],
    }


def errors(content):
    return [error.message for error in VALIDATOR.iter_errors(content)]


def test_it_is_a_schema_that_knows_all_that_is_installed():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    step = SCHEMA["$defs"]["Step"]
    declared = {
        (service, rule["if"]["properties"]["operation"]["const"])
        for rule in step["allOf"]
        if "operation" in rule["if"]["properties"]
        for service in rule["if"]["properties"]["service"]["enum"]
    }
    for name in known():
        service, _, operation = name.partition(".")
        assert (service, operation) in declared
    assert set(ALIASES) < set(step["properties"]["service"]["enum"])
    assert set(readers()) < set(SCHEMA["$defs"]["Input"]["properties"]["type"]["enum"])
    assert SCHEMA["$defs"]["Output"]["properties"]["format"]["anyOf"][0]["enum"] == list(writers())


def test_every_key_says_what_it_is():
    for kind in (
        "Step",
        "Input",
        "Output",
        "RetryPolicy",
        "Resources",
        "CsvOptions",
        "HttpOptions",
    ):
        unsaid = [
            name for name, key in SCHEMA["$defs"][kind]["properties"].items()
            if "description" not in key and name != "description"
        ]  # fmt: skip
        assert unsaid == [], kind


def test_every_example_of_the_project_is_valid():
    examples = sorted(Path(__file__).parents[3].glob("examples/workflows/*/workflow.yaml"))
    assert len(examples) >= 3
    for path in examples:
        assert errors(YAML(typ="safe").load(path)) == [], path


@pytest.mark.parametrize("content", [
    {"name": "w", "version": 1.0},
    stage(depends_on="a", inputs="b", retry=3, service="gospel"),
    stage(depends_on=["a"], retry={"max": 2}, config={"extract_keywords": True}),
    stage(config={"extract_keywords": "${params.keywords}"}),
    stage(service="python", operation="module:function", config={"anything": 1}),
    {"name": "w", "inputs": {"x": {"path": "a", "format": "csv", "options": {"delimiter": ";"}}}},
])  # fmt: skip
def test_what_a_file_may_say_is_valid(content):
    assert errors(content) == []


@pytest.mark.parametrize(("content", "why"), [
    ({}, "'name' is a required property"),
    (stage(servce="x"), "'servce' was unexpected"),
    (stage(service="txt"), "'txt' is not one of"),
    (stage(service="pipeline", operation="filtr"), "'filtr' is not one of"),
    (stage(service="gospel", operation="analyse"), "'analyse' is not one of"),
    (stage(config={"extract_keyword": True}), "'extract_keyword' was unexpected"),
    (stage(service="gospel", config={"extract_keyword": True}), "'extract_keyword' was unexpected"),
    (stage(on_failure="stop"), "'stop' is not one of"),
    ({"name": "w", "inputs": {"x": {"path": "a", "format": "csv", "options": {"delim": ";"}}}}, "'delim' was unexpected"),
    ({"name": "w", "inputs": {"x": {"type": "http", "url": "u", "options": {"pages": 1}}}}, "'pages' was unexpected"),
    ({"name": "w", "outputs": {"x": {"source": "a", "format": "text"}}}, "is not valid under any"),
])  # fmt: skip
def test_what_a_file_may_not_say_is_marked(content, why):
    assert any(why in message for message in errors(content)), errors(content)
