"""``pipeline.validate``: which rows are as they should be."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta

from streamapp.plugin import Config, Refuse, Sources, column
from streamapp.services.pipeline.base import Name, Sql, Transform
from streamapp.services.pipeline.database import (
    ROW,
    check_apart,
    given,
    numbered,
    selected,
    typed,
)
from streamapp.services.pipeline.expression import Expression, literal, parse, quoted, resolved

Count = Annotated[int, Meta(ge=0)]
#: A column that lists which rules a row breaks.
PROBLEMS = pa.list_(pa.string())


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a row; null breaks no rule but ``not_null``.

    Attributes:
        column: that is asked about; not needed by ``where``.
        name: by which broken rules are counted; made of the rule by default.
        not_null: there is a value.
        min: the least value.
        max: the greatest.
        length_min: of a text, in characters.
        length_max: the same.
        pattern: a regular expression that all of a text matches.
        one_of: the allowed values.
        where: an expression that must not be false.
    """

    column: str = ""
    name: str = ""
    not_null: bool = False
    min: int | float | str | None = None
    max: int | float | str | None = None
    length_min: Count | None = None
    length_max: Count | None = None
    pattern: str | None = None
    one_of: tuple[bool | int | float | str, ...] = ()
    where: str = ""

    def conditions(self) -> dict[str, str]:
        """What is asked to what must be true, as SQL."""
        at = quoted(self.column)
        allowed = ", ".join(map(literal, self.one_of))
        asked = {
            "is not null": (self.not_null, f"{at} IS NOT NULL"),
            f"is at least {self.min}": (self.min is not None, f"{at} >= {literal(self.min)}"),
            f"is at most {self.max}": (self.max is not None, f"{at} <= {literal(self.max)}"),
            f"has at least {self.length_min} characters": (
                self.length_min is not None,
                f"length({at}) >= {self.length_min}",
            ),
            f"has at most {self.length_max} characters": (
                self.length_max is not None,
                f"length({at}) <= {self.length_max}",
            ),
            f"matches {self.pattern}": (
                self.pattern is not None,
                f"regexp_full_match({at}, {literal(self.pattern)})",
            ),
            f"is one of {allowed}": (bool(self.one_of), f"{at} IN ({allowed})"),
        }
        found = {f"{self.column} {what}": sql for what, (is_so, sql) in asked.items() if is_so}
        if self.where:
            found[self.where] = f"({self.where}\n)"
        return found


class ValidateConfig(Config, frozen=True, kw_only=True):
    """What is asked of rows, and what becomes of those that are otherwise.

    Attributes:
        rules: all of them must hold.
        unique: columns whose values together no two rows share; the first row stays.
        on_fail: ``quarantine`` sets such rows aside, ``fail`` ends the stage, ``flag`` keeps them
            and lists the rules in the column ``problems``.
        problems: the name of that column.
    """

    rules: Annotated[tuple[Rule, ...], Meta(max_length=256)] = ()
    unique: tuple[Name, ...] = ()
    on_fail: Literal["quarantine", "fail", "flag"] = "quarantine"
    problems: Sql = "problems"


