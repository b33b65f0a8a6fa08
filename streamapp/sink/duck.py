"""DuckDB opened the one way we use it, and its errors in our words."""

import re
import time
from pathlib import Path

import duckdb

from streamapp.core.errors import Halt, Refuse, Retry, StreamappError
from streamapp.core.sql import literal
from streamapp.sink.schema import ROW_GROUP_ROWS

MEMORY = ":memory:"
#: The catalog that clients see.
CATALOG = "db"
#: DuckDB says this of a database it no longer serves, after a checkpoint that failed.
_INVALIDATED = "has been invalidated"
#: What it says of files that are none of its own, or not any more.
_DAMAGED = ("not a valid DuckDB", "orrupt", "checksum", "Could not read enough bytes")
_ELSEWHERE = "name a place that can be written with --db-path or STREAMAPP_DB_PATH"
_COMMAND_CHARS_MAX = 200
_CLOSE_TRIES, _CLOSE_PAUSE_S = 500, 0.01


def connect(path: str, *, memory_bytes_max: int, spill_bytes_max: int) -> duckdb.DuckDBPyConnection:
    """The instance with the store attached as ``db``; every thread takes a :func:`cursor` of it.

    The row group size is an option of ATTACH only: DuckDB neither keeps it in the file nor takes it
    at connect.  What clients' SQL could reach outside the file is shut, and the lock is locked.

    Args:
        path: the file, made if it is missing, or ``:memory:``.
        memory_bytes_max: what DuckDB may hold in memory.
        spill_bytes_max: what it may spill beside the file (nothing for ``:memory:``).

    Raises:
        Refuse: the path cannot be opened, is locked by another process, or is no DuckDB file.
    """
    in_memory = path == MEMORY
    settings: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        # Else SQL could name variables of the Python frames that run it.
        "python_enable_replacements": False,
        "memory_limit": f"{memory_bytes_max // 1024}KiB",
        "temp_directory": "" if in_memory else f"{path}.tmp",
        "max_temp_directory_size": f"{spill_bytes_max // 1024}KiB",
    }
    try:
        if not in_memory:
            _check_path(path)
        root = duckdb.connect(MEMORY, config=settings)
    except OSError as error:
        raise Refuse("store.path", f"cannot open {path}: {error.strerror}", _ELSEWHERE) from None
    except duckdb.Error as error:
        raise unopened(path, error) from None
    try:
        root.execute(
            "SET GLOBAL TimeZone = 'UTC'"
        ).fetchall()  # else Arrow columns carry the host's
        attach = (
            f"ATTACH {literal(path)} AS {CATALOG} (TYPE duckdb, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
        )
        root.execute(attach).fetchall()
        root.execute("SET enable_external_access = false").fetchall()
        root.execute("SET lock_configuration = true").fetchall()
    except duckdb.Error as error:
        root.close()
        raise unopened(path, error) from None
    return root


def _check_path(path: str) -> None:
    """Make the file's folder, and see that it is a file: DuckDB would wait for a pipe for ever.

    Raises:
        Refuse: it is something else, or has a name that DuckDB cannot write.
        OSError: the folder cannot be made.
    """
    if "\0" in path or path.encode(errors="replace").decode() != path:
        raise Refuse("store.path", f"cannot open {path!a}: its name is not UTF-8", _ELSEWHERE)
    file = Path(path)
    if file.exists() and not file.is_file():
        raise Refuse("store.path", f"cannot open {path}: it is no file", _ELSEWHERE)
    file.parent.mkdir(parents=True, exist_ok=True)


def cursor(root: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A connection of its own to the same instance, with the store as its current database."""
    connection = root.cursor()
    connection.execute(f"USE {CATALOG}").fetchall()
    return connection


def close(root: duckdb.DuckDBPyConnection) -> None:
    """Let go of the instance, which a function of it that still runs keeps busy for a moment."""
    for _ in range(_CLOSE_TRIES):
        try:
            root.close()
        except duckdb.ResourceInUseException:  # DuckDB refuses instead of waiting
            time.sleep(_CLOSE_PAUSE_S)
        else:
            return
    root.close()


def unopened(path: str, error: duckdb.Error) -> Refuse:
    """Why the store could not be opened."""
    text = _first_line(error)
    if "Conflicting lock" in text or isinstance(error, duckdb.ResourceInUseException):
        return Refuse(
            "store.locked",
            f"{path} is open in another process: {_holder(text)}",
            "DuckDB has one owner; ask that one over Flight (streamapp query), or stop it",
        )
    if "storage version number" in text:
        return Refuse(
            "store.newer",
            f"{path} was written by another DuckDB than this one, {duckdb.__version__}: {text}",
            "use the version that wrote it, or move it away: events.enriched fills a new one",
        )
    if "replaying WAL" in text:
        return Refuse(
            "store.wal",
            f"{path}.wal is damaged: {text}",
            f"move {path}.wal away: the store goes on from its last checkpoint, and "
            "events.enriched brings the rest again",
        )
    if any(mark in text for mark in _DAMAGED):
        return Refuse(
            "store.corrupt",
            f"{path} is not a DuckDB file, or is damaged: {text}",
            "move it away: events.enriched fills a new one",
        )
    return Refuse("store.path", f"cannot open {path}: {text}", _ELSEWHERE)


def _holder(text: str) -> str:
    """Who has the lock, as DuckDB says it, with the command line where this host tells it."""
    said = text.partition("Conflicting lock is held in ")[2].partition(". See also")[0]
    pid = re.search(r"\(PID (\d+)\)", said)
    if pid is None:
        return said or "this one"
    try:
        command = Path(f"/proc/{pid[1]}/cmdline").read_bytes()
    except OSError:
        return said
    words = command.decode(errors="replace").replace("\0", " ").strip()
    return f"PID {pid[1]}, {words[:_COMMAND_CHARS_MAX]}" if words else said


def unwritten(path: str, error: duckdb.Error) -> StreamappError:
    """Why a transaction failed: Retry when the machine may recover, else Halt."""
    text = _first_line(error)
    if "orrupt" in text or "checksum" in text:
        return Halt("store.corrupt", f"{path} is damaged: {text}", "restore a copy, or refill it")
    if isinstance(error, duckdb.OutOfMemoryException):
        return Retry(
            "store.memory", f"{path}: {text}", "write fewer rows at once (STREAMAPP_FLUSH_ROWS)"
        )
    if isinstance(error, duckdb.OperationalError) or is_invalidated(error):
        return Retry("store.write", f"cannot write {path}: {text}", "is the disk full?")
    return Halt("store.write", f"{path} refuses a transaction: {text}", "this is a bug of ours")


def is_invalidated(error: duckdb.Error) -> bool:
    """True when DuckDB will not serve this instance's database any more."""
    return isinstance(error, duckdb.FatalException) or _INVALIDATED in str(error)


def _first_line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0]
