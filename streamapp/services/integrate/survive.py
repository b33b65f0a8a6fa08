"""Which value of a field survives where several records are of one thing.

A strategy is one of two kinds.  Most choose a record: they put the records of a thing in an order,
and the first that has a value gives it (:mod:`.ranking`).  The others make a value of all of them
(``sum``, ``concat``, ``keep_all``).  Null is never a value: it neither wins, counts nor conflicts.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.services.integrate.config import Conflict
from streamapp.services.integrate.fields import ROW, SOURCE
from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY, PLAIN, Order, Rules, order_of
from streamapp.services.integrate.text import is_textual
from streamapp.services.integrate.things import Things

#: What makes a value of all values.
_FOLDS: Mapping[str, Callable[[str, Conflict, Rules], pl.Expr]] = {
    "min": lambda name, _, __: pl.col(name).min(),
    "max": lambda name, _, __: pl.col(name).max(),
    "sum": lambda name, _, rules: _sum(name, rules.columns[name]),
    "mean": lambda name, _, __: pl.col(name).mean(),
    "concat": lambda name, conflict, _: _concat(name, conflict.separator),
    "union": lambda name, _, __: pl.col(name).drop_nulls().unique(maintain_order=True).implode(),
    "keep_all": lambda name, _, rules: _keep_all(name, rules.names),
}


class Survivor(NamedTuple):
    """A field and how its value is chosen."""

    field: pa.Field
    conflict: Conflict

    @property
    def result(self) -> pa.Field:
        """The field as it is afterwards.

        Raises:
            Refuse: the strategy is not for values of its type.
        """
        name, strategy = self.field.name, self.conflict.strategy
        return pa.field(name, _result_type(name, self.field.type, strategy))


def _result_type(name: str, kind: pa.DataType, strategy: str) -> pa.DataType:
    if strategy in {"sum", "mean"}:
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise _unfit(name, kind, strategy, "numbers")
        whole = strategy == "sum" and pa.types.is_integer(kind)
        return pa.int64() if whole else pa.float64()
    if strategy in {"min", "max"} and pa.types.is_nested(kind):
        raise _unfit(name, kind, strategy, "plain values")
    if strategy == "concat":
        if not is_textual(kind):
            raise _unfit(name, kind, strategy, "what can be said as a text")
        return pa.string()
    if strategy == "union":
        return pa.list_(kind)
    if strategy == "keep_all":
        return pa.list_(pa.struct([("source", pa.string()), ("row", pa.int64()), ("value", kind)]))
    return kind


def _unfit(name: str, kind: pa.DataType, strategy: str, wanted: str) -> Refuse:
    why = f"config.conflicts.{name}: {strategy} is for {wanted}, and {name!r} is {kind}"
    return Refuse("integrate.strategy", why, f"say another strategy in config.conflicts.{name}")


def check(survivors: Sequence[Survivor], rules: Rules) -> None:
    """Refuse a strategy that is not for its field, or lacks what it needs."""
    for survivor in survivors:
        if survivor.result is not None and survivor.conflict.strategy not in _FOLDS:
            order_of(survivor.conflict, survivor.field.name, rules)


def looked_at_by(survivors: Sequence[Survivor], rules: Rules) -> set[str]:
    """The columns that strategies decide by, beside those that they choose."""
    conflicts = [survivor.conflict for survivor in survivors]
    if any(conflict.strategy == "expression" for conflict in conflicts):
        return {*rules.columns}
    return {rules.timestamp_field, *(conflict.by for conflict in conflicts)} & rules.columns.keys()


def merge(
    records: pl.DataFrame,
    survivors: Sequence[Survivor],
    rules: Rules,
    pace: Pace,
    *,
    conflicts: bool = False,
    lineage: bool = False,
) -> pl.DataFrame:
    """One row per thing, in the order of their numbers, which stand in ``ENTITY``.

    Args:
        records: the fields of ``survivors`` and what their strategies look at, ``SOURCE``, ``ROW``
            and ``ENTITY``, whose numbers are 0, 1, 2 without a gap; in source order.
        survivors: the fields and how each is chosen.
        rules: what the strategies need to know.
        pace: of the call; fields are worked out side by side.
        conflicts: add ``conflict:FIELD``, whether a thing's records disagree in it.
        lineage: add ``source:FIELD`` and ``row:FIELD``, whose value survived; null where it is no
            single record's.
    """
    if any(survivor.conflict.strategy == "expression" for survivor in survivors):
        records = records.with_columns(source=named(SOURCE, rules.names))
    folded = [survivor for survivor in survivors if survivor.conflict.strategy in _FOLDS]
    orders = [_order(survivor, rules) for survivor in survivors]
    things = Things(records, orders, pace)

    def columns(survivor: Survivor) -> list[pl.Series]:
        name = survivor.field.name
        having = things.having(name, _order(survivor, rules))
        values = records[name].gather(having.places)
        is_made = survivor.conflict.strategy in _FOLDS
        winners = things.nobody() if is_made else having.winners
        found = [] if is_made else [values.gather(winners)]
        if conflicts:
            found.append(having.disagree(values).alias(f"conflict:{name}"))
        if lineage:
            for column, origin in ((SOURCE, "source"), (ROW, "row")):
                own = records[column].gather(having.places).gather(winners)
                found.append(own.alias(f"{origin}:{name}"))
        return found

    made, chosen = pace.beside(
        lambda: _folded(records, folded, rules, things), lambda: pace.map(columns, survivors)
    )
    numbers = pl.int_range(things.count, dtype=pl.UInt32, eager=True).alias(ENTITY)
    return pl.DataFrame([numbers, *made, *chain.from_iterable(chosen)])


def _order(survivor: Survivor, rules: Rules) -> Order:
    """In which a field's records are asked; what is made of all values takes them as they come."""
    if survivor.conflict.strategy in _FOLDS:
        return PLAIN
    return order_of(survivor.conflict, survivor.field.name, rules)


