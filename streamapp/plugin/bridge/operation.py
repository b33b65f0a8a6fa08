"""A project's function as an operation: ``service: python``, ``operation: "module:function"``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from msgspec import Meta, field

from streamapp.core.errors import Refuse
from streamapp.plugin.bridge.place import python_place
from streamapp.plugin.bridge.process import FunctionProcess
from streamapp.plugin.operation import BaseOperation, Config, Operation, Sources, Work

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class FunctionConfig(Config, frozen=True):
    """How a function is called.

    Args:
        columns: of a function of rows (its first parameter is annotated as ``dict``): what it adds
            to a row, with Arrow's names of their types; None in place of a row's dict leaves the
            row out.  A function of tables needs none: it is asked with no rows.
        scope: of a function of tables: ``row`` when any cut of its rows may be given to it.
        arguments: its keyword arguments.
        timeout_s: of one call.
    """

    columns: dict[str, str] = field(default_factory=dict)
    scope: Literal["row", "table"] = "table"
    arguments: dict[str, Any] = field(default_factory=dict)
    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 600.0


class FunctionOperation(BaseOperation):
    """A function in its own process; a subclass names it, and the folder it is looked for from."""

    Config = FunctionConfig
    target = ""
    folder = Path()

    def __init__(self, config: FunctionConfig) -> None:
        super().__init__(config)
        self._process = FunctionProcess(self.target, python_place(self.folder), config.timeout_s)
        self._takes = self._process.takes
        if self._takes == "row":
            arrow_types(config.columns, "config.columns")
            self.scope, self.parallel = "row", "processes"  # type: ignore[misc]  # of this one
        elif config.scope == "row":
            self.scope = "row"  # type: ignore[misc]  # of this one

    def schema(
        self,
        inputs: Mapping[str, pa.Schema],
        sources: Sources,  # noqa: ARG002  # the contract's
    ) -> pa.Schema:
        """What it returns for no rows; its own process is asked."""
        (schema,) = inputs.values()
        return self._called(schema.empty_table()).schema

    def open(self, work: Work) -> None:
        super().open(work)
        self._process.takes  # noqa: B018  # starts it

    def run(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        (table,) = inputs.values()
        found = self._called(table)
        self.work.advance(table.num_rows)
        return found

    def close(self) -> None:
        self._process.close()

    def _called(self, table: pa.Table) -> pa.Table:
        return self._process.call(table, self.config.arguments, self.config.columns)


def of_function(target: str, folder: Path) -> type[Operation]:
    """The operation that calls ``module:function``; nothing is imported.

    Args:
        target: the function.
        folder: whose project says where modules are.

    Raises:
        Refuse: ``interop.target``: it is written otherwise.
    """
    if not _TARGET.fullmatch(target):
        raise Refuse(
            "interop.target", f"{target!r} is no module:function", "write python:module:function"
        )
    return type("FunctionOperation", (FunctionOperation,), {"target": target, "folder": folder})


def arrow_types(columns: Mapping[str, str], key: str) -> dict[str, pa.DataType]:
    """Columns by name with their types.

    Raises:
        Refuse: a type that Arrow does not know by name.
    """
    found = {}
    for name, kind in columns.items():
        try:
            found[name] = pa.type_for_alias(kind)
        except ValueError:
            raise Refuse(
                "interop.type",
                f"{key}: column {name!r} has unknown type {kind!r}",
                "use an Arrow type's name such as int32, float64, string, bool",
            ) from None
    return found
