"""Small files made into larger ones, and files that nobody needs removed."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa

from streamapp.core import clock
from streamapp.sink.parquet import parts
from streamapp.sink.parquet.manifest import File, Retired, State
from streamapp.sink.parquet.parts import Fragments, Made
from streamapp.sink.parquet.place import Place

#: As large as files are made of small ones.
MERGED_BYTES_MAX = 64 << 20
#: So many files of like size become one.
MERGE_FILES = 16
#: So many times in one checkpoint: the writer waits for it.
_MERGES_MAX = 8
#: How long a file stays after it is named no more: who has the old list still reads it.
RETIRED_S = 3600
#: So many are removed at once while the writer waits.
_REMOVALS_MAX = 256
#: How old a file must be that no manifest names, where other writers may be at work.
ORPHAN_S = 86_400
_FOLDERS = ("events", "dead", "provenance", "answers")


class Merged(NamedTuple):
    """Files that a larger one stands for."""

    made: Made
    old: tuple[File, ...]


def merges(
    state: State, fragments: Fragments, schemas: dict[str, pa.Schema], number: int
) -> Iterator[Merged]:
    """What is worth merging: sixteen files of one folder whose sizes are within a factor of 4.

    So a row is written again a few times at most, however slowly rows come.

    Args:
        state: what is stored.
        fragments: its files.
        schemas: of each table.
        number: of the checkpoint to come.
    """
    for group in _groups(state.files)[:_MERGES_MAX]:
        table = group[0].table
        rows = fragments.dataset(group, schemas[table]).to_table()
        folder = group[0].path.rpartition("/")[0]
        if table == "events":
            made = parts.one_events_file(rows.sort_by("stored_order"), folder, number)
        else:
            made = parts.table_file(table, rows, folder, number)
        yield Merged(made, group)


def _groups(stored: Iterable[File]) -> list[tuple[File, ...]]:
    alike: dict[tuple[str, int], list[File]] = {}
    for file in stored:
        if file.bytes < MERGED_BYTES_MAX // 2:
            key = file.path.rpartition("/")[0], file.bytes.bit_length() // 2
            alike.setdefault(key, []).append(file)
    groups = []
    for candidates in alike.values():
        for start in range(0, len(candidates) - MERGE_FILES + 1, MERGE_FILES):
            group = candidates[start : start + MERGE_FILES]
            while sum(file.bytes for file in group) > MERGED_BYTES_MAX:
                group.pop()
            groups.append(tuple(group))
    return groups


def after_merging(
    state: State, merged: Iterable[Merged], removed: Iterable[Retired]
) -> tuple[list[File], list[Retired]]:
    """The files and the retired ones that the next checkpoint says."""
    now_us = clock.now_us()
    merged = list(merged)
    old = {file.path for one in merged for file in one.old}
    kept = [file for file in state.files if file.path not in old]
    gone = set(removed)
    retired = [one for one in state.retired if one not in gone]
    retired += [Retired(path, now_us) for path in sorted(old)]
    return kept + [one.made.file for one in merged], retired


def remove_retired(
    place: Place, state: State, at_most: int | None = _REMOVALS_MAX
) -> list[Retired]:
    """Remove files that were merged or dropped long enough ago; which they are."""
    before_us = clock.now_us() - RETIRED_S * 1_000_000
    due = [one for one in state.retired if one.at_us <= before_us][:at_most]
    for one in due:
        place.remove(one.path)
    return due


def discard(place: Place, paths: Iterable[str]) -> None:
    """Remove files of a failed attempt; what fails here is for the next start to sweep.

    Where others write, one of them may have stored the same rows under the same name.
    """
    for path in paths if place.alone else ():
        with contextlib.suppress(OSError):
            place.remove(path)


def sweep(place: Place, state: State) -> list[str]:
    """Remove what a killed writer left: data files that no manifest names; which they are."""
    named = {file.path for file in state.files} | {one.path for one in state.retired}
    swept = []
    for folder in _FOLDERS:
        for path in list(place.walk(folder)):
            if path in named or not path.endswith(".parquet"):
                continue
            if place.alone or place.age_s(path) > ORPHAN_S:
                place.remove(path)
                swept.append(path)
    return swept
