"""The store's upkeep as actions: arguments from JSON in, progress out.

The same generators serve a running store, whose process has the file, and a file that nobody has
open (:func:`of_file`).
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from streamapp.core.errors import Refuse, Retry
from streamapp.sink import keep, retain
from streamapp.sink.archive import archive
from streamapp.sink.keep import Reader
from streamapp.sink.store import Store
from streamapp.sink.verify import Window, verify

Action = Callable[[Mapping[str, Any]], Iterator[Mapping[str, Any]]]
NAMES = ("verify", "backup", "archive", "retain")


class Upkeep:
    """One store's actions; all but ``verify`` run one at a time.

    Args:
        path: the store's file, to be compared with the one that is meant.
        read: a new cursor on it.
        window: of the store.
        store: open to write; without it nothing can be retained.
    """

    def __init__(
        self, path: str, read: Reader, window: Window, store: retain.Retainable | None = None
    ) -> None:
        self._path = path
        self._read = read
        self._window = window
        self._store = store
        self._busy = threading.Lock()

    def actions(self) -> dict[str, Action]:
        """By name, as a Flight server offers them."""
        return {name: getattr(self, name) for name in NAMES}

    def verify(self, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Check rows against the ledger: {"deep": false}; writes nothing."""
        given = _Arguments(arguments, self._path)
        with contextlib.closing(self._read()) as cursor:
            yield from verify(cursor, self._window, deep=given.flag("deep"))

    def backup(self, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Copy the store to a file of its host: {"target": PATH, "replace": false}."""
        given = _Arguments(arguments, self._path)
        target, replace = given.path("target"), given.flag("replace")
        if keep.is_there(target) and target.is_dir():
            raise Refuse(
                "backup.folder", f"{target} is a folder", f"name a file: {target}/x.duckdb"
            )
        if target.suffix == ".wal":
            what = f"{target} is where DuckDB keeps the log of {target.with_suffix('')}"
            raise Refuse("backup.wal", what, "name a file that does not end in .wal")
        both = keep.is_there(target) and keep.is_there(Path(self._path))
        if both and target.samefile(self._path):
            raise Refuse("backup.itself", f"{target} is the store itself", "name another file")
        with self._alone():
            yield from keep.backup(self._read, target, replace=replace, window=self._window)

    def archive(self, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Write what is missing in a Parquet archive: {"folder": PATH, "before": DATE}."""
        given = _Arguments(arguments, self._path)
        folder, before = given.path("folder"), given.time("before")
        with self._alone():
            day = before.date() if before else None
            yield from archive(self._read, folder, before=day)

    def retain(self, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Drop old rows: {"days": N} or {"before": DATE} or {"keep_rows": N}; {"archive": PATH}."""
        given = _Arguments(arguments, self._path)
        days, before, rows = given.count("days"), given.time("before"), given.count("keep_rows")
        if sum(limit is not None for limit in (days, before, rows)) != 1:
            fix = "name one of days, before and keep_rows"
            raise Refuse("retain.limit", "what to drop is not said, or twice", fix)
        folder = given.path("archive") if "archive" in arguments else None
        if self._store is None:
            raise Refuse("retain.read_only", f"{self._path} is open to read only", "open it anew")
        with self._alone():
            cut = retain.bound(self._store, self._window, days=days, before=before, keep_rows=rows)
            yield from retain.retain(self._store, cut, archive_to=folder)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            what = f"another backup, archive or retain of {self._path} is running"
            raise Retry("store.busy", what, "wait until it has ended")
        try:
            yield
        finally:
            self._busy.release()


def of_sink(sink: object, dedup_window_s: int, dedup_window_events: int) -> dict[str, Action]:
    """What the process offers that has the sink open; of a Parquet store ``retain`` alone."""
    window = Window(dedup_window_s, dedup_window_events)
    if isinstance(sink, Store):
        return of_store(sink, window)
    from streamapp.sink.parquet import ParquetStore

    if isinstance(sink, ParquetStore):
        return {"retain": Upkeep(sink.path, sink.reader, window, sink).retain}
    return {}


def of_store(store: Store, window: Window) -> dict[str, Action]:
    """An open store's actions."""
    return Upkeep(store.path, store.reader, window, store).actions()


@contextlib.contextmanager
def of_file(path: str, window: Window, name: str) -> Iterator[Action]:
    """One action on a file that nobody has open; to retain it is opened to write.

    Raises:
        Refuse: as :func:`keep.opened`.
    """
    if name != "retain":
        with keep.opened(path) as read:
            yield Upkeep(path, read, window).actions()[name]
        return
    with keep.opened(path):
        pass  # it is a store, and one that nobody has open
    with Store.open(path, columns={}, **window._asdict()) as store:
        yield of_store(store, window)[name]


@contextlib.contextmanager
def of_root(url: str, window: Window) -> Iterator[Action]:
    """``retain`` on a Parquet store whose lock nobody has.

    Raises:
        Refuse: there is no Parquet store, or as :meth:`ParquetStore.open`.
    """
    from streamapp.sink.parquet import ParquetStore, files

    files(url)  # it is a store: to open makes one
    with ParquetStore.open(url, columns={}, dedup_window_s=0) as store:
        yield of_sink(store, *window)["retain"]


class _Arguments:
    """An action's arguments, each checked when it is asked for."""

    def __init__(self, given: Mapping[str, Any], path: str) -> None:
        self._given = given
        meant = given.get("store")
        if meant is not None and Path(str(meant)).absolute() != Path(path).absolute():
            raise Refuse(
                "store.other",
                f"the store that answers has {path} and not {meant}",
                "is flight_port that of another project?",
            )

    def flag(self, name: str) -> bool:
        value = self._given.get(name, False)
        if not isinstance(value, bool):
            raise _refused(name, value, "true or false")
        return value

    def count(self, name: str) -> int | None:
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
            raise _refused(name, value, "a whole number from 0")
        return value

    def time(self, name: str) -> datetime | None:
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise _refused(name, value, "a date as text")
        return retain.parse_before(value)

    def path(self, name: str) -> Path:
        value = self._given.get(name)
        if not isinstance(value, str) or not Path(value).is_absolute() or "\0" in value:
            raise _refused(name, value, "an absolute path on the store's host")
        return Path(value)


def _refused(name: str, value: object, wanted: str) -> Refuse:
    return Refuse("action.argument", f"{name} = {str(value)[:200]!r}", f"give {wanted}")
