"""``integrate.integrate``: records of several sources, one row for each thing they are of."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pyarrow as pa

from streamapp.plugin import BaseOperation, Refuse, Sources, Work
from streamapp.services.integrate.config import Gathered, Integration
from streamapp.services.integrate.decisions import check_decisions
from streamapp.services.integrate.entities import Entities, Stack
from streamapp.services.integrate.layout import Layout, layout_of
from streamapp.services.integrate.linking import Linking
from streamapp.services.integrate.pace import Pace

#: How many sources each mode needs; one alone can be freed of its own repetitions.
_LEAST = {"union": 1, "full_outer_join": 1}


class Integrate(BaseOperation):
    """Joins, stacks or intersects sources, and chooses each field's value where they disagree.

    A left join with sources that are declared in ``streamapp.toml`` needs one row of its input at a
    time: it is cut into chunks, and runs live on a topic.
    """

    Config = Integration
    inputs: ClassVar[tuple[int, int | None]] = (1, None)

    def __init__(self, config: Integration) -> None:
        super().__init__(config)
        self._linking: Linking | None = None
        if config.timeout_ms is not None and config.timeout_ms < 1:
            why = f"config.timeout_ms is {config.timeout_ms}"
            raise Refuse("integrate.timeout", why, "give milliseconds above 0, or leave it out")
        if config.mode == "left_join" and config.secondary_sources and not config.primary_source:
            self.scope, self.inputs = "row", (1, 1)  # type: ignore[misc]  # of this one

    def schema(self, inputs: Mapping[str, pa.Schema], sources: Sources) -> pa.Schema:
        """The common columns, the primary source's first, and what is reported."""
        return self._made(self._layout(inputs, declared_schemas(self.config, sources))).schema

    def open(self, work: Work) -> None:
        """Read the declared sources."""
        super().open(work)
        self._declared = declared_tables(self.config, work)

    def run(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The integrated rows."""
        tables = {**inputs, **self._declared}
        pace = Pace(self.work, self.config.timeout_ms)
        if self._linking is None:
            made = self._made(self._layout(schemas(inputs), schemas(self._declared)))
            if not isinstance(made, Linking):
                return made.run(tables, self.work, pace)
            made.open(tables, self.work, pace)
            self._linking = made
        base = tables[self._linking.base]
        result = self._linking.run(base, pace)
        pace.check(base.num_rows)
        return result

    def _layout(self, inputs: Mapping[str, pa.Schema], declared: Mapping[str, pa.Schema]) -> Layout:
        return layout_of(self.config, inputs, declared, _LEAST.get(self.config.mode, 2))

    def _made(self, layout: Layout) -> "Linking | Entities | Stack":
        if self.config.mode == "union":
            return Stack(self.config, layout)
        if self.config.mode in {"left_join", "right_join"}:
            return Linking(self.config, layout)
        return Entities(self.config, layout)


def declared_schemas(config: Gathered, sources: Sources) -> dict[str, pa.Schema]:
    """Of the declared sources whose records are integrated; that of decisions is checked.

    Raises:
        Refuse: one is not declared, or cannot be read as declared.
        Retry: one does not answer.
    """
    if config.decisions:
        check_decisions(sources.source(config.decisions))
    return {name: sources.source(name).schema() for name in config.secondary_sources}


def declared_tables(config: Gathered, work: Work) -> dict[str, pa.Table]:
    """The declared sources' rows; as many sources are read at once as there are threads.

    Raises:
        Refuse: one is not declared, or has rows that cannot be read.
        Retry: one does not answer.
    """
    sources = [work.source(name) for name in config.secondary_sources]
    with ThreadPoolExecutor(max(1, min(work.threads, len(sources)))) as pool:
        tables = pool.map(lambda source: source.read().read_all(), sources)
        return dict(zip(config.secondary_sources, tables, strict=True))


def schemas(tables: Mapping[str, pa.Table]) -> dict[str, pa.Schema]:
    """The tables' schemas, by name."""
    return {name: table.schema for name, table in tables.items()}
