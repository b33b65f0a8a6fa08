"""How ``streamapp ring`` prints frames: a line for people, an object for programs."""

from collections.abc import Iterable
from datetime import UTC, datetime
from math import isnan
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from streamapp.ring import Frame, RingReader

#: Heading, width, and how a value is written; floats that are not known are a dash.
_CELLS = (
    ("frame_id", 8, "d"),
    ("time", 8, ""),
    ("conversation", 12, ""),
    ("delta_time", 10, "+.2f"),
    ("velocity", 8, ".2f"),
    ("fill_rate", 9, ".2f"),
    ("sentiment", 9, "+.2f"),
    ("intent_id", 9, "d"),
)
#: What a narrow terminal does without, in this order, after the vectors.
_DISPENSABLE = ("conversation", "fill_rate", "delta_time", "velocity", "time")
_GAP = "  "
_VALUES_SHOWN = 3
_VECTOR_WIDTH = 8 * _VALUES_SHOWN - 1
#: The ring's own words, and what ``source`` says in clear.
_NOT_SHOWN = {"stamp", "source_offset", "presence", "dim_used", "dtype_code", "flags", "epoch"}
_DIGITS = 6


class Lines:
    """Frames as lines that a terminal does not fold.

    Args:
        columns: names of the vectors.
        width: of the terminal; None: as wide as it takes, for a pipe or a file.
    """

    def __init__(self, columns: Iterable[str], width: int | None) -> None:
        self._vectors, self._cells = list(columns), list(_CELLS)
        dispensable = iter(_DISPENSABLE)
        while width is not None and len(self._heading()) > width:
            if self._vectors:
                self._vectors.pop()
            elif name := next(dispensable, ""):
                self._cells = [cell for cell in self._cells if cell[0] != name]
            else:
                break

    def heading(self) -> str:
        """The line above the lines."""
        return self._heading().rstrip()

    def line(self, frame: "Frame") -> str:
        """A frame's fields under the heading; colours by sign, dim what is not known."""
        cells = [_cell(frame, name, width, how) for name, width, how in self._cells]
        vectors = (_vector(frame.columns[name]) for name in self._vectors)
        return _GAP.join([*cells, *vectors]).rstrip()

    def _heading(self) -> str:
        names = [f"{name:>{width}}" for name, width, _ in self._cells]
        return _GAP.join([*names, *(f"{name:<{_VECTOR_WIDTH}}" for name in self._vectors)])


def _cell(frame: "Frame", name: str, width: int, how: str) -> str:
    if name == "time":
        moment = datetime.fromtimestamp(frame.timestamp_us / 1e6, UTC)
        return f"{moment:%H:%M:%S}".rjust(width)
    if name == "conversation":
        known = f"{frame.conversation_hash:016x}"[:width] if frame.conversation_hash else "-"
        return click.style(known.rjust(width), dim=True)
    value = getattr(frame, name)
    if isnan(value) or (name == "intent_id" and value < 0):
        return click.style("-".rjust(width), dim=True)
    text = f"{value:{how}}".rjust(width)
    if name == "sentiment" and value:
        return click.style(text, fg="green" if value > 0 else "red")
    return text


def _vector(values: Any) -> str:
    shown = " ".join(f"{value:+.4f}" for value in values[:_VALUES_SHOWN].tolist())
    return f"{shown:<{_VECTOR_WIDTH}}"


def as_dict(frame: "Frame", reader: "RingReader") -> dict[str, Any]:
    """A frame's fields as plain values: NaN as None, tensors as lists, its source by name."""
    from streamapp.ring import RECORD_DTYPE

    origin = reader.origin(frame)
    names = [name for name in RECORD_DTYPE.names or () if name not in _NOT_SHOWN]
    values = {name: _plain(getattr(frame, name)) for name in names}
    values["conversation_hash"] = f"{frame.conversation_hash:016x}"
    values["source"] = origin._asdict() if origin else None
    return values | {name: _plain(rows) for name, rows in frame.columns.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if isnan(value) else round(value, _DIGITS)
    if hasattr(value, "tolist"):
        return [_plain(item) for item in value.tolist()]
    return value
