"""In which order a thing's records are asked for a value: the strategies that choose one."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.services.integrate.config import Conflict
from streamapp.services.integrate.fields import SOURCE

#: The number of the thing that a record is of: 0, 1, 2 without a gap.
ENTITY = "_entity"
_US_PER_DAY = 86_400_000_000
#: What could reach beyond the records: polars' SQL reads files in sub-queries.
_REACHES_OUT = re.compile(r"\b(select|from|table|values|with|read_\w+|scan_\w+)\b", re.IGNORECASE)
#: Functions that make a value of any size of a number; Polars ends the process at too large ones.
_MAKES = re.compile(r"\b(lpad|rpad|range|generate_series)\b", re.IGNORECASE)
#: Polars takes a time that is the square of a chain's length.
_CHARS_MAX = 1_000
_TEXT = re.compile(r"'(?:[^']|'')*'")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")


class Rules(NamedTuple):
    """What strategies need to know of an integration.

    ``names`` are the sources, ``ranks`` their place in the order of preference, by number;
    ``columns`` are the common ones with their types.
    """

    names: tuple[str, ...]
    ranks: tuple[int, ...]
    columns: Mapping[str, pa.DataType]
    timestamp_field: str = ""


@dataclass(frozen=True)
class Order:
    """Records by these keys, the greatest first, null last; equal ones stay as they were.

    Two of one label are one order, so that their fields are chosen in one pass.
    """

    label: str
    keys: Sequence[pl.Expr] = field(compare=False)

    def places(self, records: pl.DataFrame) -> npt.NDArray[np.uint32]:
        """The records' places in this order."""
        if not self.keys:
            return np.arange(len(records), dtype=np.uint32)
        keyed = records.select(key.alias(str(number)) for number, key in enumerate(self.keys))
        found = keyed.select(
            pl.arg_sort_by(keyed.columns, descending=True, nulls_last=True, maintain_order=True)
        )
        return found.to_series().to_numpy().astype(np.uint32, copy=False)


#: As the records come.
PLAIN = Order("as they come", ())


def order_of(conflict: Conflict, name: str, rules: Rules) -> Order:
    """The order of a strategy that chooses a record; preference decides where it is equal.

    Raises:
        Refuse: what the strategy needs is not said, or not there.
    """
    made = _ORDERS[conflict.strategy](conflict, name, rules)
    if made is PLAIN:
        return made
    keys = (*made.keys, *_prefer(rules))
    return Order(made.label, keys) if keys else PLAIN


def _prefer(rules: Rules) -> list[pl.Expr]:
    if list(rules.ranks) == sorted(rules.ranks):
        return []  # they come in that order
    return [-_by_source(rules.ranks)]


def _by_source(values: Sequence[float]) -> pl.Expr:
    numbers = list(range(len(values)))
    return pl.col(SOURCE).replace_strict(numbers, list(values), return_dtype=pl.Float64)


def _primary(_: Conflict, __: str, ___: Rules) -> Order:
    return Order("preferred", ())


def _secondary(_: Conflict, __: str, rules: Rules) -> Order:
    return Order("least preferred", [_by_source(rules.ranks)])


def _first(_: Conflict, __: str, ___: Rules) -> Order:
    return PLAIN


def _recent(conflict: Conflict, name: str, rules: Rules) -> Order:
    time = _time_of(conflict, name, rules)
    return Order(f"recent by {time}", [pl.col(time)])


def _frequent(_: Conflict, name: str, __: Rules) -> Order:
    return Order(f"frequent {name}", [pl.col(name).count().over(ENTITY, name)])


def _longest(_: Conflict, name: str, rules: Rules) -> Order:
    if not pa.types.is_string(rules.columns[name]):
        raise _unfit(name, "longest", rules.columns[name], "texts")
    return Order(f"longest {name}", [pl.col(name).str.len_chars()])


