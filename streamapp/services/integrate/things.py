"""Records by the thing that they are of: who is first to have a value, and who disagrees."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from streamapp.services.integrate.ranking import ENTITY, Order

Places = npt.NDArray[np.intp]
_HALF = np.uint64(32)


class Having(NamedTuple):
    """The records that have a value, thing by thing, and within one in some order.

    ``places`` are theirs, (n,); ``entities`` their things, (n,), ascending.
    """

    places: Places
    entities: npt.NDArray[np.int64]


class Things:
    """Answers by places in the records, so that a field's values are moved once, when chosen.

    Args:
        records: with ``ENTITY``, whose numbers are 0, 1, 2 without a gap.
    """

    def __init__(self, records: pl.DataFrame) -> None:
        self._records = records
        self._entities = records[ENTITY].to_numpy()
        self.count = int(self._entities.max()) + 1 if len(records) else 0
        self._orders: dict[Order, Having] = {}

    @cached_property
    def nobody(self) -> pl.Series:
        """No record's place, for each thing."""
        return pl.Series([None], dtype=pl.UInt32).new_from_index(0, self.count)

    def having(self, name: str, order: Order) -> Having:
        """The records that have a value of this name, in this order."""
        every = self._ordered(order)
        values = self._records[name]
        if not values.null_count():
            return every
        there = values.is_not_null().to_numpy()[every.places]
        return Having(every.places[there], every.entities[there])

    def winners(self, having: Having) -> pl.Series:
        """For each thing the place of the first record that has a value, or null."""
        new = np.flatnonzero(np.diff(having.entities, prepend=-1))
        found = np.full(self.count, -1, np.int64)
        found[having.entities[new]] = having.places[new]
        winners = pl.Series(found)
        return winners.set(winners < 0, None).cast(pl.UInt32)

    def disagree(self, name: str, having: Having) -> pl.Series:
        """For each thing whether its records have different values, nulls apart."""
        found = np.zeros(self.count, np.bool_)
        values = self._records[name].gather(having.places)
        entities = having.entities[1:]
        # values that are not all equal differ from the one before somewhere
        other = (values[1:] != values[:-1]).to_numpy() & (entities == having.entities[:-1])
        found[entities[other]] = True
        return pl.Series(found)

    def _ordered(self, order: Order) -> Having:
        if order not in self._orders:
            places = order.places(self._records)
            # one number sorts by thing and then by the order; faster than a stable sort by thing
            both = self._entities[places].astype(np.uint64) << _HALF
            both |= np.arange(len(places), dtype=np.uint64)
            both.sort()
            ranked = places[both & np.uint64(0xFFFFFFFF)]
            self._orders[order] = Having(ranked, (both >> _HALF).astype(np.int64))
        return self._orders[order]
