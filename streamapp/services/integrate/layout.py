"""Which sources an integration has, in which order, and what its columns are."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.services.integrate.config import Gathered, Integration, conflict_of
from streamapp.services.integrate.fields import Shape, common_schema, shape_of
from streamapp.services.integrate.ranking import Rules
from streamapp.services.integrate.report import report_fields
from streamapp.services.integrate.survive import Survivor, check


@dataclass(frozen=True)
class Layout:
    """The sources, the primary first."""

    shapes: tuple[Shape, ...]

    @cached_property
    def common(self) -> pa.Schema:
        """Every column once; see ``common_schema``."""
        return common_schema(self.shapes)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources."""
        return tuple(shape.name for shape in self.shapes)

    def owners(self, name: str) -> list[str]:
        """The sources that have a column."""
        return [shape.name for shape in self.shapes if name in shape.schema.names]


def layout_of(
    config: Gathered, inputs: Mapping[str, pa.Schema], declared: Mapping[str, pa.Schema], least: int
) -> Layout:
    """The sources of a configuration.

    Args:
        config: of the operation.
        inputs: of the stage, by name.
        declared: of the ``secondary_sources``, by name.
        least: how many sources are needed.

    Raises:
        Refuse: one is there twice or not at all, there are too few, or columns do not fit.
    """
    if len(declared) < len(config.secondary_sources):
        raise Refuse(
            "integrate.sources", "config.secondary_sources names one twice", "name it once"
        )
    for name in declared.keys() & inputs.keys():
        why = f"config.secondary_sources: {name!r} is an input of the stage already"
        raise Refuse("integrate.sources", why, "leave it out there")
    schemas = {**inputs, **declared}
    if len(schemas) < least:
        why = "there is only one source" if schemas else "there is no source"
        fix = "add config.secondary_sources, or more inputs (depends_on)"
        raise Refuse("integrate.sources", why, fix)
    primary = config.primary_source or next(iter(schemas))
    for key, given in (("primary_source", [primary]), ("mapping", list(config.mapping))):
        for name in given:
            if name not in schemas:
                why = f"config.{key}: there is no source {name!r}"
                raise Refuse("integrate.sources", why, f"there are {', '.join(schemas)}")
    ordered = sorted(schemas, key=lambda name: name != primary)
    shapes = [shape_of(name, schemas[name], config.mapping.get(name, {})) for name in ordered]
    layout = Layout(tuple(shapes))
    _check_keys(config, layout)
    return layout


def _check_keys(config: Gathered, layout: Layout) -> None:
    for name in config.key_fields:
        for shape in layout.shapes:
            if name not in shape.schema.names:
                why = f"config.key_fields: {shape.name!r} has no {name!r} column"
                fix = f"it has {', '.join(shape.schema.names[:20]) or 'none'}"
                fix += f"; say which it is in config.mapping.{shape.name}"
                raise Refuse("operation.column", why, fix)


def rules_of(config: Integration, layout: Layout) -> Rules:
    """What strategies need to know.

    Raises:
        Refuse: the order of preference names no source, or the time no column.
    """
    known = layout.names
    for name in config.source_order:
        if name not in known:
            why = f"config.source_order: there is no source {name!r}"
            raise Refuse("integrate.sources", why, f"there are {', '.join(known)}")
    order = dict.fromkeys((*config.source_order, *known))
    ranks = [list(order).index(name) for name in known]
    columns = {field.name: field.type for field in layout.common}
    if config.timestamp_field and config.timestamp_field not in columns:
        why = f"config.timestamp_field: no source has {config.timestamp_field!r}"
        raise Refuse("integrate.timestamp", why, f"there are {', '.join(list(columns)[:20])}")
    return Rules(known, tuple(ranks), columns, config.timestamp_field)


def survivors_of(config: Integration, layout: Layout, names: list[str]) -> list[Survivor]:
    """How each of these columns' values are chosen; a key is that of the preferred record.

    Raises:
        Refuse: a strategy is given for a column that is not there, or for a key.
    """
    for name in config.conflicts:
        if name not in layout.common.names:
            why = f"config.conflicts: no source has {name!r}"
            raise Refuse(
                "operation.column", why, f"there are {', '.join(layout.common.names[:20])}"
            )
        if name in config.key_fields:
            why = f"config.conflicts: {name!r} is a key, and records of one thing agree in it"
            raise Refuse("integrate.strategy", why, "leave it out there")
    default = conflict_of(config.conflict_strategy)
    key = conflict_of("prefer_primary")
    found = [
        Survivor(
            layout.common.field(name),
            key if name in config.key_fields else conflict_of(config.conflicts.get(name, default)),
        )
        for name in names
    ]
    check(found, rules_of(config, layout))
    return found


def with_reports(config: Integration, fields: list[pa.Field], names: list[str]) -> pa.Schema:
    """The columns of a result: those fields, and what is reported of the columns ``names``."""
    return pa.schema([*fields, *report_fields(config.report, names)])
