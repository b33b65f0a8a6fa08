"""Which thing each record is of: by key, by likeness, and by what follows from both."""

from typing import NamedTuple

import numpy as np
import polars as pl

from streamapp.plugin import Work
from streamapp.services.integrate.clusters import components
from streamapp.services.integrate.config import Gathered
from streamapp.services.integrate.decisions import UNSURE, Decisions
from streamapp.services.integrate.finding import decisions_of, is_best, marked, matcher_of, places
from streamapp.services.integrate.keys import Keys
from streamapp.services.integrate.layout import Layout
from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY


class Clusters(NamedTuple):
    """The thing of each record, 0, 1, 2 in the order of the first records, and why.

    ``links`` are pairs of places, ``left`` and ``right``, with the ``score`` of their likeness;
    null where their keys are equal.
    """

    entities: pl.Series
    links: pl.DataFrame


class Clustering:
    """Gives each record the number of the thing that it is of.

    Args:
        config: of the integration.
        layout: of its sources.

    Raises:
        Refuse: the matching does not fit the columns.
    """

    def __init__(self, config: Gathered, layout: Layout) -> None:
        self._config, self._names = config, layout.names
        self._keys = Keys(config, layout)
        self._matcher = matcher_of(config, layout)

    def clusters(self, records: pl.DataFrame, work: Work, pace: Pace) -> Clusters:
        """Of all records; unsure pairs that nothing else joins are set aside."""
        matcher = self._matcher
        keyed = self._keys.of(records, "place")
        if matcher is None:
            links = self._equal(keyed)
            return Clusters(_numbered(_joined(len(records), links)), links)
        decisions = decisions_of(self._config, matcher, self._names, work)
        every = places(len(records))
        has_key = marked(keyed["place"], len(records))
        links, _ = pace.beside(
            lambda: self._equal(keyed), lambda: matcher.open(records, has_key, decisions, pace)
        )
        best = is_best(self._config)
        asked = every.filter(~has_key) if best else every
        found = matcher.find(records[asked], pace, asked, best=best)
        matcher.close()
        matches, unsure = (pairs.with_columns(left=asked.gather(pairs["left"])) for pairs in found)
        links = pl.concat([links, _once(matches)])
        firsts = _joined(len(records), links)
        apart = firsts.gather(unsure["left"]) != firsts.gather(unsure["right"])
        _set_aside(_once(unsure.filter(apart)), records, decisions, work)
        return Clusters(_numbered(firsts), links)

    def _equal(self, keyed: pl.DataFrame) -> pl.DataFrame:
        """Links of each record to the first one of its key."""
        groups = self._keys.groups(keyed)
        equal = groups.filter(pl.col("place") != pl.col("first"))
        return equal.select(left="first", right="place", score=pl.lit(None, pl.Float32))


def _joined(count: int, links: pl.DataFrame) -> pl.Series:
    ends = (links[side].to_numpy() for side in ("left", "right"))
    return pl.Series(components(count, *ends))


def _numbered(firsts: pl.Series) -> pl.Series:
    places = firsts.to_numpy()
    is_first = places == np.arange(len(places))  # a thing is called by its first record
    numbers = np.cumsum(is_first, dtype=np.uint32) - np.uint32(1)
    return pl.Series(ENTITY, numbers[places])


def _set_aside(unsure: pl.DataFrame, records: pl.DataFrame, said: Decisions, work: Work) -> None:
    if len(unsure):
        work.quarantine(said.table(unsure, records, records), UNSURE)


def _once(pairs: pl.DataFrame) -> pl.DataFrame:
    """Each pair in one direction."""
    low, high = pl.min_horizontal("left", "right"), pl.max_horizontal("left", "right")
    ordered = pairs.with_columns(left=low, right=high)
    return ordered.unique(["left", "right"], keep="first", maintain_order=True)
