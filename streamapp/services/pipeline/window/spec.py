"""What a window is, and which rows are late for it."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from streamapp.plugin import Config, Refuse
from streamapp.services.pipeline.base import Name, Sql

_UNITS_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"(\d{1,12})(us|ms|s|m|h|d|w)")
#: Hundred years: sums of times stay far from the ends of an int64.
_DURATION_US_MAX = 36_525 * _UNITS_US["d"]
#: In how many windows a row may be.
OVERLAPS_MAX = 1_000


class WindowConfig(Config, frozen=True, kw_only=True):
    """Which rows make a window, and what is computed of them.

    Windows are closed in order of their end, when the greatest time seen, less ``grace``, has
    reached it.  A row is late when every window it belongs to was closed before it came; with
    ``sliding`` and ``session``, where a row changes later windows, when it is older than that time.

    Attributes:
        time: the column of the event's time, a timestamp.
        kind: ``tumbling``: one after the other, ``size`` long, counted from 1970.  ``hopping``: one
            begins ``every`` so often.  ``sliding``: one ends at each row, and has the rows of its
            key of the last ``size``, those at the same moment included.  ``session``: rows of a key
            that are less than ``gap`` apart.
        size: a duration, like ``5m``, ``1h30m`` or ``250ms``.
        every: the same, for ``hopping``.
        gap: the same, for ``session``.
        grace: how much later a row may come than rows of a later time.
        by: columns whose values together make a key; null is a value.
        columns: name to expression over the rows of a window, like ``sum(price)``.
        start: the column of the window's start, which is in it (with ``sliding``, it is not).
        end: the column of its end, which is not in it (with ``sliding``, it is).
        late: whether late rows are only counted, or set aside, too.
        rows_max: how many rows of open windows a topic's reader keeps.
    """

    time: Name
    kind: Literal["tumbling", "hopping", "sliding", "session"]
    size: str = ""
    every: str = ""
    gap: str = ""
    grace: str = "0s"
    by: tuple[Name, ...] = ()
    columns: Annotated[dict[Name, Sql], Meta(min_length=1)]
    start: Name = "window_start"
    end: Name = "window_end"
    late: Literal["count", "quarantine"] = "count"
    rows_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 500_000


class Spans:
    """A config's durations, in microseconds.

    Raises:
        Refuse: one is missing, not asked for, or not a duration.
    """

    def __init__(self, config: WindowConfig) -> None:
        wanted = {
            "tumbling": {"size"},
            "hopping": {"size", "every"},
            "sliding": {"size"},
            "session": {"gap"},
        }[config.kind]
        for key in ("size", "every", "gap"):
            said = bool(getattr(config, key))
            if said != (key in wanted):
                what = "takes no" if said else "needs"
                raise Refuse(
                    "operation.config",
                    f"config.{key}: a {config.kind} window {what} {key}",
                    f"it is made of {' and '.join(sorted(wanted))}",
                )
        self.kind = config.kind
        self.grace_us = duration_us(config.grace, "config.grace", least_us=0)
        self.size_us = duration_us(config.size, "config.size") if config.size else 0
        self.gap_us = duration_us(config.gap, "config.gap") if config.gap else 0
        self.every_us = duration_us(config.every, "config.every") if config.every else self.size_us
        if config.kind == "hopping" and self.overlaps > OVERLAPS_MAX:
            raise Refuse(
                "operation.config",
                f"config.every: a row would be in {self.overlaps:,} windows",
                f"make it at least a {OVERLAPS_MAX:,}th of the size",
            )

    @property
    def overlaps(self) -> int:
        """In how many windows of fixed places a row is, at most."""
        return -(-self.size_us // self.every_us)


def duration_us(text: str, key: str, *, least_us: int = 1) -> int:
    """Microseconds of a duration like ``1h30m``.

    Raises:
        Refuse: it is none, too short or too long.
    """
    parts = _PART.findall(text)
    total = sum(int(number) * _UNITS_US[unit] for number, unit in parts)
    if not parts or "".join(map("".join, parts)) != text:
        fix = f"write a number and one of {', '.join(_UNITS_US)}, like 5m or 1h30m"
        raise Refuse("operation.config", f"{key}: {text!r} is not a duration", fix)
    if not least_us <= total <= _DURATION_US_MAX:
        raise Refuse("operation.config", f"{key}: {text!r} is out of range", "give 1us to 36525d")
    return total
