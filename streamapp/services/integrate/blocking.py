"""Which pairs of records are worth a comparison: all that one of several passes brings together."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from streamapp.plugin import Refuse
from streamapp.services.integrate.config import Blocking
from streamapp.services.integrate.minhash import band_keys
from streamapp.services.integrate.text import field_of, keys_of, normal

#: Pairs that a thread holds at once, 8 bytes each; their records' texts are some 100 more.
_PAIRS_AT_ONCE = 100_000
#: Fewer are not worth a thread.
_PAIRS_LEAST = 10_000
_WHERE = "config.matching_strategy.blocking"
Counts = npt.NDArray[np.int64]


class _Pass(Protocol):
    """Brings rows of one frame together with those of a pool."""

    def counts(self, rows: pl.DataFrame) -> Counts:
        """How many pairs each row makes, at most."""
        ...

    def pairs(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Places ``left`` in ``rows`` and ``right`` in the pool."""
        ...


class Blocks:
    """Finds, for rows, what of a pool they may be alike to.

    Args:
        passes: at least one.
        pool: the records to find among.
        pairs_max: more pairs for all rows are refused.

    Raises:
        Refuse: a pass is of no kind or of two; a block has more records than its ``rows_max``.
    """

    def __init__(self, passes: Sequence[Blocking], pool: pl.DataFrame, pairs_max: int) -> None:
        self._pairs_max = pairs_max
        self._passes = [made for one in passes for made in _passes_of(one, pool)]

    def counts(self, rows: pl.DataFrame) -> Counts:
        """How many pairs each row makes, at most.

        Raises:
            Refuse: together more than ``pairs_max``.
        """
        counts = np.zeros(len(rows), np.int64)
        for one in self._passes:
            counts += one.counts(rows)
        total = int(counts.sum())
        if total > self._pairs_max:
            why = f"{_WHERE} makes {total:,} pairs, more than pairs_max ({self._pairs_max:,})"
            fix = "add fields to its passes, or raise config.matching_strategy.pairs_max"
            raise Refuse("integrate.pairs", why, fix)
        return counts

    def pieces(self, rows: pl.DataFrame, threads: int) -> list[slice]:
        """Which rows are looked at together: there are pairs for as many threads, and not too many.

        Raises:
            Refuse: there are more than ``pairs_max``.
        """
        ends = np.cumsum(self.counts(rows))
        share = max(_PAIRS_LEAST, int(ends[-1]) // threads + 1) if len(ends) else 1
        size = min(share, _PAIRS_AT_ONCE)
        found: list[slice] = []
        first = 0
        while first < len(rows):
            done = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, done + size, "right")))
            found.append(slice(first, last))
            first = last
        return found

    def pairs(self, rows: pl.DataFrame, piece: slice) -> pl.DataFrame:
        """Pairs once each, in order: places ``left`` in ``rows`` and ``right`` in the pool."""
        return _once([one.pairs(rows[piece]) for one in self._passes], piece.start)


def _once(found: Sequence[pl.DataFrame], first: int) -> pl.DataFrame:
    """Each pair once, in order; both places are sorted as one number."""
    shift = np.uint64(32)
    both = np.concatenate([
        pairs["left"].to_numpy().astype(np.uint64) << shift | pairs["right"].to_numpy()
        for pairs in found
    ])  # fmt: skip
    if not (both[1:] > both[:-1]).all():
        both.sort()
        new = np.ones(len(both), np.bool_)
        new[1:] = both[1:] != both[:-1]
        both = both[new]
    left, right = (both >> shift).astype(np.uint32), both.astype(np.uint32)
    return pl.DataFrame({"left": left + np.uint32(first), "right": right})


def fields_of(passes: Sequence[Blocking]) -> set[str]:
    """The fields that the passes look at.

    Raises:
        Refuse: a key of one is none.
    """
    named = [name for one in passes for name in (*one.on, *one.sort_by)]
    return {field_of(name) for name in named} | {name for one in passes for name in one.minhash}


