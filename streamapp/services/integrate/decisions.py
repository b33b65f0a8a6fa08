"""Unsure pairs on their way to people, and what people decided on its way back."""

import hashlib
import json
from collections.abc import Iterable, Sequence

import polars as pl
import pyarrow as pa

from streamapp.plugin import Refuse, Source, column
from streamapp.services.integrate.fields import SOURCE

#: Why a pair is set aside; the pairs' file is named after it.
UNSURE = "unsure match: say same or different in its decision column"
_SCORES = {"same": 1.0, "different": 0.0}
_COLUMNS = ("decision", "left_id", "right_id")
_DECISIONS_MAX = 1_000_000


class Decisions:
    """What people said of pairs, by the ids of their records.

    A record's id is a digest of its source and of the values that matching looks at: it stays the
    same while those do, wherever the record moves.

    Args:
        source: with the columns ``decision`` (``same``, ``different`` or null), ``left_id`` and
            ``right_id``; None: nobody said anything.
        fields: the columns that matching looks at.
        names: of the sources.

    Raises:
        Refuse: the source is not such a table.
        Retry: it does not answer.
    """

    def __init__(self, source: Source | None, fields: Iterable[str], names: Sequence[str]) -> None:
        self._fields, self._names = sorted(fields), names
        self._said = {} if source is None else _read(source)

    def apply(self, scored: pl.DataFrame, rows: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
        """The pairs, those that people decided on with the score 1, or left out."""
        if not self._said or not len(scored):
            return scored
        left, right = self.ids(rows[scored["left"]]), self.ids(pool[scored["right"]])
        said = [self._said.get(pair(one, other)) for one, other in zip(left, right, strict=True)]
        decided = pl.Series("score", [_SCORES.get(word or "") for word in said], pl.Float32)
        found = scored.with_columns(decided.fill_null(scored["score"]))
        return found.filter(found["score"] > 0)

    def ids(self, records: pl.DataFrame) -> list[str]:
        """Of each record, 16 hexadecimal digits."""
        found = []
        for number, *values in records.select(SOURCE, *self._fields).iter_rows():
            text = json.dumps([self._names[number], *values], default=str, ensure_ascii=False)
            found.append(hashlib.blake2b(text.encode(), digest_size=8).hexdigest())
        return found

    def table(self, unsure: pl.DataFrame, rows: pl.DataFrame, pool: pl.DataFrame) -> pa.Table:
        """Unsure pairs as people see them, the likeliest first; ``decision`` is theirs to fill."""
        ranked = unsure.sort("score", "left", "right", descending=[True, False, False])
        sides = {"left": rows[ranked["left"]], "right": pool[ranked["right"]]}
        columns: dict[str, pa.Array] = {
            "decision": pa.nulls(len(ranked), pa.string()),
            "score": ranked["score"].to_arrow(),
        }
        for side, records in sides.items():
            columns[f"{side}_id"] = pa.array(self.ids(records), pa.string())
            numbers = records[SOURCE].to_list()
            columns[f"{side}_source"] = pa.array([self._names[n] for n in numbers], pa.string())
        for name in self._fields:
            for side, records in sides.items():
                columns[f"{side}_{name}"] = records[name].to_arrow()
        return pa.table(columns)


def pair(one: str, other: str) -> tuple[str, str]:
    """Two ids in the order that does not depend on which came first."""
    return (one, other) if one < other else (other, one)


def check_decisions(source: Source) -> None:
    """Refuse a source that is no table of decisions."""
    for name in _COLUMNS:
        column(source.schema(), name, source.name, "config.decisions")


def _read(source: Source) -> dict[tuple[str, str], str]:
    check_decisions(source)
    said: dict[tuple[str, str], str] = {}
    for batch in source.read():
        for word, one, other in zip(
            *(batch.column(name).to_pylist() for name in _COLUMNS), strict=True
        ):
            decision = str(word or "").strip().lower()
            if not decision:
                continue
            if decision not in _SCORES:
                why = f"config.decisions: {source.name!r} has the decision {word!r}"
                raise Refuse("integrate.decisions", why, "say same, different, or nothing")
            said[pair(str(one), str(other))] = decision
        if len(said) > _DECISIONS_MAX:
            why = f"config.decisions: {source.name!r} has more than {_DECISIONS_MAX:,} decisions"
            raise Refuse("integrate.decisions", why, "leave out those of records that are gone")
    return said
