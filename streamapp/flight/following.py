"""A ``live`` ticket: what a subscriber asks for, checked before anything runs.

The ticket is JSON: ``{"live": {"from": ..., "where": ..., "columns": [...]}}``, or ``live`` alone.
``from`` is ``"now"``, ``"beginning"``, or where to go on: ``{"events.raw-0": 17}`` (the next source
offset of each partition), as the metadata of every batch says it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import duckdb

from streamapp.core.errors import Refuse
from streamapp.core.sql import literal, quoted, without_arguments
from streamapp.flight import guard
from streamapp.flight.border import short
from streamapp.flight.feed import Partition

ADDRESS = ("source_topic", "source_partition", "source_offset")
_WHERE_BYTES_MAX = 64 << 10
_COLUMNS_MAX = 1000
_PARTS = {"from", "where", "columns"}


@dataclass(frozen=True, slots=True)
class Following:
    """What one subscriber follows; ``columns`` empty: all of them."""

    start: Literal["now", "beginning"] | dict[Partition, int] = "now"
    where: str = "true"
    columns: tuple[str, ...] = ()

    def with_columns(self, known: Iterable[str]) -> "Following":
        """With the columns by name, the address first."""
        wanted = self.columns or tuple(known)
        others = (name for name in wanted if name.lower() not in ADDRESS)
        return replace(self, columns=(*ADDRESS, *others))

    def select(self, source: str, windows: Mapping[Partition, tuple[int, int]]) -> str:
        """SQL of the rows of ``source`` that are wanted, within these offsets."""
        within = " OR ".join(
            f"(source_topic = {literal(topic)} AND source_partition = {partition} "
            f"AND source_offset >= {first} AND source_offset < {next_})"
            for (topic, partition), (first, next_) in windows.items()
        )
        return (
            f"SELECT {', '.join(map(quoted, self.columns))} FROM {source} "  # noqa: S608  # guarded
            f"WHERE ({within or 'false'}) AND (\n{self.where}\n)"
        )


def parse(ticket: bytes) -> Following | None:
    """The ticket's content; None when it is no live ticket.

    Raises:
        Refuse: it is one, and wrong.
    """
    if ticket.strip() == b"live":
        return Following()
    if not ticket.lstrip().startswith(b"{"):
        return None
    try:
        content = json.loads(ticket)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is not JSON: {short(str(error), 200)}") from None
    asked = content.get("live") if len(content) == 1 else None
    if not isinstance(asked, dict) or asked.keys() - _PARTS:
        raise _wrong('is JSON but not {"live": {...}} with from, where and columns')
    where = asked.get("where") or "true"
    if not isinstance(where, str) or len(where.encode(errors="replace")) > _WHERE_BYTES_MAX:
        raise _wrong("has a where that is no text of at most 64 KiB")
    columns = asked.get("columns") or []
    if (
        not isinstance(columns, list)
        or len(columns) > _COLUMNS_MAX
        or not all(isinstance(name, str) for name in columns)
    ):
        raise _wrong("has columns that are no list of names")
    return Following(_start(asked.get("from", "now")), where, tuple(dict.fromkeys(columns)))


def check_condition(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    """One expression, and nothing that gets out of the parentheses round it.

    Raises:
        Refuse: it is more, or not allowed.
    """
    # As the one argument of a function: nothing else could hold what closes a parenthesis.
    given = guard.check(connection, f"SELECT list_value(\n{where}\n)")
    plain = guard.check(connection, "SELECT list_value(true)")
    if without_arguments(given) != without_arguments(plain):
        raise Refuse(
            "sql.not_allowed",
            f"{short(where, 200)!r} is not one condition",
            "write what could stand after WHERE: intent = 'cancel' AND sentiment < 0",
        )


def _start(value: Any) -> Literal["now", "beginning"] | dict[Partition, int]:
    if value == "now":
        return "now"
    if value == "beginning":
        return "beginning"
    if not isinstance(value, dict):
        raise _wrong('has a from that is neither "now", "beginning" nor an object')
    return {_partition(name): _offset(name, offset) for name, offset in value.items()}


def _partition(name: str) -> Partition:
    topic, _, number = name.rpartition("-")
    if not topic or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise _wrong(f"has a from of {short(repr(name), 100)}, which is no TOPIC-PARTITION")
    return topic, int(number)


def _offset(name: str, offset: Any) -> int:
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < 1 << 63:
        raise _wrong(f"has a from whose {short(repr(name), 100)} is no offset")
    return offset


def _wrong(what: str) -> Refuse:
    return Refuse(
        "live.ticket",
        f"the live ticket {what}",
        'send {"live": {"from": "now", "where": "intent = \'cancel\'", "columns": ["text"]}}',
    )
