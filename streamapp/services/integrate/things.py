"""Records by the thing that they are of: who is first to have a value, and who disagrees."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY, Order

Numbers = npt.NDArray[np.uint32]
_HALF_BITS = 16


def ascending(numbers: Numbers) -> npt.NDArray[np.intp]:
    """The places of numbers in ascending order, (n,); equal ones stay as they were.

    By halves, as NumPy sorts 16 bits by counting, and more of them by comparing.
    """
    low = np.argsort(numbers.astype(np.uint16), kind="stable")
    high = (numbers >> np.uint32(_HALF_BITS)).astype(np.uint16)
    found: npt.NDArray[np.intp] = low[np.argsort(high[low], kind="stable")]
    return found


class Having:
    """The records that have a value, thing by thing, and within one in some order.

    ``places`` are theirs, (n,); ``entities`` their things, (n,), ascending; ``winners`` for each
    thing the place of its first, or null; ``again`` which of the n are not their thing's first.

    Args:
        places: as above.
        entities: as above.
        count: of things.
    """

    def __init__(self, places: Numbers, entities: Numbers, count: int) -> None:
        self.places, self.entities = places, entities
        new = np.ones(len(entities), np.bool_)
        new[1:] = entities[1:] != entities[:-1]
        self.again = np.flatnonzero(~new)
        there = np.zeros(count, np.bool_)
        there[entities[new]] = True
        found = np.zeros(count, np.uint32)
        found[there] = places[new]
        self.winners = pl.Series(found).set(pl.Series(~there), None)


class Things:
    """Answers by places in the records, so that a field's values are moved once, when chosen.

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

    def disagree(self, name: str, having: Having) -> pl.Series:
        """For each thing whether its records have different values, nulls apart."""
        values, again = self._records[name], having.again
        # values that are not all equal differ from the one before somewhere
        one, other = (values.gather(having.places[at]) for at in (again, again - 1))
        found = np.zeros(self.count, np.bool_)
        found[having.entities[again][(one != other).to_numpy()]] = True
        return pl.Series(found)

    def _ordered(self, order: Order) -> Having:
        places = order.places(self._records)
        ranked = places[ascending(self._entities[places])]
        return Having(ranked, self._entities[ranked], self.count)
