"""How ``streamapp dlq`` prints dead letters: tables and pages for people, objects for programs."""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import click
import msgspec

from streamapp.agents.letters import Found, Replayed
from streamapp.agents.replay import Failed, Sent
from streamapp.cli.output import console, harmless, print_table
from streamapp.core.counted import counted
from streamapp.topics.dead import Letter

COLUMNS = ("address", "failed", "source", "stage", "code", "replays", "reason")
REASON_CHARS_SHOWN = 80
REASON_CHARS_LEAST = 12
#: Terminals from this width on show where a letter came from.
WIDE_COLUMNS = 120
#: No text has these: a value with one of them is bytes.
_NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
#: Of a value that is no text; ``--raw`` writes all of it.
HEX_BYTES_SHOWN = 16 << 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Of each kind of outcome those that are named; the others are counted.
NAMED_MAX = 100_000
SENT_SHOWN = 20
FAILURES_SHOWN = 10
T = TypeVar("T")


@dataclass(slots=True)
class Listing:
    """What a look through the topic found: how many of each kind, and the newest."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    replayed: int = 0
    shown: list[Found] = field(default_factory=list)

    def add(self, found: Found, limit: int) -> None:
        """One more letter, newest first."""
        self.counts[found.letter.stage, found.letter.code] += 1
        self.replayed += bool(found.replayed)
        if len(self.shown) < limit:
            self.shown.append(found)


@dataclass(slots=True)
class Some(Generic[T]):
    """The first of many, and how many there are."""

    first: list[T] = field(default_factory=list)
    count: int = 0

    def add(self, one: T) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < NAMED_MAX:
            self.first.append(one)


@dataclass(slots=True)
class Outcome:
    """What a replay did: ``left`` are those that it was stopped before."""

    skipped: Some[Failed]
    left: int
    sent: Some[Sent] = field(default_factory=Some)
    failed: Some[Failed] = field(default_factory=Some)

    def add(self, some: Sequence[Sent | Failed]) -> None:
        """What became of some more."""
        self.left -= len(some)
        for one in some:
            if isinstance(one, Sent):
                self.sent.add(one)
            else:
                self.failed.add(one)


def print_listing(listing: Listing) -> None:
    """Counts on top, then the newest letters."""
    kinds = [(stage or "-", code or "-", n) for (stage, code), n in listing.counts.most_common()]
    print_table(("stage", "code", "letters"), kinds, right=("letters",))
    click.echo()
    _print_letters(listing.shown)
    total = listing.counts.total()
    if total > len(listing.shown):
        click.echo(
            f"the newest {len(listing.shown):,} of {counted(total, 'letter')} (--limit N for more)"
        )


def listing_as_dict(topic: str, listing: Listing) -> dict[str, Any]:
    """A listing for programs."""
    return {
        "topic": topic,
        "letters": listing.counts.total(),
        "replayed": listing.replayed,
        "counts": [
            {"stage": stage, "code": code, "letters": n}
            for (stage, code), n in listing.counts.most_common()
        ],
        "shown": [as_dict(found) for found in listing.shown],
    }


def outcome_as_dict(outcome: Outcome) -> dict[str, Any]:
    """A replay for programs: the first of each kind, and how many there are."""
    return {
        "replayed": [{"letter": str(at), "to": to._asdict()} for at, to in outcome.sent.first],
        "failed": _failures(outcome.failed),
        "skipped": _failures(outcome.skipped),
        "counts": {
            "replayed": outcome.sent.count,
            "failed": outcome.failed.count,
            "skipped": outcome.skipped.count,
            "left": outcome.left,
        },
    }


def print_outcome(outcome: Outcome) -> None:
    """The first that were sent, the first of the others with reasons, and how many there are."""
    sent = outcome.sent
    for letter, to in sent.first[:SENT_SHOWN]:
        click.echo(f"{letter} sent to {to}")
    if sent.count > SENT_SHOWN:
        click.echo(f"and {sent.count - SENT_SHOWN:,} more")
    for what, some in (("not sent", outcome.failed), ("skipped", outcome.skipped)):
        for _, error in some.first[:FAILURES_SHOWN]:
            click.echo(f"{what}: {harmless(str(error.message))} [{error.code}]", err=True)
        if some.count > FAILURES_SHOWN:
            click.echo(f"and {some.count - FAILURES_SHOWN:,} more {what}", err=True)
    left = f"; {outcome.left:,} left: run it again" if outcome.left else ""
    click.echo(
        f"replayed {counted(sent.count, 'letter')}, {outcome.failed.count:,} failed, "
        f"{outcome.skipped.count:,} skipped{left}"
    )


def _failures(failed: Some[Failed]) -> list[dict[str, str]]:
    return [
        {"letter": str(at), "code": error.code, "message": error.message}
        for at, error in failed.first
    ]


def as_dict(found: Found) -> dict[str, Any]:
    """A letter without its bytes."""
    letter = found.letter
    return {
        "address": str(letter.address),
        "timestamp_ms": letter.timestamp,
        "failed_ms": letter.failed_ms,
        "source": None if letter.source is None else letter.source._asdict(),
        "stage": letter.stage,
        "code": letter.code,
        "reason": letter.reason,
        "bytes": found.size,
        "replays": found.times,
        "replayed": [
            {"to": one.to._asdict(), "at_ms": one.at_ms, "edited": one.edited}
            for one in found.replayed
        ],
    }


def whole_as_dict(found: Found, letter: Letter) -> dict[str, Any]:
    """A letter with all it has; bytes that are no text as base64."""
    return {
        **as_dict(found),
        **_bytes_as("key", letter.key),
        **_bytes_as("value", letter.value),
        "headers": [{"name": name, **_bytes_as("value", value)} for name, value in letter.headers],
    }


def page(found: Found, letter: Letter, topic: str) -> str:
    """A letter with all it has, for people."""
    size = "none" if letter.value is None else f"{len(letter.value):,} bytes"
    lines = [
        ("letter", f"{letter.address} of {topic}"),
        ("source", str(letter.source) if letter.source else "not said: someone else wrote it"),
        ("came", time_text(letter.timestamp)),
        ("failed", time_text(letter.failed_ms)),
        ("stage", letter.stage or "-"),
        ("code", letter.code or "-"),
        ("reason", letter.reason or "-"),
        ("replayed", _replays(found)),
        ("key", _short(letter.key)),
        *(("header", f"{name}: {_short(value)}") for name, value in letter.headers),
        ("value", size),
    ]
    head = "\n".join(f"{name:<10}{harmless(text)}" for name, text in lines)
    return f"{head}\n\n{value_text(letter.value)}" if letter.value else head


def value_text(value: bytes) -> str:
    """JSON indented as it was written, other text as it is, the rest in hex."""
    if _NO_TEXT.search(value):
        return _hex(value)
    try:
        return harmless(pretty(value))
    except UnicodeDecodeError:
        return _hex(value)


def pretty(value: bytes) -> str:
    """JSON indented, without touching a number's digits or a key that comes twice; or the text.

    Raises:
        UnicodeDecodeError: it is no text.
    """
    text = value.decode()
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return text


def time_text(at_ms: int) -> str:
    """Unix milliseconds in UTC; as a number where no calendar has them."""
    try:
        return f"{_EPOCH + timedelta(milliseconds=at_ms):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return f"{at_ms} ms"


def _print_letters(shown: Sequence[Found]) -> None:
    """A line for each letter; a terminal gets no more of a reason than fits."""
    rows = [_line(found) for found in shown]
    names = list(COLUMNS)
    screen = console()
    if screen.is_terminal:
        if screen.width < WIDE_COLUMNS:  # `show` tells it
            names.remove("source")
        others = sum(_width(name, rows) for name in names if name != "reason") + 2 * len(names)
        room = max(screen.width - others, REASON_CHARS_LEAST)
        rows = [row | {"reason": _cut(row["reason"], room)} for row in rows]
    cells = [[row[name] for name in names] for row in rows]
    replays = names.index("replays")
    # What was replayed is not urgent any more.
    print_table(
        names, cells, right=("replays",), style=lambda row: "" if row[replays] == "0" else "dim"
    )


def _line(found: Found) -> dict[str, str]:
    letter = found.letter
    cells = (
        str(letter.address),
        time_text(letter.failed_ms),
        str(letter.source or "-"),
        letter.stage or "-",
        letter.code or "-",
        str(found.times),
        _cut(letter.reason, REASON_CHARS_SHOWN),
    )
    return dict(zip(COLUMNS, map(harmless, cells), strict=True))


def _width(name: str, rows: Sequence[dict[str, str]]) -> int:
    return max(map(len, (name, *(row[name] for row in rows))))


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


def _replays(found: Found) -> str:
    if not found.times:
        return "never"
    parts = [_one_replay(one) for one in found.replayed]
    if found.letter.replays:
        parts.append(f"{_times(found.letter.replays)} before it came here")
    return f"{_times(found.times)}: {'; '.join(parts)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _one_replay(one: Replayed) -> str:
    how = "edited, " if one.edited else ""
    return f"{how}to {one.to} at {time_text(one.at_ms)}"


def _short(value: bytes | None) -> str:
    if value is None:
        return "none"
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex(" ")


def _bytes_as(name: str, value: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": b64encode(value or b"").decode()}


def _hex(value: bytes) -> str:
    """Sixteen bytes a line: place, bytes, and what of them is text."""
    lines = []
    for at in range(0, min(len(value), HEX_BYTES_SHOWN), 16):
        part = value[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:08x}  {part.hex(' '):<47}  {text}")
    if len(value) > HEX_BYTES_SHOWN:
        lines.append(f"and {len(value) - HEX_BYTES_SHOWN:,} bytes more: --raw writes them all")
    return "\n".join(lines)
