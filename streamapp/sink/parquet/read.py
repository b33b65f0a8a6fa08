"""For readers: exactly the files that the manifest names, without a writer and without a lock."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.dataset as ds

from streamapp.core.errors import Refuse
from streamapp.sink.parquet import manifest, parts
from streamapp.sink.parquet.columns import of_tables
from streamapp.sink.parquet.manifest import File
from streamapp.sink.parquet.parts import Fragments
from streamapp.sink.parquet.place import Place, open_place, unreachable
from streamapp.sink.parquet.queries import Queries, snapshot
from streamapp.sink.verify import LISTED_MAX, Report, Window, verify

TABLES = ("events", "dead", "provenance", "answers")
_CHECK_BYTES_MAX = 2 << 30
#: The checks rely on the order of rows, which tables of DuckDB have and files have not.
_FOR_CHECKS = (
    "CREATE TEMP TABLE position AS FROM db.position",
    "CREATE TEMP VIEW events AS FROM db.events ORDER BY stored_order",
)


def files(url: str, table: str = "events") -> list[str]:
    """Paths or URLs of a table's data files as of now: each event is in one of them, once.

    Those of an earlier call stay readable for an hour after they were merged or dropped.

    Raises:
        Refuse: there is no Parquet store, or no such table.
    """
    _, state = _opened(url, table)
    root = url.rstrip("/")
    return [f"{root}/{file.path}" for file in state.files if file.table == table]


def dataset(url: str, table: str = "events") -> ds.Dataset:
    """A table as an Arrow dataset as of now; queries on time or source open only files they need.

    Raises:
        Refuse: there is no Parquet store, or no such table.
    """
    place, state = _opened(url, table)
    chosen = [file for file in state.files if file.table == table]
    return Fragments(place).dataset(chosen, of_tables(state.schema)[table])


def summary(url: str) -> dict[str, Any]:
    """What is stored, as JSON: ``commit``, ``tables``, ``retained``, ``positions``, ``holes``.

    Raises:
        Refuse: there is no Parquet store.
    """
    _, state = _opened(url, "events")
    tables = []
    for table in TABLES:
        there = [file for file in state.files if file.table == table]
        tables.append(
            {
                "table": table,
                "files": len(there),
                "rows": sum(file.rows for file in there),
                "bytes": sum(file.bytes for file in there),
            }
        )
    return {
        "commit": state.number,
        "tables": tables,
        "retained": sum(one.rows for one in state.retained),
        "positions": [
            {"topic": one.topic, "partition": one.partition, "next": one.next}
            for one in state.positions.values()
        ],
        "holes": [str(hole) for hole in state.ledger().holes()],
    }


def checked(url: str, window: Window, *, deep: bool = False) -> Iterator[Mapping[str, Any]]:
    """Check what is stored as of now against the ledger, as :func:`streamapp.sink.verify.verify`.

    Args:
        url: of the store; its writer goes on.
        window: what is promised of ids.
        deep: compare every byte of every file with the hash in its name, and read every value.

    Raises:
        Refuse: there is no Parquet store, or its manifest is damaged.
    """
    place, state = _opened(url, "events")
    wrong = list(_wrong_files(place, state.files, deep=deep))
    if wrong:
        report = Report({"rows": 0, "dead": 0, "lost": 0, "retained": 0}, ())
        report.add("file.damaged", wrong[:LISTED_MAX], len(wrong))
        yield {"done": True, **report.as_dict()}
        return
    queries = Queries(Fragments(place), snapshot(state), memory_bytes_max=_CHECK_BYTES_MAX)
    try:
        with queries.reader() as cursor:
            for statement in _FOR_CHECKS:
                cursor.execute(statement).fetchall()
            yield from verify(cursor, window, deep=deep)
    finally:
        queries.close()


def _wrong_files(place: Place, named: Sequence[File], *, deep: bool) -> Iterator[tuple[str, str]]:
    """(path, what) of files that are not there as the manifest says."""
    infos = place.filesystem.get_file_info([f"{place.base}/{file.path}" for file in named])
    for file, info in zip(named, infos, strict=True):
        if not info.is_file:
            yield file.path, "is not there"
        elif info.size != file.bytes:
            yield file.path, f"has {info.size:,} bytes, the manifest says {file.bytes:,}"
        elif deep and not parts.is_named_for(file.path, place.read(file.path)):
            yield file.path, "is not what was written: its name has the hash of other bytes"


def _opened(url: str, table: str) -> tuple[Place, manifest.State]:
    if table not in TABLES:
        raise Refuse(
            "store.table", f"there is no table {table!r}", f"give one of {', '.join(TABLES)}"
        )
    place = open_place(url)
    try:
        state = manifest.load(place)
    except OSError as error:
        raise unreachable(url, error) from None
    if not state.number:
        raise Refuse(
            "store.missing", f"{url} is not a Parquet store: it has no manifest", "check the path"
        )
    return place, state
