"""Rows of a ring that are filled in place: claimed now, committed or abandoned later."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Halt, Refuse
from streamapp.ring.engine import Mapping
from streamapp.ring.layout import Array
from streamapp.ring.records import SourcePosition
from streamapp.ring.rows import fit_records

Places = Callable[[Sequence[SourcePosition]], Array]


class Reservation:
    """``n`` rows from frame id ``first`` on, the writer's alone until :meth:`commit`.

    Fill the columns, then commit; what is not committed becomes void, which readers count.  While
    rows are reserved readers see ``n`` frames less of the past, and the writer writes nothing else.

    Attributes:
        first: frame id of the first row.
        columns: writable arrays (n, dim) by column name, each one piece of memory.  They are the
            ring's own rows, except where a window over the ring's end cannot be mapped in one piece
            (``direct`` says so): such an array is copied in by :meth:`commit`.
        semantic: the first of them.
        direct: no column has to be copied.
    """

    def __init__(self, path: Path, mapping: Mapping, n: int, places: Places) -> None:
        self.path = path
        self.first = mapping.ops.head()
        self._map: Mapping | None = mapping
        self._n = n
        self._places = places
        self._scratch: dict[str, Array] = {}
        self.columns: dict[str, Array] = {name: self._window(name) for name in mapping.columns}
        self.semantic = self.columns["semantic"]
        mapping.ops.reserve(n)  # last: a column that cannot be mapped leaves nothing reserved

    def _window(self, name: str) -> Array:
        mapping = self._mapping()
        rows = mapping.window(name, self.first, self._n)
        if rows is None:
            like = mapping.columns[name]
            rows = self._scratch[name] = np.zeros((self._n, like.shape[1]), like.dtype)
        return rows

    def _mapping(self) -> Mapping:
        if self._map is None:
            raise Halt(
                "ring.reservation",
                f"the reservation of frames {self.first} to {self.first + self._n - 1} of"
                f" {self.path} is over",
                "reserve rows anew",
            )
        return self._map

    def __len__(self) -> int:
        return self._n

    @property
    def direct(self) -> bool:
        """Are all columns the ring's own memory?"""
        return not self._scratch

    @property
    def is_open(self) -> bool:
        """Neither committed nor abandoned."""
        return self._map is not None

    def commit(
        self,
        records: Array,
        *,
        positions: Sequence[SourcePosition] = (),
        keep: npt.ArrayLike | None = None,
    ) -> int:
        """Publish the rows with their records; returns the first frame id.

        Args:
            records: (n,) of RECORD_DTYPE; stamp, frame_id and epoch are filled in here.
            positions: as for :meth:`RingWriter.write`.
            keep: (n,) booleans; a row that is not kept becomes void.

        Raises:
            Refuse: records or keep do not fit (``ring.rows``); the reservation stays open.
            Halt: a position goes back, or the reservation is over (``ring.reservation``).
        """
        mapping = self._mapping()
        records = fit_records(self.path, records, self._n)
        kept = None if keep is None else self._fit_keep(keep)
        places = self._places(positions)
        for name, rows in self._scratch.items():
            column = mapping.columns[name]
            slots = np.arange(self.first, self.first + self._n) & (len(column) - 1)
            column[slots] = rows
        first = mapping.ops.commit(records, kept, places)
        self.let_go()
        return first

    def _fit_keep(self, keep: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        kept = np.asarray(keep)
        if kept.shape != (self._n,) or kept.dtype not in (np.bool_, np.uint8):
            raise Refuse(
                "ring.rows",
                f"keep has one boolean for each of {self._n} rows, not {kept.shape} of"
                f" {kept.dtype}",
                "give a boolean array as long as the reservation",
            )
        return np.ascontiguousarray(kept).view(np.uint8)

    def abandon(self) -> int:
        """Let all rows become void; returns the first frame id."""
        first = self._mapping().ops.abandon()
        self.let_go()
        return first

    def let_go(self) -> None:
        """Be over, whatever became of the rows."""
        self._map = None
        for rows in self.columns.values():
            rows.flags.writeable = False  # they are the readers' now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_open:
            self.abandon()
