"""Small operations of each scope for tests of what runs operations, and the fixture they come by."""

import os
import struct
import sys
from importlib.metadata import EntryPoint

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from streamapp.plugin import BaseOperation, Config, Refuse, Retry, column, registered


class WordsConfig(Config, frozen=True):
    text: str = "text"
    least: int = 0


class Words(BaseOperation):
    """Counts words; leaves out rows with fewer than ``least``, sets rows without text aside."""

    Config = WordsConfig
    scope = "row"
    parallel = "threads"

    def schema(self, inputs, sources):
        ((origin, schema),) = inputs.items()
        column(schema, self.config.text, origin, "config.text")
        return schema.append(pa.field("words", pa.int64()))

    def run(self, inputs):
        (table,) = inputs.values()
        missing = pc.is_null(table[self.config.text])
        if pc.any(missing).as_py():
            self.work.quarantine(table.filter(missing), "no text")
            table = table.filter(pc.invert(missing))
        words = [len(text.split()) for text in table[self.config.text].to_pylist()]
        table = table.append_column("words", pa.array(words, pa.int64()))
        self.work.advance(table.num_rows)
        if not self.config.least:
            return table
        return table.filter(pc.greater_equal(table["words"], self.config.least))


class LookupConfig(Config, frozen=True):
    source: str = "names"


class Lookup(BaseOperation):
    """Says how many rows a source has, and whether models may be asked for."""

    Config = LookupConfig

    def schema(self, inputs, sources):
        sources.source(self.config.source).schema()
        return pa.schema([("rows", pa.int64())])

    def run(self, inputs):
        rows = self.work.source(self.config.source).read().read_all().num_rows
        return pa.table({"rows": pa.array([rows], pa.int64())})


class Endless(BaseOperation):
    """Goes on until it is told to stop."""

    def schema(self, inputs, sources):
        return pa.schema([])

    def run(self, inputs):
        import time

        while True:
            self.work.advance(0)
            time.sleep(0.001)


class FailsConfig(Config, frozen=True):
    how: str = "refuse"


class Fails(BaseOperation):
    """Ends in an error of each kind."""

    Config = FailsConfig

    def schema(self, inputs, sources):
        return pa.schema([])

    def run(self, inputs):
        if self.config.how == "bug":
            raise ZeroDivisionError("secret insides")
        if self.config.how == "die":
            os._exit(3)
        if self.config.how == "hoard":
            return bytearray(64 << 30)
        kind = Retry if self.config.how == "retry" else Refuse
        code = "operation.rows" if self.config.how == "refuse" else "data.read"
        raise kind(code, "/home/x/secret.csv cannot be read", "mend it")


class PairsConfig(Config, frozen=True):
    size: int = 2


class Pairs(BaseOperation):
    """Sums ``n`` over every ``size`` rows: a window that lives on a topic."""

    Config = PairsConfig
    scope = "window"

    def __init__(self, config):
        super().__init__(config)
        self._held = []

    def schema(self, inputs, sources):
        ((origin, schema),) = inputs.items()
        column(schema, "n", origin)
        return pa.schema([("sum", pa.int64()), ("rows", pa.int64())])

    def run(self, inputs):
        (table,) = inputs.values()
        self._held = []
        return pa.concat_tables([self.feed(table), self.flush()])

    def feed(self, rows):
        self._held += rows["n"].to_pylist()
        size = self.config.size
        whole = len(self._held) // size * size
        closed, self._held = self._held[:whole], self._held[whole:]
        return _sums([closed[at : at + size] for at in range(0, whole, size)])

    def flush(self):
        held, self._held = self._held, []
        return _sums([held] if held else [])

    def state(self):
        return struct.pack(f"<{len(self._held)}q", *self._held)

    def restore(self, state):
        self._held = list(struct.unpack(f"<{len(state) // 8}q", state))


def _sums(groups):
    return pa.table(
        {
            "sum": pa.array([sum(group) for group in groups], pa.int64()),
            "rows": pa.array([len(group) for group in groups], pa.int64()),
        }
    )


POINTS = {
    f"demo.{name}": EntryPoint(f"demo.{name}", f"demo_operations:{kind}", registered.GROUP)
    for name, kind in {
        "words": "Words",
        "lookup": "Lookup",
        "endless": "Endless",
        "fails": "Fails",
        "pairs": "Pairs",
    }.items()
}


@pytest.fixture
def demo(monkeypatch):
    """The operations above, installed."""
    real = registered._points()
    monkeypatch.setattr(registered, "_points", lambda: {**real, **POINTS})
    return sorted(POINTS)


@pytest.fixture(scope="module")
def demo_everywhere(tmp_path_factory):
    """The operations above, also in processes that take over ``sys.path``."""
    site = tmp_path_factory.mktemp("site")
    info = site / "demo_operations-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-operations\nVersion: 0\n")
    lines = [f"{name} = {point.value}" for name, point in POINTS.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{registered.GROUP}]", *lines, ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(site)])
        registered._points.cache_clear()
        yield sorted(POINTS)
    registered._points.cache_clear()
