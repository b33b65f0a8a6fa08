"""JSON lines and JSON as outputs."""

from typing import Any, ClassVar

import pyarrow as pa

from streamapp.workflow.data.contract import Key, Options, Place
from streamapp.workflow.data.plain_rows import json_rows
from streamapp.workflow.data.replacing import replaced


class JsonLinesWriter:
    """An object on each line."""

    Options: ClassVar[type[Options]] = Options
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")
    takes: ClassVar[frozenset[Key]] = frozenset({"path"})
    _before, _between, _after = b"", b"\n", b"\n"

    def __init__(self, place: Place, options: Any) -> None:
        self.path, self.options = place.paths[0], options

    def write(self, rows: pa.RecordBatchReader) -> int:
        """As ``Writer.write``."""
        count = 0
        with replaced(self.path) as part, part.open("wb") as file:
            file.write(self._before)
            for batch in rows:
                if batch.num_rows:
                    file.write(self._between if count else b"")
                    file.write(self._between.join(json_rows(batch)))
                    count += batch.num_rows
            file.write(self._after if count or self._before else b"")
        return count


class JsonWriter(JsonLinesWriter):
    """An array of objects, one on each line."""

    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    _before, _between, _after = b"[\n", b",\n", b"\n]\n"
