"""What readers of files share: many files as one run of rows with one schema."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from streamapp.core.errors import Refuse, Retry
from streamapp.workflow.data.contract import BadRow, Key, Options, Place

#: Files whose beginnings are looked at for the schema.
LOOKED_AT_MAX = 100
#: Bad rows after which they may not be more than the good ones.
BAD_MAX = 1_000
#: How much of a bad row is kept.
TEXT_MAX = 10_000


class FileReader:
    """Reads files one after the other; a format says how it reads one.

    A column that a file lacks is null in its rows.  The schema is what the first
    ``LOOKED_AT_MAX`` files have together; numbers of several types become the widest of them.
    """

    Options: ClassVar[type[Options]] = Options
    suffixes: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[frozenset[Key]] = frozenset({"path", "pattern"})

    def __init__(self, place: Place, options: Any) -> None:
        self.place, self.options = place, options
        self._schema: pa.Schema | None = None
        self._good = self._bad = 0

    def schema(self) -> pa.Schema:
        """As ``Reader.schema``."""
        if self._schema is None:
            looked_at = self.place.paths[:LOOKED_AT_MAX]
            self._schema = self.joined([(path, self._learned(path)) for path in looked_at])
        return self._schema

    def read(self) -> pa.RecordBatchReader:
        """As ``Reader.read``."""
        return pa.RecordBatchReader.from_batches(self.schema(), self._read(self.schema()))

    def schema_of(self, path: Path) -> pa.Schema:
        """The columns of one file; subclasses say.

        Raises:
            Refuse, OSError, pa.ArrowException: it cannot be read.
        """
        raise NotImplementedError

    def batches_of(self, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows of one file, with such columns of ``schema`` as it has; subclasses say."""
        raise NotImplementedError

    def joined(self, schemas: list[tuple[Path, pa.Schema]]) -> pa.Schema:
        """One schema of those of several files.

        Raises:
            Refuse: a column has types that no type holds both of.
        """
        known, first = schemas[0][1], schemas[0][0]
        for path, schema in schemas[1:]:
            try:
                known = pa.unify_schemas([known, schema], promote_options="permissive")
            except pa.ArrowException:
                name = next(name for name in schema.names if _differ(known, schema, name))
                raise Refuse(
                    "data.schema",
                    f"column {name!r} is {known.field(name).type} in {first}, and "
                    f"{schema.field(name).type} in {path}",
                    "make them alike, or give each an input of its own",
                ) from None
        return known

    def bad(self, path: Path, line: int | None, reason: str, text: str = "") -> None:
        """Hand a bad row to who takes them.

        Raises:
            Refuse: most rows are bad, so that it is rather the declaration.
        """
        self._bad += 1
        if self._bad > BAD_MAX and self._bad > self._good:
            raise Refuse(
                "data.bad_rows",
                f"{self.shown(path)}: of {self._good + self._bad} rows {self._bad} are bad, the "
                f"last one because {reason}",
                "check its format and its options",
            )
        self.place.on_bad(BadRow(self.shown(path), line, reason, text[:TEXT_MAX]))

    def shown(self, path: Path) -> str:
        """The file as the workflow's author would name it."""
        folder = self.place.folder.absolute()
        return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)

    def checked(self, schema: pa.Schema, path: Path) -> pa.Schema:
        """The schema.

        Raises:
            Refuse: ``data.duplicate``: two of its columns have one name.
        """
        twice = next((name for name, count in Counter(schema.names).items() if count > 1), None)
        if twice is not None:
            why = f"{self.shown(path)} has two columns that are called {twice!r}"
            raise Refuse("data.duplicate", why, "rename one of them")
        return schema

    def _learned(self, path: Path) -> pa.Schema:
        return self._guarded(path, lambda: self.schema_of(path))

    def _read(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        self._good = self._bad = 0
        for path in self.place.paths:
            batches = self.batches_of(path, schema)
            while (batch := self._guarded(path, lambda: next(batches, None))) is not None:  # noqa: B023
                self._good += batch.num_rows
                yield conform(batch, schema, self.shown(path))

    def _guarded(self, path: Path, step: Callable[[], Any]) -> Any:
        """What ``step`` returns; its errors name the file and say what to do."""
        try:
            return step()
        except FileNotFoundError:
            raise Retry(
                "source.died", f"{self.shown(path)} went away while it was read", "bring it back"
            ) from None
        except (OSError, pa.ArrowException, EOFError, UnicodeDecodeError) as error:
            reason = str(error).partition("\n")[0]
            raise Refuse(
                "data.file", f"{self.shown(path)}: {reason}", "check that it is whole"
            ) from None


def conform(batch: pa.RecordBatch, schema: pa.Schema, origin: str) -> pa.RecordBatch:
    """The batch with the columns of ``schema``, in their order; null where it has none.

    Raises:
        Refuse: it has a column that ``schema`` has not, or values that do not fit its type.
    """
    if batch.schema.equals(schema):
        return batch
    for name in batch.schema.names:
        if name not in schema.names:
            raise Refuse(
                "data.schema",
                f"{origin} has a column {name!r}, which the files before it have not",
                "give it an input of its own, or put it first",
            )
    arrays = []
    for wanted in schema:
        index = batch.schema.get_field_index(wanted.name)
        if index < 0:
            arrays.append(pa.nulls(batch.num_rows, wanted.type))
            continue
        try:
            arrays.append(batch.column(index).cast(wanted.type))
        except pa.ArrowException as error:
            raise Refuse(
                "data.schema",
                f"{origin}: column {wanted.name!r}: {str(error).partition(chr(10))[0]}",
                "make its files alike, or give each an input of its own",
            ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _differ(left: pa.Schema, right: pa.Schema, name: str) -> bool:
    index = left.get_field_index(name)
    if index < 0 or left.field(index).type == right.field(name).type:
        return False
    try:
        pa.unify_schemas(
            [pa.schema([left.field(index)]), pa.schema([right.field(name)])],
            promote_options="permissive",
        )
    except pa.ArrowException:
        return True
    return False
