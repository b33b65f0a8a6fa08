"""Old rows dropped from a Parquet store: whole files of old days, and the cut's day written anew.

A step looks through files, which never change, writes those anew that keep some of their rows, and
then makes one checkpoint, which names the new files and says what was dropped: before it nothing of
the step is, behind it all of it.  The writer waits for that checkpoint only.  The old files stay
for ``tidy.RETIRED_S`` for those who still read them.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core import clock
from streamapp.core.errors import Retry, StreamappError
from streamapp.core.ranges import Ledger, OffsetRange
from streamapp.sink.parquet import parts, tidy
from streamapp.sink.parquet.columns import of_tables
from streamapp.sink.parquet.commits import Commits, conflict, outside
from streamapp.sink.parquet.manifest import File, Retained, Retired, State
from streamapp.sink.parquet.parts import ORDER, Fragments
from streamapp.sink.parquet.place import Place
from streamapp.sink.parquet.store import ParquetStore

#: Rows that a step looks through: whole days (UTC), and at least one.
STEP_ROWS = 4 << 20
#: How often a step is done again because files that it read were merged meanwhile.
_ATTEMPTS = 5
_DAY_US = 86_400_000_000
_ADDRESS = ["source_topic", "source_partition", "source_offset"]
#: The time that a row's age comes from.
_TIMES = {"events": "ingest_time", "dead": "timestamp"}

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Dropping:
    """What came in before ``before`` and is stored now, dropped step by step.

    Args:
        store: open, with or without a writer at work.
        before: what came in earlier goes.
        step_rows: see ``STEP_ROWS``.
    """

    #: The column that numbers rows in the order they were stored.
    row = ORDER

    def __init__(self, store: ParquetStore, before: datetime, step_rows: int = STEP_ROWS) -> None:
        self._store = store
        self._before_us = round(before.timestamp() * 1e6)
        self._step_rows = step_rows
        self._settled = store.exclusively(lambda commits: commits.state.ledger())
        self.rows = 0
        self.dead = 0

    def __iter__(self) -> Iterator[Mapping[str, int]]:
        """Drop; ``{"at", "of"}`` in rows looked through, before each step.

        Raises:
            Retry, Halt: as a store's ``write``; what was dropped before stays so.
        """
        files = self._store.exclusively(lambda commits: tuple(commits.state.files))
        at, of = 0, sum(rows for _, rows in _days(files, self._before_us))
        for cut_us, rows in _cuts(files, self._before_us, self._step_rows):
            yield {"at": at, "of": of}
            self._step(cut_us)
            at += rows

    def _step(self, cut_us: int) -> None:
        for _ in range(_ATTEMPTS):
            change = Change(*self._store.exclusively(_now), self._settled, cut_us)
            try:
                self._prepare(change)
                if not change.runs or self._store.exclusively(change.commit):
                    self.rows += sum(run.rows for run in change.runs)
                    self.dead += sum(run.dead for run in change.runs)
                    return
            except Retry as retry:
                if retry.code != "store.conflict":
                    raise
            finally:
                with contextlib.suppress(StreamappError):  # then the next start sweeps
                    self._store.exclusively(change.clean)
        raise conflict(self._store.path)

    def _prepare(self, change: "Change") -> None:
        with outside(self._store.path):
            try:
                change.prepare()
            except FileNotFoundError:
                if change.place.alone:
                    raise
                self._store.exclusively(_doubt)  # another writer may have merged it long ago


def _doubt(commits: Commits) -> None:
    """Have the store read back what is stored."""
    raise conflict(commits.place.url)


def _now(commits: Commits) -> tuple[Place, State]:
    """The place, and what is stored now; the writer's own state goes on changing."""
    return commits.place, replace(commits.state, files=list(commits.state.files))


def _days(files: Iterable[File], before_us: int) -> list[tuple[int, int]]:
    """(Day, rows) of the files that may have older rows; a file has rows of one day."""
    days: dict[int, int] = {}
    for file in files:
        if _may_be_old(file, before_us):
            day = file.ingest_us[0] // _DAY_US
            days[day] = days.get(day, 0) + file.rows
    return sorted(days.items())


def _may_be_old(file: File, before_us: int) -> bool:
    return file.table == "events" and file.ingest_us[0] < before_us


def _cuts(files: Iterable[File], before_us: int, step_rows: int) -> Iterator[tuple[int, int]]:
    """Where each step cuts, and how many rows it looks through; the last one cuts at the end."""
    held = 0
    for day, rows in _days(files, before_us):
        if held and held + rows > step_rows:
            yield day * _DAY_US, held
            held = 0
        held += rows
    yield before_us, held


class Part(NamedTuple):
    """Rows of one file from one source partition."""

    topic: str
    partition: int
    which: Mask
    offsets: Numbers
    times_us: Numbers


@dataclass(slots=True)
class Source:
    """Offsets of one source partition: old rows, old dead letters, and those younger."""

    old: list[Numbers] = field(default_factory=list)
    dead: list[Numbers] = field(default_factory=list)
    young: list[Numbers] = field(default_factory=list)


