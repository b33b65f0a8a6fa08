"""What an operation is offered, in a test: no engine, no project."""

from pathlib import Path

import msgspec
import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.plugin.testing import HashModels


class TableSource:
    """A declared source that is a table."""

    def __init__(self, name, table):
        self.name, self.table = name, table

    def schema(self):
        return self.table.schema

    def read(self):
        return self.table.to_reader()


class TableWork:
    """A ``Work`` that counts what it is told."""

    def __init__(self, models=None, sources=None, threads=1, memory_bytes_max=1 << 30):
        self.models = models or HashModels()
        self.folder = Path()
        self.threads, self.memory_bytes_max = threads, memory_bytes_max
        self.sources = {name: TableSource(name, table) for name, table in (sources or {}).items()}
        self.done = 0
        self.set_aside = []

    def source(self, name):
        if name not in self.sources:
            raise Refuse("sources.unknown", f"no source is called {name!r}", "declare it")
        return self.sources[name]

    def advance(self, rows):
        self.done += rows

    def quarantine(self, rows, reason):
        self.set_aside.append((rows, reason))

    @property
    def bad_rows(self):
        """Every row that was set aside, with its reason."""
        return [(row, reason) for rows, reason in self.set_aside for row in rows.to_pylist()]


def made(kind, config, work=None, **inputs):
    """An operation of a plain config, planned and opened; and the schema it said."""
    work = work or TableWork()
    operation = kind(msgspec.convert(config, kind.Config))
    schema = operation.schema({name: table.schema for name, table in inputs.items()}, work)
    operation.open(work)
    return operation, schema


def result(kind, config, work=None, **inputs):
    """What an operation makes of tables; its schema is what it said."""
    work = work or TableWork()
    _, schema = made(kind, config, work, **inputs)
    operation = kind(msgspec.convert(config, kind.Config))  # works where another one was planned
    operation.open(work)
    try:
        table = operation.run(inputs)
    finally:
        operation.close()
    assert table.schema.equals(schema), (table.schema, schema)
    assert isinstance(table, pa.Table)
    table.validate(full=True)
    return table
