"""The tests that stand in a workflow's file: rows in, one stage, rows out."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from streamapp.core.errors import Refuse, StreamappError
from streamapp.core.project import read_secret
from streamapp.plugin import Sources
from streamapp.plugin.calling import CallWork, TableSources, run_operation
from streamapp.workflow.data import declared_sources
from streamapp.workflow.data.plain_rows import python_rows
from streamapp.workflow.graph.check import variants
from streamapp.workflow.graph.expressions import fill
from streamapp.workflow.graph.names import operation_name
from streamapp.workflow.graph.spec import Graph, Step, StepTest
from streamapp.workflow.run.asked import make_models
from streamapp.workflow.run.engine import Services
from streamapp.workflow.run.secrets import Redactor


class Tested(msgspec.Struct, frozen=True):
    """What came of one test; ``why`` says what differs when it did not pass."""

    stage: str
    name: str
    passed: bool
    why: str = ""


def run_tests(
    graph: Graph, services: Services, params: Mapping[str, Any] | None = None
) -> list[Tested]:
    """Run all tests of a workflow's stages, in this process; inputs are not read.

    Args:
        graph: that ``check`` passed.
        services: ``environ`` and ``models`` of it.
        params: values over those of the file.
    """
    values = {**graph.params, **(params or {})}
    return [
        _tested(graph, step, number, test, services, values)
        for step in graph.stages
        for number, test in enumerate(step.tests, 1)
    ]


def _tested(
    graph: Graph,
    step: Step,
    number: int,
    test: StepTest,
    services: Services,
    params: Mapping[str, Any],
) -> Tested:
    name = test.name or f"test {number}"
    try:
        result = _result(graph, step, test, services, params)
    except StreamappError as error:
        if test.expect_error is not None:
            same = error.code == test.expect_error
            why = "" if same else f"error {error.code}, not {test.expect_error}: {error.message}"
            return Tested(step.name, name, same, why)
        return Tested(step.name, name, passed=False, why=f"{error.code}: {error}")
    if test.expect_error is not None:
        return Tested(step.name, name, passed=False, why=f"no error, not {test.expect_error}")
    why = _difference(python_rows(result), test)
    return Tested(step.name, name, not why, why)


def _result(
    graph: Graph, step: Step, test: StepTest, services: Services, params: Mapping[str, Any]
) -> pa.Table:
    redactor = Redactor()
    folder = graph.folder.absolute()
    secret = redactor.reading(lambda reference: read_secret(reference, folder))
    values = {"params": params, **variants(step)[0]}
    work = CallWork(
        sources=_sources(test, folder),
        make_models=lambda: make_models(services.models, folder, services.environ),
        folder=folder,
    )
    with redactor.watching():
        return run_operation(
            operation_name(step.service, step.operation),
            fill(step.config, values, secret),
            _inputs(graph, step, test),
            work,
        )


def _sources(test: StepTest, folder: Path) -> Sources:
    tables = {name: _table(rows, name) for name, rows in test.sources.items()}
    return TableSources(tables, _Declared(folder))


class _Declared(Sources):
    """The project's own, looked up only when one is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def source(self, name: str) -> Any:
        return declared_sources(self._folder).source(name)


def _inputs(graph: Graph, step: Step, test: StepTest) -> dict[str, pa.Table]:
    takes = graph.takes(step)
    given = dict(test.inputs)
    if test.rows is not None and takes:
        given[takes[0]] = test.rows
    missing = next((name for name in takes if name not in given), None)
    if missing:
        fix = "give rows:, or inputs: with rows for each name"
        raise Refuse("workflow.test", f"the test gives no rows of {missing!r}", fix)
    return {name: _table(given[name], name) for name in takes}


def _table(rows: Sequence[Mapping[str, Any]], name: str) -> pa.Table:
    columns = dict.fromkeys(key for row in rows for key in row)
    try:
        return pa.table({key: [row.get(key) for row in rows] for key in columns})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        why = f"rows of {name!r}: {str(error).splitlines()[0]}"
        raise Refuse("workflow.test", why, "give values of one type in each column") from None


def _difference(rows: list[dict[str, Any]], test: StepTest) -> str:
    if test.expect_rows is not None and len(rows) != test.expect_rows:
        return f"{len(rows)} rows, not {test.expect_rows}"
    if test.expect is None:
        return ""
    if len(rows) != len(test.expect):
        return f"{len(rows)} rows, not {len(test.expect)}"
    for number, (row, wanted) in enumerate(zip(rows, test.expect, strict=True), 1):
        for name, value in wanted.items():
            if name not in row:
                return f"row {number} has no column {name!r}; it has {', '.join(row)}"
            if not _same(row[name], value, test.tolerance):
                return f"row {number}: {name} is {row[name]!r}, not {value!r}"
    return ""


def _same(value: Any, wanted: Any, tolerance: float) -> bool:
    if isinstance(value, float) and isinstance(wanted, int | float):
        return math.isclose(value, wanted, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        return all(name in value and _same(value[name], wanted[name], tolerance) for name in wanted)
    if isinstance(wanted, list | tuple) and isinstance(value, list):
        pairs = zip(value, wanted, strict=False)
        return len(value) == len(wanted) and all(_same(a, b, tolerance) for a, b in pairs)
    plain = isinstance(value, bool | int | float | str | type(None))
    return bool((value if plain else str(value)) == wanted)
