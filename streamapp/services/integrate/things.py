"""Records by the thing that they are of: who is first to have a value, and who disagrees."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY, Order

Numbers = npt.NDArray[np.uint32]
_HALF = np.uint64(32)


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

    def nobody(self) -> pl.Series:
        """No record's place, for each thing."""
        return pl.Series([None], dtype=pl.UInt32).new_from_index(0, self.count)

    def having(self, name: str, order: Order) -> Having:
        """The records that have a value of this name, in this order."""
        every = self._orders[order]
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
        # one number sorts by thing and then by the order; faster than a stable sort by thing
        both = self._entities[places].astype(np.uint64) << _HALF
        both |= np.arange(len(places), dtype=np.uint64)
        both.sort()
        ranked = places[both.astype(np.uint32)]
        return Having(ranked, (both >> _HALF).astype(np.uint32), self.count)
