"""``streamapp.services.call``: an operation on a table at hand, Arrow in and Arrow out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.plugin.calling import CallWork, TableSources, project_models, run_operation, table_of

if TYPE_CHECKING:
    from streamapp.plugin import Models, Sources


def call(
    name: str,
    /,
    *tables: Any,
    inputs: Mapping[str, Any] | None = None,
    sources: "Mapping[str, Any] | Sources | None" = None,
    models: "Models | None" = None,
    aside: list[tuple[pa.Table, str]] | None = None,
    **config: Any,
) -> pa.Table:
    """Run ``service.operation`` on tables, like ``call("text.analyze", table, sentences=True)``.

    A table is anything that speaks Arrow's C interface (pyarrow, polars, pandas, DuckDB, nanoarrow;
    not copied, but texts in the layout of views), or a list of dicts.  The result is a
    ``pyarrow.Table``, which speaks it too.

    Args:
        name: of the operation.
        tables: its inputs, in order; they are called ``input``, ``input2``, ...
        inputs: in place of ``tables``, by names that messages and lineage then use.
        sources: what its config names beside its inputs: tables by name, or declared sources.
        models: in place of those that the project declares.
        aside: takes bad rows, each with the reason; without it they are an error.
        config: as in a workflow's file.

    Raises:
        Refuse: no such operation, the config or a table does not fit it, or, without ``aside``,
            ``operation.aside``: there were bad rows.
        Retry: something outside does not answer.
    """
    given = inputs or {f"input{n if n > 1 else ''}": each for n, each in enumerate(tables, 1)}
    found: Sources
    if sources is None or isinstance(sources, Mapping):
        found = TableSources({key: table_of(each, key) for key, each in (sources or {}).items()})
    else:
        found = sources
    work = CallWork(found, project_models if models is None else lambda: models)
    named = {key: table_of(each, key) for key, each in given.items()}
    result = run_operation(name, config, named, work)
    if aside is not None:
        aside.extend(work.aside)
    elif work.aside:
        reason = work.aside[0][1]
        raise Refuse(
            "operation.aside",
            f"{name} set rows aside ({sum(bad.num_rows for bad, _ in work.aside):,}): {reason}",
            "correct them, or pass aside=[] to take them and go on",
        )
    return result
