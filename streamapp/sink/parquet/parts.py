"""Rows into Parquet files, and files into Arrow datasets."""

import io
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from streamapp.core.batch import TIME
from streamapp.core.errors import Refuse
from streamapp.sink import intake
from streamapp.sink.intake import Intake
from streamapp.sink.parquet.manifest import File, Range
from streamapp.sink.parquet.place import Place

#: Numbers all rows in the order in which they were stored, from 0 on.
ORDER = "stored_order"
ORDER_FIELD = pa.field(ORDER, pa.int64(), nullable=False)
#: Of 384 dimensions that is about 25 MB.
ROW_GROUP_ROWS = 16_384
_FORMAT = ds.ParquetFileFormat()


class Made(NamedTuple):
    """A file that is not written yet."""

    file: File
    data: memoryview


def commit_files(
    taken: Intake, rows: pa.Table, explained: AbstractSet[int], now_us: int, number: int
) -> list[Made]:
    """The files of a commit of enriched records.

    Args:
        taken: what is stored.
        rows: of ``events``, with ``stored_order``.
        explained: provenance that is stored already.
        now_us: when.
        number: of the commit.
    """
    made = list(events_files(rows, number)) if rows.num_rows else []
    if taken.dead:
        dead = intake.dead_table(taken, now_us)
        day = dead["stored_at"][0].as_py().date()
        made.append(table_file("dead", dead, f"dead/day={day}", number))
    new = {key: text for key, text in taken.provenance.items() if key not in explained}
    if new:
        table = intake.provenance_table(new, now_us)
        made.append(table_file("provenance", table, "provenance", number))
    return made


def numbered(rows: pa.Table, schema: pa.Schema, first: int) -> pa.Table:
    """Rows that are to be stored, with ``stored_order`` where the schema has it."""
    order = pa.array(np.arange(first, first + rows.num_rows, dtype=np.int64))
    return rows.add_column(schema.get_field_index(ORDER), ORDER_FIELD, order)


def ranges(taken: Intake, now_us: int) -> list[Range]:
    """The newly covered source ranges, as the manifest keeps them."""
    return [Range(*part.range, part.lost, part.rows, now_us) for part in intake.joined(taken.parts)]


def events_files(rows: pa.Table, number: int) -> Iterator[Made]:
    """Rows of ``events`` as one file per source topic and day (UTC) of ingest time.

    Args:
        rows: with ``stored_order``; their order is kept.
        number: of the commit.
    """
    keys = pa.table({"topic": rows["source_topic"], "day": rows["ingest_time"].cast(pa.date32())})
    days = keys.group_by(["topic", "day"], use_threads=False).aggregate([]).to_pylist()
    for key in days:
        part = rows
        if len(days) > 1:
            is_topic = pc.equal(keys["topic"], pa.scalar(key["topic"]))
            part = rows.filter(pc.and_(is_topic, pc.equal(keys["day"], pa.scalar(key["day"]))))
        folder = f"events/topic={quote(key['topic'], safe='')}/day={key['day']}"
        yield one_events_file(part, folder, number)


def one_events_file(rows: pa.Table, folder: str, number: int) -> Made:
    """Rows of one topic and day as a file, with what the manifest says of it."""
    orders = pc.min_max(rows["stored_order"]).as_py()
    ingest = pc.min_max(rows["ingest_time"].cast(pa.int64())).as_py()
    offsets = rows.group_by("source_partition", use_threads=False).aggregate(
        [("source_offset", "min"), ("source_offset", "max")]
    )
    made = table_file("events", rows, folder, number)
    file = File(
        table="events",
        path=made.file.path,
        rows=made.file.rows,
        bytes=made.file.bytes,
        topic=rows["source_topic"][0].as_py(),
        first=orders["min"],
        last=orders["max"],
        ingest_us=(ingest["min"], ingest["max"]),
        offsets=tuple(
            (one["source_partition"], one["source_offset_min"], one["source_offset_max"])
            for one in offsets.to_pylist()
        ),
    )
    return Made(file, made.data)


