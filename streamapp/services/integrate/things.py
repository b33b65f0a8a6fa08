"""Records by the thing that they are of: who is first to have a value, and who disagrees."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY, Order

Numbers = npt.NDArray[np.uint32]
Unsigned = npt.NDArray[np.unsignedinteger[Any]]
_PART_BITS = 16


def ascending(numbers: Unsigned) -> npt.NDArray[np.intp]:
    """The places of numbers in ascending order, (n,); equal ones stay as they were.

    By 16 bits after 16 bits, as NumPy sorts these by counting, and more of them by comparing.
    """
    found: npt.NDArray[np.intp] = np.argsort(numbers.astype(np.uint16), kind="stable")
    for bits in range(_PART_BITS, 8 * numbers.itemsize, _PART_BITS):
        part = (numbers >> numbers.dtype.type(bits)).astype(np.uint16)
        found = found[np.argsort(part[found], kind="stable")]
    return found


def first_equals(numbers: Unsigned) -> npt.NDArray[np.intp]:
    """The place of the first of those that are equal to each number, (n,)."""
    order = ascending(numbers)
    ranked = numbers[order]
    starts = np.flatnonzero(np.append(len(ranked) > 0, ranked[1:] != ranked[:-1]))
    found = np.empty_like(order)
    found[order] = np.repeat(order[starts], np.diff(np.append(starts, len(ranked))))
    return found


class Having:
    """The records that have a value, thing by thing, and within one in some order.

    ``places`` are theirs, (n,); ``winners`` for each thing which of the n is its first, or null.

    Args:
        places: as above.
        entities: their things, (n,), ascending.
        count: of things.
    """

    def __init__(self, places: Numbers, entities: Numbers, count: int) -> None:
        self.places, self.entities, self._count = places, entities, count
        self._again = entities[1:] == entities[:-1]
        first = np.flatnonzero(np.append(len(entities) > 0, ~self._again)).astype(np.uint32)
        self.winners = pl.Series(first)
        if len(first) < count:
            self.winners = pl.Series([None], dtype=pl.UInt32).new_from_index(0, count)
            self.winners[entities[first]] = first

    def disagree(self, values: pl.Series) -> pl.Series:
        """For each thing whether its records' values differ, which are those of ``places``."""
        # values that are not all equal differ from the one before somewhere
        other = (values[1:] != values[:-1]).to_numpy()
        found = np.zeros(self._count, np.bool_)
        found[self.entities[1:][self._again & other]] = True
        return pl.Series(found)


class Things:
    """Answers by places in the records, so that a field's values are moved once.

    Args:
        records: with ``ENTITY``, whose numbers are 0, 1, 2 without a gap.
        orders: in which it will be asked.
        pace: of the call.
    """

    def __init__(self, records: pl.DataFrame, orders: Iterable[Order], pace: Pace) -> None:
        self._records = records
        self._entities = records[ENTITY].to_numpy()
        self.count = int(self._entities.max()) + 1 if len(records) else 0
        wanted = list(dict.fromkeys(orders))
        self._orders = dict(zip(wanted, pace.map(self._ordered, wanted), strict=True))

    def ranked(self, order: Order) -> Having:
        """All records, in this order."""
        return self._orders[order]

    def nobody(self) -> pl.Series:
        """No record's place, for each thing."""
        return pl.Series([None], dtype=pl.UInt32).new_from_index(0, self.count)

    def having(self, name: str, order: Order) -> Having:
        """The records that have a value of this name, in this order."""
        every = self.ranked(order)
        values = self._records[name]
        if not values.null_count():
            return every
        there = values.is_not_null().to_numpy()[every.places]
        return Having(every.places[there], every.entities[there], self.count)

    def _ordered(self, order: Order) -> Having:
        places = order.places(self._records)
        ranked = places[ascending(self._entities[places])]
        return Having(ranked, self._entities[ranked], self.count)
