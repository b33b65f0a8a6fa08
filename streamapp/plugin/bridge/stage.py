"""A project's function as a stage of events: ``python:module:function`` in ``workflow.toml``."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from streamapp.core.batch import Batch
from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.plugin.bridge.operation import arrow_types
from streamapp.plugin.bridge.place import python_place
from streamapp.plugin.bridge.process import FunctionProcess
from streamapp.plugin.stage import BaseStage, Columns, Models, check_columns

PREFIX = "python:"


class FunctionStage(BaseStage):
    """Calls the function with the columns of ``reads``; it gives those of ``writes``.

    A function of rows returns a dict of them, one of tables a table with as many rows.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.accepts = {"reads": list, "writes": dict, "arguments": dict, "timeout_s": float}
        super().__init__(options)
        self.reads = tuple(self.options.get("reads", ["text"]))
        self._types: dict[str, str] = self.options.get("writes", {})
        check_columns(name, self.reads, self._types)
        self.writes = arrow_types(self._types, f'[stages."{name}"] writes')
        self._arguments: dict[str, Any] = self.options.get("arguments", {})
        self._process = FunctionProcess(
            name.removeprefix(PREFIX), python_place(), float(self.options.get("timeout_s", 60.0))
        )

    def open(self, models: Models) -> None:  # noqa: ARG002  # the contract's
        self._process.takes  # noqa: B018  # starts it

    def enrich(self, batch: Batch) -> Columns:
        table = pa.table({name: batch.column(name) for name in self.reads})
        try:
            found = self._process.call(table, self._arguments, self._types)
        except (Refuse, Retry) as error:  # one row may be what it stumbles over
            raise Reject(error.code, error.message, error.fix) from None
        missing = [name for name in self.writes if name not in found.schema.names]
        if missing or found.num_rows != len(batch):
            what = f"no column {missing[0]!r}" if missing else f"{found.num_rows:,} rows"
            raise Reject(
                "stage.result",
                f"stage {self.name!r} returned {what} for {len(batch):,} rows",
                "return a row of all its columns for each",
            )
        return {
            name: found.column(name).cast(kind).combine_chunks()
            for name, kind in self.writes.items()
        }

    def close(self) -> None:
        self._process.close()