def _passes_of(given: Blocking, pool: pl.DataFrame) -> list[_Pass]:
    kinds = [kind for kind in ("on", "sort_by", "minhash") if getattr(given, kind)]
    if len(kinds) != 1:
        why = f"{_WHERE}: a pass says {' and '.join(kinds) or 'nothing'}"
        raise Refuse("integrate.blocking", why, "give each pass one of on, sort_by, minhash")
    for name in ("window", "bands", "rows", "rows_max"):
        if getattr(given, name) < 1:
            raise Refuse("integrate.blocking", f"{_WHERE}: {name} is below 1", "give 1 or more")
    return [_Near(given, pool) if given.sort_by else _Equal(given, pool)]


class _Equal:
    """Rows and records that agree in some keys, or in any band of their hashes."""

    def __init__(self, given: Blocking, pool: pl.DataFrame) -> None:
        self._given = given
        keyed = self._keyed(pool, "right")
        self._names = [name for name in keyed.columns if name != "right"]
        blocks = keyed.group_by(self._names).agg("right")
        self._blocks = blocks.with_columns(size=pl.col("right").list.len())
        self._check()

    def counts(self, rows: pl.DataFrame) -> Counts:
        keyed = self._met(rows).select("left", "size")
        sizes = keyed["size"].to_numpy()
        return np.bincount(keyed["left"].to_numpy(), sizes, len(rows)).astype(np.int64)

    def pairs(self, rows: pl.DataFrame) -> pl.DataFrame:
        return self._met(rows).select("left", "right").explode("right")

    def _met(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Each row's blocks: its place ``left``, and of the block the places ``right``."""
        keyed = self._keyed(rows, "left")
        return keyed.join(self._blocks, on=self._names, maintain_order="left")

    def _keyed(self, frame: pl.DataFrame, place: str) -> pl.DataFrame:
        given = self._given
        if given.on:
            return keys_of(frame, given.on).with_row_index(place).drop_nulls()
        text = normal(pl.concat_str(given.minhash, separator=" ", ignore_nulls=True))
        places, hashes = band_keys(frame.select(text).to_series(), given.bands, given.rows)
        return pl.DataFrame({"k0": hashes, place: places})

    def _check(self) -> None:
        sizes = self._blocks.select(*self._names, "size")
        largest = sizes.sort("size", *self._names, descending=True).head(1)
        if not len(largest) or largest["size"][0] <= self._given.rows_max:
            return
        on = self._given.on or self._given.minhash
        values = largest.cast(pl.String).row(0)[:-1] if self._given.on else []
        why = f"{_WHERE}: {largest['size'][0]:,} records agree in {', '.join(on)}"
        why += f" ({', '.join(map(repr, values))})" if values else ""
        fix = f"add a field to that pass, or raise its rows_max ({self._given.rows_max:,})"
        raise Refuse("integrate.block", why, fix)


class _Near:
    """Records within some places of where a row would stand if it were sorted among them."""

    def __init__(self, given: Blocking, pool: pl.DataFrame) -> None:
        self._keys, self._window = given.sort_by, given.window
        self._names = [f"k{number}" for number in range(len(given.sort_by))]
        self._pool = self._keyed(pool).sort(self._names, maintain_order=True)

    def counts(self, rows: pl.DataFrame) -> Counts:
        return np.full(len(rows), 2 * self._window + 1, np.int64)

    def pairs(self, rows: pl.DataFrame) -> pl.DataFrame:
        left = self._keyed(rows).with_columns(pl.lit(value=False).alias("of_pool"))
        among = self._pool.with_columns(pl.lit(value=True).alias("of_pool"))
        both = pl.concat([left, among]).sort([*self._names, "of_pool"])  # before its equals
        standing = both.with_columns(pl.col("of_pool").cum_sum().cast(pl.Int64).alias("at"))
        mine = standing.filter(~pl.col("of_pool"))
        offsets = np.arange(-self._window, self._window + 1)  # one may be itself
        places = (mine["at"].to_numpy()[:, None] + offsets).ravel()
        rows_of = np.repeat(mine["place"].to_numpy(), len(offsets))
        there = (places >= 0) & (places < len(self._pool))
        found = self._pool["place"].to_numpy()[places[there]]
        return pl.DataFrame({"left": rows_of[there], "right": found})

    def _keyed(self, frame: pl.DataFrame) -> pl.DataFrame:
        keyed = keys_of(frame, self._keys).with_row_index("place")
        return keyed.filter(pl.any_horizontal(pl.col(self._names).is_not_null()))
