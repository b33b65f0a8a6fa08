"""What was worked out before: results by the digest of all that they depend on.

::

    FOLDER/v1/data/DIGEST.arrow     rows, by their content
    FOLDER/v1/done/KEY.json         an Entry: which parts are the result of what
    FOLDER/v1/last/NAME.json        the Key that a stage had last, to say what changed
    FOLDER/v1/measured/NAME.json    what a stage took (sizing.Measured)
    FOLDER/v1/runs/ID.json          a Record of each run
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Any, TypeVar

import msgspec

from streamapp.core.clock import now_us
from streamapp.workflow.run.messages import Aside, Part
from streamapp.workflow.run.parts import disk, is_whole, part_path

#: Raised when an entry or a part is written otherwise.
FORMAT = 1
BYTES_MAX = 10 << 30
#: Entries that are kept, and how long what a killed run left of a file is.
ENTRIES_MAX, LEFT_S = 100_000, 86_400
_SHELVES = ("data", "done", "last", "measured", "runs")
Kind = TypeVar("Kind", bound=msgspec.Struct)


class Entry(msgspec.Struct, frozen=True):
    """A result.

    Args:
        parts: its rows, in order.
        asides: rows that were set aside on the way.
        models: what it got of the models; see ``Done``.
        told: what the operation said of it, added up over its calls.
    """

    parts: tuple[Part, ...]
    asides: tuple[Aside, ...] = ()
    models: dict[str, str] = {}
    told: list[dict[str, Any]] = []

    @property
    def rows(self) -> int:
        """Of the result."""
        return sum(part.rows for part in self.parts)

    @property
    def rejected(self) -> int:
        """Rows that were set aside."""
        return sum(aside.part.rows for aside in self.asides)


class Cache:
    """Entries and parts of one folder; several runs may use it at once.

    Args:
        folder: made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / f"v{FORMAT}"
        with disk(folder):
            for name in _SHELVES:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        #: Caches of other versions beside this one, which are left alone.
        self.others = sorted(
            other.name for other in folder.iterdir() if other.is_dir() and other != self.folder
        )

    def find(self, key: str) -> Entry | None:
        """The result of a key, when it and all of its parts are there and whole."""
        entry = self.load("done", key, Entry)
        if entry is None:
            return None
        parts = (*entry.parts, *(aside.part for aside in entry.asides))
        if not all(is_whole(self.folder, part) for part in parts):
            return None
        used = [part_path(self.folder, part.digest) for part in parts]
        for path in (*used, self.folder / "done" / f"{key}.json"):
            with suppress(OSError):
                os.utime(path)  # it is in use
        return entry

    def keep(self, key: str, entry: Entry) -> None:
        """Remember a result."""
        self.save("done", key, entry)

    def load(self, shelf: str, name: str, kind: type[Kind]) -> Kind | None:
        """What is kept under that name; None: nothing, or nothing that this version reads."""
        try:
            return msgspec.json.decode(
                (self.folder / shelf / f"{name}.json").read_bytes(), type=kind
            )
        except (OSError, msgspec.MsgspecError):
            return None

    def save(self, shelf: str, name: str, value: msgspec.Struct) -> None:
        """Keep a value; who reads meanwhile gets the old one or the new one."""
        write_whole(self.folder / shelf / f"{name}.json", msgspec.json.encode(value))

    def prune(self, bytes_max: int = BYTES_MAX) -> int:
        """Remove the parts that were used longest ago until the rest fits; returns their bytes.

        Of entries the newest stay, and what killed runs left half-written goes after a day.
        """
        for shelf in _SHELVES:
            for path in (self.folder / shelf).glob("*.new"):
                with suppress(OSError):
                    if now_us() / 1e6 - path.stat().st_mtime > LEFT_S:
                        path.unlink()
        entries = sorted(_used(self.folder / "done", "*.json"))
        for _, _, path in entries[: max(0, len(entries) - ENTRIES_MAX)]:
            path.unlink(missing_ok=True)
        found = sorted(_used(self.folder / "data", "*"))
        over = sum(size for _, size, _ in found) - bytes_max
        removed = 0
        for _, size, path in found:
            if removed >= over:
                break
            path.unlink(missing_ok=True)
            removed += size
        return removed


def _used(folder: Path, pattern: str) -> Iterator[tuple[int, int, Path]]:
    """When each file of a folder was used, its bytes and its path."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            stat = path.stat()
            yield stat.st_mtime_ns, stat.st_size, path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that there is never a part of it."""
    with disk(path):
        handle, name = mkstemp(dir=path.parent, suffix=".new")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(handle)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def merged_models(parts: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """What two calls got of the models; where they differ it cannot be said."""
    both = {**parts, **more}
    return {
        name: found if parts.get(name, found) == more.get(name, found) else ""
        for name, found in both.items()
    }
