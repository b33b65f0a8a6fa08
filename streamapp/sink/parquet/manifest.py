"""The manifest: one immutable JSON file per commit, and what they add up to.

``_manifest/000000000012.json`` is commit 12.  It names the data files that it adds, the source
ranges that are thereby stored and the positions that moved.  A *checkpoint* says all of it anew, so
that nothing before it need be read.  A number is taken by whoever creates its file, which can be
done once.  A data file that the manifest does not name is not there.
"""

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec
import pyarrow as pa
from msgspec import structs
from pyarrow import ipc

from streamapp.core.errors import Refuse
from streamapp.core.ranges import Ledger, OffsetRange
from streamapp.sink.parquet.place import Place

FOLDER = "_manifest"
#: Raised when the meaning of an entry changes; a store of another format is refused.
FORMAT = 1
_NAME = re.compile(r"(\d{12})\.json")
#: A checkpoint may take away entries while somebody reads them; then he begins again.
_ATTEMPTS = 5


class File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A data file and what is in it, so that readers open only those they need.

    Attributes:
        table: ``events``, ``dead``, ``provenance`` or ``answers``.
        path: below the root.
        rows: how many.
        bytes: its size.
        topic: the source topic of all its rows (events).
        first: ``stored_order`` of its first row (events).
        last: and of its last.
        ingest_us: least and greatest ingest time, Unix us (events).
        offsets: per source partition the least and greatest source offset (events).
    """

    table: str
    path: str
    rows: int
    bytes: int
    topic: str = ""
    first: int = 0
    last: int = -1
    ingest_us: tuple[int, int] = (0, 0)
    offsets: tuple[tuple[int, int, int], ...] = ()


class Range(msgspec.Struct, frozen=True, array_like=True):
    """Source offsets that are stored, as a row of the ledger."""

    topic: str
    partition: int
    first: int
    next: int
    lost: int
    rows: int
    stored_at_us: int


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where reading an enriched partition goes on."""

    topic: str
    partition: int
    next: int
    stored_at_us: int


class Retained(msgspec.Struct, frozen=True, array_like=True):
    """Source offsets whose rows were dropped on purpose, as a row of table ``retained``."""

    topic: str
    partition: int
    first: int
    next: int
    rows: int
    dead: int
    before_us: int
    retained_at_us: int


_Run = TypeVar("_Run", Range, Retained)


class Retired(msgspec.Struct, frozen=True, array_like=True):
    """A file that is named no more: its rows are in another one, or were dropped.

    It stays for a while for those who still read it.
    """

    path: str
    at_us: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the manifest.

    Attributes:
        number: its place; they follow each other without a gap.
        kind: a ``checkpoint`` replaces everything before it, a ``commit`` adds.
        writer: random, so that a writer knows its own.
        stored_at_us: when, Unix us.
        next_order: rows ever stored; what ``stored_order`` goes on with.
        files: data files.
        ranges: source ranges.
        positions: positions.
        retired: files to be removed later (checkpoints).
        retained: what was dropped; the ranges go on covering it (checkpoints).
        columns: the Arrow schema of ``events``, an IPC message in base64 (checkpoints).
        format: of this file.
    """

    number: int
    kind: Literal["commit", "checkpoint"]
    writer: str
    stored_at_us: int
    next_order: int
    files: tuple[File, ...] = ()
    ranges: tuple[Range, ...] = ()
    positions: tuple[Position, ...] = ()
    retired: tuple[Retired, ...] = ()
    retained: tuple[Retained, ...] = ()
    columns: str = ""
    format: int = FORMAT


@dataclass
class State:
    """What the manifest amounts to."""

    number: int = 0
    checkpoint: int = 0
    next_order: int = 0
    files: list[File] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)
    positions: dict[tuple[str, int], Position] = field(default_factory=dict)
    retired: list[Retired] = field(default_factory=list)
    retained: tuple[Retained, ...] = ()
    schema: pa.Schema | None = None
    #: Writer and time of the last entry: no other one is called so.
    last: tuple[str, int] = ("", 0)

    def apply(self, entry: Entry) -> None:
        """Take an entry in; they come in order, the first being a checkpoint."""
        if entry.kind == "checkpoint":
            self.checkpoint = entry.number
            self.files, self.ranges, self.positions = [], [], {}
            self.retired, self.retained = list(entry.retired), entry.retained
            self.schema = ipc.read_schema(pa.BufferReader(base64.b64decode(entry.columns)))
        self.number, self.last = entry.number, (entry.writer, entry.stored_at_us)
        self.next_order = entry.next_order
        self.files += entry.files
        self.ranges += entry.ranges
        self.positions |= {(one.topic, one.partition): one for one in entry.positions}

    def ledger(self) -> Ledger:
        """The source ranges that are stored."""
        return Ledger(OffsetRange(r.topic, r.partition, r.first, r.next) for r in self.ranges)


def schema_text(schema: pa.Schema) -> str:
    """How an entry keeps a schema."""
    return base64.b64encode(schema.serialize()).decode()


def path_of(number: int) -> str:
    """Where entry ``number`` is."""
    return f"{FOLDER}/{number:012}.json"


def encode(entry: Entry) -> bytes:
    """An entry as its file, for people to read too."""
    return msgspec.json.format(msgspec.json.encode(entry), indent=1)


def numbers(place: Place) -> list[int]:
    """The entries that are there, in order."""
    found = [_NAME.fullmatch(name) for name in place.names(FOLDER)]
    return sorted(int(match[1]) for match in found if match)


def load(place: Place) -> State:
    """What the manifest says now; the empty state when there is none.

    Raises:
        Refuse: an entry is damaged, missing or of another format.
        OSError: the place does not answer.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        there = numbers(place)
        try:
            return _folded(place, there)
        except FileNotFoundError as error:
            if attempt == _ATTEMPTS:
                raise _damaged(place, str(error)) from None
    raise AssertionError