class Validate(Transform):
    """Sets aside, refuses or marks rows that break a rule.

    Of scope ``row``; with ``unique`` of scope ``table``.
    """

    Config: ClassVar[type[Config]] = ValidateConfig
    config: ValidateConfig

    def __init__(self, config: ValidateConfig) -> None:
        super().__init__(config)
        if not config.rules and not config.unique:
            raise Refuse("operation.config", "config.rules: there are none", "write one")
        self.scope = "table" if config.unique else "row"  # type: ignore[misc]  # of this instance
        self.parallel = "none" if config.unique else "threads"  # type: ignore[misc]
        self._rules: dict[str, Expression] = {}
        for at, rule in enumerate(config.rules):
            self._rules |= _conditions(rule, f"config.rules[{at}]")
        self._reads: list[str] = []

    def plan(self, inputs: Mapping[str, pa.Schema], _sources: Sources) -> pa.Schema:
        """The input's, with ``problems`` where rows are flagged.

        Raises:
            Refuse: a rule does not fit the columns.
        """
        [(origin, schema)] = inputs.items()
        for at, rule in enumerate(self.config.rules):
            if rule.column:
                key = f"config.rules[{at}]"
                _check_values(rule, column(schema, rule.column, origin, f"{key}.column"), key)
        for name in self.config.unique:
            column(schema, name, origin, "config.unique")
        self._reads = []
        for name, asked in self._rules.items():
            _, kind = typed(asked, schema, origin)
            if not pa.types.is_boolean(kind):
                what = f"{asked.key}: {name!r} is {kind}, not a condition"
                raise Refuse("operation.type", what, "compare it, like length(text) > 10")
            self._reads += resolved(asked, schema, origin)
        check_apart(self._reads)
        check_apart(self.config.unique)
        if self.config.on_fail != "flag":
            return schema
        if self.config.problems in schema.names:
            what = f"config.problems: {origin!r} has a column {self.config.problems!r} already"
            raise Refuse("operation.column", what, "write problems: ANOTHER_NAME")
        return schema.append(pa.field(self.config.problems, PROBLEMS))

    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        [table] = inputs.values()
        broken = self._broken(table)
        if self.config.unique:
            what = f"{', '.join(self.config.unique)} was there before"
            broken[what] = self._repeats(table)
        if self.config.on_fail == "flag":
            return table.append_column(
                pa.field(self.config.problems, PROBLEMS), _problems(broken, table.num_rows)
            )
        fine = pa.repeat(True, table.num_rows)
        for name, rows in broken.items():
            self._put_out(table, name, pc.and_(rows, fine))
            fine = pc.and_(fine, pc.invert(rows))
        return table.filter(fine)

    def _put_out(self, table: pa.Table, name: str, rows: pa.Array) -> None:
        """Set rows aside, or refuse the first."""
        if self.config.on_fail == "fail" and pc.any(rows).as_py():
            number = pc.index(rows, True).as_py() + 1
            raise Refuse(
                "operation.rows",
                f"config.rules: row {number} breaks {name!r}",
                "mend the row, or write on_fail: quarantine",
            )
        self.set_aside(table.filter(rows), f"breaks {name!r}")

    def _broken(self, table: pa.Table) -> dict[str, pa.Array]:
        """By rule, in which rows it is false, or fails."""
        if not self._rules:
            return {}
        # Null in place of a list: it failed.  A list of null: there was nothing to ask about.
        held = {
            name: f"coalesce(TRY([({rule.sql}\n)])[1], TRY([({rule.sql}\n)]) IS NOT NULL)"
            for name, rule in self._rules.items()
        }
        sql = f"SELECT {selected(held)} FROM rows"  # noqa: S608  # each was checked
        found = self.database.query(sql, rows=given(table, self._reads))
        return {name: pc.invert(_flat(found.column(name))) for name in found.column_names}

    def _repeats(self, table: pa.Table) -> pa.Array:
        """Which rows have the values of an earlier one."""
        keys = ", ".join(map(quoted, self.config.unique))
        row = quoted(ROW)
        found = self.database.query(
            f"SELECT {row}, row_number() OVER (PARTITION BY {keys} ORDER BY {row}) > 1 AS again "  # noqa: S608
            f"FROM rows ORDER BY {row}",
            rows=numbered(table, self.config.unique),
        )
        return _flat(found.column("again"))


def _conditions(rule: Rule, key: str) -> dict[str, Expression]:
    """What a rule asks, by name."""
    conditions = rule.conditions()
    if not conditions:
        raise Refuse("operation.config", f"{key}: it asks for nothing", "write not_null: true")
    if not rule.column and list(conditions) != [rule.where]:
        raise Refuse("operation.config", f"{key}.column: it is not said", "name a column")
    named = f"{rule.name}: " if rule.name else ""
    return {named + what: parse(sql, key) for what, sql in conditions.items()}


def _check_values(rule: Rule, field: pa.Field, key: str) -> None:
    """Refuse to compare numbers with texts: no row would hold."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    for value in (rule.min, rule.max, *rule.one_of):
        if value is not None and is_number == isinstance(value, str):
            raise Refuse(
                "operation.type",
                f"{key}: column {field.name!r} is {field.type}, it cannot be compared to {value!r}",
                "write a number" if is_number else "write it in quotes",
            )


def _problems(broken: Mapping[str, pa.Array], rows: int) -> pa.Array:
    """The names of the rules that each row breaks."""
    found: list[list[str]] = [[] for _ in range(rows)]
    for name, is_broken in broken.items():
        for row in pc.indices_nonzero(is_broken).to_pylist():
            found[row].append(name)
    values: Any = pa.array(found, PROBLEMS)
    return values


def _flat(values: pa.ChunkedArray) -> pa.Array:
    """One array of booleans, also of no chunk."""
    return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], pa.bool_())
