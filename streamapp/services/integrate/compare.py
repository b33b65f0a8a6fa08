"""How alike two records are, from 0 to 1, by weighted rules."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from rapidfuzz import fuzz, process
from rapidfuzz.distance import JaroWinkler, Levenshtein

from streamapp.plugin import Refuse
from streamapp.services.integrate.bounds import BOUNDS, Letters, bound, letters_of
from streamapp.services.integrate.config import Rule
from streamapp.services.integrate.text import check_textual, normal, soundex, without_empty

Scores = npt.NDArray[np.float32]
#: Scorers of pairs of texts, with what they say of equal ones.
_SCORERS: Mapping[str, tuple[Any, float]] = {
    "jaro_winkler": (JaroWinkler.similarity, 1.0),
    "levenshtein": (Levenshtein.normalized_similarity, 1.0),
    "token_set": (fuzz.token_set_ratio, 100.0),
}
_WHERE = "config.matching_strategy.rules"
#: What bounds and scores may be off.
_ROUNDING = 1e-3


class Prepared(NamedTuple):
    """Records as they are compared: one column per rule; the letters of the texts, by rule."""

    values: pl.DataFrame
    letters: Mapping[int, Letters]

    def at(self, places: pl.Series) -> "Prepared":
        """Of the records at these places."""
        letters = {number: one.at(places.to_numpy()) for number, one in self.letters.items()}
        return Prepared(self.values[places], letters)


class Likeness:
    """Scores pairs by rules.

    Args:
        rules: at least one.
        columns: the common columns with their types.
        evidence: the share of the rules' weight that must be there on both sides.

    Raises:
        Refuse: a rule names a column that is not there, or that it cannot compare.
    """

    def __init__(
        self, rules: Sequence[Rule], columns: Mapping[str, pa.DataType], evidence: float
    ) -> None:
        if not rules:
            raise Refuse("integrate.rules", f"{_WHERE} is empty", "give at least one")
        for number, rule in enumerate(rules):
            _check(number, rule, columns)
        self._rules, self._evidence = rules, evidence * sum(rule.weight for rule in rules)

    @property
    def fields(self) -> set[str]:
        """The columns that it looks at."""
        return {name for rule in self._rules for name in rule.fields}

    def prepared(self, records: pl.DataFrame) -> Prepared:
        """What is compared of each record."""
        made = records.select(
            _prepared(rule, records.schema).alias(str(number))
            for number, rule in enumerate(self._rules)
        )
        values = without_empty(made)
        letters = {
            number: letters_of(values[str(number)])
            for number, rule in enumerate(self._rules)
            if rule.by in BOUNDS
        }
        return Prepared(values, letters)

    def hopeful(
        self, left: Prepared, right: Prepared, pairs: pl.DataFrame, least: float
    ) -> pl.DataFrame:
        """Without pairs that are surely less alike than ``least``; they need no comparison."""
        if not left.letters:
            return pairs
        places = pairs["left"].to_numpy(), pairs["right"].to_numpy()
        weight = np.full(len(pairs), sum(rule.weight for rule in self._rules), np.float32)
        total = weight.copy()
        for number in left.letters:
            rule = self._rules[number]
            sides = left.letters[number].at(places[0]), right.letters[number].at(places[1])
            most = bound(rule.by, *sides)
            known = ~np.isnan(most)
            total += np.where(known, most - 1, -1) * np.float32(rule.weight)
            weight -= ~known * np.float32(rule.weight)
        return pairs.filter(total >= (least - _ROUNDING) * weight)

    def scores(self, left: pl.DataFrame, right: pl.DataFrame) -> Scores:
        """How alike the n-th records of two frames of prepared values are, (n,) in [0, 1].

        Nulls say nothing; a pair with less evidence than is wanted, or less alike in one rule than
        its ``least``, has 0.
        """
        total = np.zeros(len(left), np.float32)
        weight = np.zeros(len(left), np.float32)
        barred = np.zeros(len(left), np.bool_)
        for number, rule in enumerate(self._rules):
            found = _compared(rule, left[str(number)], right[str(number)])
            known = ~np.isnan(found)
            barred |= known & (found < rule.least)
            total += np.where(known, found, 0) * np.float32(rule.weight)
            weight += known * np.float32(rule.weight)
        enough = (weight >= self._evidence) & (weight > 0) & ~barred
        return np.divide(total, weight, out=np.zeros_like(total), where=enough)


def _check(number: int, rule: Rule, columns: Mapping[str, pa.DataType]) -> None:
    where = f"{_WHERE}[{number}]"
    for name in rule.fields:
        if name not in columns:
            fix = f"there are {', '.join(list(columns)[:20])}"
            raise Refuse("operation.column", f"{where}.fields: no source has {name!r}", fix)
    limits = {"weight": rule.weight > 0, "within": rule.within > 0, "least": 0 <= rule.least <= 1}
    for key, right in limits.items():
        if not right:
            why = f"{where}.{key} is {getattr(rule, key)}"
            fix = "give a number from 0 to 1" if key == "least" else "give a number above 0"
            raise Refuse("integrate.rules", why, fix)
    if rule.by not in {"number", "date"}:
        if not rule.fields:
            raise Refuse("integrate.rules", f"{where}.fields is empty", "name a column")
        for name in rule.fields:
            check_textual(name, columns[name], f"{where}.fields")
        return
    if len(rule.fields) != 1:
        why = f"{where}: {rule.by} compares one field, not {len(rule.fields)}"
        raise Refuse("integrate.rules", why, "give each its own rule")
    kind = columns[rule.fields[0]]
    number_like = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    date_like = pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_string(kind)
    if not (number_like if rule.by == "number" else date_like):
        why = f"{where}: {rule.fields[0]!r} is {kind}, no {rule.by}"
        raise Refuse(
            "integrate.rules", why, "give it a type in config.mapping, or compare it by exact"
        )


def _prepared(rule: Rule, schema: pl.Schema) -> pl.Expr:
    if rule.by == "number":
        return pl.col(rule.fields[0]).cast(pl.Float64)
    if rule.by == "date":
        found = pl.col(rule.fields[0])
        if schema[rule.fields[0]] == pl.String:
            found = found.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        return found.cast(pl.Date).to_physical().cast(pl.Float64)
    texts = [pl.col(name).cast(pl.String) for name in rule.fields]
    if rule.by == "phonetic":
        texts = [soundex(text) for text in texts]
    joined = pl.concat_str(texts, separator=" ", ignore_nulls=True)
    return joined if rule.by in {"exact", "phonetic"} else normal(joined)


def _compared(rule: Rule, left: pl.Series, right: pl.Series) -> Scores:
    if rule.by in {"number", "date"}:
        apart = (left - right).abs().to_numpy()
        return np.asarray(np.maximum(1 - apart / rule.within, 0), np.float32)
    if rule.by not in _SCORERS:
        return (left == right).cast(pl.Float32).to_numpy()
    scorer, full = _SCORERS[rule.by]
    there = (left.is_not_null() & right.is_not_null()).to_numpy()
    found = np.full(len(left), np.nan, np.float32)
    found[there] = process.cpdist(
        left.filter(there).to_list(), right.filter(there).to_list(),
        scorer=scorer, dtype=np.float32,
    )  # fmt: skip
    return found / np.float32(full)