class Change:
    """One step: what it drops, and the files that stand for those that it takes away.

    Args:
        place: of the store.
        state: what is stored.
        settled: what of it came in before ``cut_us`` goes.
        cut_us: Unix us.
    """

    def __init__(self, place: Place, state: State, settled: Ledger, cut_us: int) -> None:
        self.place = place
        self._state = state
        self._settled = settled
        self._cut_us = cut_us
        self._schemas = of_tables(state.schema)
        self._fragments = Fragments(place)
        self._gone: list[File] = []
        self._made: list[File] = []
        self.runs: list[Retained] = []

    def prepare(self) -> None:
        """Find what goes, and write the files that keep the rest.

        Raises:
            OSError, pa.ArrowException: a file cannot be read or written.
        """
        sources: dict[tuple[str, int], Source] = {}
        split = [file for file in self._state.files if self._look(file, sources)]
        for (topic, partition), source in sorted(sources.items()):
            if source.old or source.dead:
                self._find_runs(topic, partition, source)
        dropped = Ledger(OffsetRange(r.topic, r.partition, r.first, r.next) for r in self.runs)
        for file in split if self.runs else ():
            self._split(file, dropped)

    def commit(self, commits: Commits) -> bool:
        """Make it so; False, and nothing is done, when files were merged meanwhile."""
        state, now_us = commits.state, clock.now_us()
        gone = {file.path for file in self._gone}
        kept = [file for file in state.files if file.path not in gone]
        if len(kept) + len(gone) != len(state.files):
            return False
        removed = set(tidy.remove_retired(commits.place, state))
        retired = [one for one in state.retired if one not in removed]
        retired += [Retired(path, now_us) for path in sorted(gone)]
        commits.checkpoint(state.schema, [*kept, *self._made], retired, self.runs)
        return True

    def clean(self, commits: Commits) -> None:
        """Remove what was written and is not named."""
        named = {file.path for file in commits.state.files}
        unnamed = (file.path for file in self._made if file.path not in named)
        tidy.discard(self.place, unnamed)

    def _look(self, file: File, sources: dict[tuple[str, int], Source]) -> bool:
        """Note what is old in a file; whether it may keep some of its rows."""
        if file.table == "answers":
            return True
        if not (file.table == "dead" or _may_be_old(file, self._cut_us)):
            return False
        rows = 0
        for part in self._parts(file):
            settled = self._settled.of(part.topic, part.partition)
            old = (part.times_us < self._cut_us) & settled.mask(part.offsets)
            source = sources.setdefault((part.topic, part.partition), Source())
            source.young.append(part.offsets[~old])
            if old.any():
                (source.dead if file.table == "dead" else source.old).append(part.offsets[old])
                rows += int(old.sum())
        if 0 < rows == file.rows:
            self._gone.append(file)
        return 0 < rows < file.rows

    def _parts(self, file: File) -> Iterator[Part]:
        time = _TIMES.get(file.table, "source_offset")
        rows = self._read(file, [*_ADDRESS, time] if file.table in _TIMES else _ADDRESS)
        topics = rows["source_topic"].combine_chunks().dictionary_encode()
        codes, names = topics.indices.to_numpy(), topics.dictionary.to_pylist()
        partitions, offsets = (rows[name].to_numpy() for name in _ADDRESS[1:])
        times_us = rows[time].cast(pa.int64()).to_numpy()
        for code, partition in sorted(set(zip(codes.tolist(), partitions.tolist(), strict=True))):
            which = (codes == code) & (partitions == partition)
            yield Part(names[code], partition, which, offsets[which], times_us[which])

    def _read(self, file: File, columns: list[str] | None = None) -> pa.Table:
        return self._fragments.dataset([file], self._schemas[file.table]).to_table(columns)

    def _find_runs(self, topic: str, partition: int, source: Source) -> None:
        """Runs of old offsets within a range of the ledger and without a younger one."""
        places = np.concatenate([*source.old, *source.dead])
        is_dead = np.zeros(len(places), np.bool_)
        is_dead[sum(map(len, source.old)) :] = True
        order = np.argsort(places)
        places, is_dead = places[order], is_dead[order]
        first, last = int(places[0]), int(places[-1])
        breaks = np.zeros(len(places) + 1, np.bool_)
        breaks[[0, -1]] = True
        islands = np.array([one for one, _ in self._settled.of(topic, partition)], np.int64)
        for offsets in (*source.young, islands):
            breaks[np.searchsorted(places, offsets)] = True
        for file in parts.holding(self._state.files, topic, partition, first, last):
            if not _may_be_old(file, self._cut_us):
                for part in self._parts(file):
                    if part.partition == partition:
                        breaks[np.searchsorted(places, part.offsets)] = True
        bounds, now_us = np.flatnonzero(breaks).tolist(), clock.now_us()
        for begin, end in pairwise(bounds):
            dead = int(is_dead[begin:end].sum())
            ends = int(places[begin]), int(places[end - 1]) + 1
            run = Retained(topic, partition, *ends, end - begin - dead, dead, self._cut_us, now_us)
            self.runs.append(run)

    def _split(self, file: File, dropped: Ledger) -> None:
        """Write a file anew without the rows that are dropped."""
        gone = np.zeros(file.rows, np.bool_)
        for part in self._parts(file):
            gone[part.which] = dropped.of(part.topic, part.partition).mask(part.offsets)
        if not gone.any():
            return
        self._gone.append(file)
        if gone.all():
            return
        rows, folder = self._read(file).filter(pa.array(~gone)), file.path.rpartition("/")[0]
        number = self._state.number + 1
        if file.table == "events":
            made = parts.one_events_file(rows, folder, number)
        else:
            made = parts.table_file(file.table, rows, folder, number)
        self._made.append(made.file)
        self.place.put(made.file.path, made.data)
