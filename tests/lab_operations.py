"""Operations that the engine's tests run: each does one thing, well or badly."""

import os
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from streamapp.plugin import BaseOperation, Cancelled, Config, Refuse, Retry, column


class Lab(BaseOperation):
    """Gives the rows that it is given; notes every call in a file, when one is named."""

    version = 1
    scope = "row"
    parallel = "processes"

    class Config(Config):
        log: str = ""
        note: str = ""

    def schema(self, inputs, sources):
        (name, given), *_ = inputs.items()
        column(given, "n", name)
        return given

    def run(self, inputs):
        table = next(iter(inputs.values()))
        self.note(table)
        return table

    def note(self, table):
        if self.config.log:
            with (self.work.folder / self.config.log).open("a") as log:
                log.write(f"{table.num_rows} {self.config.note}\n")


class Same(Lab):
    """As it is."""


class Double(Lab):
    """A column ``twice``, exactly twice ``n``."""

    def schema(self, inputs, sources):
        return super().schema(inputs, sources).append(pa.field("twice", pa.int64()))

    def run(self, inputs):
        table = super().run(inputs)
        return table.append_column("twice", pc.multiply(table["n"].cast(pa.int64()), 2))


class Threads(Double):
    """The same in threads."""

    parallel = "threads"


class Total(Lab):
    """One row: how many there are, and their sum."""

    scope = "table"
    parallel = "none"
    inputs = (1, None)

    def schema(self, inputs, sources):
        super().schema(inputs, sources)
        return pa.schema([("rows", pa.int64()), ("sum", pa.int64())])

    def run(self, inputs):
        self.note(next(iter(inputs.values())))
        n = pa.concat_tables([table.select(["n"]) for table in inputs.values()])["n"]
        return pa.table([[len(n)], [pc.sum(n).as_py() or 0]], schema=self.schema_of())

    def schema_of(self):
        return pa.schema([("rows", pa.int64()), ("sum", pa.int64())])


class Flaky(Lab):
    """Fails until it was called so many times."""

    class Config(Lab.Config):
        fails: int = 0
        refuses: bool = False

    def run(self, inputs):
        table = super().run(inputs)
        calls = len((self.work.folder / self.config.log).read_text().splitlines())
        if calls <= self.config.fails:
            kind = Refuse if self.config.refuses else Retry
            raise kind("lab.away", f"the other side is away, call {calls}", "wait")
        return table


class Waits(Lab):
    """Works on until a file is there."""

    class Config(Lab.Config):
        until: str = ""
        rows: int = 1

    def run(self, inputs):
        table = super().run(inputs)
        while not (self.work.folder / self.config.until).exists():
            self.work.advance(0)
            time.sleep(0.01)
        return table


class Hungry(Lab):
    """Holds so many megabytes."""

    class Config(Lab.Config):
        mb: int = 0

    def run(self, inputs):
        table = super().run(inputs)
        held = [b"x" * (1 << 20) for _ in range(self.config.mb)]
        while len(held) == self.config.mb:
            self.work.advance(0)
            time.sleep(0.01)
        return table


class Grabs(Lab):
    """Asks for so many gigabytes at once."""

    class Config(Lab.Config):
        gb: int = 0

    def run(self, inputs):
        bytearray(self.config.gb << 30)
        return super().run(inputs)


class Holds(Lab):
    """Holds so many megabytes also when it is done, and may wait until one of them gave way."""

    class Config(Lab.Config):
        mb: int = 0
        crowded: bool = False

    def run(self, inputs):
        table = super().run(inputs)
        self.held = b"x" * (self.config.mb << 20)
        gave_way = self.work.folder / "gave_way"
        while self.config.crowded and not gave_way.exists():
            try:
                self.work.advance(0)
            except Cancelled:
                gave_way.touch()
                raise
            time.sleep(0.01)
        return table


class Dies(Lab):
    """Its process is killed."""

    def run(self, inputs):
        os.kill(os.getpid(), signal.SIGSEGV)
        return next(iter(inputs.values()))


class Breaks(Lab):
    """Breaks its promises: another schema, or an error of no kind of ours, with a secret."""

    class Config(Lab.Config):
        how: str = "schema"
        key: str = ""

    def run(self, inputs):
        sys.stdout.write("this is printed, and is no answer\n")
        if self.config.how == "error":
            raise ZeroDivisionError(f"by nothing {self.config.key}")
        return super().run(inputs).rename_columns(["other"])


class Aside(Lab):
    """Sets odd rows aside."""

    def run(self, inputs):
        table = super().run(inputs)
        odd = pc.equal(pc.bit_wise_and(table["n"], 1), 1)
        self.work.quarantine(table.filter(odd), "n is odd")
        return table.filter(pc.invert(odd))


class Secret(Lab):
    """Needs a secret, and tells it in its error."""

    class Config(Lab.Config):
        key: str = ""
        tell: bool = False

    def run(self, inputs):
        if self.config.tell:
            raise Refuse(
                "lab.key", f"the key {self.config.key} does not fit", f"not {self.config.key}"
            )
        (self.work.folder / "key").write_text(self.config.key)
        return super().run(inputs)


class Looks(Lab):
    """Adds the rows of a declared source, which it asks for in ``schema`` or only later."""

    class Config(Lab.Config):
        source: str = ""
        late: bool = False

    def schema(self, inputs, sources):
        if not self.config.late:
            sources.source(self.config.source).schema()
        return super().schema(inputs, sources).append(pa.field("known", pa.int64()))

    def open(self, work):
        super().open(work)
        self.known = work.source(self.config.source).read().read_all().num_rows

    def run(self, inputs):
        table = super().run(inputs)
        return table.append_column("known", pa.array([self.known] * table.num_rows, pa.int64()))


NAMES = (
    "Same", "Double", "Threads", "Total", "Flaky", "Waits", "Hungry", "Grabs", "Holds", "Dies", "Breaks",
    "Aside", "Secret", "Looks",
)  # fmt: skip


def install(folder: Path) -> None:
    """Register them as a package's entry points: ``lab.same``, ``lab.double`` and so on."""
    info = folder / "lab-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1\n")
    lines = [f"lab.{name.lower()} = lab_operations:{name}" for name in NAMES]
    (info / "entry_points.txt").write_text("\n".join(["[streamapp.operations]", *lines]) + "\n")
