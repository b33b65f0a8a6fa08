"""What docs/models.md says of serving is what the code has."""

import dataclasses
import re
import shlex

import duckdb
import numpy as np
from click import Command
from inference_models import registry_of
from pages import page

from streamapp.cli.models import models
from streamapp.core.metrics import Metrics
from streamapp.core.settings import Settings
from streamapp.models.serving.live import LOOK_S
from streamapp.models.serving.policy import Policy
from streamapp.models.tuned import FILE
from streamapp.models.tuning.search import Limits

SECTION = page("models").section("Serving")


def test_the_commands_are_there_with_these_options():
    for line in "\n".join(SECTION.blocks("bash")).splitlines():
        if not line:
            continue
        _, _, verb, *arguments = shlex.split(line)
        command = models.commands[verb]
        assert isinstance(command, Command)
        known = {option for given in command.params for option in given.opts}
        assert {word for word in arguments if word.startswith("--")} <= known, line


def test_defaults_and_names():
    rows = re.findall(r"^\| (`\w+`.*?) \| (.*?) \| (.*?) \|$", SECTION, re.MULTILINE)
    said = {name: default for names, default, _ in rows for name in re.findall(r"`(\w+)`", names)}
    policy = Policy()
    for name in ("batch_rows_max", "wait_ms_max", "queue_rows_max", "queue_s_max"):
        assert float(said[name]) == getattr(policy, name), name
    assert said["replicas_min"] == "1, one per core"
    assert (policy.replicas_min, policy.replicas_max) == (1, 0)
    assert set(said) <= {field.name for field in dataclasses.fields(Policy)}
    assert f"`grow_ms` ({policy.grow_ms:.0f})" in SECTION
    assert f"`idle_s` ({policy.idle_s:.0f})" in SECTION
    assert f"`--cosine-min`, {Limits().cosine_min}" in SECTION
    assert f"`{FILE}`" in SECTION
    assert LOOK_S == 1.0  # once a second
    assert Settings().models_bytes_max == 0


def test_the_program_runs(tmp_path):
    [program] = SECTION.blocks("python")
    names = {}
    exec(program.replace("tensor/risk@champion", "tensor/double@1"), names)
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(names["answers"](registry_of(tmp_path), rows), 2 * rows)


def test_the_query_is_one():
    [query] = SECTION.blocks("sql")
    found = duckdb.execute(
        "create temp table provenance as select * from (values (1, 'a'), (2, 'b')) t(id, detail);"
        "create temp table events as select * from (values (0, 7, 1), (0, 8, 1), (0, 9, 2)) "
        "t(source_partition, source_offset, provenance);" + query
    ).fetchall()
    assert found == [("a", 7, 2), ("b", 9, 1)]


def test_every_metric_of_models_is_named():
    exported = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in Metrics().registry.collect()
        if metric.name.startswith("streamapp_model_")
    }
    assert exported
    assert {name for name in exported if f"`{name}`" not in SECTION} == set()
