"""What a run reads and writes by the names that OpenLineage gives datasets.

See https://openlineage.io/docs/spec/naming; a file of SQLite or DuckDB, which it does not know, is
the namespace and its table the name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from streamapp.core.errors import StreamappError
from streamapp.core.project import project_table
from streamapp.workflow.data import format_of
from streamapp.workflow.data.places import resolve_url
from streamapp.workflow.graph.spec import Input, Output
from streamapp.workflow.run.facets import facet

_IN_A_FILE = ("sqlite", "duckdb")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows somewhere.

    Attributes:
        namespace: where.
        name: which of those there.
        schema: their columns, where known.
    """

    namespace: str
    name: str
    schema: pa.Schema | None = None

    def told(
        self, *, input_rows: int | None = None, output_rows: int | None = None
    ) -> dict[str, Any]:
        """As an event has it."""
        facets = {}
        if self.schema is not None:
            fields = [{"name": field.name, "type": str(field.type)} for field in self.schema]
            facets["schema"] = facet("SchemaDatasetFacet", fields=fields)
        told: dict[str, Any] = {"namespace": self.namespace, "name": self.name, "facets": facets}
        if input_rows is not None:
            counted = facet("InputStatisticsInputDatasetFacet", rowCount=input_rows)
            told["inputFacets"] = {"inputStatistics": counted}
        if output_rows is not None:
            counted = facet("OutputStatisticsOutputDatasetFacet", rowCount=output_rows)
            told["outputFacets"] = {"outputStatistics": counted}
        return told


def of_input(declared: Input, folder: Path, schema: pa.Schema | None = None) -> Dataset:
    """What an input, or a declared source, reads.

    Args:
        declared: in the workflow or in ``streamapp.toml``.
        folder: where its paths begin.
        schema: its columns, where known.
    """
    if declared.source is not None:
        return of_source(declared.source, folder, schema)
    table = declared.table or ("query" if declared.query else "")
    if declared.url is not None:
        return _remote(declared.url, table, folder, schema)
    pattern = declared.path or declared.pattern or ""
    where = pattern if isinstance(pattern, str) else ",".join(pattern)
    form = declared.format or (declared.type if declared.type in _IN_A_FILE else "")
    return _file(folder.absolute() / where, form, table, schema)


def of_source(name: str, folder: Path, schema: pa.Schema | None = None) -> Dataset:
    """What ``[sources.NAME]`` reads."""
    from streamapp.workflow.data.declared import declared_input

    tables, home = project_table("sources", folder)
    if name not in tables:
        return Dataset("streamapp", name, schema)
    return of_input(declared_input(name, tables[name]), home, schema)


def of_output(declared: Output, path: str, schema: pa.Schema | None = None) -> Dataset:
    """What an output was written to.

    Args:
        declared: in the workflow.
        path: that was written.
        schema: its columns, where known.
    """
    if declared.url is not None:
        return _remote(declared.url, declared.table or "", Path.cwd(), schema)
    return _file(Path(path).absolute(), declared.format or "", declared.table or "", schema)


def _file(path: Path, form: str, table: str, schema: pa.Schema | None) -> Dataset:
    if form in _IN_A_FILE or (table and not form):
        kind = form or format_of(path)
        return Dataset(f"{kind}://{path}", table or path.stem, schema)
    return Dataset("file", str(path), schema)


def _remote(url: str, table: str, folder: Path, schema: pa.Schema | None) -> Dataset:
    """A server without who asks it; a URL in a secret that is not there stays a reference."""
    try:
        parts = urlsplit(resolve_url(url, folder, "lineage")[0])
    except StreamappError:
        return Dataset(url, table or url, schema)
    host = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    if parts.scheme.startswith("postgres"):
        database = parts.path.strip("/")
        dotted = table if "." in table else f"public.{table}"
        return Dataset(f"postgres://{host}", f"{database}.{dotted}", schema)
    return Dataset(f"{parts.scheme}://{host}", parts.path or "/", schema)
