"""Tables as files in the cache: written once, named by their content, mapped and not read."""

import errno
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

import pyarrow as pa

from streamapp.core.errors import Halt, Refuse
from streamapp.workflow.run.messages import Part

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def part_path(cache: Path, digest: str) -> Path:
    """Where the part of that digest is."""
    return cache / "data" / f"{digest}.arrow"


def write_part(cache: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Part:
    """Put rows into the cache; what is there under that name is whole.

    Args:
        cache: folder.
        schema: of the batches.
        batches: in order; taken one by one.
    """
    with disk(cache / "data"):
        (cache / "data").mkdir(parents=True, exist_ok=True)
        handle, name = mkstemp(dir=cache / "data", suffix=".new")
    try:
        with os.fdopen(handle, "wb") as file:
            hashing = _Hashing(file)
            rows = 0
            with pa.ipc.new_file(pa.PythonFile(hashing, "w"), schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    rows += batch.num_rows
            file.flush()
            os.fdatasync(handle)
        part = Part(hashing.digest.hexdigest(), rows, hashing.bytes)
        Path(name).replace(part_path(cache, part.digest))
    except BaseException as error:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        if isinstance(error, OSError) and error.errno in _FULL:  # others may be of the batches
            raise _refuse(cache, error) from None
        raise
    return part


def write_table(cache: Path, table: pa.Table) -> Part:
    """Put a table into the cache."""
    return write_part(cache, table.schema, table.to_batches())


def read_parts(cache: Path, parts: Sequence[Part], cut: tuple[int, int] | None = None) -> pa.Table:
    """The rows of parts, in order, mapped into memory.

    Args:
        cache: folder.
        parts: at least one.
        cut: first and end of the rows that are wanted; None: all.

    Raises:
        Halt: ``workflow.cache``: a part is gone, or not what was written.
    """
    first, end = cut or (0, sum(part.rows for part in parts))
    tables: list[pa.Table] = []
    at = 0
    for part in parts:
        low, high = max(first - at, 0), min(end - at, part.rows)
        if low < high or not tables:
            tables.append(_mapped(cache, part).slice(low, max(high - low, 0)))
        at += part.rows
    return pa.concat_tables(tables)


def _mapped(cache: Path, part: Part) -> pa.Table:
    path = part_path(cache, part.digest)
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        why = f"{path}: {str(error).splitlines()[0]}"
        raise Halt("workflow.cache", why, "remove the file and run again") from None


def is_whole(cache: Path, part: Part) -> bool:
    """Whether a part is there, with the size that was written."""
    try:
        return part_path(cache, part.digest).stat().st_size == part.bytes
    except OSError:
        return False


@contextmanager
def disk(place: Path) -> Iterator[None]:
    """Of a block that writes below a folder, what the system refuses becomes ``workflow.disk``."""
    try:
        yield
    except OSError as error:
        raise _refuse(place, error) from None


def _refuse(place: Path, error: OSError) -> Refuse:
    why = f"{place}: {error.strerror or error}"
    fix = "check its folder, mode and free space; the home folder is STREAMAPP_HOME's"
    return Refuse("workflow.disk", why, fix)


class _Hashing(io.RawIOBase):
    """A file that knows the digest of what went into it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.digest, self.bytes, self._file = hashlib.blake2b(digest_size=20), 0, file

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # any buffer
        view = memoryview(data).cast("B")
        self.digest.update(view)
        self.bytes += len(view)
        return self._file.write(view)

    def close(self) -> None:
        """The file is its owner's to close."""
