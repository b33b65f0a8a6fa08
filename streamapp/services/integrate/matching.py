"""Records of one thing that no key joins: found by blocking, judged by likeness and by people."""

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.services.integrate.blocking import Blocks, fields_of
from streamapp.services.integrate.compare import Likeness
from streamapp.services.integrate.config import Blocking, Gathered, Matching, Rule
from streamapp.services.integrate.decisions import Decisions
from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.text import check_textual

PAIR = pl.Schema({"left": pl.UInt32, "right": pl.UInt32, "score": pl.Float32})


class Found(NamedTuple):
    """Pairs with their ``score``: place ``left`` in the rows, ``right`` in the pool."""

    matches: pl.DataFrame
    unsure: pl.DataFrame


def matching_of(config: Gathered) -> Matching | None:
    """The strategy spelled out; None: keys alone.

    Raises:
        Refuse: likeness is wanted, and there is nothing to compare.
    """
    given = config.matching_strategy
    if isinstance(given, Matching):
        if not given.blocking:
            why = "config.matching_strategy.blocking is empty: every record would meet every other"
            raise Refuse("integrate.blocking", why, "give a pass, such as {on: [FIELD]}")
        _check_shares(given)
        return given
    if not config.key_fields:
        fix = "give config.key_fields, or rules in config.matching_strategy"
        raise Refuse("integrate.keys", "nothing says which records are of one thing", fix)
    if given in {"exact", "normalised"}:
        return None
    by = "jaro_winkler" if given == "fuzzy" else given
    keys = config.key_fields
    if by == "phonetic":
        passes = [Blocking(on=tuple(f"soundex({name})" for name in keys))]
    else:
        backwards = tuple(f"reverse({name})" for name in keys)
        passes = [
            Blocking(sort_by=keys, window=10),
            Blocking(sort_by=backwards, window=10),
            Blocking(minhash=keys),
        ]
    rules = tuple(Rule(fields=(name,), by=by) for name in keys)
    made = Matching(rules=rules, blocking=tuple(passes), threshold=config.threshold, compare="all")
    _check_shares(made)
    return made


def _check_shares(given: Matching) -> None:
    for key in ("threshold", "review_from", "evidence"):
        value = getattr(given, key)
        if value is not None and not 0 < value <= 1:
            why = f"config.matching_strategy.{key} is {value}"
            raise Refuse("integrate.threshold", why, "give a number above 0 and at most 1")
    if given.review_from is not None and given.review_from > given.threshold:
        why = f"config.matching_strategy.review_from ({given.review_from}) is above its threshold"
        raise Refuse("integrate.threshold", why, f"give at most {given.threshold}")


class Matcher:
    """Finds, for rows, records of a pool that are of the same thing.

    Args:
        matching: how.
        columns: the common columns with their types.

    Raises:
        Refuse: it names a column that is not there, or that cannot be compared.
    """

    def __init__(self, matching: Matching, columns: Mapping[str, pa.DataType]) -> None:
        self._matching = matching
        self._likeness = Likeness(matching.rules, columns, matching.evidence)
        blocked = fields_of(matching.blocking)
        self.fields = self._likeness.fields | blocked
        where = "config.matching_strategy.blocking"
        for name in sorted(blocked):
            if name not in columns:
                fix = f"there are {', '.join(list(columns)[:20])}"
                raise Refuse("operation.column", f"{where}: no source has {name!r}", fix)
            check_textual(name, columns[name], where)
        self._least = min(matching.threshold, matching.review_from or 1)

    def open(self, pool: pl.DataFrame, keyed: pl.Series, decided: Decisions, pace: Pace) -> None:
        """Take the pool.

        Args:
            pool: records, with ``SOURCE``.
            keyed: which of them have a key.
            decided: what people said of unsure pairs.
            pace: of the call.
        """
        matching = self._matching
        self._pool, self._keyed, self._decided = pool, keyed, decided
        self._blocks, self._prepared = pace.beside(
            lambda: Blocks(matching.blocking, pool, matching.pairs_max),
            lambda: self._likeness.prepared(pool),
        )

    def close(self) -> None:
        """Let go of the pool."""
        del self._pool, self._keyed, self._decided, self._blocks, self._prepared

    def find(
        self, rows: pl.DataFrame, pace: Pace, own: pl.Series | None = None, *, best: bool
    ) -> Found:
        """Matches and unsure pairs.

        Args:
            rows: records, with ``SOURCE``.
            pace: asked between two pieces.
            own: the rows' places in the pool, if they are of it.
            best: only the best match of each row, one with a key if there is one; else all.
        """
        likeness = self._likeness
        prepared = likeness.prepared(rows) if own is None else self._prepared.at(own)

        def alike(piece: slice) -> pl.DataFrame:
            pace.check()
            pairs = self._blocks.pairs(rows, piece)
            kept = pairs if own is None else self._others(pairs, own, best=best)
            kept = self._likeness.hopeful(prepared, self._prepared, kept, self._least)
            left = prepared.values[kept["left"]]
            right = self._prepared.values[kept["right"]]
            scored = kept.with_columns(pl.Series("score", self._likeness.scores(left, right)))
            return scored.filter(pl.col("score") >= self._least).cast(PAIR)

        found = pace.map(alike, self._blocks.pieces(rows, pace.threads))
        return self._judged(rows, pl.concat([pl.DataFrame(schema=PAIR), *found]), best=best)

    def _others(self, pairs: pl.DataFrame, own: pl.Series, *, best: bool) -> pl.DataFrame:
        """Without a record's pair with itself and, where all are compared, each pair once."""
        places = own.gather(pairs["left"])
        return pairs.filter(places != pairs["right"] if best else places < pairs["right"])

    def _judged(self, rows: pl.DataFrame, scored: pl.DataFrame, *, best: bool) -> Found:
        scored = self._decided.apply(scored, rows, self._pool)
        sure = scored["score"] >= self._matching.threshold
        matches, unsure = scored.filter(sure), scored.filter(~sure)
        if best:
            ranked = matches.with_columns(keyed=self._keyed.gather(matches["right"])).sort(
                "left", "keyed", "score", "right", descending=[False, True, True, False]
            )
            matches = ranked.unique("left", keep="first", maintain_order=True).drop("keyed")
            unsure = unsure.join(matches, on="left", how="anti")
        return Found(matches, unsure)
