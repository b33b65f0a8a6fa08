"""Which records of a pool are of the same thing as some rows: for left and right joins."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from streamapp.plugin import Refuse, Sources, Work
from streamapp.services.integrate.config import Gathered, Matching
from streamapp.services.integrate.decisions import UNSURE, Decisions
from streamapp.services.integrate.keys import Keys
from streamapp.services.integrate.layout import Layout
from streamapp.services.integrate.matching import Matcher, matching_of
from streamapp.services.integrate.pace import Pace


class Finder:
    """Links rows to a pool of records that does not change.

    Args:
        config: of the integration.
        layout: of its sources.

    Raises:
        Refuse: the matching does not fit the columns.
    """

    def __init__(self, config: Gathered, layout: Layout) -> None:
        self._config, self._layout = config, layout
        self._keys = Keys(config, layout)
        self._matcher = matcher_of(config, layout)
        if isinstance(config.matching_strategy, Matching):
            refuse_learnt(config.matching_strategy)
        self._best = is_best(config)

    @property
    def by_key_alone(self) -> bool:
        """Whether linked rows have the very same keys."""
        return self._matcher is None and not self._keys.normalised

    @property
    def fields(self) -> set[str]:
        """The columns that it looks at."""
        return {*self._keys.fields, *(self._matcher.fields if self._matcher else ())}

    def open(self, pool: pl.DataFrame, work: Work, pace: Pace) -> None:
        """Take the pool: records with ``SOURCE``."""
        self._work = work
        self._keyed = self._keys.of(pool, "right")
        self._alike: _Alike | None = None
        if self._matcher is None:
            return
        decisions = decisions_of(self._config, self._matcher, self._layout.names, work)
        groups = self._keys.groups(self._keyed.rename({"right": "place"}))
        has_key = marked(groups["place"], len(pool))
        self._matcher.open(pool, has_key, decisions, pace)
        self._alike = _Alike(self._matcher, pool, decisions, groups)
        self._strays = places(len(pool)).filter(~has_key)
        self._to_strays: _Alike | None = None
        stray = matcher_of(self._config, self._layout)
        if self._best and len(self._strays) and stray is not None:
            lost = pool[self._strays]
            nobody = pl.repeat(value=False, n=len(lost), eager=True)
            stray.open(lost, nobody, decisions, pace)
            self._to_strays = _Alike(stray, lost, decisions, groups.clear())

    def links(self, rows: pl.DataFrame, pace: Pace) -> pl.DataFrame:
        """Places ``left`` in ``rows`` and ``right`` in the pool, by the latter.

        A row that is like one record is linked to all that have this one's key.  Where only the
        best match is taken, that is of rows without a key; one that has a key is linked to every
        record without one that it is like.
        """
        keyed = self._keys.of(rows, "left")
        found = [self._keys.equal(keyed, self._keyed)]
        if self._alike is not None:
            every = places(len(rows))
            has_key = marked(keyed["left"], len(rows))
            asked = every.filter(~has_key) if self._best else every
            found.append(self._alike.pairs(rows, asked, self._work, pace, best=self._best))
            if self._to_strays is not None:
                args = (rows, every.filter(has_key), self._work, pace)
                pairs = self._to_strays.pairs(*args, best=False)
                found.append(pairs.with_columns(right=self._strays.gather(pairs["right"])))
        return pl.concat(found).unique().sort("right", "left")


class _Alike:
    """Pairs of some rows and a pool by likeness.

    Args:
        matcher: opened on the pool.
        pool: the records.
        decisions: what people said.
        groups: of the pool; see ``Keys.groups``.
    """

    def __init__(
        self, matcher: Matcher, pool: pl.DataFrame, decisions: Decisions, groups: pl.DataFrame
    ) -> None:
        self._matcher, self._pool = matcher, pool
        self._decisions, self._groups = decisions, groups

    def pairs(
        self, rows: pl.DataFrame, asked: pl.Series, work: Work, pace: Pace, *, best: bool
    ) -> pl.DataFrame:
        """Places ``left`` and ``right``, of these rows alone; unsure ones are set aside."""
        subjects = rows[asked]
        found = self._matcher.find(subjects, pace, best=best)
        if len(found.unsure):
            work.quarantine(self._decisions.table(found.unsure, subjects, self._pool), UNSURE)
        pairs = found.matches.select(left=asked.gather(found.matches["left"]), right="right")
        first = pairs.join(self._groups, left_on="right", right_on="place")
        members = first.join(self._groups, on="first").select("left", right="place")
        return pl.concat([pairs, members])


def refuse_learnt(matching: Matching) -> None:
    """Refuse what learns from all records, where each row is judged alone."""
    if matching.method == "splink":
        why = "config.matching_strategy.method: splink learns from all records at once"
        raise Refuse("integrate.splink", why, "use it with full_outer_join or integrate.match")


def places(count: int) -> pl.Series:
    """0 to count - 1."""
    return pl.int_range(count, dtype=pl.UInt32, eager=True)


def marked(found: pl.Series, count: int) -> pl.Series:
    """Which of the places 0 to count - 1 are among those found."""
    marks = np.zeros(count, np.bool_)
    marks[found.to_numpy()] = True
    return pl.Series(marks)


def is_best(config: Gathered) -> bool:
    """Whether records that lack a key are given their best match, rather than each that is one."""
    matching = matching_of(config)
    if matching is None or matching.compare is None:
        return bool(config.key_fields)
    return matching.compare == "without_key"


def matcher_of(config: Gathered, layout: Layout) -> Matcher | None:
    """What compares records, if more than keys is wanted.

    Raises:
        Refuse: the matching does not fit the columns.
    """
    matching = matching_of(config)
    columns = {field.name: field.type for field in layout.common}
    if matching is None:
        return None
    if matching.method == "splink":
        from streamapp.services.integrate.learnt import Learnt

        return Learnt(matching, columns)
    return Matcher(matching, columns)


def decisions_of(
    config: Gathered, matcher: Matcher, names: Sequence[str], sources: Sources
) -> Decisions:
    """What people decided, if a source of it is declared.

    Raises:
        Refuse: the source is no table of decisions.
        Retry: it does not answer.
    """
    source = sources.source(config.decisions) if config.decisions else None
    return Decisions(source, matcher.fields, names)
