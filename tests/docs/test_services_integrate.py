"""What docs/services.md says of integration: its program and workflow run, its tables are the code's."""

import json
import re
from typing import get_args

import msgspec
import pyarrow as pa
import pytest
from pages import page
from table_work import TableWork, result

from streamapp.services.integrate.config import Gathered, Integration, Mode, Strategy
from streamapp.services.integrate.operation import Integrate
from streamapp.workflow.graph.load import load_graph

SECTION = page("services").section("Integrate")


def first_cells(heading):
    rows = SECTION[SECTION.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]


@pytest.mark.parametrize("program", SECTION.blocks("python"))
def test_the_program_runs(program):
    exec(compile(program, "docs/services.md", "exec"), {"__name__": "example"})


def test_the_workflow_s_config_integrates(tmp_path):
    (tmp_path / "workflow.yaml").write_text(SECTION.blocks("yaml")[0])
    [step] = load_graph(tmp_path / "workflow.yaml").stages
    common = {
        "first": ["Ann"],
        "last": ["Lee"],
        "dob": ["1980-01-02"],
        "updated_at": ["2026-01-01"],
    }
    sources = {
        "web": {"id": pa.nulls(1, pa.string()), "given_name": ["Ann"], "surname": ["Lea"],
                "dob": ["1980-01-02"], "updated_at": ["2026-01-02"], "amount": [2], "email": ["w@x"]},
        "billing": {"cust": ["7"], **common, "amount": [3], "email": ["b@x"], "internal": ["?"]},
    }  # fmt: skip
    work = TableWork(sources={name: pa.table(columns) for name, columns in sources.items()})
    crm = pa.table({"customer_id": ["7"], **common, "amount": [1], "email": ["c@x"]})
    [row] = result(Integrate, json.loads(json.dumps(step.config)), work, crm=crm).to_pylist()
    assert (row["last"], row["amount"], row["email"]) == ("Lea", 6, "c@x")
    assert row["_sources"] == ["crm", "web", "billing"]


def test_every_key_mode_and_strategy_is_there():
    both = set(Gathered.__struct_fields__)
    assert set(first_cells("config of both")) == both
    assert set(first_cells("config of integrate")) == set(Integration.__struct_fields__) - both
    assert set(first_cells("mode")) == set(get_args(Mode))
    assert set(first_cells("strategy")) == set(get_args(Strategy))


def test_the_defaults_are_those_of_the_code():
    shown = dict(re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|", SECTION, re.MULTILINE))
    fields = {field.name: field.default for field in msgspec.structs.fields(Integration)}
    assert shown
    assert {name: str(fields[name]) for name in shown} == shown
