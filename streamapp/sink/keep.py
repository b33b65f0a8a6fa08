"""A store that no process has open, read as it lies there; and a copy of one, made while it runs.

A copy goes through Arrow into a file of another DuckDB instance: the running one opens no other
file, whoever asks.  It is read in one transaction, which sees one state of the store however long
it takes; writers go on, and because they only insert, checkpoints do too.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.core.files import sync
from streamapp.core.sql import literal, quoted
from streamapp.sink import duck, recall, schema
from streamapp.sink.search import Search
from streamapp.sink.verify import Window, verify

#: A new cursor whose current database is the store, as ``Store.reader``.
Reader = Callable[[], duckdb.DuckDBPyConnection]
#: What DuckDB may use beside a running store.
MEMORY_BYTES_MAX = 1 << 30
SPILL_BYTES_MAX = 8 << 30
#: Rows of a copy's transaction: whole row groups, so that they go past the WAL.
_ROWS_AT_ONCE = 16 * schema.ROW_GROUP_ROWS
_PART = ".part"


@contextlib.contextmanager
def opened(path: str) -> Iterator[Reader]:
    """Readers of a store that no process writes now; nothing in the file or beside it changes.

    Raises:
        Refuse: the file is missing, locked (it says by whom), damaged, or no store.
    """
    if not is_there(Path(path)) or not Path(path).is_file():
        raise Refuse("store.missing", f"there is no store at {path}", "see STREAMAPP_DB_PATH")
    settings = {"memory_limit": f"{MEMORY_BYTES_MAX}B", "temp_directory": f"{path}.tmp"}
    root = duckdb.connect(duck.MEMORY, config={**settings, "autoload_known_extensions": False})
    try:
        root.execute("SET GLOBAL TimeZone = 'UTC'").fetchall()
        root.execute(f"ATTACH {literal(path)} AS {duck.CATALOG} (READ_ONLY)").fetchall()
        with contextlib.closing(duck.cursor(root)) as cursor:
            schema.check_format(cursor, path)
            if not _tables(cursor):
                raise Refuse("store.foreign", f"{path} is empty, no store", "see STREAMAPP_DB_PATH")
        yield lambda: duck.cursor(root)
    except duckdb.Error as error:
        raise duck.unopened(path, error) from None
    finally:
        root.close()


def backup(
    read: Reader, target: Path, *, replace: bool = False, window: Window
) -> Iterator[Mapping[str, Any]]:
    """Copy the store to ``target``: a store that goes on from the position it was copied at.

    It is written to ``TARGET.part``, synced, read back and compared, and only then renamed; what a
    killed copy left is overwritten by the next.

    Args:
        read: a new cursor on the store.
        target: the file to make.
        replace: overwrite one that is there.
        window: to verify with.

    Yields:
        ``{"table", "at", "of"}`` in rows, the checks of the verification, and the result.

    Raises:
        Refuse: the target exists, is no file, is open elsewhere, cannot be written, or is being
            written by another copy.
        Retry: the disk is full.
        Halt: the copy is not equal to what was read.
    """
    wal = Path(f"{target}.wal")
    _check_free(target, wal, replace=replace)
    part = target.with_name(target.name + _PART)
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(part))
        stack.callback(_remove, part)
        with as_files(target):
            said = yield from _copy(read, part)
            sync(part)
        with opened(str(part)) as copied:
            _compare(said, copied, target)
            with contextlib.closing(copied()) as cursor:
                report = yield from _verified(cursor, window)
        _check_free(target, wal, replace=replace)  # a copy takes long
        with as_files(target):
            wal.unlink(missing_ok=True)  # DuckDB would read it as the copy's
            part.replace(target)
            sync(target.parent)
    size_bytes = target.stat().st_size
    yield {"done": True, "target": str(target), "bytes": size_bytes, **report}


def _check_free(target: Path, wal: Path, *, replace: bool) -> None:
    """See that neither is there, or with ``replace`` that both may be replaced."""
    for path in filter(is_there, (target, wal)):
        if not replace:
            fix = "name another file, or add --replace"
            raise Refuse("backup.exists", f"{path} exists", fix)
        _check_nobody_s(path)


def _check_nobody_s(path: Path) -> None:
    """See that a file may be replaced: a rename would take it from under its owner.

    Raises:
        Refuse: it is no regular file, or a database that another process has open.
    """
    if not path.is_file():
        raise Refuse("backup.special", f"{path} is no regular file", "name another file")
    with as_files(path), path.open("rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # DuckDB's own kind of lock
        except BlockingIOError:
            what = f"{path} is open in another process"
            raise Refuse("backup.open", what, "stop that one, or name another file") from None


def _copy(
    read: Reader, part: Path
) -> Generator[Mapping[str, Any], None, Mapping[str, tuple[int, int]]]:
    """Copy all tables; returns a digest of each, taken in the same transaction."""
    _remove(part)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(read()))
        source.begin()
        stack.callback(source.rollback)
        root = duck.connect(
            str(part), memory_bytes_max=MEMORY_BYTES_MAX, spill_bytes_max=SPILL_BYTES_MAX
        )
        stack.callback(root.close)
        sink = stack.enter_context(contextlib.closing(duck.cursor(root)))
        digests = {}
        for table, definition in _tables(source):
            sink.execute(definition).fetchall()
            digests[table] = _digest(source, table)
            for at in _fill(source, sink, table):
                yield {"table": table, "at": at, "of": digests[table][0]}
        with contextlib.closing(Search()) as search:
            search.install(root)
            schema.prepare(sink, str(part), {})  # views and macros; and it checkpoints
    return digests


def _fill(
    source: duckdb.DuckDBPyConnection, sink: duckdb.DuckDBPyConnection, table: str
) -> Iterator[int]:
    """Copy a table's rows in their order, which the dedup window goes by; yields how many."""
    copied, held = 0, list[pa.RecordBatch]()
    name = quoted(table)
    for batch in source.sql(f"FROM {name}").to_arrow_reader(_ROWS_AT_ONCE):
        held.append(batch)
        if sum(one.num_rows for one in held) >= _ROWS_AT_ONCE:
            rows = pa.Table.from_batches(held)
            whole = rows.num_rows - rows.num_rows % schema.ROW_GROUP_ROWS
            recall.insert(sink, name, rows.slice(0, whole))
            held = rows.slice(whole).to_batches()
            copied += whole
            yield copied
    if held:
        recall.insert(sink, name, pa.Table.from_batches(held))