def table_file(table: str, rows: pa.Table, folder: str, number: int) -> Made:
    """Rows as a file that is named for the commit and for its content."""
    data = encoded(rows)
    name = f"part-{number:012}-{_hash(data)}.parquet"
    file = File(table=table, path=f"{folder}/{name}", rows=rows.num_rows, bytes=len(data))
    return Made(file, data)


def is_named_for(path: str, data: bytes) -> bool:
    """Whether a file's name has the hash of these bytes."""
    return path.endswith(f"-{_hash(memoryview(data))}.parquet")


def _hash(data: memoryview) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def encoded(rows: pa.Table) -> memoryview:
    """A Parquet file; the Arrow schema is in it, so vectors come back with their length."""
    out = io.BytesIO()
    words = [f.name for f in rows.schema if pa.types.is_string(f.type)]
    pq.write_table(
        rows,
        out,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=words,  # numbers and vectors hardly repeat
        write_page_index=True,
    )
    return out.getbuffer()


def check_writable(url: str, schema: pa.Schema) -> None:
    """Find out that Parquet keeps every column with its type.

    Raises:
        Refuse: it does not.
    """
    for field in schema:
        alone = pa.schema([field])
        try:
            if pa.types.is_null(field.type):
                raise pa.ArrowNotImplementedError("a column of nulls")
            back = pq.read_schema(pa.BufferReader(encoded(alone.empty_table())))
        except (pa.ArrowException, NotImplementedError) as error:
            raise _unwritable(url, field, str(error).partition("\n")[0]) from None
        if not back.equals(alone):
            raise _unwritable(url, field, f"it comes back as {back.field(0).type}")


def _unwritable(url: str, field: pa.Field, why: str) -> Refuse:
    return Refuse(
        "store.column_type",
        f"column {field.name!r} has Arrow type {field.type}, which {url} cannot keep: {why}",
        "write another type",
    )


class Fragments:
    """Data files as what Arrow's datasets are made of, each made once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._made: dict[str, ds.Fragment] = {}

    def dataset(self, files: Iterable[File], schema: pa.Schema) -> ds.Dataset:
        """Exactly these files; columns that a file does not have are null."""
        chosen = [self._fragment(file) for file in files]
        return ds.FileSystemDataset(chosen, schema, _FORMAT, self._place.filesystem)

    def keep(self, files: Iterable[File]) -> None:
        """Forget all but these, whatever readers ask for meanwhile."""
        named = {file.path for file in files}
        self._made = {path: made for path, made in self._made.items() if path in named}

    def _fragment(self, file: File) -> ds.Fragment:
        made = self._made.get(file.path)
        if made is None:
            made = self._made[file.path] = _FORMAT.make_fragment(
                f"{self._place.base}/{file.path}",
                self._place.filesystem,
                partition_expression=_guarantee(file),
                file_size=file.bytes,
            )
        return made


def _guarantee(file: File) -> ds.Expression | None:
    """What is true of all rows of a file: a query that contradicts it never opens the file."""
    if file.table != "events":
        return None
    low_us, high_us = (pa.scalar(us, TIME) for us in file.ingest_us)
    time, order = ds.field("ingest_time"), ds.field("stored_order")
    known = (time >= low_us) & (time <= high_us) & (order >= file.first) & (order <= file.last)
    if len(file.offsets) == 1:
        ((partition, first, last),) = file.offsets
        offset = ds.field("source_offset")
        known &= ds.field("source_partition") == pa.scalar(partition, pa.int32())
        known &= (offset >= first) & (offset <= last)
    return known & (ds.field("source_topic") == file.topic)


def holding(files: Sequence[File], topic: str, partition: int, first: int, last: int) -> list[File]:
    """The files that may have rows of these source offsets (``last`` included)."""
    return [
        file
        for file in files
        if file.table == "events"
        and file.topic == topic
        and any(p == partition and low <= last and high >= first for p, low, high in file.offsets)
    ]