def _folded(place: Place, there: list[int]) -> State:
    entries: list[Entry] = []
    for number in reversed(there):
        entries.append(read(place, number))
        if entries[-1].kind == "checkpoint":
            break
    state = State()
    for entry in reversed(entries):
        if state.number and entry.number != state.number + 1:
            raise _damaged(place, f"entry {state.number + 1} is missing")
        if not state.number and entry.kind != "checkpoint":
            raise _damaged(place, f"nothing before entry {entry.number} says what there was")
        state.apply(entry)
    return state


def read(place: Place, number: int) -> Entry:
    """One entry.

    Raises:
        Refuse: it is damaged, or of another format.
        OSError: it is not there, or the place does not answer.
    """
    data = place.read(path_of(number))
    try:
        found: dict[str, Any] = msgspec.json.decode(data, type=dict)
        if found.get("format") != FORMAT:
            raise Refuse(
                "store.format",
                f"{place.url} has manifest format {found.get('format')}, "
                f"this version of streamapp reads {FORMAT}",
                "use the version that wrote it, or another root: events.enriched fills a new one",
            )
        entry = msgspec.json.decode(data, type=Entry)
    except msgspec.DecodeError as error:
        raise _damaged(place, f"{path_of(number)}: {error}") from None
    if entry.number != number:
        raise _damaged(place, f"{path_of(number)} says that it is {entry.number}")
    return entry


def _damaged(place: Place, why: str) -> Refuse:
    return Refuse(
        "store.corrupt",
        f"the manifest of {place.url} is damaged: {why}",
        "restore a copy, or use another root: events.enriched fills a new one",
    )


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Ranges that touch as one."""
    return _side_by_side(
        ranges,
        lambda last, one: structs.replace(
            last,
            next=one.next,
            lost=last.lost + one.lost,
            rows=last.rows + one.rows,
            stored_at_us=max(last.stored_at_us, one.stored_at_us),
        ),
    )


def joined_retained(dropped: Iterable[Retained]) -> tuple[Retained, ...]:
    """What was dropped side by side as one, so that it does not grow with every ``retain``."""
    return _side_by_side(
        dropped,
        lambda last, one: structs.replace(
            last,
            next=one.next,
            rows=last.rows + one.rows,
            dead=last.dead + one.dead,
            before_us=max(last.before_us, one.before_us),
            retained_at_us=max(last.retained_at_us, one.retained_at_us),
        ),
    )


def _side_by_side(found: Iterable[_Run], join: Callable[[_Run, _Run], _Run]) -> tuple[_Run, ...]:
    """Runs of offsets; of two that touch ``join`` makes one."""
    merged: list[_Run] = []
    for one in sorted(found, key=lambda run: (run.topic, run.partition, run.first)):
        last = merged[-1] if merged else None
        place = (one.topic, one.partition, one.first)
        if last is not None and (last.topic, last.partition, last.next) == place:
            merged[-1] = join(last, one)
        else:
            merged.append(one)
    return tuple(merged)