def _tables(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    rows = connection.execute(
        "SELECT table_name, sql FROM duckdb_tables() "
        "WHERE database_name = current_database() AND NOT temporary ORDER BY table_oid"
    ).fetchall()
    return [(str(name), str(definition)) for name, definition in rows]


def _digest(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[int, int]:
    """Rows, and the sum of their hashes: equal for equal rows in any order."""
    name = quoted(table)
    found = connection.sql(f"FROM {name}").set_alias("t")
    sums = found.aggregate("count(*), coalesce(sum(hash(t)::HUGEINT), 0)")
    try:
        ((rows, total),) = sums.fetchall()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        what = str(error).partition("\n")[0]
        fix = "`streamapp store rebuild` makes it anew from the topic"
        raise Halt("store.corrupt", f"table {table} cannot be read: {what}", fix) from None
    return int(rows), int(total)


def _compare(digests: Mapping[str, tuple[int, int]], copied: Reader, target: Path) -> None:
    with contextlib.closing(copied()) as cursor:
        for table, digest in digests.items():
            found = _digest(cursor, table)
            if found != digest:
                raise Halt(
                    "backup.differs",
                    f"table {table} has {digest[0]:,} rows and its copy for {target} "
                    f"{found[0]:,}, or others",
                    "nothing was kept of the copy; is the disk sound?",
                )


def _verified(
    cursor: duckdb.DuckDBPyConnection, window: Window
) -> Generator[Mapping[str, Any], None, Mapping[str, Any]]:
    report: Mapping[str, Any] = {}
    for step in verify(cursor, window):
        if step.get("done"):
            report = step
        else:
            yield step
    return report


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """The only one who writes ``path``; the kernel frees the lock when this process dies.

    Raises:
        Refuse: nothing can be written there.
        Retry: another has the lock.
    """
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as stack:
        while True:
            with as_files(path):
                file = stack.enter_context(lock.open("a"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    fix = "wait until that has ended"
                    raise Retry("store.busy", f"{path} is being written", fix) from None
            if _is_at(file.fileno(), lock):
                break
        stack.callback(lock.unlink)  # while it is held, so that nobody can hold a removed one
        yield


def _is_at(descriptor: int, path: Path) -> bool:
    """Is the open file still the one at ``path``?"""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_there(path: Path) -> bool:
    """Whether a file is there.

    Raises:
        Refuse: nobody can tell, without the right to look or with such a name.
    """
    try:
        return path.exists()
    except OSError as error:
        why = error.strerror or str(error)
        raise Refuse("store.path", f"cannot look at {path}: {why}", "name another path") from None


@contextlib.contextmanager
def as_files(target: Path) -> Iterator[None]:
    """Errors of writing ``target`` in our words."""
    try:
        yield
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from None
    except duckdb.Error as error:
        raise duck.unwritten(str(target), error) from None


def _unwritable(target: Path, why: str) -> Refuse:
    fix = "name a place that this user may write (as the store's process sees it)"
    return Refuse("store.target", f"cannot write {target}: {why}", fix)


def _remove(part: Path) -> None:
    for path in (part, Path(f"{part}.wal")):
        path.unlink(missing_ok=True)