def _trust(conflict: Conflict, name: str, rules: Rules) -> Order:
    for source, weight in conflict.weights.items():
        if source not in rules.names:
            why = f"{_where(name)}.weights: there is no source {source!r}"
            raise Refuse("integrate.trust", why, f"there are {', '.join(rules.names)}")
        if not weight > 0:
            why = f"{_where(name)}.weights.{source} is {weight}"
            raise Refuse("integrate.trust", why, "give a number above 0")
    powers = [math.log2(conflict.weights.get(source, 1.0)) for source in rules.names]
    label = f"trust {sorted(conflict.weights.items())} {conflict.half_life_days} {conflict.by}"
    if conflict.half_life_days is None:
        return Order(label, [_by_source(powers)])
    if not conflict.half_life_days > 0:
        why = f"{_where(name)}.half_life_days is {conflict.half_life_days}"
        raise Refuse("integrate.trust", why, "give days above 0")
    # weight * 2^(-age / half life) is in the order of its logarithm, and age's origin cancels out
    days = _moment(_time_of(conflict, name, rules), rules) / _US_PER_DAY
    return Order(label, [_by_source(powers) + days / conflict.half_life_days])


def _moment(name: str, rules: Rules) -> pl.Expr:
    kind, found = rules.columns[name], pl.col(name)
    if pa.types.is_string(kind):
        found = found.str.to_datetime(strict=False, time_unit="us")
    elif not pa.types.is_timestamp(kind) and not pa.types.is_date(kind):
        raise _unfit(name, "trust", kind, "times, dates or texts of them")
    return found.cast(pl.Datetime("us")).to_physical()


def _time_of(conflict: Conflict, name: str, rules: Rules) -> str:
    time = conflict.by or rules.timestamp_field
    if time in rules.columns:
        return time
    why = f"{_where(name)}: {conflict.strategy} needs a column of time, and "
    why += f"no source has {time!r}" if time else "none is named"
    fix = f"set config.timestamp_field to one of {', '.join(list(rules.columns)[:20])}"
    raise Refuse("integrate.timestamp", why, fix)


def _scored(conflict: Conflict, name: str, rules: Rules) -> Order:
    text = conflict.expression.strip()
    where = f"{_where(name)}.expression"
    if not text:
        raise Refuse(
            "integrate.expression", f"{where} is empty", "give SQL over a record's columns"
        )
    if len(text) > _CHARS_MAX:
        why = f"{where} has more than {_CHARS_MAX:,} characters"
        raise Refuse("integrate.expression", why, "work it out by pipeline.map before")
    if made := _MAKES.search(_TEXT.sub("", text)):
        why = f"{where} has the word {made[0]!r}, which makes values of any size"
        raise Refuse("integrate.expression", why, "work it out by pipeline.map before")
    reached = _REACHES_OUT.search(_QUOTED.sub("", text))
    if reached:
        why = f"{where} has the word {reached[0]!r}; it may use a record's columns alone"
        raise Refuse("integrate.expression", why, "write a column of that name in double quotes")
    try:
        score = pl.sql_expr(text)
        _empty(rules).select(score)
    except pl.exceptions.PolarsError as error:
        why = f"{where} cannot be worked out: {str(error).splitlines()[0]}"
        fix = f"such as length(phone); there are source, {', '.join(list(rules.columns)[:20])}"
        raise Refuse("integrate.expression", why, fix) from None
    return Order(f"expression {text}", [score])


def _empty(rules: Rules) -> pl.DataFrame:
    """No records, of the right types."""
    fields = [*rules.columns.items(), ("source", pa.string())]
    found = pl.from_arrow(pa.schema(fields).empty_table())
    assert isinstance(found, pl.DataFrame)  # noqa: S101  # of a table
    return found


def _where(name: str) -> str:
    return f"config.conflicts.{name}"


def _unfit(name: str, strategy: str, kind: pa.DataType, wanted: str) -> Refuse:
    why = f"{_where(name)}: {strategy} is for {wanted}, and {name!r} is {kind}"
    return Refuse("integrate.strategy", why, f"choose another strategy in {_where(name)}")


_ORDERS: Mapping[str, Callable[[Conflict, str, Rules], Order]] = {
    "prefer_primary": _primary,
    "prefer_secondary": _secondary,
    "first_non_null": _first,
    "most_recent": _recent,
    "most_frequent": _frequent,
    "longest": _longest,
    "trust": _trust,
    "expression": _scored,
    "quarantine": _primary,
}
