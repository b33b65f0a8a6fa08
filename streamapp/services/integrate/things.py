"""Records by the thing that they are of: who is first to have a value, and who disagrees."""

from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from streamapp.services.integrate.ranking import ENTITY, PLAIN, Order

Places = npt.NDArray[np.intp]


class Things:
    """Answers by places in the records, so that a field's values are moved once, when chosen.

    Args:
        records: with ``ENTITY``, whose numbers are 0, 1, 2 without a gap.
    """

    def __init__(self, records: pl.DataFrame) -> None:
        self._records = records
        self._entities = records[ENTITY].to_numpy()
        self.count = int(self._entities.max()) + 1 if len(records) else 0
        self._orders: dict[Order, Places] = {}

    @cached_property
    def nobody(self) -> pl.Series:
        """No record's place, for each thing."""
        return pl.Series([None], dtype=pl.UInt32).new_from_index(0, self.count)

    def winners(self, name: str, order: Order) -> pl.Series:
        """For each thing the place of the first record in this order that has a value, or null."""
        places, entities = self._having(name, order)
        new = np.flatnonzero(np.diff(entities, prepend=-1))
        found = np.full(self.count, -1, np.int64)
        found[entities[new]] = places[new]
        winners = pl.Series(found)
        return winners.set(winners < 0, None).cast(pl.UInt32)

    def disagree(self, name: str, order: Order = PLAIN) -> pl.Series:
        """For each thing whether its records have different values, nulls apart."""
        places, entities = self._having(name, order)
        found = np.zeros(self.count, np.bool_)
        values = self._records[name].gather(places)
        # values that are not all equal differ from the one before somewhere
        other = (values[1:] != values[:-1]).to_numpy() & (entities[1:] == entities[:-1])
        found[entities[1:][other]] = True
        return pl.Series(found)

    def _having(self, name: str, order: Order) -> tuple[Places, npt.NDArray[np.int64]]:
        """Places of the records that have a value, thing by thing, and their things."""
        places = self._ordered(order)
        there = self._records[name].is_not_null().to_numpy()
        places = places[there[places]]
        return places, self._entities[places].astype(np.int64)

    def _ordered(self, order: Order) -> Places:
        if order not in self._orders:
            places = order.places(self._records)
            by_thing = np.argsort(self._entities[places], kind="stable")
            self._orders[order] = places[by_thing]
        return self._orders[order]
