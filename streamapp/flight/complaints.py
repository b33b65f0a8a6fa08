"""What DuckDB and Arrow complain of, in our words."""

import logging
import re

import duckdb

from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.sink.bounds import BOUNDED

_log = logging.getLogger(__name__)

#: DuckDB's message is shown up to here; what follows repeats the statement.
_MESSAGE_CHARS_MAX = 1000

#: How DuckDB quotes a Refuse of the store's own functions.
_FUNCTION_ERROR = re.compile(r"occurred while executing the UDF: Refuse: (.+)", re.DOTALL)

#: How it quotes what a bounded function says.
_BOUND_ERROR = re.compile(rf"convert string '((?:{'|'.join(sorted(BOUNDED))}): .+?)' to BOOL")

#: What DuckDB quotes when Arrow cannot read one of a Parquet store's files: it names the file.
_FILE_ERROR = "reading the stream registered as '_snapshot_"

#: What DuckDB's LateMaterialization says of a condition on ``rowid`` under ORDER BY and LIMIT.
_LATE = re.compile(r"Attempted to access index -?\d+ within vector|LateMaterialization")


def refusal(error: Exception) -> StreamappError:
    """DuckDB's or Arrow's complaint in our words: no path, no stack, no more than it takes."""
    text = str(error).partition("\n\nStack Trace")[0][:_MESSAGE_CHARS_MAX].strip()
    ours = _FUNCTION_ERROR.search(text) or _BOUND_ERROR.search(text)
    if ours:
        return Refuse("sql.invalid", ours[1])
    if "INTERRUPT" in text:
        return Retry("sql.cancelled", "the statement was interrupted", "try again")
    if isinstance(error, duckdb.OutOfMemoryException) or text.startswith("Out of Memory"):
        return Refuse(
            "sql.memory",
            "the statement needs more memory than the store gives",
            "ask for less: fewer columns in an ORDER BY, a time range, a LIMIT",
        )
    if isinstance(error, duckdb.PermissionException) or "read-only mode" in text:
        return Refuse("sql.not_allowed", "the statement reaches outside the store")
    return _of_engine(error, text)


def _of_engine(error: Exception, text: str) -> StreamappError:
    """What only the statement's author, or the store's log, can make something of."""
    if isinstance(error, duckdb.InternalError) and _LATE.search(text):
        return Refuse(
            "sql.engine",
            f"DuckDB {duckdb.__version__} cannot plan a LIMIT over a condition on rowid",
            "use source_offset, or put the condition in WITH ... AS MATERIALIZED (...)",
        )
    if _FILE_ERROR in text:
        _log.error("a file of the store cannot be read: %s", text)
        fix = "its log says which; `streamapp parquet verify` on its host looks at all of them"
        return Retry("flight.store", "the store cannot read one of its files", fix)
    known = isinstance(error, (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError))
    if known or text.startswith(("Conversion Error", "Invalid Input Error", "Out of Range Error")):
        return Refuse("sql.invalid", text)
    _log.error("a statement failed: %s", text)
    return Retry("flight.store", "the store cannot answer", "its log says why")