def _folded(
    records: pl.DataFrame, survivors: Sequence[Survivor], rules: Rules, things: Things
) -> pl.DataFrame:
    """Of each thing what these fields' values make together."""
    if not survivors:
        return pl.DataFrame()
    made = [
        _FOLDS[conflict.strategy](field.name, conflict, rules).alias(field.name)
        for field, conflict in survivors
    ]
    plain = things.ranked(PLAIN)
    names = [survivor.field.name for survivor in survivors]
    # thing by thing, so that they are told apart without a table of them
    grouped = records.select(SOURCE, ROW, *names)[plain.places].with_columns(
        pl.Series(ENTITY, plain.entities).set_sorted()
    )
    found = grouped.group_by(ENTITY, maintain_order=True).agg(made).drop(ENTITY)
    return found.with_columns(_fitting(column) for column in found.select(pl.col(pl.Int128)))


def _sum(name: str, kind: pa.DataType) -> pl.Expr:
    """Of whole numbers one that they cannot overflow; see ``_fitting``."""
    values = pl.col(name).cast(pl.Int128) if pa.types.is_integer(kind) else pl.col(name)
    return pl.when(values.count() > 0).then(values.sum())


def _fitting(sums: pl.Series) -> pl.Series:
    found = sums.cast(pl.Int64, strict=False)
    if found.null_count() > sums.null_count():
        why = f"config.conflicts.{sums.name}: a sum is beyond the whole numbers of 64 bits"
        fix = "make the column a double in config.mapping, or say another strategy"
        raise Refuse("integrate.sum", why, fix)
    return found


def named(column: str | pl.Expr, names: Sequence[str]) -> pl.Expr:
    """The sources' names instead of their numbers."""
    found = pl.col(column) if isinstance(column, str) else column
    return found.replace_strict(list(range(len(names))), list(names), return_dtype=pl.String)


def _concat(name: str, separator: str) -> pl.Expr:
    values = pl.col(name).drop_nulls().cast(pl.String)
    return pl.when(pl.col(name).count() > 0).then(values.str.join(separator))


def _keep_all(name: str, names: Sequence[str]) -> pl.Expr:
    kept = pl.struct(
        named(SOURCE, names).alias("source"),
        pl.col(ROW).cast(pl.Int64).alias("row"),
        pl.col(name).alias("value"),
    )
    return kept.filter(pl.col(name).is_not_null()).implode()
